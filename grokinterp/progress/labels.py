"""The label of a run: grokked, steady, memorized, not_learned or undetermined.

Definitions follow Manning-Coe et al. 2025 (arXiv 2502.01739, section 2): t_train and t_test are the
first logged steps within 5 % of the run's own maximum accuracy (Definition 1); a run groks when
t_test - t_train > t_train (Definition 2). Their definition would also call a run grokked that never
generalises, so generalisation is asked for first, and where test pairs have mirrors it is asked of
those whose mirror is not trained on. Curves are smoothed, and a level counts when it is held
(`grokinterp.progress.levels`).

First comes what the curves show (`Findings`), and what speaks against taking it for learning:
noise, a test loss that fell with train, levels that were lost. Then the label is decided, with its
distance from another.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from grokinterp.progress.curves import CURVES, Curve, Curves, Step
from grokinterp.progress.levels import (
    ROUGHEST,
    SHARED,
    WITHIN,
    Episode,
    Level,
    Thresholds,
    Unmirrored,
    level_of,
    lost_and_regained,
    straying,
)

FITS = 0.99  # train accuracy of a run that has memorised
MOSTLY = 0.5  # of the rows since it was learned, train has to be near its best
TOGETHER = 0.1  # of its first value: a test loss below it when train is learned did not wait


@dataclass(frozen=True)
class Side:
    """Train or test: the steps of its log, and the step (or None) where each stage is reached."""

    steps: np.ndarray
    halfway: Step | None
    fits: Step | None
    learned: Step | None
    before: Step  # the last step at which it is known not to be learned
    unseen: bool  # it was learned in the first row already: `learned` is no date but a bound

    @property
    def date(self) -> Step | None:
        """When it was learned, as far as the log shows that."""
        return None if self.unseen else self.learned

    def rows_from(self, step: Step) -> int:
        """Logged rows from a step to the end."""
        return int((self.steps >= step).sum())


@dataclass(frozen=True)
class Findings:
    """Both sides, and in words: the best values, what was missed, what "learned" means."""

    train: Side
    test: Side
    generalises: bool
    reached: str
    fitted: str  # how far train is, of a run that has learned it in part
    missed: str
    learned: str
    history: tuple[str, ...]  # what was lost and regained
    noise: str | None = None  # why the curves are not those of something that learns
    together: str | None = None  # why test is learned with train although its threshold is late

    def decision(
        self, label: "Label", reason: str, rows: int | None, meaning: str, *more: str
    ) -> "Decision":
        """A label for a reason; the other arguments are those of its `Margin`, and more reasons."""
        margin = Margin(rows, meaning)
        reasons = (reason, margin.reason(), *more, *self.history)
        return Decision(label, margin, reasons, self.train.date, self.test.date)


def from_accuracies(
    train: Curve, test: Curve, ceiling: float, unmirrored: Unmirrored | None
) -> Findings:
    """What (smoothed) accuracies show; test is judged on unmirrored pairs where they are known."""
    known = None if unmirrored is None else unmirrored.accuracy
    judged, which = (test, "test") if known is None else (known.smoothed(), "unmirrored test")
    chance = _chance(train)
    halfway = (1 + chance) / 2
    of_train, of_test = level_of(train, chance), level_of(judged, _chance(judged))
    demanded = WITHIN * min(of_train.best, ceiling)
    generalises = of_test.best >= demanded
    test_side = _accuracy_side(of_test, halfway, test.steps)
    if of_test.row == 0:  # nobody saw it wait
        test_side = replace(test_side, unseen=True)
    if unmirrored is not None and known is not None:
        learned, before = unmirrored.reached(of_test.threshold, test_side.learned)
        # Where a few checkpoints know it, the accuracy on all test pairs may show that it waited.
        unseen = test_side.unseen and before == 0
        test_side = replace(test_side, learned=learned, before=before, unseen=unseen)
    return Findings(
        _accuracy_side(of_train, halfway, train.steps),
        test_side,
        generalises,
        reached=f"{which} accuracy reaches {of_test.best:.3f} (halfway from chance is "
        f"{halfway:.3f}, generalising {demanded:.3f}), train accuracy {of_train.best:.3f} "
        f"(fitting is {FITS:g})",
        fitted=f"it fits most of train ({of_train.best:.3f} of {FITS:g})",
        missed=f"train accuracy never exceeds {of_train.best:.3f}, less than {halfway:.3f}, "
        f"half of the way from chance ({chance:.3f}) to 1",
        learned="within 5 % of the run's own maximum accuracy",
        noise=_noise(of_train, of_test if generalises else None, which),
        history=(
            *_in_words("train accuracy", "collapses", train, of_train.episodes()),
            *(_in_words(f"{which} accuracy", "collapses", judged, of_test.episodes())
              if of_test.best >= halfway else ()),
            *(() if generalises else _burst(which, judged, demanded)),
        ),
    )  # fmt: skip


def _chance(curve: Curve) -> float:
    """Accuracy of an untrained network: that of step 0, at most a coin's; 0 in a later log."""
    return min(float(curve.values[0]), 0.5) if curve.steps[0] == 0 else 0.0


