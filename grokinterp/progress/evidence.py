"""What the curves of a run show of train and of test, for a label to be decided on.

When each side is half learned, fitted and learned, whether test generalises, and what speaks
against taking that for learning: noise, a test loss that fell with train, levels that were lost.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from grokinterp.progress.curves import Curve
from grokinterp.progress.levels import (
    ROUGHEST,
    SHARED,
    WITHIN,
    Episode,
    Level,
    level_of,
    lost_and_regained,
)
from grokinterp.progress.logged_steps import Step
from grokinterp.progress.unmirrored import Unmirrored

FITS = 0.99  # train accuracy of a run that has memorised
MOSTLY = 0.5  # of the rows since it was learned, train has to be near its best
TOGETHER = (
    0.1  # of its first value: a test loss that is below it when train is learned did not wait
)


@dataclass(frozen=True)
class Side:
    """Train or test: the steps of its log, and the step (or None) at which each stage is reached.

    `before` is the last step at which it is known not to be learned; `unseen` says that it was
    learned in the first row already, so that `learned` is no date but a bound.
    """

    steps: np.ndarray
    halfway: Step | None
    fits: Step | None
    learned: Step | None
    before: Step
    unseen: bool

    @property
    def date(self) -> Step | None:
        """When it was learned, as far as the log shows that."""
        return None if self.unseen else self.learned

    def rows_from(self, step: Step) -> int:
        """Logged rows from a step to the end."""
        return int((self.steps >= step).sum())

    def rows_between(self, first: Step, last: Step, *, side: Literal["left", "right"]) -> int:
        """Logged rows from one step up to another (`side` as in numpy.searchsorted)."""
        from_row, to_row = (
            np.searchsorted(self.steps, first),
            np.searchsorted(self.steps, last, side=side),
        )
        return int(to_row - from_row)


@dataclass(frozen=True)
class Evidence:
    """Both sides, and in words: the best values, what was missed, what "learned" means."""

    train: Side
    test: Side
    generalises: bool
    reached: str
    fitted: str  # how far train is, of a run that has learned it in part
    missed: str
    learned: str
    noise: str | None  # why the curves are not those of something that learns
    together: str | None  # why test is learned with train although its threshold comes later
    history: tuple[str, ...]  # what was lost and regained


def from_accuracies(
    train: Curve, test: Curve, ceiling: float, unmirrored: Unmirrored | None
) -> Evidence:
    """What (smoothed) accuracies show; test is judged on unmirrored pairs where they are known."""
    if unmirrored is not None and unmirrored.accuracy is None:
        unmirrored = None  # only their loss is known, and accuracies decide
    known = None if unmirrored is None else unmirrored.accuracy
    judged = test if known is None else known.smoothed()
    chance = _chance(train)
    halfway = (1 + chance) / 2
    of_train, of_test = level_of(train, chance), level_of(judged, _chance(judged))
    demanded = WITHIN * min(of_train.best, ceiling)
    generalises = of_test.best >= demanded
    which = "test" if unmirrored is None else "unmirrored test"
    test_side = _accuracy_side(of_test, halfway, test.steps)
    if of_test.row == 0:  # nobody saw it wait
        test_side = replace(test_side, unseen=True)
    if unmirrored is not None:
        learned, before = unmirrored.reached(of_test.threshold, test_side.learned)
        # Where a few checkpoints know it, the accuracy on all test pairs may show that it waited.
        unseen = test_side.unseen and before == 0
        test_side = replace(test_side, learned=learned, before=before, unseen=unseen)
    return Evidence(
        _accuracy_side(of_train, halfway, train.steps),
        test_side,
        generalises,
        f"{which} accuracy reaches {of_test.best:.3f} (halfway from chance is {halfway:.3f}, "
        f"generalising {demanded:.3f}), train accuracy {of_train.best:.3f} (fitting is {FITS:g})",
        f"it fits most of train ({of_train.best:.3f} of {FITS:g})",
        f"train accuracy never exceeds {of_train.best:.3f}, less than {halfway:.3f}, half of the "
        f"way from chance ({chance:.3f}) to 1",
        "within 5 % of the run's own maximum accuracy",
        _noise(of_train, of_test if generalises else None, which),
        None,
        (
            *_told("train accuracy", "collapses", train, of_train.episodes()),
            *(_told(f"{which} accuracy", "collapses", judged, of_test.episodes())
              if of_test.best >= halfway else ()),
            *(() if generalises else _burst(which, judged, demanded)),
        ),
    )  # fmt: skip


def _chance(curve: Curve) -> float:
    """Accuracy of an untrained network: that of step 0, at most that of a coin.

    A log that starts later does not show it, and it is small.
    """
    return min(float(curve.values[0]), 0.5) if curve.steps[0] == 0 else 0.0


def _noise(train: Level, test: Level | None, which: str) -> str | None:
    """Why accuracies that reach their level are noise and not learned, if they are.

    What was learned can be lost again, of train for less than half of the time at most.
    """
    for name, level in (("train", train), (which, test)):
        if level is not None and level.strays:
            return (
                f"{name} accuracy rises and falls like noise: it strays from a curve that rises "
                f"and then holds by {level.straying:.3f}, what learns by {ROUGHEST:.1%} of its "
                "rise at most"
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
    side = _side(
        curve,
        logged,
        halfway=curve.first_held(curve.values >= halfway, share=SHARED),
        fits=curve.first_held(curve.values >= FITS),
        learned=level.row,
    )
    return replace(side, before=level.before, unseen=level.unseen)


def _side(
    curve: Curve, logged: np.ndarray, *, halfway: int | None, fits: int | None, learned: int | None
) -> Side:
    """A side from the rows of its curve at which each stage is reached."""

    def step(row: int | None) -> Step | None:
        return None if row is None else curve.step(row)

    return Side(
        logged,
        step(halfway),
        step(fits),
        step(learned),
        before=curve.step(learned - 1) if learned else 0,
        unseen=learned is not None and curve.cannot_date(learned),
    )


def from_losses(
    train: Curve, test: Curve, train_below: float, test_below: float, which: str = "test"
) -> Evidence:
    """What (smoothed) losses show, learned below these thresholds; `which` says which test rows."""
    learned = [
        curve.first_held(curve.values < below)
        for curve, below in ((train, train_below), (test, test_below))
    ]
    of_train, of_test = (
        _side(
            curve, curve.steps, halfway=curve.first_held(_halved(curve, below)), fits=row,
            learned=row,
        )
        for curve, below, row in zip((train, test), (train_below, test_below), learned, strict=True)
    )  # fmt: skip
    best_train, best_test = float(train.values.min()), float(test.values.min())
    return Evidence(
        of_train,
        of_test,
        learned[1] is not None,
        f"{which} loss falls to {best_test:.3g} (halfway is {test.values[0] / 2:.3g}, learned "
        f"{test_below:g}), train loss to {best_train:.3g} (learned is {train_below:g})",
        f"it fits train in part (loss {best_train:.3g}, learned is below {train_below:g})",
        f"train loss never falls below half of its first value ({best_train:.3g} of "
        f"{train.values[0]:.3g})",
        "below its loss threshold",
        None,
        _fell_together(test, of_train.learned, of_test.learned, which),
        tuple(
            line
            for name, curve, below, row in (
                ("train loss", train, train_below, learned[0]),
                (f"{which} loss", test, test_below, learned[1]),
            )
            if row is not None
            for line in _told(
                name, "rises to where it began", curve,
                lost_and_regained(row, curve.values < below, ~_halved(curve, below)),
            )
        ),
    )  # fmt: skip


def _halved(curve: Curve, below: float) -> np.ndarray:
    """Where a loss is at most half of its first value, or already below its threshold."""
    halved: np.ndarray = (curve.values <= curve.values[0] / 2) | (curve.values < below)
    return halved


def _fell_together(
    test: Curve, t_train: Step | None, t_test: Step | None, which: str
) -> str | None:
    """Why a test loss that crosses its threshold late did not wait, if it did not.

    A loss that creeps below its threshold long after train did is no late generalisation where
    nine tenths of it were gone by then.
    """
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


def _told(
    name: str, collapses: str, curve: Curve, episodes: tuple[Episode, ...]
) -> tuple[str, ...]:
    """In words: what was lost and regained, and what was lost for good."""
    made_good = [episode for episode in episodes if episode.regained is not None]
    lines = []
    if made_good:
        first = made_good[0]
        assert first.regained is not None
        lines.append(
            f"{name} is lost at step {curve.steps[first.lost]} (it is "
            f"{curve.values[first.lost]:.3g} there) and regained at step "
            f"{curve.steps[first.regained]}"
            + (f"; so it is {len(made_good)} times in all" if len(made_good) > 1 else "")
        )
    for last in episodes:
        if last.regained is None:
            lines.append(
                f"{name} {collapses} at step {curve.steps[last.lost]}, to {curve.values[-1]:.3g} "
                f"at the end ({len(curve) - last.lost} logged rows)"
            )
    return tuple(lines)


def _burst(which: str, test: Curve, demanded: float) -> tuple[str, ...]:
    """A note where test was at the level that generalising asks for, too shortly to count."""
    held = np.flatnonzero(test.held(test.values >= demanded))
    if len(held) == 0:
        return ()
    first = int(held[0])
    rows = int(np.argmax(np.append(test.values[first:] < demanded, True)))
    return (
        f"{which} accuracy is at {demanded:.3f} or more from step {test.steps[first]} on for "
        f"{rows} logged rows and is lost again: less than {SHARED:.0%} of the log does not count",
    )
