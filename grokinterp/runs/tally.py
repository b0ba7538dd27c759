"""What is counted over a whole table block by block, so that no table of logits has to be kept.

    class Mean:
        needs = ()

        def __init__(self, snapshot):
            self.sum = 0.0

        def add(self, block):
            self.sum += block.logits.double().sum()

    snapshot.tally(Mean).sum

At p = 1009 the logits of one checkpoint are 4 GB; a tally of them is as large as what it counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """Some consecutive inputs of a task, and what a model makes of them."""

    rows: slice
    logits: Float[Tensor, "rows n_classes"]  # of the answer classes
    labels: Int[Tensor, " rows"]
    activations: Mapping[str, Tensor]  # at the hook names that a tally needs


@runtime_checkable
class Tally(Protocol):
    """Made with a snapshot, then shown every block of its table once, in order."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Hook names of the activations it looks at."""

    def add(self, block: Block) -> None:
        """Count a block; what it holds is overwritten afterwards."""
