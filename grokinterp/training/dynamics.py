"""What is an update made of? What the gradients add to it, and what the decay of weights does."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from grokinterp.runs.metrics import DYNAMICS_COLUMNS

Row = dict[str, float]  # of dynamics.csv, of one member
_PARTS = ("w.w", "g.g", "g.w", "u.u", "d.d", "u.d")  # of sums of products


class Watched:
    """One update while it is made: the weights before it, and the gradients of the objective.

    With several `members` the tensors have an axis of them, and every number is of one. Products
    are summed in float64.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], *, members: int
    ) -> None:
        self._weights, self._gradients, self._members = weights, gradients, members
        self._before = {name: weight.clone() for name, weight in weights.items()}

    def rows(self, optimizer: torch.optim.Optimizer, *, decoupled: bool) -> list[Row]:
        """A row a member, after the step of the optimiser and before any constraint.

        With theta' = theta - lr (u + weight_decay theta), update_loss is |theta' - theta +
        lr weight_decay theta| and update_decay |lr weight_decay theta|, over all trained weights.
        """
        decay = {
            id(weight): float(group["lr"]) * float(group.get("weight_decay", 0.0))
            for group in optimizer.param_groups
            for weight in group["params"]
        }
        sums = dict.fromkeys(_PARTS, torch.zeros((), dtype=torch.float64))
        for name, weight in self._weights.items():
            w, g = (self._flat(x[name]) for x in (self._before, self._gradients))
            products = {"w.w": (w, w), "g.g": (g, g), "g.w": (g, w)}
            if decoupled:
                shrunk = -decay.get(id(weight), 0.0) * w
                along = self._flat(weight) - w - shrunk
                products |= {"u.u": (along, along), "d.d": (shrunk, shrunk), "u.d": (along, shrunk)}
            for part, (one, other) in products.items():
                sums[part] = sums[part] + torch.linalg.vecdot(one, other)
        found = {part: x.expand(self._members).tolist() for part, x in sums.items()}
        return [dict(self._row(decoupled, *each)) for each in zip(*found.values(), strict=True)]

    def _flat(self, x: Tensor) -> Tensor:
        return x.reshape(self._members, -1).double()

    @staticmethod
    def _row(decoupled: bool, *sums: Any) -> Iterator[tuple[str, float]]:
        ww, gg, gw, uu, dd, ud = sums
        parts = (math.sqrt(uu), math.sqrt(dd), _cosine(ud, uu, dd))
        parts = parts if decoupled else (math.nan,) * 3
        values = (math.sqrt(ww), math.sqrt(gg), _cosine(gw, gg, ww), *parts)
        yield from zip(DYNAMICS_COLUMNS, values, strict=True)


def _cosine(product: float, one: float, other: float) -> float:
    return product / math.sqrt(one * other) if one * other > 0 else math.nan
