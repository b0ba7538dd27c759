"""The directions in logit space whose pull-backs, squared and summed, are a Fisher diagonal."""

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.errors import InputError, nearest

VARIANTS = ("softmax", "logits")


def check_variant(variant: str) -> None:
    """Refuse what is not one of the variants."""
    if variant not in VARIANTS:
        raise InputError(f"variant={variant!r} is not known; {nearest(str(variant), VARIANTS)}")


def cotangents(
    logits: Float[Tensor, "*rows classes"], variant: str
) -> Float[Tensor, "classes *rows classes"]:
    """v_c for every class c: e_c ("logits"), or sqrt(p_c) (e_c - p) with p the softmax ("softmax").

    In the type of the logits; made in float64, so that 1 - p_c of a certain model is no noise.

    >>> cotangents(torch.zeros(2), "softmax").tolist()
    [[0.35355..., -0.35355...], [-0.35355..., 0.35355...]]
    """
    n_classes = logits.shape[-1]
    one_hot = torch.eye(n_classes, dtype=torch.float64, device=logits.device)
    one_hot = one_hot.view(n_classes, *(1,) * (logits.ndim - 1), n_classes)
    if variant == "logits":
        return one_hot.expand(n_classes, *logits.shape).to(logits.dtype)
    p = logits.double().softmax(dim=-1)
    return (p.movedim(-1, 0).sqrt()[..., None] * (one_hot - p)).to(logits.dtype)
