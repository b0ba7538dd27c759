"""What level a curve reaches, when it crosses a threshold, and whether it stays there.

All of it looks at smoothed curves, and at levels that are held: a single row, a short burst, and
noise reach high values too.

A network can answer (b, a) from (a, b): that is memorisation, and the accuracy on all test pairs
counts it as generalisation. So thresholds are dated on unmirrored test pairs too. Where only the
checkpoints know the accuracy on them, that on all test pairs bounds it in between; with a share w
of them mirrored,

    (accuracy - w) / (1 - w) <= unmirrored accuracy <= accuracy / (1 - w).
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import label
from scipy.optimize import isotonic_regression

from grokinterp.base.checks import number
from grokinterp.fourier.heldout import FEWEST_ROWS
from grokinterp.progress.curves import (
    HELD_ROWS,
    HELD_SHARE,
    Curve,
    Curves,
    Step,
    running_median,
)
from grokinterp.runs.metrics import UNMIRRORED
from grokinterp.runs.run import Run
from grokinterp.tasks.task import has_mirrors, unmirrored_rows

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

    `best` is the run's own maximum accuracy (Definition 1 of Manning-Coe et al. 2025, arXiv
    2502.01739, section 2), made safe against luck: the highest value that is held (`Curve.held`)
    and within 5 % of which lie 5 % of the log's rows or steps, or its end. `row` is the first one
    at 0.95 `best` or more from which most of the next rows are, and from which it is not lost
    within 5 % of the log's rows.
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
        """Below it the level is lost: halfway between chance and `best`, at most the threshold."""
        return min((self.chance + self.best) / 2, self.threshold)

    @property
    def kept(self) -> float:
        """Share of the rows from `row` on that are near the best level."""
        return float((self.curve.values[self.row :] >= self.threshold).mean())

    @property
    def unseen(self) -> bool:
        """Whether the log never shows it below three quarters of its level before `row`."""
        before = self.curve.values[: self.row]
        high = len(before) > 0 and bool((before >= UNLEARNED * self.best).all())
        return high or self.curve.cannot_date(self.row)

    @property
    def before(self) -> Step:
        """The last step before `row`, or before a touch of the level close by; 0 without one."""
        near = max(self.row - 2 * self.curve.hold(), 0)
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
    # The least value of every row and the `hold` rows after it.
    windows = _following(values, curve.hold(), fill=np.inf).min(axis=1)
    # How much of the log lies near each of these: of its rows, or of its steps where they are wide.
    order = np.argsort(values)
    spans = np.diff(curve.steps, append=curve.steps[-1])[order]
    above = np.searchsorted(values[order], WITHIN * windows)
    of_rows = (n - above) / n
    of_steps = np.append(spans[::-1].cumsum()[::-1], 0)[above] / (spans.sum() or 1)
    at_end = np.arange(n) >= n - 1 - curve.hold()
    best = float(windows[(np.maximum(of_rows, of_steps) >= SHARED) | at_end].max())
    level = Level(curve, chance, best, 0)

    near = values >= level.threshold
    mostly = _following(near, curve.hold(), fill=float(near[-1])).mean(axis=1) > 0.5
    lost = np.append(np.flatnonzero(values < level.lost_below), 2 * n)
    until_lost = lost[np.searchsorted(lost, np.arange(n))] - np.arange(n)
    lasting = near & mostly & (until_lost > max(curve.hold(), SHARED * n))
    row = int(np.argmax(lasting if lasting.any() else curve.held(near)))
    return Level(curve, chance, best, row)


def _following(values: np.ndarray, hold: int, *, fill: float) -> np.ndarray:
    """Every row's value and the `hold` after it, [n, hold + 1]; `fill` after the end."""
    return sliding_window_view(np.append(values, np.full(hold, fill)), hold + 1)


