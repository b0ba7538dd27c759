"""What level an accuracy curve reaches, when, and whether it stays there.

Labels rest on levels that are held: a single row, a short burst, and noise reach high values too.
All of it looks at smoothed curves.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter
from scipy.optimize import isotonic_regression

from grokinterp.progress.curves import Curve

WITHIN = 0.95  # of the run's own maximum accuracy
SHARED = 0.05  # of the log's rows or steps have to lie at a level, unless the log ends there
ROUGHEST = 0.05  # of its rise: what a curve that learns strays from rising and holding at most,
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
    `Curve.held`) and within 5 % of which lie 5 % of the log's rows or steps, or its end.
    `row` is the first one from which at least 0.95 `best` is held, and not lost again within 5 %
    of the rows. `lost_below` is halfway between chance and `best`.
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
    def roughness(self) -> float:
        """How far the curve is from one that rises and then holds: see `roughness`."""
        return roughness(self.curve.values, self.row, self.chance, self.threshold, self.lost_below)

    @property
    def holds(self) -> bool:
        """Whether the curve is one that learns rather than noise."""
        return self.roughness <= ROUGHEST

    @property
    def unseen(self) -> bool:
        """Whether the log never shows the curve unlearned, so that `row` is no date.

        It is at its level in the first row, or never was below `lost_below` before.
        """
        if self.curve.cannot_date(self.row):
            return True
        return self.row > 0 and bool((self.curve.values[: self.row] >= self.lost_below).all())

    @property
    def before(self) -> int:
        """The last step at which it is not learned yet for all the log can tell, 0 without one.

        That is the row before `row`, or before an earlier one close by that touches the level.
        """
        near = max(self.row - 2 * self.curve.hold, 0)
        touching = self.curve.values[near : self.row + 1] >= self.threshold
        first = near + int(np.argmax(touching))
        return int(self.curve.steps[first - 1]) if first else 0

    def episodes(self) -> tuple[Episode, ...]:
        """Every time the level was lost after it was reached, in order."""
        values = self.curve.values
        return lost_and_regained(self.row, values >= self.threshold, values < self.lost_below)


def level_of(curve: Curve, chance: float) -> Level:
    """The best level of a smoothed accuracy curve, of at least one row."""
    values, n = curve.values, len(curve)
    # windows[i]: the least value from row i through the `hold` rows after it, or to the end
    padded = np.append(values, np.full(curve.hold, np.inf))
    windows = np.lib.stride_tricks.sliding_window_view(padded, curve.hold + 1).min(axis=1)
    # How much of the log lies near each of these: of its rows, or of its steps where they are wide
    order = np.argsort(values)
    spans = np.diff(curve.steps, append=curve.steps[-1])[order]
    above = np.searchsorted(values[order], WITHIN * windows)
    of_rows = (n - above) / n
    of_steps = np.append(spans[::-1].cumsum()[::-1], 0)[above] / max(spans.sum(), 1)
    at_end = np.arange(n) >= n - 1 - curve.hold
    best = float(windows[(np.maximum(of_rows, of_steps) >= SHARED) | at_end].max())
    level = Level(curve, chance, best, 0)
    reached = curve.held(values >= level.threshold)
    rows = np.flatnonzero(reached)
    lost = np.append(np.flatnonzero(values < level.lost_below), n + n)
    lasting = rows[lost[np.searchsorted(lost, rows)] - rows > SHARED * n]
    return Level(curve, chance, best, int((lasting if len(lasting) else rows)[0]))


def roughness(
    values: np.ndarray, row: int, chance: float, threshold: float, lost_below: float
) -> float:
    r"""How far a curve is from one that rises up to a row and then holds, as a share of its rise.

        sqrt((mean squared residual before the row + the same after it) / 2) / (threshold - chance)

    Residuals are those from the nearest non-decreasing curve before the row, and what is missing to
    the threshold from then on. Dips of up to a twentieth of the log are taken out before (a running
    median over a tenth of it, apart before and after the row), and rows below `lost_below` are left
    out, so that slingshots and a collapse do not count against it. A walk that happens to rise once
    and to stay is as smooth as learning in this number, and in every other.

    >>> round(roughness(np.array([0.0, 0.1, 0.0, 1.0, 1.0, 1.0]), 3, 0.0, 0.95, 0.5), 3)
    0.03
    >>> round(roughness(np.array([0.0, 0.9, 0.2, 1.0, 0.6, 1.0]), 3, 0.0, 0.95, 0.5), 3)
    0.258
    """
    width = 2 * round(CALMED * len(values) / 2) + 1
    before, after = (
        median_filter(part, size=width, mode="nearest") if len(part) else part
        for part in (values[:row], values[row:])
    )
    rise = isotonic_regression(before).x if len(before) else np.zeros(0)
    kept = after[after >= lost_below]
    residuals = (before - rise, np.minimum(kept - threshold, 0))
    squares = sum(float((part**2).mean()) for part in residuals if len(part))
    height = threshold - chance
    return math.sqrt(squares / 2) / height if height > 0 else math.inf


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
