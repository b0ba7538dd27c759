"""Several models of one shape, computed side by side: which kinds can be, their logits, gradients.

Stacked weights have a leading axis of members. On a CPU a step with many rows is all arithmetic,
which a batch does not make faster: there the members are computed one after the other, by the
functions of a single model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models import (
    answer_gradients,
    answer_position,
    kinds,
    mlp_forward,
    stacked_mlp,
    stacked_transformer,
)
from grokinterp.models.affine import MIN_ROWS
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.models.kinds import Shape
from grokinterp.models.mlp import MLPArchitecture

# Numbers of one layer's activations that are computed at once: 4 MB on a CPU, where more would
# fall out of its cache, and 1 GB elsewhere.
BLOCK_SIZE = {"cpu": 2**20}
BLOCK_SIZE_ELSEWHERE = 2**28


def why_not_stacked(architecture: Shape, n_tokens: int) -> str | None:
    """Why models of this shape, on inputs of `n_tokens`, cannot be computed side by side, or None.

    >>> why_not_stacked(MLPArchitecture(p=7, widths=(8,), n_classes=7), 2)
    """
    if isinstance(architecture, MLPArchitecture):
        return None
    if not isinstance(architecture, Architecture):
        return f"models of kind {architecture.kind} are not batched"
    if architecture.n_layers > 1:
        return f"transformers of {architecture.n_layers} layers are not batched, only of one"
    if architecture.normalization_type is not None:
        return "transformers with LayerNorm are not batched"
    if architecture.attention_rate != 1 or not answer_position.applies_to(architecture, n_tokens):
        return f"{architecture} is not batched"
    return None


def stack(members: Sequence[Mapping[str, Tensor]]) -> Weights:
    """The weights of several models under a leading axis of members.

    >>> stack([{"W": torch.zeros(2)}, {"W": torch.ones(2)}])["W"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    return {name: torch.stack([member[name] for member in members]) for name in members[0]}


def unstack(weights: Mapping[str, Tensor]) -> list[Weights]:
    """The weights of each model of a stack: the same memory."""
    n_members = len(next(iter(weights.values())))
    return [{name: weight[i] for name, weight in weights.items()} for i in range(n_members)]


def stacked_logits(
    architecture: Shape, weights: Mapping[str, Tensor], inputs: Int[Tensor, "members n tokens"]
) -> Float[Tensor, "members n n_classes"]:
    """Answer logits of every member on its inputs."""
    if _singly(inputs):
        each = [
            kinds.QuickForward(architecture, w)(rows)
            for w, rows in zip(unstack(weights), inputs, strict=True)
        ]
        return torch.stack([logits for logits in each if logits is not None])
    function = _functions(architecture)[0]
    return torch.cat(
        [function(w, inputs[block]) for block, w in _blocks(architecture, weights, inputs)]
    )


def stacked_gradients(
    architecture: Shape,
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n tokens"],
    labels: Int[Tensor, "members n"],
) -> Weights:
    """Gradient of each member's mean cross-entropy by its own weights; contiguous."""
    _, function, single = _functions(architecture)
    if _singly(inputs):
        return stack([single(*each) for each in zip(unstack(weights), inputs, labels, strict=True)])
    found = [
        function(w, inputs[block], labels[block])
        for block, w in _blocks(architecture, weights, inputs)
    ]
    if len(found) == 1:
        return found[0]
    return {name: torch.cat([part[name] for part in found]) for name in weights}


def _functions(
    architecture: Shape,
) -> tuple[Callable[..., Tensor], Callable[..., Weights], Callable[..., Weights]]:
    """Logits and gradients of a stack, gradients of a single model."""
    if isinstance(architecture, MLPArchitecture):
        return (
            partial(stacked_mlp.mlp_logits, architecture=architecture),
            partial(stacked_mlp.mlp_gradients, architecture=architecture),
            partial(mlp_forward.gradients, architecture=architecture),
        )
    assert isinstance(architecture, Architecture)
    act_fn = architecture.act_fn
    return (
        partial(stacked_transformer.transformer_logits, act_fn=act_fn),
        partial(stacked_transformer.transformer_gradients, act_fn=act_fn),
        partial(answer_gradients.gradients, act_fn=act_fn),
    )


def _singly(inputs: Int[Tensor, "members n tokens"]) -> bool:
    return inputs.device.type == "cpu" and inputs.shape[1] >= MIN_ROWS


def _blocks(
    architecture: Shape, weights: Mapping[str, Tensor], inputs: Int[Tensor, "members n tokens"]
) -> Iterator[tuple[slice, Mapping[str, Tensor]]]:
    """Members that are computed at once, and their weights."""
    n_members, n_rows = inputs.shape[:2]
    widths = architecture.widths if isinstance(architecture, MLPArchitecture) else ()
    widest = max(widths or (getattr(architecture, "d_mlp", 1),))
    most = BLOCK_SIZE.get(inputs.device.type, BLOCK_SIZE_ELSEWHERE)
    size = max(1, most // (n_rows * widest))
    for first in range(0, n_members, size):
        block = slice(first, first + size)
        yield block, {name: weight[block] for name, weight in weights.items()}
