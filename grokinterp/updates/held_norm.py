"""What if the norm of the weights cannot change? The constraint that holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from grokinterp.base.keys import key
from grokinterp.updates.changes import Constraint, State, matrices, norm_of, register_constraint

_UPDATES = "updates"  # how many there have been


@register_constraint("norm_clamp")
@dataclass(frozen=True, kw_only=True)
class NormClamp(Constraint):
    r"""The norm is held at `clamp_to` times that of the initial weights, from a step on.

    After every update whose step is at least `clamp_from`, w <- w clamp_to N_0 / N. "global": one
    factor for all trained weights, biases included, with N the norm of all of them (Omnigrok, Liu
    et al. 2023, arXiv 2210.01117, and its released code for modular addition). "layer": every
    matrix by a factor of its own, with its own norms; biases and gains are free. The optimiser's
    moments stay as they are. With `clamp_from=0` the initial weights are scaled as well.

    A held norm with weight decay still has the decay's direction in each matrix of a global clamp;
    set `weight_decay=0` for the experiment of the paper. What is held is the norm, not the scale of
    the logits, through which it may act.

    >>> import torch
    >>> import grokinterp as gi
    >>> clamp = gi.Recipe(norm_clamp="global", clamp_to=0.5).build("constraint")
    >>> state = clamp.start({"W": torch.tensor([3.0, 4.0])})
    >>> clamp.constrained({"W": torch.tensor([0.0, 7.0])}, state)
    {'W': tensor([0.0000, 2.5000])}
    """

    norm_clamp: Literal["none", "global", "layer"] = key(
        "global", help="which norm is held: of all weights together, of each matrix, or none"
    )
    clamp_from: int = key(0, least=0, help="the first step whose weights have the held norm")
    clamp_to: float = key(1.0, above=0, help="the held norm over the initial one")
    _all: ClassVar[str] = "all weights"

    def start(self, weights: Mapping[str, Tensor]) -> State:
        """The initial norms."""
        norms = {part: norm_of(those) for part, those in self._parts(weights).items()}
        state = {f"norm/{part}": torch.tensor(x, dtype=torch.float64) for part, x in norms.items()}
        return {_UPDATES: torch.tensor(0), **state}

    def initial(self, weights: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """The weights at the held norm, if it is held from the start."""
        return weights if self.clamp_from else self._scaled(weights, state)

    def constrained(self, weights: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """The weights at the held norm, from `clamp_from` on."""
        state[_UPDATES] += 1
        early = int(state[_UPDATES]) < self.clamp_from
        return weights if early else self._scaled(weights, state)

    def _scaled(self, weights: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        found = dict(weights)
        for part, those in self._parts(weights).items():
            wanted, norm = self.clamp_to * float(state[f"norm/{part}"]), norm_of(those)
            if norm:
                found |= {name: weight * (wanted / norm) for name, weight in those.items()}
        return found

    def _parts(self, weights: Mapping[str, Tensor]) -> dict[str, Mapping[str, Tensor]]:
        """The weights that have a norm together, by its name."""
        if self.norm_clamp == "global":
            return {self._all: weights}
        found = matrices(weights) if self.norm_clamp == "layer" else {}
        return {name: {name: weight} for name, weight in found.items()}
