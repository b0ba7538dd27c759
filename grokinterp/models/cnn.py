"""The shape of a small convolutional network on square lattices, and the names of its weights.

The defaults are the classifier of Ising configurations of Manning-Coe et al. 2025 (arXiv
2502.01739, section 2.1 and appendix B): 6,798 parameters.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from grokinterp.errors import InputError
from grokinterp.models.architecture import (
    BaseArchitecture,
    check_choice,
    check_size,
    check_sizes,
)
from grokinterp.models.hidden import hidden_hooks, hidden_shapes

LARGEST_LATTICE = 10_000  # its square is the number of sites


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

    lattice: int = 16
    channels: tuple[int, ...] = (2, 4)
    d_mlp: int = 100
    n_classes: int = 2
    act_fn: str = "relu"

    def __post_init__(self) -> None:
        check_size("lattice", self.lattice, largest=LARGEST_LATTICE)
        check_sizes("channels", self.channels)
        check_size("d_mlp", self.d_mlp)
        check_size("n_classes", self.n_classes)
        check_choice("act_fn", self.act_fn)
        if self.lattice % 2**self.n_convs:
            raise InputError(
                f"lattice={self.lattice} cannot be halved {self.n_convs} times, once for each of "
                f"channels={self.channels}; give a multiple of {2**self.n_convs}."
            )

    @property
    def n_convs(self) -> int:
        """Number of convolutions."""
        return len(self.channels)

    @property
    def n_layers(self) -> int:
        """Number of hidden fully connected layers."""
        return 1

    @property
    def d_flat(self) -> int:
        """Rows of the fully connected matrix: channels times sites after the last pooling."""
        return self.channels[-1] * (self.lattice // 2**self.n_convs) ** 2

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Canonical name and shape of every parameter, biases included, in reading order."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, (before, after) in enumerate(pairwise((1, *self.channels))):
            shapes |= {f"conv.{layer}.W": (after, before, 3, 3), f"conv.{layer}.b": (after,)}
        return shapes | hidden_shapes(self.d_flat, (self.d_mlp,), self.n_classes)

    def hook_names(self) -> tuple[str, ...]:
        """Names of the activations, in the order of the forward."""
        stages = ("pre", "post", "pool")
        convs = [f"conv.{layer}.hook_{x}" for layer in range(self.n_convs) for x in stages]
        return (*convs, *hidden_hooks(self.n_layers))
