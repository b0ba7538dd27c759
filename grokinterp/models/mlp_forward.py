"""The forward of a multilayer perceptron on operand pairs.

The two-hot input is never built: its product with the first matrix is a sum of two of its rows.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.affine import affine
from grokinterp.models.architecture import Weights
from grokinterp.models.hidden import Visit, hidden_gradients, hidden_logits, recorder
from grokinterp.models.mlp import MLPArchitecture


def answer_logits(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "n 2"],
    *,
    architecture: MLPArchitecture,
    cache: dict[str, Tensor] | None = None,
) -> Float[Tensor, "n n_classes"]:
    """Logits of operand pairs (a, b), differentiable in the weights (canonical names).

    pre_0 = W_in[a] + W_in[p + b] + b_in, or [W_E[a], W_E[b]] W_in + b_in with an embedding; then
    post_l = act_fn(pre_l), pre_(l+1) = post_l W_in + b_in, logits = post_last W_U + b_U. With a
    `cache`, the activations are put into it under their hook names. An operand that is not from 0
    to p-1 is an IndexError.
    """
    return visited_logits(weights, inputs, architecture=architecture, visit=recorder(cache))


def visited_logits(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "n 2"],
    *,
    architecture: MLPArchitecture,
    visit: Visit,
) -> Float[Tensor, "n n_classes"]:
    """The same through a visit, which may change activations on their way."""
    matrix, bias = weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"]
    # index_select, not W[a]: its backward is a scatter-add, several times faster on a CPU.
    if architecture.d_embed:
        rows = weights["embed.W_E"].index_select(0, inputs.flatten())
        embed = visit("hook_embed", rows.view(len(inputs), 2, architecture.d_embed))
        pre = affine(embed.flatten(1), matrix, bias)
    else:
        p = architecture.p
        pre = matrix[:p].index_select(0, inputs[:, 0])
        pre.add_(matrix[p:].index_select(0, inputs[:, 1])).add_(bias)
    return hidden_logits(
        weights, pre, n_layers=architecture.n_layers, act_fn=architecture.act_fn, visit=visit
    )


@torch.no_grad()
def gradients(
    weights: Mapping[str, Tensor],
    inputs: Int[Tensor, "n 2"],
    labels: Int[Tensor, " n"],
    *,
    architecture: MLPArchitecture,
) -> Weights:
    """Gradient of the mean cross-entropy over these rows by every weight, without autograd.

    The same as autograd's through `answer_logits`, at about half its time. It stays exact when the
    loss is 1e-8, and has the precision of the weights.
    """
    cache: dict[str, Tensor] = {}
    answer_logits(weights, inputs, architecture=architecture, cache=cache)
    found, upstream = hidden_gradients(
        weights, cache, labels, n_layers=architecture.n_layers, act_fn=architecture.act_fn
    )
    matrix = weights["blocks.0.mlp.W_in"]
    found["blocks.0.mlp.b_in"] = upstream.sum(dim=0)
    if architecture.d_embed:
        found["blocks.0.mlp.W_in"] = cache["hook_embed"].flatten(1).T @ upstream
        rows = (upstream @ matrix.T).view(-1, architecture.d_embed)
        embed = torch.zeros_like(weights["embed.W_E"])
        found["embed.W_E"] = embed.index_add_(0, inputs.flatten(), rows)
    else:
        found["blocks.0.mlp.W_in"] = two_hot_product(inputs, upstream, p=architecture.p)
    return {name: found[name] for name in weights}


def two_hot_product(
    inputs: Int[Tensor, "n 2"], upstream: Float[Tensor, "n width"], *, p: int
) -> Float[Tensor, "two_p width"]:
    """X^T upstream for the two-hot inputs X [n, 2p], which are not built.

    >>> two_hot_product(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[1.0], [2.0]]), p=2).tolist()
    [[3.0], [0.0], [2.0], [1.0]]
    """
    both = upstream.new_zeros(2 * p, upstream.shape[1])
    for operand, block in enumerate(both.split(p)):
        block.index_add_(0, inputs[:, operand], upstream)
    return both
