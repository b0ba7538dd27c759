"""Phase boundaries: the bends of the loss curves.

Each curve is taken in the log and smoothed without a tuned width: a running median against single
spikes, leaving out rises that are made good again, and an isotonic fit, which knows nothing but
that the curve falls. It is bent where it lies furthest from a chord. There is nothing to set for a
run.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from grokinterp.progress.curves import Curve

TENFOLD = np.log(10.0)  # a rise of this much is a spike when it is made good, a loss when not
MAD = 1.4826  # median absolute deviation to standard deviation, of normal noise
SETTLED = 0.25  # cleanup is over when the test curve falls at most this much as fast as before
FLAT = 0.95  # steps whose distance from the chord is within 5 % of the largest are as good a bend


@dataclass(frozen=True)
class Bend:
    """A boundary: its step, and the interval in which the curve cannot tell it from another."""

    step: int
    interval: tuple[int, int]


@dataclass(frozen=True)
class _Fall(Curve):
    """A falling log curve, and the scatter of the logged rows about it (nats of the logarithm)."""

    scatter: float


@dataclass(frozen=True)
class Boundaries:
    """The three boundaries of a delayed generalisation, each None with a reason in `reasons`."""

    memorization_end: Bend | None
    cleanup_start: Bend | None
    cleanup_end: Bend | None
    reasons: tuple[str, ...]


def find_boundaries(train: Curve | None, test: Curve) -> Boundaries:
    """Date the bends of (positive) train and test curves that fall, the test curve later.

    With y the smoothed log test curve from its peak on and G the first step at half of its log
    drop: cleanup starts at the largest distance of y above the chord from the peak to G, and ends
    at the largest distance below the chord from G to G + 3 (G - start) (or the last step), if the
    curve falls at most a quarter as fast from there on.
    Memorisation ends at the largest distance of the log train curve below its chord over
    [first step, start of cleanup].

    Rows tenfold above the least loss so far are left out (slingshots and late spikes). An interval
    holds all steps whose distance from the chord is within 5 % of the largest, or within the
    scatter of the rows about the fit, and the logged step on either side. It shows how flat and how
    noisy the bend is, not how another definition of a bend would date it.
    """
    reasons = []
    until = _before_lasting_rise(test)
    if until < test.steps[-1]:
        reasons.append(
            f"test loss rises again for good after step {until}: the boundaries are those of the "
            "curves up to there"
        )
    smooth = _falling_log(_up_to(test, until), from_peak=True)
    if len(smooth) < 4:
        return Boundaries(None, None, None, (*reasons, "too few logged steps to show a bend"))
    half = (smooth.values[0] + smooth.values[-1]) / 2
    middle = int(np.argmax(smooth.values <= half))
    if middle < 2:
        reasons.append("the test curve falls too fast for its logged steps to show a bend")
        return Boundaries(None, None, None, tuple(reasons))
    start = _even_bend(smooth, 0, middle, above=True)
    end, why_open = _cleanup_end(smooth, start, middle, test.steps)
    if why_open:
        reasons.append(why_open)
    memorized = None
    if train is None:
        reasons.append("no train curve: the end of memorisation is not dated")
    else:
        memorized = memorization_bend(_up_to(train, start.step))
        if memorized is None:
            reasons.append("too few logged steps before cleanup to date the end of memorisation")
    return Boundaries(memorized, start, end, tuple(reasons))


def memorization_bend(train: Curve) -> Bend | None:
    """Where a train curve is furthest below its chord; None with too few steps."""
    fall = _falling_log(train, from_peak=False)
    return _even_bend(fall, 0, len(fall) - 1, above=False) if len(fall) >= 3 else None


def error_curve(accuracy: Curve) -> Curve:
    """1 - accuracy, with half of the smallest error seen in place of 0, which has no logarithm."""
    error = 1 - accuracy.values
    positive = error[error > 0]
    floor = positive.min() / 2 if len(positive) else 0.5
    return Curve(accuracy.steps, np.maximum(error, floor))


def _cleanup_end(
    smooth: _Fall, start: Bend, middle: int, logged: np.ndarray
) -> tuple[Bend | None, str | None]:
    """The bend after which the fall is over, or why there is none yet."""
    span = smooth.steps[middle] + 3 * (smooth.steps[middle] - start.step)
    last = int(np.searchsorted(smooth.steps, span, side="right")) - 1
    if last - middle < 2:
        return None, "cleanup is still open: the log ends in the middle of the fall"
    end = _bend(smooth, middle, last, above=False)
    if (logged > end.step).sum() < 3:
        return None, "cleanup is still open: fewer than three logged steps follow its last bend"
    before = _slope(smooth, start.step, end.step)
    after = _slope(smooth, end.step, int(smooth.steps[last]))
    if after > SETTLED * before:
        return None, (
            f"cleanup is still open: after its last bend at {end.step} the test curve falls "
            f"{after / before:.2g} times as fast as before, more than {SETTLED:g}"
        )
    if smooth.steps[-1] < span:  # a longer log could still move the bend to a later step
        end = Bend(end.step, (end.interval[0], int(smooth.steps[-1])))
    return end, None


def _slope(smooth: Curve, first: int, last: int) -> float:
    """Mean fall per step between two steps."""
    high, low = np.interp([first, last], smooth.steps, smooth.values)
    return float((high - low) / (last - first))


def _before_lasting_rise(curve: Curve) -> int:
    """The last step before a rise that is not made good again; the last step when there is none."""
    smooth = _median_log(curve)
    low = smooth.values <= smooth.values.min() + TENFOLD if len(smooth) else np.array([])
    if len(low) == 0 or low[-1]:
        return int(curve.steps[-1])
    return int(smooth.steps[np.flatnonzero(low)[-1]])


def _up_to(curve: Curve, step: int) -> Curve:
    kept = curve.steps <= step
    return Curve(curve.steps[kept], curve.values[kept])


def _falling_log(curve: Curve, *, from_peak: bool) -> _Fall:
    """The nearest non-increasing curve to the smoothed log of a curve (from its peak on)."""
    smooth = _median_log(curve)
    if len(smooth) == 0:
        return _Fall(smooth.steps, smooth.values, 0.0)
    calm = ~_spikes(smooth.values)
    steps, values = smooth.steps[calm], smooth.values[calm]
    first = int(np.argmax(values)) if from_peak else 0
    fit = isotonic_regression(values[first:], increasing=False).x
    rows = np.isin(curve.steps, steps[first:])
    scatter = MAD * np.median(np.abs(np.log(curve.values[rows]) - fit))
    return _Fall(steps[first:], fit, float(scatter))


def _spikes(logs: np.ndarray) -> np.ndarray:
    """Rows tenfold above the least loss so far, once that is tenfold below the first.

    A curve that falls for good has none; the rise to the peak of a test curve is none.
    """
    least = np.minimum.accumulate(logs)
    spikes: np.ndarray = (logs > least + TENFOLD) & (least < logs[0] - TENFOLD)
    return spikes


def _median_log(curve: Curve) -> Curve:
    """Log of the positive part of a curve, with single spikes taken out."""
    positive = curve.values > 0
    return Curve(curve.steps[positive], np.log(curve.values[positive])).smoothed()


def _even_bend(curve: _Fall, first: int, last: int, *, above: bool) -> Bend:
    """The bend of [first, last], its interval reaching to that of a chord with two equal sides.

    A rounded bend is furthest from the chord where the curve is parallel to it, and a long piece on
    one side makes the chord parallel to that piece: the bend is then found on that side of the
    joint. Between two equal pieces the parallel is in the middle.
    """
    bend = _bend(curve, first, last, above=above)
    side = min(bend.step - int(curve.steps[first]), int(curve.steps[last]) - bend.step)
    near = np.searchsorted(curve.steps, [bend.step - side, bend.step + side])
    even = _bend(curve, int(near[0]), int(near[1]), above=above)
    low, high = zip(bend.interval, even.interval, strict=True)
    return Bend(bend.step, (min(low), max(high)))


def _bend(curve: _Fall, first: int, last: int, *, above: bool) -> Bend:
    """The position in [first, last] furthest above (or below) the chord between the two ends.

    As good are the positions whose distance from the chord is within 5 % of the largest, or within
    the scatter of the rows.
    """
    steps = curve.steps[first : last + 1].astype(float)
    values = curve.values[first : last + 1]
    chord = np.interp(steps, steps[[0, -1]], values[[0, -1]])
    distance = values - chord if above else chord - values
    position = int(np.argmax(distance))
    best = distance[position]
    good = first + np.flatnonzero(distance >= best - max((1 - FLAT) * best, curve.scatter))
    earliest, latest = curve.neighbours(int(good[0]))[0], curve.neighbours(int(good[-1]))[1]
    return Bend(int(steps[position]), (earliest, latest))
