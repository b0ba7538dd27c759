"""Which models can be computed side by side, and what are their logits and gradients?

Stacked weights have a leading axis of members; the forwards and gradients of `mlp` and
`answer_position` take them as they are. On a CPU a step with many rows is all arithmetic, which a
batch does not make faster: there the members are computed one after the other.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models import answer_position, mlp
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.models.kinds import QuickForward, Shape
from grokinterp.models.layers import MIN_ROWS
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
        each = zip(unstack(weights), inputs, strict=True)
        return torch.stack([_logits(architecture, w, rows) for w, rows in each])
    blocks = _blocks(architecture, weights, inputs)
    return torch.cat([_logits(architecture, w, inputs[block]) for block, w in blocks])


def stacked_gradients(
    architecture: Shape,
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n tokens"],
    labels: Int[Tensor, "members n"],
) -> Weights:
    """Gradient of each member's mean cross-entropy by its own weights; contiguous."""
    if _singly(inputs):
        each = zip(unstack(weights), inputs, labels, strict=True)
        return stack([_gradients(architecture, *member) for member in each])
    found = [
        _gradients(architecture, w, inputs[block], labels[block])
        for block, w in _blocks(architecture, weights, inputs)
    ]
    if len(found) == 1:
        return {name: gradient.contiguous() for name, gradient in found[0].items()}
    return {name: torch.cat([part[name] for part in found]) for name in weights}


def _logits(architecture: Shape, weights: Weights, inputs: Tensor) -> Tensor:
    found = QuickForward(architecture, weights)(inputs)
    assert found is not None  # see `why_not_stacked`
    return found


def _gradients(architecture: Shape, weights: Weights, inputs: Tensor, labels: Tensor) -> Weights:
    if isinstance(architecture, MLPArchitecture):
        return mlp.gradients(weights, inputs, labels, architecture=architecture)
    assert isinstance(architecture, Architecture)
    return answer_position.gradients(weights, inputs, labels, act_fn=architecture.act_fn)


def _singly(inputs: Int[Tensor, "members n tokens"]) -> bool:
    return inputs.device.type == "cpu" and inputs.shape[1] >= MIN_ROWS


def _blocks(
    architecture: Shape, weights: Mapping[str, Tensor], inputs: Int[Tensor, "members n tokens"]
) -> Iterator[tuple[slice, Weights]]:
    """Members that are computed at once, and their weights."""
    n_members, n_rows = inputs.shape[:2]
    widest = max(getattr(architecture, "widths", None) or [getattr(architecture, "d_mlp", 1)])
    most = BLOCK_SIZE.get(inputs.device.type, BLOCK_SIZE_ELSEWHERE)
    size = max(1, most // (n_rows * widest))
    for first in range(0, n_members, size):
        block = slice(first, first + size)
        yield block, {name: weight[block] for name, weight in weights.items()}