def straying(values: np.ndarray, row: int, threshold: float) -> float:
    r"""How far an accuracy curve is from one that rises up to a row and then holds.

        sqrt((mean squared residual before the row + the same after it) / 2)

    Residuals are those from the nearest non-decreasing curve before the row, and what is missing to
    the threshold from then on. Dips of up to a twentieth of the log, such as slingshots, do not
    count: a running median takes them out, unless so few rows are left that any of them may be
    luck. The deepest time below the threshold is compared with a curve that falls and then rises,
    since what was learned can be lost again.

    >>> round(straying(np.array([0.0, 0.1, 0.0, 1.0, 1.0, 1.0]), 3, 0.95), 3)
    0.029
    >>> round(straying(np.array([0.0, 0.9, 0.2, 1.0, 0.6, 1.0]), 3, 0.95), 3)
    0.202
    """
    few = len(values) - row <= max(HELD_ROWS, HELD_SHARE * len(values))
    width = 1 if few else 2 * round(CALMED * len(values) / 2) + 1
    before, after = (running_median(part, width) for part in (values[:row], values[row:]))
    residuals = (before - _rising(before), _missing(after, threshold))
    return math.sqrt(sum(float((part**2).mean()) for part in residuals if len(part)) / 2)


def _missing(values: np.ndarray, threshold: float) -> np.ndarray:
    """What every row lacks to the threshold; in the deepest dip, to one that falls and rises."""
    below = values < threshold
    missing = np.minimum(values - threshold, 0)
    if not below.any():
        return missing
    deepest = int(np.argmin(values))
    dips, _ = label(below)
    dip = np.flatnonzero(dips == dips[deepest])
    first, last = int(dip[0]), int(dip[-1]) + 1
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


@dataclass(frozen=True)
class Thresholds:
    """Crossings that define `memorization_step` and `grok_step`; losses where no accuracy is.

    They hold for smoothed curves, and have to be held: see `Phases`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> gi.progress.Thresholds()
    Thresholds(train_acc=0.99, test_acc=0.95, train_loss=0.01, test_loss=0.01)
    >>> for share in (0.9, 0.95, 0.99):
    ...     limits = gi.progress.Thresholds(test_acc=share)
    ...     print(share, gi.detect_phases(run.metrics.iloc[::5], thresholds=limits).grok_step)
    0.9 2900
    0.95 3550
    0.99 5050
    """

    train_acc: float = 0.99
    test_acc: float = 0.95
    train_loss: float = 1e-2
    test_loss: float = 1e-2

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = 1 if name.endswith("_acc") else None
            usual = str(getattr(type(self), name))
            found = number(f"threshold {name}", value, most=most, such_as=usual)
            object.__setattr__(self, name, found)


@dataclass(frozen=True)
class Unmirrored:
    """Loss and accuracy on unmirrored test pairs, where they are known.

    `least` and `most` bound the (smoothed) accuracy on every logged row where it was not logged
    itself and the share of mirrored pairs is known. `too_few` says why it decides nothing.
    """

    accuracy: Curve | None
    loss: Curve | None
    least: Curve | None = None
    most: Curve | None = None
    too_few: str | None = None

    def reached(self, threshold: float, step: Step | None) -> tuple[Step | None, Step]:
        """The first step at which a threshold is surely reached, the last (or 0) where it is not.

        `step` is the first one of the curve at which it is held, None for never.
        """
        before: Step = 0
        if self.accuracy is not None and step is not None:
            earlier = self.accuracy.steps[self.accuracy.steps < step]
            before = earlier[-1].item() if len(earlier) else 0
        if self.least is None or self.most is None:
            return step, before
        sure = self.least.first_held(self.least.values >= threshold)
        if sure is not None:
            surely = self.least.step(sure)
            step = surely if step is None else min(step, surely)
        if step is None:
            return None, before
        not_yet = self.most.steps[(self.most.values < threshold) & (self.most.steps < step)]
        return step, max(before, not_yet[-1].item() if len(not_yet) else 0)


