"""Seeded initial weights of our own, so that every TransformerLens starts from the same numbers."""

from typing import Literal, get_args

import torch

from grokinterp.errors import InputError, nearest
from grokinterp.models.architecture import Architecture, Weights, is_bias

InitRule = Literal["gpt2", "paper"]


def initial_weights(
    architecture: Architecture, *, seed: int, rule: str = "gpt2", init_scale: float = 1.0
) -> Weights:
    r"""Normal weights, zero biases, LayerNorm gains of 1, in canonical order from an own generator.

    `rule="gpt2"`: std 0.8/sqrt(d_model) for every matrix (TransformerLens 3's "gpt2" mode).
    `rule="paper"`: std 1/sqrt(d_model), the unembedding 1/sqrt(d_vocab_out) (released code of
    Nanda et al. 2023; W_out too uses d_model although its fan-in is d_mlp).
    All matrices are then multiplied by `init_scale`, the w0 of Manning-Coe et al. 2025
    (arXiv 2502.01739, section 2). The global random state is not touched.
    """
    if rule not in get_args(InitRule):
        raise InputError(f"init={rule!r} is not known; {nearest(rule, get_args(InitRule))}")
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in architecture.parameter_shapes().items():
        if is_bias(name) or name.endswith(".w"):
            weights[name] = torch.full(shape, 0.0 if is_bias(name) else 1.0)
            continue
        std = 0.8 / architecture.d_model**0.5 if rule == "gpt2" else architecture.d_model**-0.5
        if rule == "paper" and name == "unembed.W_U":
            std = architecture.d_vocab_out**-0.5
        weights[name] = torch.randn(shape, generator=generator) * (std * init_scale)
    return weights
