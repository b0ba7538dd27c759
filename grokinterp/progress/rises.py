"""When does a measure rise, and within how many steps? The 10, 50 and 90 % points of its range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHARES = (0.1, 0.5, 0.9)  # of a rise


@dataclass(frozen=True, kw_only=True)
class Rise:
    """The change of a measure from its worst value to its best one after it.

    `t10`, `t50` and `t90` are the steps at which it last passes 10, 50 and 90 % of that change on
    its way there, on straight lines between checkpoints; NaN where it does not change.

    >>> rise = rise_of("accuracy", [0, 100, 200], [0.0, 0.5, 1.0])
    >>> round(rise.t10, 9), rise.t50, round(rise.width, 9)
    (20.0, 100.0, 160.0)
    """

    measure: str
    start: float  # the worst value,
    end: float  # and the best of those after it
    t_start: float  # the step of the worst one
    t10: float
    t50: float
    t90: float

    @property
    def width(self) -> float:
        """Steps from 10 to 90 % of the change, R = t90 - t10."""
        return self.t90 - self.t10

    @property
    def log10_ratio(self) -> float:
        """log10(t90 / t10): how wide the rise is where the axis of steps is logarithmic."""
        return math.log10(self.t90 / self.t10) if self.t10 > 0 else math.nan


def rise_of(
    measure: str, steps: Sequence[float], values: Sequence[float], *, falls: bool = False
) -> Rise:
    """The rise of a curve (its fall, where lower is better), from its first worst value on.

    >>> rise_of("loss", [0, 10, 20], [1.0, 3.0, 1.0], falls=True).t50
    15.0
    """
    at, given = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    y = -given if falls else given
    worst = int(np.argmin(y))
    best = worst + int(np.argmax(y[worst:]))
    part, when = y[worst : best + 1], at[worst : best + 1]
    passed = [crossing_up(when, part, y[worst] + share * (y[best] - y[worst])) for share in SHARES]
    start, end = float(given[worst]), float(given[best])
    t10, t50, t90 = passed
    return Rise(
        measure=measure, start=start, end=end, t_start=float(at[worst]), t10=t10, t50=t50, t90=t90
    )


def crossing_up(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """The last step at which a curve passes a level from below; NaN where it never does.

    >>> crossing_up(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 4.0]), 2.5)
    1.5
    """
    below = np.flatnonzero((values[:-1] < level) & (values[1:] >= level))
    if not len(below):
        return math.nan
    i = int(below[-1])
    share = (level - values[i]) / (values[i + 1] - values[i])
    return float(steps[i] + share * (steps[i + 1] - steps[i]))


def slope_at(steps: np.ndarray, values: np.ndarray, when: float) -> float:
    """The slope of the straight line between the checkpoints around a step, in units a step.

    Of a step that is a checkpoint, the line that ends there.

    >>> slope_at(np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 40.0]), 12.0)
    3.0
    """
    i = int(np.clip(np.searchsorted(steps, when), 1, len(steps) - 1))
    return float((values[i] - values[i - 1]) / (steps[i] - steps[i - 1]))
