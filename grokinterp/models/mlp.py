"""What does a multilayer perceptron on operand pairs compute? Its shape, logits and gradients.

Without an embedding its input is two-hot: 2p entries, of which a and p + b are 1. So row a of the
first matrix is what operand a adds to every neuron, and row p + b what b adds (Manning-Coe et al.
2025, arXiv 2502.01739, section 2.2: p = 113, one layer of 512, 174,193 parameters). The two-hot
input is never built: its product with the matrix is the sum of these two rows.

Weights, inputs and labels are those of one model, or with a leading axis those of several.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models import layers
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.layers import Visit


@dataclass(frozen=True)
class MLPArchitecture(BaseArchitecture):
    """Sizes of a multilayer perceptron that reads two operands of `p` tokens.

    `widths` are those of the hidden layers. With `d_embed` > 0 both operands go through one learned
    embedding `embed.W_E` and the two vectors are concatenated; 0 is the two-hot input.

    >>> shapes = MLPArchitecture(p=113, widths=(512,), n_classes=113).parameter_shapes()
    >>> shapes["blocks.0.mlp.W_in"], shapes["unembed.W_U"]
    ((226, 512), (512, 113))
    """

    kind: ClassVar[str] = "mlp"

    p: int
    widths: tuple[int, ...]
    n_classes: int
    d_embed: int = 0
    act_fn: str = "relu"

    @property
    def n_layers(self) -> int:
        """Number of hidden layers."""
        return len(self.widths)

    @property
    def d_input(self) -> int:
        """Rows of the first matrix: both operands, two-hot or embedded."""
        return 2 * (self.d_embed or self.p)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        embedding = {"embed.W_E": (self.p, self.d_embed)} if self.d_embed else {}
        return embedding | layers.hidden_shapes(self.d_input, self.widths, self.n_classes)

    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""
        return (*(["hook_embed"] if self.d_embed else []), *layers.hidden_hooks(self.n_layers))


def answer_logits(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "*members n 2"],
    *,
    architecture: MLPArchitecture,
    visit: Visit = layers.recorder(None),  # noqa: B008  it has no state
) -> Float[Tensor, "*members n n_classes"]:
    """Logits of operand pairs (a, b), differentiable in the weights (canonical names).

    pre_0 = W_in[a] + W_in[p + b] + b_in, or [W_E[a], W_E[b]] W_in + b_in with an embedding; then
    post_l = act_fn(pre_l), pre_(l+1) = post_l W_in + b_in, logits = post_last W_U + b_U. Every
    activation goes on as `visit` returns it, under its hook name; `layers.recorder` keeps them. An
    operand of a single model that is not from 0 to p-1 is an IndexError.
    """
    matrix, bias, p = weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"], architecture.p
    if architecture.d_embed:
        rows = layers.read_rows(weights["embed.W_E"], layers.through_tables(inputs.flatten(-2), p))
        embed = visit("hook_embed", rows.unflatten(-2, (-1, 2)))
        pre = layers.affine(embed.flatten(-2), matrix, bias)
    else:
        if inputs.ndim == 2:  # each half by itself, so that operands beyond p-1 are refused
            pre = matrix[:p].index_select(0, inputs[:, 0])
            second = matrix[p:].index_select(0, inputs[:, 1])
        else:
            pre, second = (layers.read_rows(matrix, rows) for rows in _two_hot_rows(inputs, p))
        pre.add_(second).add_(bias.unsqueeze(-2))
    return layers.hidden_logits(
        weights, pre, n_layers=architecture.n_layers, act_fn=architecture.act_fn, visit=visit
    )


@torch.no_grad()
def gradients(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "*members n 2"],
    labels: Int[Tensor, "*members n"],
    *,
    architecture: MLPArchitecture,
) -> Weights:
    """Gradient of the mean cross-entropy over these rows by every weight, without autograd.

    The same as autograd's through `answer_logits`, at about half its time. It stays exact when the
    loss is 1e-8, and has the precision of the weights.
    """
    cache: dict[str, Tensor] = {}
    answer_logits(weights, inputs, architecture=architecture, visit=layers.recorder(cache))
    found, upstream = layers.hidden_gradients(
        weights, cache, labels, n_layers=architecture.n_layers, act_fn=architecture.act_fn
    )
    found["blocks.0.mlp.b_in"] = upstream.sum(dim=-2)
    if architecture.d_embed:
        embed = cache["hook_embed"]
        matrix = weights["blocks.0.mlp.W_in"]
        found["blocks.0.mlp.W_in"] = layers.product(embed.flatten(-2).mT, upstream)
        rows = layers.product(upstream, matrix.mT).view_as(embed).flatten(-3, -2)
        found["embed.W_E"] = torch.zeros_like(weights["embed.W_E"])
        read = layers.through_tables(inputs.flatten(-2), architecture.p)
        layers.add_rows(found["embed.W_E"], read, rows)
    else:
        found["blocks.0.mlp.W_in"] = two_hot_product(inputs, upstream, p=architecture.p)
    return {name: found[name] for name in weights}


def two_hot_product(
    inputs: Int[Tensor, "*members n 2"], upstream: Float[Tensor, "*members n width"], *, p: int
) -> Float[Tensor, "*members two_p width"]:
    """X^T upstream for the two-hot inputs X [n, 2p], which are not built.

    >>> two_hot_product(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[1.0], [2.0]]), p=2).tolist()
    [[3.0], [0.0], [2.0], [1.0]]
    """
    both = upstream.new_zeros(*upstream.shape[:-2], 2 * p, upstream.shape[-1])
    for rows in _two_hot_rows(inputs, p):
        layers.add_rows(both, rows, upstream)
    return both


def _two_hot_rows(inputs: Int[Tensor, "*members n 2"], p: int) -> list[Int[Tensor, "*members n"]]:
    """The rows of the first matrix that are read for a, and for b."""
    return [layers.through_tables(inputs[..., place] + place * p, 2 * p) for place in (0, 1)]
