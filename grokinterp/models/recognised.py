"""What is known of a network whose weights somebody else wrote, whatever its kind?

Names and shapes say the layout and the architecture (`_recognise`, `_recognise_mlp`). What they
leave open is a key in `assumed`, at a value that is usual; where the shapes themselves can be read
in another way, that reading is in `others`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from grokinterp.base.errors import InputError, shown
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.user_models import PRECISIONS

Self = TypeVar("Self", bound="Recognised")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """The layout of a state dict, and the architecture of its weights."""

    layout: str
    architecture: BaseArchitecture
    assumed: tuple[str, ...]  # keys of the architecture that the weights cannot say
    notes: tuple[str, ...] = ()
    prefix: str | None = None  # that somebody gave, where a state dict holds several networks
    others: tuple["Recognised", ...] = ()  # other readings of the same names and shapes

    @abstractmethod
    def weights(self, state: Mapping[str, Tensor], where: str) -> Weights:
        """A state dict of this layout as canonical weights; biases it does not have are zero.

        Refused: missing keys, extra ones that would be used, other shapes, numbers that are not
        finite.
        """

    @abstractmethod
    def held(self, rows: int) -> int:
        """Numbers that a forward of so many inputs holds at once, its logits left out."""

    @property
    @abstractmethod
    def parts(self) -> str:
        """What it is made of, in words that say why it takes that much."""

    @property
    def described(self) -> str:
        """The reading in a few words, where the shapes allow others."""
        return f"the layout {self.layout!r}"

    def usual(self, key: str, known: Mapping[str, Any]) -> tuple[Any, str]:
        """What is assumed where nothing answers an open question, and a reason beyond custom.

        `known` has the answers to those before it in `assumed`.
        """
        return getattr(self.architecture, key), ""

    def possible(self, key: str, value: object) -> bool:
        """Whether the weights can have this answer to an open question."""
        return True

    def replace(self: Self, **changes: Any) -> Self:
        """The same with other values for what was assumed of the architecture."""
        return replace(self, architecture=replace(self.architecture, **changes))


def in_one_precision(found: Mapping[str, Tensor]) -> Weights:
    """Half precision as float32, which holds every value of it; all as float64 if one is.

    >>> found = in_one_precision({"w": torch.ones(2).half(), "b": torch.ones(2).double()})
    >>> found["w"].dtype
    torch.float64
    """
    for key, tensor in found.items():
        if tensor.dtype not in PRECISIONS:
            raise InputError(f"weight {shown(key)} is {tensor.dtype}; give float32 or float64.")
    double = any(tensor.dtype == torch.double for tensor in found.values())
    return {name: tensor.double() if double else tensor.float() for name, tensor in found.items()}