def _noise(train: Level, test: Level | None, which: str) -> str | None:
    """Why accuracies that reach their level are noise and not learned, if they are."""
    for name, level in (("train", train), (which, test)):
        if level is None:
            continue
        strays = straying(level.curve.values, level.row, level.threshold)
        if strays > ROUGHEST * (level.threshold - level.chance):
            return (
                f"{name} accuracy rises and falls like noise: it strays from a curve that rises "
                f"and then holds by {strays:.3f}, what learns by {ROUGHEST:.1%} of its rise at most"
            )
    if train.kept < MOSTLY:
        return (
            f"train accuracy comes near its best of {train.best:.3f} at step "
            f"{train.curve.steps[train.row]}, and {train.kept:.0%} of the rows from then on are: "
            "it was not learned to stay"
        )
    return None


def _accuracy_side(level: Level, halfway: float, logged: np.ndarray) -> Side:
    curve = level.curve
    half = curve.step_held(curve.values >= halfway, share=SHARED)
    fits = curve.step_held(curve.values >= FITS)
    return Side(logged, half, fits, curve.step(level.row), level.before, level.unseen)


def from_losses(
    train: Curve, test: Curve, train_below: float, test_below: float, which: str = "test"
) -> Findings:
    """What (smoothed) losses show, learned below these thresholds; `which` says which test rows."""
    sides, history = [], list[str]()
    for name, curve, below in (("train", train, train_below), (which, test, test_below)):
        low = curve.values < below
        halved = low | (curve.values <= curve.values[0] / 2)
        row = curve.first_held(low)
        learned = None if row is None else curve.step(row)
        before = curve.step(row - 1) if row else 0
        unseen = row is not None and curve.cannot_date(row)
        half = curve.step_held(halved)
        sides.append(Side(curve.steps, half, learned, learned, before, unseen))
        if row is not None:
            lost = lost_and_regained(row, low, ~halved)
            history += _in_words(f"{name} loss", "rises to where it began", curve, lost)
    of_train, of_test = sides
    best_train, best_test = float(train.values.min()), float(test.values.min())
    return Findings(
        of_train,
        of_test,
        of_test.learned is not None,
        reached=f"{which} loss falls to {best_test:.3g} (halfway is {test.values[0] / 2:.3g}, "
        f"learned {test_below:g}), train loss to {best_train:.3g} (learned is {train_below:g})",
        fitted=f"it fits train in part (loss {best_train:.3g}, learned is below {train_below:g})",
        missed=f"train loss never falls below half of its first value ({best_train:.3g} of "
        f"{train.values[0]:.3g})",
        learned="below its loss threshold",
        together=_fell_together(test, of_train.learned, of_test.learned, which),
        history=tuple(history),
    )


