"""What does a small convolutional network on lattices compute? Its shape, logits and gradients.

The defaults are the classifier of Ising configurations of Manning-Coe et al. 2025 (arXiv
2502.01739, section 2.1 and appendix B): 6,798 parameters.

The gradients are written out, several times faster than autograd. There, all activations have the
lattices as their last axis, [channels, row, column, n]: shifts by a site and windows of the pooling
are then slices with long runs, and a convolution is one matrix product with the nine shifts of its
input below each other (its columns).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.models import layers
from grokinterp.models.architecture import ACTIVATIONS, BaseArchitecture, Weights
from grokinterp.models.layers import Visit


@dataclass(frozen=True)
class CNNArchitecture(BaseArchitecture):
    """Sizes of convolutions, one hidden layer of `d_mlp` and an unembedding.

    Each convolution is 3x3 with a border of zeros, then `act_fn`, then the maximum over windows of
    2x2; `channels` are the outputs of each. What the last one leaves is flattened as channel, row,
    column.

    >>> CNNArchitecture().parameter_shapes()["blocks.0.mlp.W_in"]
    (64, 100)
    """

    kind: ClassVar[str] = "cnn"
    n_layers: ClassVar[int] = 1  # hidden and fully connected

    lattice: int = 16
    channels: tuple[int, ...] = (2, 4)
    d_mlp: int = 100
    n_classes: int = 2
    act_fn: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lattice % 2**self.n_convs:
            raise InputError(
                f"lattice={self.lattice} cannot be halved {self.n_convs} times, once for each of "
                f"channels={self.channels}; give a multiple of {2**self.n_convs}."
            )

    @property
    def n_convs(self) -> int:
        """Number of convolutions."""
        return len(self.channels)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (before, after) in enumerate(pairwise((1, *self.channels))):
            shapes |= {f"conv.{layer}.W": (after, before, 3, 3), f"conv.{layer}.b": (after,)}
        d_flat = self.channels[-1] * (self.lattice // 2**self.n_convs) ** 2
        return shapes | layers.hidden_shapes(d_flat, (self.d_mlp,), self.n_classes)

    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""
        stages = ("pre", "post", "pool")
        convs = [f"conv.{layer}.hook_{x}" for layer in range(self.n_convs) for x in stages]
        return (*convs, *layers.hidden_hooks(self.n_layers))


def answer_logits(
    weights: Mapping[str, Tensor],
    inputs: Float[Tensor, "n 1 lattice lattice"],
    *,
    architecture: CNNArchitecture,
    visit: Visit = layers.recorder(None),  # noqa: B008  it has no state
) -> Float[Tensor, "n n_classes"]:
    """Logits of lattices, differentiable in the weights (canonical names).

    For each convolution: pre = W * x + b (3x3, a border of zeros), post = act_fn(pre), pool = the
    maximum of post over windows of 2x2; then the hidden layer and the unembedding. Every
    activation goes on as `visit` returns it, under its hook name; `layers.recorder` keeps them.
    Inputs are taken in the precision of the weights.
    """
    activation = ACTIVATIONS[architecture.act_fn]
    x = inputs.to(weights["conv.0.W"].dtype)
    for layer in range(architecture.n_convs):
        conv = f"conv.{layer}"
        pre = torch.nn.functional.conv2d(x, weights[f"{conv}.W"], weights[f"{conv}.b"], padding=1)
        post = visit(f"{conv}.hook_post", activation(visit(f"{conv}.hook_pre", pre)))
        x = visit(f"{conv}.hook_pool", torch.nn.functional.max_pool2d(post, 2))
    pre = layers.affine(x.flatten(1), weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"])
    return layers.hidden_logits(
        weights, pre, n_layers=architecture.n_layers, act_fn=architecture.act_fn, visit=visit
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
        layers.hidden_logits(
            weights, pre, n_layers=n_layers, act_fn=act_fn, visit=layers.recorder(cache)
        )

        found, upstream = layers.hidden_gradients(
            weights, cache, labels, n_layers=n_layers, act_fn=act_fn
        )
        found["blocks.0.mlp.W_in"] = x.T @ upstream
        found["blocks.0.mlp.b_in"] = upstream.sum(dim=0)
        upstream = (matrix @ upstream.T).view_as(pooled)
        for layer in reversed(range(architecture.n_convs)):
            columns, pre, windows, largest = convolutions[layer]
            kernels = weights[f"conv.{layer}.W"]
            if monotone:
                upstream = layers.before_activation(upstream, largest, act_fn=act_fn)
            upstream = _before_pool(upstream, windows)
            if not monotone:
                upstream = layers.before_activation(upstream, pre, act_fn=act_fn)
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
    second = layers.where_positive(upstream, torch.maximum(c, d) - torch.maximum(a, b))
    first = upstream - second
    of_b.copy_(layers.where_positive(first, b - a))
    of_d.copy_(layers.where_positive(second, d - c))
    torch.sub(first, of_b, out=of_a)
    torch.sub(second, of_d, out=of_c)
    return found
