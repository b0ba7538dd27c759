"""Gradients of a convolutional network's loss, written out: several times faster than autograd.

All activations have the lattices as their last axis, [channels, row, column, n]: shifts by a site
and windows of the pooling are then slices with long runs, and a convolution is one matrix product
with the nine shifts of its input below each other (its columns).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.architecture import ACTIVATIONS, Weights
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.hidden import (
    before_activation,
    hidden_gradients,
    hidden_logits,
    recorder,
    where_positive,
)


class CNNGradients:
    """Gradients of the mean cross-entropy on fixed lattices; what depends on these alone is kept.

    >>> shape = CNNArchitecture(lattice=2, channels=(1,), d_mlp=1)
    >>> weights = {name: torch.ones(s) for name, s in shape.parameter_shapes().items()}
    >>> find = CNNGradients(torch.ones(1, 1, 2, 2), architecture=shape)
    >>> find(weights, torch.tensor([0]))["unembed.b_U"].tolist()
    [-0.5, 0.5]
    """

    def __init__(
        self,
        inputs: Float[Tensor, "n 1 lattice lattice"],
        *,
        architecture: CNNArchitecture,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.architecture = architecture
        self._columns = _columns(inputs.to(dtype).permute(1, 2, 3, 0))

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor], labels: Int[Tensor, " n"]) -> Weights:
        """The gradient by every weight; these have the `dtype` given at construction.

        The same as autograd's through `answer_logits`, and exact when the loss is 1e-8.
        """
        architecture = self.architecture
        n_layers, act_fn = architecture.n_layers, architecture.act_fn
        matrix = weights["blocks.0.mlp.W_in"]
        activation = ACTIVATIONS[act_fn]
        # A monotone activation may as well come after the maximum, on a quarter of the entries.
        monotone = act_fn == "relu"

        columns, convolutions = self._columns, []
        for layer in range(architecture.n_convs):
            kernels = weights[f"conv.{layer}.W"].flatten(1)
            side = architecture.lattice // 2**layer
            flat = torch.addmm(weights[f"conv.{layer}.b"][:, None], kernels, columns)
            pre = flat.view(len(kernels), side, side, -1)
            windows = pre if monotone else activation(pre)
            largest = _pool(windows)
            pooled = activation(largest) if monotone else largest
            convolutions.append((columns, pre, windows, largest))
            if layer + 1 < architecture.n_convs:
                columns = _columns(pooled)
        x = pooled.flatten(0, 2).T
        cache: dict[str, Tensor] = {}
        pre = torch.addmm(weights["blocks.0.mlp.b_in"], x, matrix)
        hidden_logits(weights, pre, n_layers=n_layers, act_fn=act_fn, visit=recorder(cache))

        found, upstream = hidden_gradients(weights, cache, labels, n_layers=n_layers, act_fn=act_fn)
        found["blocks.0.mlp.W_in"] = x.T @ upstream
        found["blocks.0.mlp.b_in"] = upstream.sum(dim=0)
        upstream = (matrix @ upstream.T).view_as(pooled)
        for layer in reversed(range(architecture.n_convs)):
            columns, pre, windows, largest = convolutions[layer]
            kernels = weights[f"conv.{layer}.W"]
            if monotone:
                upstream = before_activation(upstream, largest, act_fn=act_fn)
            upstream = _before_pool(upstream, windows)
            if not monotone:
                upstream = before_activation(upstream, pre, act_fn=act_fn)
            found[f"conv.{layer}.W"] = (upstream.flatten(1) @ columns.T).view_as(kernels)
            found[f"conv.{layer}.b"] = upstream.sum(dim=(1, 2, 3))
            if layer:
                # What an input site did to its nine neighbours: a convolution with kernels turned.
                turned = kernels.flip(2, 3).transpose(0, 1).flatten(1)
                upstream = (turned @ _columns(upstream)).view(-1, *pre.shape[1:])
        return {name: found[name] for name in weights}


def _columns(
    x: Float[Tensor, "channels rows columns n"],
) -> Float[Tensor, "channels_and_shifts sites_and_n"]:
    """For each channel the nine shifts of it, with zeros from outside, as rows."""
    channels, rows, columns, n = x.shape
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1, 1, 1)).flatten(2)
    shifts = padded.unfold(1, rows, 1).unfold(2, columns * n, n)  # [channels, 3, 3, rows, ...]
    return shifts.reshape(9 * channels, -1)


def _corners(x: Tensor) -> list[Tensor]:
    """The four sites of all windows, as slices: first row, then second."""
    return [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _pool(
    x: Float[Tensor, "channels rows columns n"],
) -> Float[Tensor, "channels rows2 columns2 n"]:
    a, b, c, d = _corners(x)
    return torch.maximum(torch.maximum(a, b), torch.maximum(c, d))


def _before_pool(
    upstream: Float[Tensor, "channels rows2 columns2 n"],
    x: Float[Tensor, "channels rows columns n"],
) -> Float[Tensor, "channels rows columns n"]:
    """All of a window's gradient at its first maximum, as torch has it."""
    a, b, c, d = _corners(x)
    found = torch.empty_like(x)
    of_a, of_b, of_c, of_d = _corners(found)
    second = where_positive(upstream, torch.maximum(c, d) - torch.maximum(a, b))
    first = upstream - second
    of_b.copy_(where_positive(first, b - a))
    of_d.copy_(where_positive(second, d - c))
    torch.sub(first, of_b, out=of_a)
    torch.sub(second, of_d, out=of_c)
    return found
