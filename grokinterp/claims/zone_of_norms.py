"""Which norms generalise, and how does a free run walk to them?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grokinterp.runs.run import Run
from grokinterp.training.decay_balance import trained_names
from grokinterp.updates.changes import norm_of

CLOSE = 1e-6  # of norms that were logged in float32
DATES = ("t99", "t95")


@dataclass(frozen=True, kw_only=True)
class Zone:
    """The held norms at which more than half of the seeds generalise, as parts of the initial norm.

    `low` and `high` are the smallest and the largest of them, None without any; `below` and `above`
    the nearest norms that were tried outside of these and fail, None where none was: the zone is
    open there. `gaps` fail and lie between low and high.

    >>> import grokinterp as gi
    >>> zone = gi.claims.Zone(low=3.0, high=5.0, below=1.0, above=8.0)
    >>> zone.closed, [zone.where(alpha) for alpha in (0.5, 2.0, 4.0, 9.0)]
    (True, ['below', 'edge', 'inside', 'above'])
    """

    low: float | None = None
    high: float | None = None
    below: float | None = None
    above: float | None = None
    gaps: tuple[float, ...] = ()

    @classmethod
    def of(cls, shares: Mapping[float, float]) -> "Zone":
        """The zone, by the share of seeds that generalise at each norm."""
        good = [alpha for alpha, share in shares.items() if share > 0.5]
        if not good:
            return cls()
        low, high = min(good), max(good)
        return cls(
            low=low,
            high=high,
            below=max((alpha for alpha in shares if alpha < low), default=None),
            above=min((alpha for alpha in shares if alpha > high), default=None),
            gaps=tuple(sorted(a for a in shares if low < a < high and a not in good)),
        )

    @property
    def closed(self) -> bool:
        """Whether norms fail on both sides of it."""
        return self.below is not None and self.above is not None

    def where(self, alpha: float) -> str:
        """Where a norm lies: "inside", "below" or "above"; "" without a zone.

        "edge" is between the last norm that generalises and the next that fails, "untried" beyond
        the norms that were tried.
        """
        if self.low is None or self.high is None or not math.isfinite(alpha):
            return ""
        if self.low * (1 - CLOSE) <= alpha <= self.high * (1 + CLOSE):
            return "inside"
        if alpha < self.low:
            if self.below is None:
                return "untried"
            return "below" if alpha <= self.below * (1 + CLOSE) else "edge"
        if self.above is None:
            return "untried"
        return "above" if alpha >= self.above * (1 - CLOSE) else "edge"


def norm_at(run: Run, step: int) -> float:
    """The norm of all trained weights at a checkpoint."""
    weights = run.weights(step)
    return norm_of({name: weights[name] for name in trained_names(run)})


def path_of(run: Run) -> tuple[tuple[int, float], ...]:
    """Step and norm: at every logged step where these are known, else at the checkpoints."""
    logged = run.dynamics
    if logged is None or not len(logged):
        return tuple((step, norm_at(run, step)) for step in run.steps)
    found = dict(zip(map(int, logged["step"]), map(float, logged["weight_norm"]), strict=True))
    found[run.steps[-1]] = norm_at(run, run.steps[-1])  # dynamics end an update before
    return tuple(sorted(found.items()))


def walked(row: Mapping[str, Any], path: Sequence[tuple[int, float]], zone: Zone) -> dict[str, Any]:
    """A free run's path, as parts of its initial norm."""
    steps, norms = np.array(path).T
    n0, most = row["n0"], float(norms.max())
    dated = {
        name: math.nan if row[name] is None else float(np.interp(row[name], steps, norms))
        for name in DATES
    }
    alphas = {
        "alpha_t99": dated["t99"] / n0, "alpha_t95": dated["t95"] / n0, "alpha_max": most / n0,
        "alpha_last": float(norms[-1]) / n0,
    }  # fmt: skip
    came_from = ""
    if row["t95"] is not None and zone.low is not None:
        words = [zone.where(norm / n0) for norm in norms[steps <= row["t95"]]]
        outside = [each for each in words if each in ("below", "above")]
        last = zone.where(alphas["alpha_t95"])
        if last in ("below", "above"):
            came_from = "outside"
        elif outside:
            came_from = outside[-1]
        elif set(words) == {"inside"}:
            came_from = "inside"
    return {
        **{key: row[key] for key in ("run", "seed", "weight_decay", "n0", "t99", "t95", "label")},
        **alphas,
        "over_max_t95": dated["t95"] / most,
        "starts": zone.where(1.0),
        **{f"at_{x}": zone.where(alphas[f"alpha_{x}"]) for x in ("t99", "max", "t95")},
        "came_from": came_from,
    }
