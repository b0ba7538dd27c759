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
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.keys import derived, fields_from, key, keys_of
from grokinterp.models import layers
from grokinterp.models.architecture import (
    NONLINEARITIES,
    Gradients,
    Loss,
    VisitedArchitecture,
    Weights,
    check_sizes,
    register_model,
)
from grokinterp.models.interchangeable_units import Place, Units
from grokinterp.models.layers import Visit
from grokinterp.tasks.task import Task


@register_model("cnn")
@dataclass(frozen=True)
class CNNArchitecture(VisitedArchitecture):
    """Sizes of convolutions, one hidden layer of `d_mlp` and an unembedding.

    Each convolution is 3x3 with a border of zeros, then `act_fn`, then the maximum over windows of
    2x2; `channels` are the outputs of each. What the last one leaves is flattened as channel, row,
    column.

    >>> CNNArchitecture().parameter_shapes()["blocks.0.mlp.W_in"]
    (64, 100)
    """

    init_rules: ClassVar[tuple[str, ...]] = ("torch", "xavier")
    n_layers = 1  # hidden and fully connected

    lattice: int = derived(16)
    channels: tuple[int, ...] = key(
        (2, 4), help="outputs of the convolutions", read=layers.sizes_in,
        wanted="a list of sizes from 1 on such as [2, 4]",
    )  # fmt: skip
    d_mlp: int = key(100, help="neurons of the hidden layer", least=1, most=1_000_000)
    n_classes: int = derived(2)
    act_fn: str = key("relu", help="nonlinearity of the neurons", choices=tuple(NONLINEARITIES))

    def __post_init__(self) -> None:
        check_sizes(self)
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

    def interchangeable_units(self) -> Units:
        """Channels of every convolution, and the neurons after them."""
        found: Units = {}
        shapes = self.parameter_shapes()
        for layer, channels in enumerate(self.channels):
            read = Place(f"conv.{layer + 1}.W", 1)
            if layer == self.n_convs - 1:  # flattened: every channel is a block of pixels
                first = "blocks.0.mlp.W_in"
                read = Place(first, 0, shapes[first][0] // channels)
            own = Place(f"conv.{layer}.W", 0), Place(f"conv.{layer}.b", 0), read
            found[f"channels of convolution {layer}"] = own
        return found | layers.hidden_neurons(self.n_layers)

    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""
        stages = ("pre", "post", "pool")
        convs = [f"conv.{layer}.hook_{x}" for layer in range(self.n_convs) for x in stages]
        return (*convs, *layers.hidden_hooks(self.n_layers))

    @classmethod
    def of_recipe(cls, task: Task, values: Mapping[str, Any]) -> "CNNArchitecture":
        """The architecture for a task of lattices."""
        side = getattr(task, "lattice", None)
        if side is None:
            raise cls._not_for(task, "lattices")
        return cls(lattice=side, n_classes=task.n_classes, **fields_from(keys_of(cls), values))

    def why_not(self, task: Task, *, stored: bool = False) -> str | None:
        """Why it does not fit a task, with the sizes of both."""
        side, n_classes = getattr(task, "lattice", None), self.n_classes
        if side is None:
            return f"the CNN reads lattices of side {self.lattice}, the task is {task.title}"
        if (self.lattice, n_classes) == (side, task.n_classes):
            return None
        return (
            f"the CNN reads lattices of side {self.lattice} and has {n_classes} classes; "
            f"{task.title} has side {side} and {task.n_classes} classes"
        )

    def forward(
        self,
        weights: Mapping[str, Tensor],
        inputs: Float[Tensor, "n 1 lattice lattice"],
        cache: dict[str, Tensor] | None = None,
        *,
        visit: Visit | None = None,
    ) -> Float[Tensor, "n n_classes"]:
        """Logits of lattices, differentiable in the weights (canonical names).

        For each convolution: pre = W * x + b (3x3, a border of zeros), post = act_fn(pre), pool =
        the maximum of post over windows of 2x2; then the hidden layer and the unembedding. Every
        activation goes on as `visit` returns it, under its hook name; without one, the `cache`
        keeps it. Inputs are taken in the precision of the weights.
        """
        visit = visit or layers.recorder(cache)
        activation = NONLINEARITIES[self.act_fn]
        x = inputs.to(weights["conv.0.W"].dtype)
        for layer in range(self.n_convs):
            kernels, bias = weights[f"conv.{layer}.W"], weights[f"conv.{layer}.b"]
            pre = torch.nn.functional.conv2d(x, kernels, bias, padding=1)
            pre = visit(f"conv.{layer}.hook_pre", pre)
            post = visit(f"conv.{layer}.hook_post", activation(pre))
            x = visit(f"conv.{layer}.hook_pool", torch.nn.functional.max_pool2d(post, 2))
        matrix, bias = weights["blocks.0.mlp.W_in"], weights["blocks.0.mlp.b_in"]
        pre = layers.affine(x.flatten(1), matrix, bias)
        return layers.hidden_logits(
            weights, pre, n_layers=self.n_layers, act_fn=self.act_fn, visit=visit
        )

    def gradients_on(
        self, inputs: Float[Tensor, "n 1 lattice lattice"], labels: Int[Tensor, " n"],
        objective: Loss,
    ) -> Gradients:  # fmt: skip
        """Written out, several times faster than autograd; exact when the loss is 1e-8.

        What depends on the lattices alone is made once, in the precision of the inputs.

        >>> from grokinterp.updates import CrossEntropy
        >>> shape = CNNArchitecture(lattice=2, channels=(1,), d_mlp=1)
        >>> weights = {name: torch.ones(s) for name, s in shape.parameter_shapes().items()}
        >>> rows = torch.ones(1, 1, 2, 2), torch.tensor([0])
        >>> shape.gradients_on(*rows, CrossEntropy())(weights)["unembed.b_U"].tolist()
        [-0.5, 0.5]
        """
        n_layers, act_fn = self.n_layers, self.act_fn
        activation = NONLINEARITIES[act_fn]
        # A monotone activation may as well come after the maximum, on a quarter of the entries.
        monotone = act_fn == "relu"
        first_columns = _columns(inputs.permute(1, 2, 3, 0))

        @torch.no_grad()
        def gradients(weights: Mapping[str, Tensor]) -> Weights:
            matrix = weights["blocks.0.mlp.W_in"]
            columns, convolutions = first_columns, []
            for layer in range(self.n_convs):
                kernels = weights[f"conv.{layer}.W"].flatten(1)
                side = self.lattice // 2**layer
                flat = torch.addmm(weights[f"conv.{layer}.b"][:, None], kernels, columns)
                pre = flat.view(len(kernels), side, side, -1)
                windows = pre if monotone else activation(pre)
                largest = _pool(windows)
                pooled = activation(largest) if monotone else largest
                convolutions.append((columns, pre, windows, largest))
                if layer + 1 < self.n_convs:
                    columns = _columns(pooled)
            x = pooled.flatten(0, 2).T
            cache: dict[str, Tensor] = {}
            pre = torch.addmm(weights["blocks.0.mlp.b_in"], x, matrix)
            logits = layers.hidden_logits(
                weights, pre, n_layers=n_layers, act_fn=act_fn, visit=layers.recorder(cache)
            )

            found, upstream = layers.hidden_gradients(
                weights, cache, objective.by_logits(logits, labels),
                n_layers=n_layers, act_fn=act_fn,
            )  # fmt: skip
            found["blocks.0.mlp.W_in"] = x.T @ upstream
            found["blocks.0.mlp.b_in"] = upstream.sum(dim=0)
            upstream = (matrix @ upstream.T).view_as(pooled)
            for layer in reversed(range(self.n_convs)):
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
                    # What an input site did to its nine neighbours: a convolution with kernels
                    # turned.
                    turned = kernels.flip(2, 3).transpose(0, 1).flatten(1)
                    upstream = (turned @ _columns(upstream)).view(-1, *pre.shape[1:])
            return {name: found[name] for name in weights}

        return gradients


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
