"""What is an update made of? What the gradients add to it, and what the decay of weights does."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from grokinterp.runs.metrics import DYNAMICS_COLUMNS

Row = dict[str, float]  # of dynamics.csv, of one member


class Watched:
    """One update while it is made: the weights before it, and the gradients of the objective.

    With several `members` the tensors have an axis of them, and every number is of one. All weights
    are laid in one row, since many small tensors cost more than their numbers.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], *, members: int
    ) -> None:
        self._weights, self._members = weights, members
        self._before, self._gradients = self._flat(weights), self._flat(gradients)

    def rows(self, optimizer: torch.optim.Optimizer, *, decoupled: bool) -> list[Row]:
        """A row a member, after the step of the optimiser and before any constraint.

        With theta' = theta - lr (u + weight_decay theta), update_loss is |theta' - theta +
        lr weight_decay theta| and update_decay |lr weight_decay theta|, over all trained weights.
        """
        w, g = self._before, self._gradients
        products = [(w, w), (g, g), (g, w)]
        if decoupled:
            shrunk = w * -self._decay(optimizer)
            along = (self._flat(self._weights) - w).sub_(shrunk)
            products += [(along, along), (shrunk, shrunk), (along, shrunk)]
        # In float32: norms and cosines are good to 1e-6.
        found = [(x[:, None] @ y[:, :, None]).flatten().tolist() for x, y in products]
        return [dict(self._row(*each)) for each in zip(*found, strict=True)]

    def _flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([tensors[n].reshape(self._members, -1) for n in self._weights], dim=1)

    def _decay(self, optimizer: torch.optim.Optimizer) -> float | Tensor:
        """The share of itself that an update takes of each weight: one, or one a weight."""
        rates = {
            id(weight): float(group["lr"]) * float(group.get("weight_decay", 0.0))
            for group in optimizer.param_groups
            for weight in group["params"]
        }
        each = [rates.get(id(weight), 0.0) for weight in self._weights.values()]
        if len(set(each)) == 1:
            return each[0]
        pairs = zip(each, self._weights.values(), strict=True)
        return torch.cat(
            [w.new_tensor(rate).expand(w.numel() // self._members) for rate, w in pairs]
        )

    @staticmethod
    def _row(ww: float, gg: float, gw: float, *updates: float) -> Iterator[tuple[str, float]]:
        values = [math.sqrt(ww), math.sqrt(gg), _cosine(gw, gg, ww)]
        if updates:
            uu, dd, ud = updates
            values += [math.sqrt(uu), math.sqrt(dd), _cosine(ud, uu, dd)]
        yield from zip(DYNAMICS_COLUMNS, values, strict=bool(updates))


def _cosine(product: float, one: float, other: float) -> float:
    return product / math.sqrt(one * other) if one * other > 0 else math.nan
