"""Phase boundaries: the bends of the loss curves, each with an interval of steps as good.

Each curve is taken in the log and smoothed without a tuned width: a running median against single
spikes, leaving out rises that are made good again, and an isotonic fit, which knows nothing but
that the curve falls. It is bent where it lies furthest from a chord. Nothing is set by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from grokinterp.progress.curves import Curve, Curves, Step
from grokinterp.progress.levels import Crossing

TENFOLD = np.log(10.0)  # a rise of this much is a spike when it is made good, a loss when not
MAD = 1.4826  # median absolute deviation to standard deviation, of normal noise
ORDER = 3  # of the differences between neighbouring rows that measure their noise
SETTLED = 0.25  # cleanup is over when the test curve falls at most this much as fast as before
FLAT = 0.95  # steps whose distance from the chord is within 5 % of the largest are as good a bend
ERROR = 0.01  # of a row of losses, at the least: an interval is to hold what 1 % of noise moves
NO_BEND = "has no bend that stands out from the error of its rows"
BOUNDARIES = {
    "memorization_end": "end of memorisation",
    "cleanup_start": "start of cleanup",
    "cleanup_end": "end of cleanup",
}
FROM_START = {  # why these are null where the start of cleanup is
    "cleanup_end": "it is measured from the start of cleanup",
    "memorization_end": "it is looked for before cleanup",
}


@dataclass(frozen=True)
class Bend:
    """A boundary: its step, and the interval of the steps that are as good a bend."""

    step: Step
    interval: tuple[Step, Step]


@dataclass(frozen=True)
class _Fall(Curve):
    """A falling log curve, and the scatter of the logged rows about it (nats of the logarithm)."""

    scatter: float


@dataclass(frozen=True)
class Boundaries:
    """The three boundaries of a delayed generalisation, each None with a reason in `reasons`."""

    memorization_end: Bend | None = None
    cleanup_start: Bend | None = None
    cleanup_end: Bend | None = None
    reasons: tuple[str, ...] = ()

    def without(self, why: Mapping[str, str]) -> "Boundaries":
        """The same with some of them null, each for its reason."""
        said = (f"{BOUNDARIES[name]} is null: {reason}" for name, reason in why.items())
        nulled: dict[str, Any] = dict.fromkeys(why)
        return replace(self, **nulled, reasons=(*self.reasons, *said))


def boundaries_of(curves: Curves, memorized: Crossing, grokked: Step | None) -> Boundaries:
    """The bends of the losses of a run that grokked, of the errors without any.

    Those that the log may miss, and those that contradict the order of events, are null.
    """
    train, test = curves.get("train_loss"), curves.get("test_loss")
    rises, why = "test loss rises again", tuple[str, ...]()
    if test is None:
        rises = "test accuracy falls"
        why = ("accuracy dates cleanup early, when answers turn right, not when they are sure",)
        test = error_curve(curves.get("test_acc"))
    train = error_curve(curves.get("train_acc")) if train is None else train
    assert test is not None  # one that grokked has a test curve
    dated = find_boundaries(train, test, test_rises=rises)
    missed = []
    begin = curves.log.step(0)
    for name in BOUNDARIES if curves.log.starts_late else ():
        bend = getattr(dated, name)
        unseen = name == "memorization_end" and memorized.unseen
        if bend is not None and (bend.interval[0] <= begin or unseen):
            missed.append(name)
    late = f"the log begins at step {begin}, and it may have been before that"
    dated = replace(dated, reasons=(*why, *dated.reasons)).without(dict.fromkeys(missed, late))
    return _in_order(dated, memorized.step, grokked)


def _in_order(dated: Boundaries, memorized: Step | None, grokked: Step | None) -> Boundaries:
    """Null every boundary that contradicts the order of events, with the reason."""
    start = None if dated.cleanup_start is None else dated.cleanup_start.step
    for name, relation, other, step in (
        ("cleanup_start", "after", "grok_step", grokked),
        ("cleanup_end", "before", "grok_step", grokked),
        ("memorization_end", "before", "memorization_step", memorized),
        ("memorization_end", "after", "the start of cleanup", start),
    ):
        bend = getattr(dated, name)
        if bend is None or step is None or bend.step == step:
            continue
        if (bend.step > step) != (relation == "after"):
            continue
        why = {name: f"its bend at {bend.step} is {relation} {other} ({step})"}
        if name == "cleanup_start":
            why |= {each: reason for each, reason in FROM_START.items() if getattr(dated, each)}
        dated = dated.without(why)
    return dated


def find_boundaries(train: Curve | None, test: Curve, *, test_rises: str) -> Boundaries:
    """Date the bends of (positive) train and test curves that fall, the test curve later.

    With y the smoothed log test curve from its peak on and G the first step at half of its log
    drop: cleanup starts at the largest distance of y above the chord from the peak to G, and ends
    at the largest distance below the chord from G to G + 3 (G - start) (or the last step), if the
    curve falls at most a quarter as fast from there on. Where y lies further below the chord from
    the peak to G than above, the curve falls twice: the peak is then that lowest step, and G is
    taken anew from there. Memorisation ends at the largest distance of the log train curve below
    its chord over [first step, start of cleanup]. `test_rises` names a rise of the test curve.

    An interval holds all steps whose distance from the chord is within a tolerance of the largest,
    and the logged step on either side. The tolerance is 5 % of the largest distance, or where that
    is more the error of a difference of two rows, sqrt(2) times that of one: the most of 1 %, its
    scatter about the fit, and that about its neighbours. A bend no further from its chord than that
    error is null: the ends of the chord would be as good.

    Measured by `python -m tests.intervals`, with 1 % noise on the losses, half of the rows or every
    fifth: the step found on the whole log lies in the interval found on the disturbed one in all of
    50 tries on each shipped run, and for each boundary in 97 % or more of 10 tries on each of 120
    synthetic curves. Not covered: another definition of a bend, and another seed of the run.
    """
    reasons: list[str] = []
    until = _before_lasting_rise(test)
    if until < test.steps[-1]:
        reasons.append(
            f"{test_rises} for good after step {until}: the boundaries are those of the "
            "curves up to there"
        )
    smooth = _falling_log(test.up_to(until), from_peak=True)
    if len(smooth) < 4:
        return Boundaries(reasons=(*reasons, "too few logged steps to show a bend"))
    first, middle = _last_fall(smooth)
    if middle - first < 2:
        why = "the test curve falls too fast for its logged steps to show a bend"
        return Boundaries(reasons=(*reasons, why))
    start = _even_bend(smooth, first, middle, above=True)
    if start is None:
        nulled = {"cleanup_start": f"the test curve {NO_BEND}", **FROM_START}
        return Boundaries(reasons=tuple(reasons)).without(nulled)
    end, why_open = _cleanup_end(smooth, start, middle, test.steps)
    if why_open:
        reasons.append(why_open)
    memorized = None
    if train is None:
        reasons.append("no train curve: the end of memorisation is not dated")
    else:
        before = train.up_to(start.step)
        memorized = memorization_bend(before)
        if memorized is None:
            why = "there are too few logged steps" if len(before) < 3 else f"train {NO_BEND}"
            reasons.append(f"end of memorisation is null: before cleanup {why}")
    return Boundaries(memorized, start, end, tuple(reasons))


def memorization_bend(train: Curve) -> Bend | None:
    """Where a train curve is furthest below its chord; None with too few steps, or no bend."""
    fall = _falling_log(train, from_peak=False)
    return _even_bend(fall, 0, len(fall) - 1, above=False) if len(fall) >= 3 else None


def error_curve(accuracy: Curve | None) -> Curve | None:
    """1 - accuracy, with half of the smallest error seen in place of 0, which has no logarithm."""
    if accuracy is None:
        return None
    error = 1 - accuracy.values
    positive = error[error > 0]
    floor = positive.min() / 2 if len(positive) else 0.5
    return Curve(accuracy.steps, np.maximum(error, floor))


def _last_fall(smooth: _Fall) -> tuple[int, int]:
    """Positions where the fall that comes late begins, and where it is half done."""
    middle = _half_way(smooth, 0)
    over = _over_chord(smooth, 0, middle)
    if -over.min() <= over.max():
        return 0, middle
    first = int(np.argmin(over))
    return first, _half_way(smooth, first)


def _half_way(smooth: _Fall, first: int) -> int:
    return int(np.argmax(smooth.values <= (smooth.values[first] + smooth.values[-1]) / 2))


def _over_chord(curve: Curve, first: int, last: int) -> np.ndarray:
    """Distance of [first, last] above the chord between the two ends (below: negative)."""
    steps = curve.steps[first : last + 1].astype(float)
    values = curve.values[first : last + 1]
    over: np.ndarray = values - np.interp(steps, steps[[0, -1]], values[[0, -1]])
    return over


def _cleanup_end(
    smooth: _Fall, start: Bend, middle: int, logged: np.ndarray
) -> tuple[Bend | None, str | None]:
    """The bend after which the fall is over, or why there is none yet."""
    span = smooth.steps[middle] + 3 * (smooth.steps[middle] - start.step)
    last = int(np.searchsorted(smooth.steps, span, side="right")) - 1
    if last - middle < 2:
        return None, "cleanup is still open: the log ends in the middle of the fall"
    end = _bend(smooth, middle, last, above=False)
    if end is None:
        return None, f"cleanup is still open: after half of its fall the test curve {NO_BEND}"
    if (logged > end.step).sum() < 3:
        return None, "cleanup is still open: fewer than three logged steps follow its last bend"
    steps = np.array([start.step, end.step, smooth.steps[last]], float)
    before, after = -np.diff(np.interp(steps, smooth.steps, smooth.values)) / np.diff(steps)
    if after > SETTLED * before:
        return None, (
            f"cleanup is still open: after its last bend at {end.step} the test curve falls "
            f"{after / before:.2g} times as fast as before, more than {SETTLED:g}"
        )
    if smooth.steps[-1] < span:  # a longer log could still move the bend to a later step
        end = Bend(end.step, (end.interval[0], smooth.step(-1)))
    return end, None


def _before_lasting_rise(curve: Curve) -> Step:
    """The last step before a rise that is not made good again; the last step when there is none."""
    smooth = _median_log(curve)
    low = smooth.values <= smooth.values.min() + TENFOLD if len(smooth) else np.array([])
    if len(low) == 0 or low[-1]:
        return curve.step(-1)
    return smooth.step(int(np.flatnonzero(low)[-1]))


def _falling_log(curve: Curve, *, from_peak: bool) -> _Fall:
    """The nearest non-increasing curve to the smoothed log of a curve (from its peak on)."""
    smooth = _median_log(curve)
    if len(smooth) == 0:
        return _Fall(smooth.steps, smooth.values, 0.0)
    # Spikes are tenfold above the least loss so far, once that is tenfold below the first.
    least = np.minimum.accumulate(smooth.values)
    calm = (smooth.values <= least + TENFOLD) | (least >= smooth.values[0] - TENFOLD)
    steps, values = smooth.steps[calm], smooth.values[calm]
    first = int(np.argmax(values)) if from_peak else 0
    fit = isotonic_regression(values[first:], increasing=False).x
    rows = np.isin(curve.steps, steps[first:])
    logs = np.log(curve.values[rows])
    scatter = max(MAD * float(np.median(np.abs(logs - fit))), _noise(steps[first:], logs))
    return _Fall(steps[first:], fit, scatter)


def _noise(steps: np.ndarray, logs: np.ndarray) -> float:
    """Standard deviation of rows about a smooth curve, from third differences of neighbours.

    They vanish on every parabola, and their median does not see a few spikes (after Gasser, Sroka
    and Jennen-Steinmetz 1986, who take second differences); an isotonic fit would pass through the
    rows of a steep curve, however noisy they are.

    >>> steps = np.arange(2000)
    >>> noisy = np.random.default_rng(0).normal(-0.5 * steps, 0.1)
    >>> round(_noise(steps, -0.5 * steps), 3), round(_noise(steps, noisy), 2)
    (0.0, 0.1)
    """
    if len(steps) <= ORDER:
        return 0.0
    at = np.lib.stride_tricks.sliding_window_view(steps.astype(float), ORDER + 1)
    gaps = at[:, :, None] - at[:, None, :] + np.eye(ORDER + 1)
    weights = 1 / gaps.prod(axis=2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    near = np.lib.stride_tricks.sliding_window_view(logs, ORDER + 1)
    return MAD * float(np.median(np.abs((weights * near).sum(axis=1))))


def _median_log(curve: Curve) -> Curve:
    """Log of the positive part of a curve, with single spikes taken out."""
    positive = curve.values > 0
    return Curve(curve.steps[positive], np.log(curve.values[positive])).smoothed()


def _even_bend(curve: _Fall, first: int, last: int, *, above: bool) -> Bend | None:
    """The bend of [first, last], its interval reaching to that of a chord with two equal sides.

    A long piece on one side of a rounded bend draws the bend to that side of the joint.
    """
    bend = _bend(curve, first, last, above=above)
    if bend is None:
        return None
    side = min(bend.step - curve.step(first), curve.step(last) - bend.step)
    near = np.searchsorted(curve.steps, [bend.step - side, bend.step + side])
    even = _bend(curve, int(near[0]), int(near[1]), above=above) or bend
    low, high = zip(bend.interval, even.interval, strict=True)
    return Bend(bend.step, (min(low), max(high)))


def _bend(curve: _Fall, first: int, last: int, *, above: bool) -> Bend | None:
    """The bend in [first, last], furthest from the chord; None where its ends are as good."""
    over = _over_chord(curve, first, last)
    distance = over if above else -over
    position = int(np.argmax(distance))
    best = distance[position]
    noise = np.sqrt(2) * max(curve.scatter, ERROR)
    if best <= noise:
        return None
    good = first + np.flatnonzero(distance >= best - max((1 - FLAT) * best, noise))
    earliest, latest = max(int(good[0]) - 1, 0), min(int(good[-1]) + 1, len(curve) - 1)
    return Bend(curve.step(first + position), (curve.step(earliest), curve.step(latest)))