def unmirrored_of(
    curves: Curves, run: Run | None, measures: pd.DataFrame | None
) -> Unmirrored | None:
    """What is known of a run's, or a table's, unmirrored test pairs; None where nothing is.

    A run whose task has no mirrors, or whose split nobody knows, has none.
    """
    loss_name, accuracy_name = UNMIRRORED
    found = Unmirrored(curves.get(accuracy_name), curves.get(loss_name))
    if run is None:
        return found if found.accuracy or found.loss else None
    mask = run.train_mask
    if mask is None or bool(mask.all()) or not has_mirrors(run.task):
        return None
    n_test, n = int((~mask).sum()), int(unmirrored_rows(run.task, mask).sum())
    if n < FEWEST_ROWS:
        return Unmirrored(
            None, None,
            too_few=f"of {n_test} test pairs {n} have a mirror that is not trained on either, "
            f"fewer than {FEWEST_ROWS}: whether it generalises or answers mirrors cannot be told",
        )  # fmt: skip
    if found.accuracy is None and measures is not None:
        table = Curves(measures, ())
        found = Unmirrored(table.get(accuracy_name), table.get(loss_name))
    test = curves.smooth("test_acc")
    if found.accuracy is None:
        return None
    if test is None or len(found.accuracy) >= len(test):
        return found
    share = 1 - n / n_test
    least = np.clip((test.values - share) / (1 - share), 0, 1)
    most = np.clip(test.values / (1 - share), 0, 1)
    exact = found.accuracy.values[np.isin(found.accuracy.steps, test.steps)]
    known = np.isin(test.steps, found.accuracy.steps)
    least[known], most[known] = np.maximum(least[known], exact), np.minimum(most[known], exact)
    return replace(found, least=Curve(test.steps, least), most=Curve(test.steps, most))


@dataclass(frozen=True)
class Crossing:
    """The first logged step from which a threshold is held, or why there is none.

    `unseen`: it was crossed in the first row already, perhaps before the log begins.
    """

    step: Step | None
    why: str | None = None
    unseen: bool = False


def crossing(
    accuracy: Curve | None, loss: Curve | None, side: Literal["train", "test"], limits: Thresholds
) -> Crossing:
    """When a side holds its threshold: by its accuracy, by its loss where there is none."""
    if accuracy is not None:
        curve = accuracy.smoothed()
        holds = curve.values >= getattr(limits, f"{side}_acc")
    elif loss is not None:
        curve = loss.smoothed()
        holds = curve.values < getattr(limits, f"{side}_loss")
    else:
        return Crossing(None, f"there is no {side} curve")
    position = curve.first_held(holds)
    if position is None:
        short = f"crossed for a while, and never held for {curve.hold()} rows more"
        return Crossing(None, f"its threshold is {short if holds.any() else 'never crossed'}")
    if curve.cannot_date(position):
        why = f"its threshold is crossed at step {curve.steps[0]} already, the first of the log"
        return Crossing(None, f"{why}: when that came about is not known", unseen=True)
    return Crossing(curve.step(position))


def unmirrored_crossing(
    unmirrored: Unmirrored | None, run: Run | None, limits: Thresholds
) -> Crossing:
    """The same of unmirrored test pairs."""
    if unmirrored is not None:
        if unmirrored.too_few is not None:
            return Crossing(None, unmirrored.too_few)
        found = crossing(unmirrored.accuracy, unmirrored.loss, "test", limits)
        step = found.step
        if unmirrored.accuracy is not None and not found.unseen:
            step, _ = unmirrored.reached(limits.test_acc, step)
        never = "its threshold is not seen to be crossed and held on unmirrored test pairs"
        return Crossing(step, never if step is None else None)
    if run is None:
        return Crossing(None, "there is no curve of unmirrored test pairs")
    if not has_mirrors(run.task):
        return Crossing(None, f"{run.task.title} has no mirrors; grok_step is of all test inputs")
    return Crossing(
        None, "the split is not known, leaves nothing to test on, or only losses were logged"
    )
