"""The forward of a small convolutional network on square lattices."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.models.affine import affine
from grokinterp.models.architecture import ACTIVATIONS
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.hidden import Visit, hidden_logits, recorder


def answer_logits(
    weights: Mapping[str, Tensor],
    inputs: Float[Tensor, "n 1 lattice lattice"],
    *,
    architecture: CNNArchitecture,
    cache: dict[str, Tensor] | None = None,
) -> Float[Tensor, "n n_classes"]:
    """Logits of lattices, differentiable in the weights (canonical names).

    For each convolution: pre = W * x + b (3x3, a border of zeros), post = act_fn(pre), pool = the
    maximum of post over windows of 2x2; then the hidden layer and the unembedding. With a `cache`,
    the activations are put into it under their hook names. Inputs are taken in the precision of
    the weights.
    """
    return visited_logits(weights, inputs, architecture=architecture, visit=recorder(cache))


def visited_logits(
    weights: Mapping[str, Tensor],
    inputs: Float[Tensor, "n 1 lattice lattice"],
    *,
    architecture: CNNArchitecture,
    visit: Visit,
) -> Float[Tensor, "n n_classes"]:
    """The same through a visit, which may change activations on their way."""
    activation = ACTIVATIONS[architecture.act_fn]
    x = inputs.to(weights["conv.0.W"].dtype)
    for layer in range(architecture.n_convs):
        conv = f"conv.{layer}"
        pre = torch.nn.functional.conv2d(x, weights[f"{conv}.W"], weights[f"{conv}.b"], padding=1)
        post = visit(f"{conv}.hook_post", activation(visit(f"{conv}.hook_pre", pre)))
        x = visit(f"{conv}.hook_pool", torch.nn.functional.max_pool2d(post, 2))
    pre = affine(x.flatten(1), weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"])
    return hidden_logits(
        weights, pre, n_layers=architecture.n_layers, act_fn=architecture.act_fn, visit=visit
    )