def _fell_together(
    test: Curve, t_train: Step | None, t_test: Step | None, which: str
) -> str | None:
    """Why a test loss that crosses its threshold late was learned with train, if it was."""
    if t_train is None or t_test is None or t_test <= t_train or test.starts_late:
        return None
    then = float(np.interp(t_train, test.steps, test.values))
    if then >= TOGETHER * test.values[0]:
        return None
    fell = f"{which} loss has fallen from {test.values[0]:.3g} to {then:.3g}, below a tenth"
    return (
        f"when train is learned, at step {t_train}, {fell}: its threshold is crossed late, at step "
        f"{t_test}, and what it stands for was learned with training"
    )


def _in_words(name: str, collapses: str, curve: Curve, episodes: tuple[Episode, ...]) -> list[str]:
    """What was lost and regained, and what was lost for good."""
    made_good = [episode for episode in episodes if episode.regained is not None]
    lines = []
    if made_good:
        lost, regained = made_good[0].lost, made_good[0].regained
        lines.append(
            f"{name} is lost at step {curve.steps[lost]} (it is {curve.values[lost]:.3g} there) "
            f"and regained at step {curve.steps[regained]}"
            + (f"; so it is {len(made_good)} times in all" if len(made_good) > 1 else "")
        )
    if episodes and (last := episodes[-1]).regained is None:
        lines.append(
            f"{name} {collapses} at step {curve.steps[last.lost]}, to {curve.values[-1]:.3g} at "
            f"the end ({len(curve) - last.lost} logged rows)"
        )
    return lines


def _burst(which: str, test: Curve, demanded: float) -> tuple[str, ...]:
    """A note where test was at the level that generalising asks for, too shortly to count."""
    first = test.first_held(test.values >= demanded)
    if first is None:
        return ()
    rows = int(np.argmax(np.append(test.values[first:] < demanded, True)))
    return (
        f"{which} accuracy is at {demanded:.3f} or more from step {test.steps[first]} on for "
        f"{rows} logged rows and is lost again: less than {SHARED:.0%} of the log does not count",
    )


Label = Literal["grokked", "steady", "memorized", "not_learned", "undetermined"]
LABELS: tuple[Label, ...] = get_args(Label)


