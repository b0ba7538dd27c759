"""The forward of several multilayer perceptrons at once, and its gradients.

Weights have a leading axis of members: `blocks.0.mlp.W_in` [members, 2p, width]. So have inputs and
labels, whose rows may differ from member to member. The numbers are those of `mlp_forward`.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.architecture import ACTIVATIONS, Weights
from grokinterp.models.hidden import before_activation, behind
from grokinterp.models.member_axis import (
    Lookup,
    affine,
    affine_gradients,
    flat,
    mean_loss_gradients,
    product,
)
from grokinterp.models.mlp import MLPArchitecture

FIRST = "blocks.0.mlp.W_in", "blocks.0.mlp.b_in"


def mlp_logits(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n 2"],
    *,
    architecture: MLPArchitecture,
) -> Float[Tensor, "members n n_classes"]:
    """Logits of operand pairs (a, b)."""
    return _forward(weights, inputs, architecture)[-1]


@torch.no_grad()
def mlp_gradients(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n 2"],
    labels: Int[Tensor, "members n"],
    *,
    architecture: MLPArchitecture,
) -> Weights:
    """Gradient of each member's mean cross-entropy by its own weights, without autograd."""
    embedded, *layers, logits = _forward(weights, inputs, architecture)
    found: Weights = {}
    upstream = mean_loss_gradients(logits, labels)
    for layer in reversed(range(architecture.n_layers)):
        pre, post = layers[2 * layer : 2 * layer + 2]
        matrix, bias = behind(layer, architecture.n_layers)
        found[matrix], found[bias] = affine_gradients(post, upstream)
        upstream = before_activation(
            product(upstream, weights[matrix].mT), pre, act_fn=architecture.act_fn
        )
    matrix, bias = FIRST
    if architecture.d_embed:
        found[matrix], found[bias] = affine_gradients(embedded, upstream)
        rows = product(upstream, weights[matrix].mT).unflatten(2, (2, architecture.d_embed))
        found["embed.W_E"] = torch.zeros_like(weights["embed.W_E"])
        lookup = _embedding(weights, inputs, architecture.p)
        lookup.add_gradient(found["embed.W_E"], rows.flatten(1, 2))
    else:
        found[bias] = upstream.sum(dim=1)
        found[matrix] = torch.zeros_like(weights[matrix])
        for lookup in _two_hot(weights[matrix], inputs, architecture.p):
            lookup.add_gradient(found[matrix], upstream)
    return {name: found[name] for name in weights}


def _forward(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "members n 2"],
    architecture: MLPArchitecture,
) -> list[Tensor]:
    """What the first layer reads where that is embedded, pre and post of every layer, logits."""
    matrix, bias = (weights[name] for name in FIRST)
    if architecture.d_embed:
        rows = _embedding(weights, inputs, architecture.p).read()
        embedded = rows.view(*inputs.shape[:2], 2 * architecture.d_embed)
        pre = affine(embedded, matrix, bias)
    else:
        embedded = inputs
        first, second = _two_hot(matrix, inputs, architecture.p)
        pre = first.read().add_(second.read()).add_(bias[:, None])
    found = [embedded]
    for layer in range(architecture.n_layers):
        post = ACTIVATIONS[architecture.act_fn](pre)
        found += [pre, post]
        pre = affine(post, *(weights[name] for name in behind(layer, architecture.n_layers)))
    return [*found, pre]


def _embedding(weights: Mapping[str, Tensor], inputs: Int[Tensor, "members n 2"], p: int) -> Lookup:
    return Lookup(weights["embed.W_E"], flat(inputs.flatten(1), p))


def _two_hot(
    matrix: Float[Tensor, "members two_p width"], inputs: Int[Tensor, "members n 2"], p: int
) -> list[Lookup]:
    """What each operand adds to every neuron."""
    return [Lookup(matrix, flat(inputs[..., i] + i * p, 2 * p)) for i in (0, 1)]
