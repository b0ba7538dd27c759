"""What level an accuracy curve reaches, when, and whether it stays there.

Labels rest on levels that are held: a single row, a short burst, and noise reach high values too.
All of it looks at smoothed curves.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import median_filter
from scipy.optimize import isotonic_regression

from grokinterp.progress.curves import HELD_ROWS, HELD_SHARE, Curve, Step

WITHIN = 0.95  # of the run's own maximum accuracy
SHARED = 0.05  # of the log's rows or steps have to lie at a level, unless the log ends there
ROUGHEST = 0.035  # of its rise: what a curve that learns strays from rising and holding at most,
UNLEARNED = 0.75  # of its best: above it, nobody can say that it has not been learned yet
CALMED = 0.1  # in a running median over this share of the log


@dataclass(frozen=True)
class Episode:
    """Rows between which a level was lost; `regained` is None when it was lost for good."""

    lost: int
    regained: int | None


@dataclass(frozen=True)
class Level:
    """The best level of a curve: reached at `row`, from which on the curve is near its maximum.

    `best` is the run's own maximum accuracy in the sense of Definition 1 of Manning-Coe et al. 2025
    (arXiv 2502.01739, section 2), made safe against luck: the highest value that is held (see
    `Curve.held`) and within 5 % of which lie 5 % of the log's rows or steps, or its end. `row` is
    the first one at 0.95 `best` or more from which most of the next rows are, and from which it is
    not lost within 5 % of the log's rows. `lost_below` is halfway between chance and `best`.
    """

    curve: Curve
    chance: float
    best: float
    row: int

    @property
    def threshold(self) -> float:
        """0.95 of the best value: what is near the maximum."""
        return WITHIN * self.best

    @property
    def lost_below(self) -> float:
        """Below it, what was learned is lost; never above the threshold, however high chance is."""
        return min((self.chance + self.best) / 2, self.threshold)

    @property
    def straying(self) -> float:
        """How far the curve is from one that rises and then holds: see `straying`."""
        return straying(self.curve.values, self.row, self.threshold)

    @property
    def strays(self) -> bool:
        """Whether that is more than what learns does, as a share of its rise."""
        return self.straying > ROUGHEST * (self.threshold - self.chance)

    @property
    def kept(self) -> float:
        """Share of the rows from `row` on that are near the best level."""
        return float((self.curve.values[self.row :] >= self.threshold).mean())

    @property
    def unseen(self) -> bool:
        """Whether the log never shows the curve unlearned, so that `row` is no date.

        It is at its level in the first row, or never was below three quarters of it before.
        """
        if self.curve.cannot_date(self.row):
            return True
        return self.row > 0 and bool((self.curve.values[: self.row] >= UNLEARNED * self.best).all())

    @property
    def before(self) -> Step:
        """The last step at which it is not learned yet for all the log can tell, 0 without one.

        That is the row before `row`, or before an earlier one close by that touches the level.
        """
        near = max(self.row - 2 * self.curve.hold, 0)
        touching = self.curve.values[near : self.row + 1] >= self.threshold
        first = near + int(np.argmax(touching))
        return self.curve.step(first - 1) if first else 0

    def episodes(self) -> tuple[Episode, ...]:
        """Every time the level was lost after it was reached, in order."""
        values = self.curve.values
        return lost_and_regained(self.row, values >= self.threshold, values < self.lost_below)


def level_of(curve: Curve, chance: float) -> Level:
    """The best level of a smoothed accuracy curve, of at least one row."""
    values, n = curve.values, len(curve)
    # The least value from every row through the `hold` rows after it, or to the end.
    windows = _following(values, curve.hold, fill=np.inf).min(axis=1)
    # How much of the log lies near each of these: of its rows, or of its steps where they are wide.
    order = np.argsort(values)
    spans = np.diff(curve.steps, append=curve.steps[-1])[order]
    above = np.searchsorted(values[order], WITHIN * windows)
    of_rows = (n - above) / n
    of_steps = np.append(spans[::-1].cumsum()[::-1], 0)[above] / (spans.sum() or 1)
    at_end = np.arange(n) >= n - 1 - curve.hold
    best = float(windows[(np.maximum(of_rows, of_steps) >= SHARED) | at_end].max())
    level = Level(curve, chance, best, 0)

    near = values >= level.threshold
    mostly = _following(near, curve.hold, fill=float(near[-1])).mean(axis=1) > 0.5
    lost = np.append(np.flatnonzero(values < level.lost_below), 2 * n)
    until_lost = lost[np.searchsorted(lost, np.arange(n))] - np.arange(n)
    lasting = near & mostly & (until_lost > max(curve.hold, SHARED * n))
    row = int(np.argmax(lasting if lasting.any() else curve.held(near)))
    return Level(curve, chance, best, row)


def _following(values: np.ndarray, hold: int, *, fill: float) -> np.ndarray:
    """Every row's value and the `hold` after it, [n, hold + 1]; `fill` after the end."""
    return sliding_window_view(np.append(values, np.full(hold, fill)), hold + 1)