@dataclass(frozen=True)
class Margin:
    """The distance of a label from another one, in logging intervals.

    `intervals` is the number of logged rows by which the crossing that decides (`meaning` says
    which) would have to come earlier or later for the label to be another, all else as it is; None
    where no crossing decides. It is a distance on the plot and no probability: it does not show how
    noisy the rows are, nor how far a value is from its threshold.
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
class Decision:
    """A label, its distance from another, the reasons for both, and the times of Definition 1."""

    label: Label
    margin: Margin
    reasons: tuple[str, ...]
    t_train: Step | None = None
    t_test: Step | None = None


def label_of(
    curves: Curves,
    limits: Thresholds,
    *,
    ceiling: float = 1.0,
    unmirrored: Unmirrored | None = None,
) -> Decision:
    """The label of cleaned curves; accuracies decide where there are any, otherwise losses.

    `ceiling` is the best test accuracy that the task allows. With `unmirrored`, test stands for the
    test pairs whose mirror is not trained on.
    """
    train, test = curves.smooth("train_acc"), curves.smooth("test_acc")
    if train is not None and test is not None:
        seen = from_accuracies(train, test, ceiling, unmirrored)
        decision = _decide(seen)
        few = None if unmirrored is None else unmirrored.too_few
        # What does not even answer mirrored pairs has not generalised; the rest cannot be told.
        if few is None or decision.label in ("memorized", "not_learned"):
            return decision
        reason = f"{few}; {seen.reached}"
        return seen.decision("undetermined", reason, None, "no crossing could tell")
    train, test = curves.smooth("train_loss"), curves.smooth("test_loss")
    if train is not None and test is not None:
        which = "test"
        if unmirrored is not None and unmirrored.loss is not None:
            which, test = "unmirrored test", unmirrored.loss.smoothed()
        decision = _decide(from_losses(train, test, limits.train_loss, limits.test_loss, which))
        lacking = [side for side in ("train", "test") if curves.get(f"{side}_acc") is None]
        missing = "no accuracies" if len(lacking) == 2 else f"no {lacking[0]} accuracy"
        note = (
            f"{missing}: learned means train loss below {limits.train_loss:g} and {which} loss "
            f"below {limits.test_loss:g}"
        )
        return replace(decision, reasons=(*decision.reasons, note))
    found = ", ".join(column for column in CURVES if curves.get(column) is not None)
    there = f"there is only {found}" if found else "there is neither"
    reason = f"a label compares train with test, by accuracies or by losses; {there}"
    margin = Margin(None, "there is nothing to compare")
    return Decision("undetermined", margin, (reason, margin.reason()))


def _decide(seen: Findings) -> Decision:
    train, test = seen.train, seen.test
    if train.halfway is None:
        rows = f"no crossing decides, on any of {len(train.steps)} logged rows"
        return seen.decision("not_learned", seen.missed, None, rows)
    if seen.noise is not None:
        return seen.decision("undetermined", seen.noise, None, "no level is held")
    if seen.generalises and train.learned is not None and test.learned is not None:
        if seen.together is not None:
            return seen.decision("steady", seen.together, None, "no crossing decides")
        return _by_delay(seen, train.learned, test.learned)
    fitted, half = train.fits, test.halfway
    if fitted is not None and half is None:
        reason = f"{seen.reached}: it fits train and does not generalise"
        return seen.decision("memorized", reason, *_held(train, fitted, "train is fitted"))
    margin = _held(train, train.halfway, "train is half learned")
    if fitted is not None and half is not None and half > fitted:  # before, it had only memorised
        margin = _held(test, half, "test is half learned")
    words = f"it generalises, and {seen.fitted}" if seen.generalises else "it generalises in part"
    if half is None:
        words = f"{seen.fitted} and does not generalise"
    reason = f"{seen.reached}: {words}, or the run was cut off"
    return seen.decision("undetermined", reason, *margin)


def _by_delay(seen: Findings, t_train: Step, t_test: Step) -> Decision:
    """Definition 2; "grokked" only where the spacing of the log leaves no doubt."""
    train, test = seen.train, seen.test
    facts = f"train is {seen.learned} from step {t_train} on, test from step {t_test} on"
    limit = 2 * t_train
    twice = f"step {limit}, twice the time to learn train"
    if test.unseen:
        reason = f"{facts}, and the log never shows it unlearned: what came before is not known"
        meaning = "test is learned before its log begins"
        return seen.decision("undetermined", reason, None, meaning)
    if test.before >= limit and t_test > t_train:
        least = "at least " if train.unseen else ""
        factor = f"{least}{(t_test - t_train) / (t_train or 1):.3g}"
        left = test.rows_from(t_test)
        after = test.rows_from(limit) - left
        meaning = f"test is learned {after} rows after {twice}, and {left} rows before the log ends"
        reason = f"{facts}: a delay of {factor} times the time to learn train"
        return seen.decision("grokked", reason, max(1, min(after, left)), meaning)
    if train.unseen:
        reason = (
            f"{facts}; the log never shows train unlearned: what came before, how long it took and "
            "whether the delay is longer is not known"
        )
        meaning = "train is learned before its log begins"
        return seen.decision("undetermined", reason, None, meaning)
    if t_test <= limit:
        rows = max(1, test.rows_from(t_test) - int((test.steps > limit).sum()))
        meaning = f"so many rows later test would not be learned by {twice}"
        reason = f"{facts}: the delay is no longer than the time to learn train"
        doubt = (
            f"steady as logged: train may have been learned soon after step {train.before}, which "
            "would make the delay the longer one; log more often to be certain"
        )
        doubtful = t_test - train.before > train.before
        return seen.decision("steady", reason, rows, meaning, *([doubt] if doubtful else []))
    reason = (
        f"{facts}: between logged steps the delay could be longer or shorter than the time to "
        "learn train; log more often there"
    )
    meaning = f"{twice}, lies between the row where test is learned and the one before"
    return seen.decision("undetermined", reason, 1, meaning)


def _held(side: Side, step: Step, event: str) -> tuple[int, str]:
    """The distance of a label that rests on one crossing, the rows since then, and its meaning."""
    meaning = f"{event} from step {step} on, so many rows before the log ends"
    return side.rows_from(step), meaning
