"""Which parts of a network can change places without any change of what it computes?

Neurons of a layer, heads of an attention layer and channels of a convolution: each architecture
says where its own lie.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


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


def neurons_of(layer: int, read_by: str) -> Units:
    """The hidden neurons of a layer, whose activations a weight reads by its rows."""
    mlp = f"blocks.{layer}.mlp"
    own = Place(f"{mlp}.W_in", 1), Place(f"{mlp}.b_in", 0), Place(read_by, 0)
    return {f"neurons of layer {layer}": own}


def heads_of(layer: int) -> Units:
    """The heads of an attention layer."""
    names = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")
    places = tuple(Place(f"blocks.{layer}.attn.{name}", 0) for name in names)
    return {f"heads of layer {layer}": places}