def straying(values: np.ndarray, row: int, threshold: float) -> float:
    r"""How far an accuracy curve is from one that rises up to a row and then holds.

        sqrt((mean squared residual before the row + the same after it) / 2)

    Residuals are those from the nearest non-decreasing curve before the row, and what is missing to
    the threshold from then on. Two things do not count as straying: dips of up to a twentieth of
    the log, such as slingshots (a running median over a tenth of it takes them out, before and
    after the row apart, unless the log ends with so few rows at the level that any one of them may
    be luck); and the deepest time below the threshold, which is compared with a curve that falls
    and then rises, since what was learned can be lost again. A walk that happens to rise once and
    to stay is as smooth as learning in this number, and in every other.

    >>> round(straying(np.array([0.0, 0.1, 0.0, 1.0, 1.0, 1.0]), 3, 0.95), 3)
    0.029
    >>> round(straying(np.array([0.0, 0.9, 0.2, 1.0, 0.6, 1.0]), 3, 0.95), 3)
    0.202
    """
    few = len(values) - row <= max(HELD_ROWS, HELD_SHARE * len(values))
    width = 1 if few else 2 * round(CALMED * len(values) / 2) + 1
    before, after = (
        median_filter(part, size=width, mode="nearest") if len(part) else part
        for part in (values[:row], values[row:])
    )
    residuals = (before - _rising(before), _missing(after, threshold))
    return math.sqrt(sum(float((part**2).mean()) for part in residuals if len(part)) / 2)


def _missing(values: np.ndarray, threshold: float) -> np.ndarray:
    """What every row lacks to the threshold; in the deepest dip, to one that falls and rises."""
    below = values < threshold
    missing = np.minimum(values - threshold, 0)
    if not below.any():
        return missing
    deepest = int(np.argmin(values))
    outside = np.flatnonzero(~below)
    place = int(np.searchsorted(outside, deepest))
    first = int(outside[place - 1]) + 1 if place else 0
    last = int(outside[place]) if place < len(outside) else len(values)
    falling, rising = values[first:deepest], values[deepest:last]
    missing[first:deepest] = falling - _rising(falling[::-1])[::-1]
    missing[deepest:last] = rising - _rising(rising)
    return missing


def _rising(values: np.ndarray) -> np.ndarray:
    """The nearest curve that never falls."""
    fit: np.ndarray = isotonic_regression(values).x if len(values) else values
    return fit


def lost_and_regained(row: int, learned: np.ndarray, lost: np.ndarray) -> tuple[Episode, ...]:
    """The times at which what holds from a row on is lost, and when it is regained.

    >>> learned = np.array([0, 1, 1, 0, 0, 1, 0, 0], bool)
    >>> lost_and_regained(1, learned, ~learned)
    (Episode(lost=3, regained=5), Episode(lost=6, regained=None))
    """
    lost = lost & ~learned
    found = []
    at: int | None = row
    while at is not None and lost[at:].any():
        gone = at + int(np.argmax(lost[at:]))
        back = np.flatnonzero(learned[gone:])
        at = gone + int(back[0]) if len(back) else None
        found.append(Episode(gone, at))
    return tuple(found)
