"""The label of a run: grokked, steady, memorized, not_learned or undetermined.

Definitions follow Manning-Coe et al. 2025 (arXiv 2502.01739, section 2): t_train and t_test are the
first logged steps within 5 % of the run's own maximum accuracy (Definition 1); a run groks when
t_test - t_train > t_train (Definition 2). Their definition would also call a run grokked that never
generalises, so generalisation is asked for first. All curves are smoothed by a running median
before, so that no single row decides.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from grokinterp.progress.curves import CURVES, Curve, Curves

Label = Literal["grokked", "steady", "memorized", "not_learned", "undetermined"]
LABELS: tuple[Label, ...] = ("grokked", "steady", "memorized", "not_learned", "undetermined")
WITHIN = 0.95  # of the run's own maximum accuracy
FITS = 0.99  # train accuracy of a run that has memorised


@dataclass(frozen=True)
class Margin:
    """The distance of a label from another one, in logging intervals.

    `intervals` is the number of logged rows by which the crossing that decides would have to come
    earlier or later for the label to be another, all else as it is; None where no crossing decides.
    `meaning` says which crossing and where. It is a distance on the plot and no probability: it
    does not show how noisy the rows are, nor how far a value is from its threshold.
    """

    intervals: int | None
    meaning: str
    unit: Literal["logging intervals"] = "logging intervals"

    def reason(self) -> str:
        """The distance in words."""
        if self.intervals is None:
            return f"the distance from another label is null: {self.meaning}"
        rows = "row" if self.intervals == 1 else "rows"
        return f"{self.intervals} logged {rows} from another label: {self.meaning}"


@dataclass(frozen=True)
class Verdict:
    """A label with its distance from another and the reasons for both; the times of Definition 1.

    `t_train` and `t_test` say when a run came near its own best, which need not be good.
    """

    label: Label
    margin: Margin
    reasons: tuple[str, ...]
    t_train: int | None = None
    t_test: int | None = None


def _verdict(label: Label, reason: str, margin: Margin, *more: str) -> Verdict:
    return Verdict(label, margin, (reason, margin.reason(), *more))


@dataclass(frozen=True)
class _Side:
    """Train or test: the steps of its log, and the first row (or None) of each stage."""

    steps: np.ndarray
    halfway: int | None
    fits: int | None
    learned: int | None

    def step(self, row: int) -> int:
        return int(self.steps[row])

    @property
    def learned_step(self) -> int | None:
        return None if self.learned is None else self.step(self.learned)


@dataclass(frozen=True)
class _Evidence:
    """Both sides, and in words: the best values, what was missed, what "learned" means."""

    train: _Side
    test: _Side
    generalises: bool
    reached: str
    missed: str
    learned: str
    collapse: tuple[str, ...]


def label_of(
    curves: Curves, *, train_loss_below: float, test_loss_below: float, ceiling: float = 1.0
) -> Verdict:
    """The label of cleaned curves; accuracies decide where there are any, otherwise losses.

    `ceiling` is the best test accuracy that the task allows.
    """
    train, test = curves.get("train_acc"), curves.get("test_acc")
    if train is not None and test is not None:
        return _decide(_from_accuracies(train.smoothed(), test.smoothed(), ceiling))
    train, test = curves.get("train_loss"), curves.get("test_loss")
    if train is not None and test is not None:
        verdict = _decide(
            _from_losses(train.smoothed(), test.smoothed(), train_loss_below, test_loss_below)
        )
        note = (
            f"no accuracies: learned means train loss below {train_loss_below:g} and test loss "
            f"below {test_loss_below:g}"
        )
        return replace(verdict, reasons=(*verdict.reasons, note))
    found = ", ".join(column for column in CURVES if curves.get(column) is not None) or "nothing"
    reason = f"a label compares train with test, by accuracies or by losses; there is only {found}"
    return _verdict("undetermined", reason, Margin(None, "there is nothing to compare"))


def _from_accuracies(train: Curve, test: Curve, ceiling: float) -> _Evidence:
    best_train, best_test = float(train.values.max()), float(test.values.max())
    # A log that starts later does not show the accuracy of chance, which is small.
    chance = float(train.values[0]) if train.steps[0] == 0 else 0.0
    halfway = (1 + chance) / 2
    demanded = WITHIN * min(best_train, ceiling)
    generalises = best_test >= demanded

    def side(curve: Curve, best: float) -> _Side:
        return _Side(
            curve.steps,
            curve.first(curve.values >= halfway),
            curve.first(curve.values >= FITS),
            curve.first(curve.values >= WITHIN * best),
        )

    return _Evidence(
        side(train, best_train),
        side(test, best_test),
        generalises,
        f"test accuracy reaches {best_test:.3f} (halfway from chance is {halfway:.3f}, "
        f"generalising {demanded:.3f}), train accuracy {best_train:.3f} (fitting is "
        f"{FITS:g})",
        f"train accuracy never exceeds {best_train:.3f}, less than {halfway:.3f}, half of the way "
        f"from chance ({chance:.3f}) to 1",
        "within 5 % of the run's own maximum accuracy",
        _collapse(test, test.values >= best_test / 2, "test accuracy collapses"),
    )


def _from_losses(train: Curve, test: Curve, train_below: float, test_below: float) -> _Evidence:
    def side(curve: Curve, below: float) -> _Side:
        learned = curve.first(curve.values < below)
        return _Side(curve.steps, curve.first(_halved(curve, below)), learned, learned)

    best_train, best_test = float(train.values.min()), float(test.values.min())
    seen = side(test, test_below)
    return _Evidence(
        side(train, train_below),
        seen,
        seen.learned is not None,
        f"test loss falls to {best_test:.3g} (halfway is {test.values[0] / 2:.3g}, learned "
        f"{test_below:g}), train loss to {best_train:.3g} (learned is {train_below:g})",
        f"train loss never falls below half of its first value ({best_train:.3g} of "
        f"{train.values[0]:.3g})",
        "below its loss threshold",
        _collapse(test, _halved(test, test_below), "test loss rises to where it began"),
    )


def _halved(curve: Curve, below: float) -> np.ndarray:
    """Where a loss is at most half of its first value, or already below its threshold."""
    halved: np.ndarray = (curve.values <= curve.values[0] / 2) | (curve.values < below)
    return halved


def _decide(seen: _Evidence) -> Verdict:
    verdict = _labelled(seen)
    return replace(verdict, t_train=seen.train.learned_step, t_test=seen.test.learned_step)


def _labelled(seen: _Evidence) -> Verdict:
    train, test = seen.train, seen.test
    if train.halfway is None:
        rows = f"no crossing decides, on any of {len(train.steps)} logged rows"
        return _verdict("not_learned", seen.missed, Margin(None, rows))
    if seen.generalises and train.learned is not None and test.learned is not None:
        return _by_delay(seen, train.learned, test.learned)
    if train.fits is not None and test.halfway is None:
        margin = _held(train, train.fits, "train is fitted")
        return _verdict(
            "memorized", f"{seen.reached}: it fits train and does not generalise", margin
        )
    fitted, half = train.fits, test.halfway
    if fitted is not None and half is not None and test.step(half) > train.step(fitted):
        margin = _held(test, half, "test is half learned")  # before, it had only memorised
    else:
        margin = _held(train, train.halfway, "train is half learned")
    return _verdict(
        "undetermined", f"{seen.reached}: it generalises in part, or the run was cut off", margin
    )


def _by_delay(seen: _Evidence, first: int, second: int) -> Verdict:
    """Definition 2; "grokked" only where the spacing of the log leaves no doubt."""
    train, test = seen.train, seen.test
    t_train, t_test = train.step(first), test.step(second)
    before_train = train.step(first - 1) if first else 0
    facts = f"train is {seen.learned} from step {t_train} on, test from step {t_test} on"
    limit = 2 * t_train
    twice = f"step {limit}, twice the time to learn train"
    if second == 0 and (first == 0 < t_train or t_test > limit):
        reason = f"{facts}, the first of its log: what came before is not known"
        margin = Margin(None, "test is learned before its log begins")
        return _verdict("undetermined", reason, margin, *seen.collapse)
    if second and test.step(second - 1) >= limit and t_test > t_train:
        factor = (t_test - t_train) / max(t_train, 1)
        after = second - int(np.searchsorted(test.steps, limit))
        left = len(test.steps) - second
        margin = Margin(
            min(after, left),
            f"test is learned {after} rows after {twice}, and {left} rows before the log ends",
        )
        reason = f"{facts}: a delay of {factor:.3g} times the time to learn train"
        return _verdict("grokked", reason, margin, *seen.collapse)
    if t_test <= limit:
        margin = Margin(
            int(np.searchsorted(test.steps, limit, side="right")) - second,
            f"so many rows later test would not be learned by {twice}",
        )
        reason = f"{facts}: the delay is no longer than the time to learn train"
        doubt = (
            f"steady as logged: train may have been learned soon after step {before_train}, which "
            "would make the delay the longer one; log more often to be certain",
        )
        more = doubt if t_test - before_train > before_train else ()
        return _verdict("steady", reason, margin, *more, *seen.collapse)
    reason = (
        f"{facts}: between logged steps the delay could be longer or shorter than the time to "
        "learn train; log more often there"
    )
    margin = Margin(1, f"{twice}, lies between the row where test is learned and the one before")
    return _verdict("undetermined", reason, margin, *seen.collapse)


def _held(side: _Side, row: int, event: str) -> Margin:
    """The distance of a label that rests on one crossing: the rows since then."""
    rows = len(side.steps) - row
    return Margin(rows, f"{event} from step {side.step(row)} on, so many rows before the log ends")


def _collapse(test: Curve, fine: np.ndarray, what: str) -> tuple[str, ...]:
    """A reason when what was learned is lost again to the end; the label keeps what was reached."""
    held = np.flatnonzero(fine)
    if len(held) == 0 or held[-1] == len(test) - 1:
        return ()
    row = held[-1] + 1
    return (
        f"{what} at step {test.steps[row]}, to {test.values[-1]:.3g} at the end "
        f"({len(test) - row} logged rows)",
    )
