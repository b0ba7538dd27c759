"""Which neurons and heads of one network are those of another, up to their order?

Neurons of a layer, heads of an attention layer and channels of a convolution can change places
without any change of what the network computes. Of all orders the one is found in which two
networks' weights have the largest inner product (weight matching of Ainsworth, Hayase and
Srinivasa 2023, arXiv 2209.04836, section 3.2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.layers import weights_after
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.transformer import TransformerArchitecture

ROUNDS = 100  # over all layers; it takes a few
ROUNDING = 1e-9  # relative: a gain that is smaller is none


@dataclass(frozen=True)
class Place:
    """An axis of a weight along which units lie, each with `block` entries one after the other."""

    weight: str
    axis: int
    block: int = 1

    def rows(self, weights: Mapping[str, Tensor]) -> Float[Tensor, "units entries"]:
        """What each unit has there."""
        moved = weights[self.weight].movedim(self.axis, 0).double()
        return moved.reshape(len(moved) // self.block, -1)

    def ordered(self, weight: Tensor, order: Int[Tensor, " units"]) -> Tensor:
        """The weight with its units in another order."""
        entries = order[:, None] * self.block + torch.arange(self.block)
        return weight.index_select(self.axis, entries.flatten())


Units = dict[str, tuple[Place, ...]]  # by what they are called


def interchangeable(architecture: BaseArchitecture | None) -> Units:
    """The units of an architecture that can change places; none where nobody knows them.

    >>> import grokinterp as gi
    >>> [*interchangeable(gi.load("mod31-small").architecture)]
    ['heads of layer 0', 'neurons of layer 0']
    """
    found: Units = {}
    if isinstance(architecture, TransformerArchitecture):
        for layer in range(architecture.n_layers):
            attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
            names = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")
            found[f"heads of layer {layer}"] = tuple(Place(f"{attn}.{x}", 0) for x in names)
            if not architecture.attn_only:
                own = Place(f"{mlp}.W_in", 1), Place(f"{mlp}.b_in", 0), Place(f"{mlp}.W_out", 0)
                found[f"neurons of layer {layer}"] = own
    elif isinstance(architecture, MLPArchitecture | CNNArchitecture):
        if isinstance(architecture, CNNArchitecture):
            found |= _channels(architecture)
        for layer in range(architecture.n_layers):
            matrix, _ = weights_after(layer, architecture.n_layers)
            mlp = f"blocks.{layer}.mlp"
            own = Place(f"{mlp}.W_in", 1), Place(f"{mlp}.b_in", 0), Place(matrix, 0)
            found[f"neurons of layer {layer}"] = own
    return found


def _channels(architecture: CNNArchitecture) -> Units:
    found: Units = {}
    shapes, n = architecture.parameter_shapes(), architecture.n_convs
    for layer, channels in enumerate(architecture.channels):
        read = Place(f"conv.{layer + 1}.W", 1)
        if layer == n - 1:  # flattened: every channel is a block of pixels
            first = "blocks.0.mlp.W_in"
            read = Place(first, 0, shapes[first][0] // channels)
        own = Place(f"conv.{layer}.W", 0), Place(f"conv.{layer}.b", 0), read
        found[f"channels of convolution {layer}"] = own
    return found


def match_units(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], units: Units
) -> tuple[Weights, dict[str, Int[Tensor, " units"]]]:
    """The `others` with their units in the order of those in `weights`, and that order.

    Kinds of units are taken one after the other, each by the best assignment given the rest, until
    none changes: exact where no weight belongs to two kinds, as in a transformer, else an optimum
    that no single kind can better.
    """
    found = dict(others)
    orders = {name: torch.arange(len(places[0].rows(weights))) for name, places in units.items()}
    for _ in range(ROUNDS):
        changed = False
        for name, places in units.items():
            order = _best_order(weights, found, places)
            if order is None:
                continue
            changed = True
            orders[name] = orders[name][order]
            for place in places:
                found[place.weight] = place.ordered(found[place.weight], order)
        if not changed:
            break
    return found, orders


def _best_order(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], places: Sequence[Place]
) -> Int[Tensor, " units"] | None:
    """The order of the others' units with the largest inner product; None where theirs has it."""
    likeness = torch.stack([p.rows(weights) @ p.rows(others).T for p in places]).sum(dim=0)
    _, columns = linear_sum_assignment(likeness.numpy(), maximize=True)
    order = torch.from_numpy(columns)
    gain = likeness.gather(1, order[:, None]).sum() - likeness.trace()
    return order if gain > ROUNDING * likeness.diagonal().abs().sum() else None
