"""The label of a run: grokked, steady, memorized, not_learned or undetermined.

Definitions follow Manning-Coe et al. 2025 (arXiv 2502.01739, section 2): t_train and t_test are the
first logged steps within 5 % of the run's own maximum accuracy (Definition 1); a run groks when
t_test - t_train > t_train (Definition 2). Their definition would also call a run grokked that never
generalises, so generalisation is asked for first, and where test pairs have mirrors it is asked of
those whose mirror is not trained on. All curves are smoothed by a running median before, and a
level counts when it is held, so that no single row and no burst of luck decides
(`grokinterp.progress.levels`).
"""

from dataclasses import dataclass, replace
from typing import Literal

from grokinterp.progress.curves import CURVES, Curves
from grokinterp.progress.evidence import Evidence, Side, from_accuracies, from_losses
from grokinterp.progress.logged_steps import Step
from grokinterp.progress.unmirrored import Unmirrored

Label = Literal["grokked", "steady", "memorized", "not_learned", "undetermined"]
LABELS: tuple[Label, ...] = ("grokked", "steady", "memorized", "not_learned", "undetermined")


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

    `t_train` and `t_test` say when a run came near its own best, which need not be good; None where
    that was never or before the log begins.
    """

    label: Label
    margin: Margin
    reasons: tuple[str, ...]
    t_train: Step | None = None
    t_test: Step | None = None


def _verdict(label: Label, reason: str, margin: Margin, *more: str) -> Verdict:
    return Verdict(label, margin, (reason, margin.reason(), *more))


def label_of(
    curves: Curves,
    *,
    train_loss_below: float,
    test_loss_below: float,
    ceiling: float = 1.0,
    unmirrored: Unmirrored | None = None,
) -> Verdict:
    """The label of cleaned curves; accuracies decide where there are any, otherwise losses.

    `ceiling` is the best test accuracy that the task allows. With `unmirrored`, test stands for the
    test pairs whose mirror is not trained on.
    """
    train, test = curves.smooth("train_acc"), curves.smooth("test_acc")
    if train is not None and test is not None:
        if unmirrored is not None and unmirrored.too_few is not None:
            return _without_unmirrored(from_accuracies(train, test, ceiling, None), unmirrored)
        return _decide(from_accuracies(train, test, ceiling, unmirrored))
    train, test = curves.smooth("train_loss"), curves.smooth("test_loss")
    if train is not None and test is not None:
        which = "test"
        if unmirrored is not None and unmirrored.loss is not None:
            which, test = "unmirrored test", unmirrored.loss.smoothed()
        verdict = _decide(from_losses(train, test, train_loss_below, test_loss_below, which))
        lacking = [side for side in ("train", "test") if curves.get(f"{side}_acc") is None]
        missing = "no accuracies" if len(lacking) == 2 else f"no {lacking[0]} accuracy"
        note = (
            f"{missing}: learned means train loss below {train_loss_below:g} and {which} loss "
            f"below {test_loss_below:g}"
        )
        return replace(verdict, reasons=(*verdict.reasons, note))
    found = ", ".join(column for column in CURVES if curves.get(column) is not None)
    there = f"there is only {found}" if found else "there is neither"
    reason = f"a label compares train with test, by accuracies or by losses; {there}"
    return _verdict("undetermined", reason, Margin(None, "there is nothing to compare"))


def _without_unmirrored(seen: Evidence, unmirrored: Unmirrored) -> Verdict:
    """The label where too few test pairs are free of mirrors to judge generalisation by.

    What does not even answer the mirrored ones has not generalised; the rest cannot be told.
    """
    verdict = _decide(seen)
    if verdict.label in ("memorized", "not_learned"):
        return verdict
    margin = Margin(None, "no crossing could tell")
    told = _verdict("undetermined", f"{unmirrored.too_few}; {seen.reached}", margin, *seen.history)
    return replace(told, t_train=verdict.t_train, t_test=verdict.t_test)


def _decide(seen: Evidence) -> Verdict:
    verdict = _labelled(seen)
    return replace(
        verdict,
        reasons=(*verdict.reasons, *seen.history),
        t_train=seen.train.date,
        t_test=seen.test.date,
    )


def _labelled(seen: Evidence) -> Verdict:
    train, test = seen.train, seen.test
    if train.halfway is None:
        rows = f"no crossing decides, on any of {len(train.steps)} logged rows"
        return _verdict("not_learned", seen.missed, Margin(None, rows))
    if seen.noise is not None:
        return _verdict("undetermined", seen.noise, Margin(None, "no level is held"))
    if seen.generalises and train.learned is not None and test.learned is not None:
        if seen.together is not None:
            return _verdict("steady", seen.together, Margin(None, "no crossing decides"))
        return _by_delay(seen, train.learned, test.learned)
    if train.fits is not None and test.halfway is None:
        margin = _held(train, train.fits, "train is fitted")
        return _verdict(
            "memorized", f"{seen.reached}: it fits train and does not generalise", margin
        )
    fitted, half = train.fits, test.halfway
    if fitted is not None and half is not None and half > fitted:
        margin = _held(test, half, "test is half learned")  # before, it had only memorised
    else:
        margin = _held(train, train.halfway, "train is half learned")
    if half is None:
        words = f"{seen.fitted} and does not generalise"
    elif seen.generalises:
        words = f"it generalises, and {seen.fitted}"
    else:
        words = "it generalises in part"
    return _verdict("undetermined", f"{seen.reached}: {words}, or the run was cut off", margin)


def _by_delay(seen: Evidence, t_train: Step, t_test: Step) -> Verdict:
    """Definition 2; "grokked" only where the spacing of the log leaves no doubt."""
    train, test = seen.train, seen.test
    facts = f"train is {seen.learned} from step {t_train} on, test from step {t_test} on"
    limit = 2 * t_train
    twice = f"step {limit}, twice the time to learn train"
    if test.unseen:
        reason = f"{facts}, and the log never shows it unlearned: what came before is not known"
        margin = Margin(None, "test is learned before its log begins")
        return _verdict("undetermined", reason, margin)
    if test.before >= limit and t_test > t_train:
        factor = (t_test - t_train) / (t_train or 1)
        after = test.rows_between(limit, t_test, side="left")
        left = test.rows_from(t_test)
        margin = Margin(
            max(1, min(after, left)),
            f"test is learned {after} rows after {twice}, and {left} rows before the log ends",
        )
        least = "at least " if train.unseen else ""
        reason = f"{facts}: a delay of {least}{factor:.3g} times the time to learn train"
        return _verdict("grokked", reason, margin)
    if train.unseen:
        reason = (
            f"{facts}; the log never shows train unlearned: what came before, how long it took and "
            "whether the delay is longer is not known"
        )
        margin = Margin(None, "train is learned before its log begins")
        return _verdict("undetermined", reason, margin)
    if t_test <= limit:
        margin = Margin(
            max(1, test.rows_between(t_test, limit, side="right")),
            f"so many rows later test would not be learned by {twice}",
        )
        reason = f"{facts}: the delay is no longer than the time to learn train"
        doubt = (
            f"steady as logged: train may have been learned soon after step {train.before}, which "
            "would make the delay the longer one; log more often to be certain",
        )
        more = doubt if t_test - train.before > train.before else ()
        return _verdict("steady", reason, margin, *more)
    reason = (
        f"{facts}: between logged steps the delay could be longer or shorter than the time to "
        "learn train; log more often there"
    )
    margin = Margin(1, f"{twice}, lies between the row where test is learned and the one before")
    return _verdict("undetermined", reason, margin)


def _held(side: Side, step: Step, event: str) -> Margin:
    """The distance of a label that rests on one crossing: the rows since then."""
    rows = side.rows_from(step)
    return Margin(rows, f"{event} from step {step} on, so many rows before the log ends")
