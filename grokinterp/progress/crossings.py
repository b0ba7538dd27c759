"""When a threshold is crossed and held, or why that is not known."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from grokinterp.base.checks import number
from grokinterp.fourier.heldout import FEWEST_ROWS
from grokinterp.progress.curves import Curve, Curves, Step
from grokinterp.runs.metrics import UNMIRRORED
from grokinterp.runs.run import Run
from grokinterp.tasks.task import has_mirrors, unmirrored_rows

# MERGED progress.unmirrored: How well a run answers the test pairs whose mirror it was not trained on, over its log.
#
# A network can answer (b, a) from (a, b): that is memorisation, and the accuracy on all test pairs
# counts it as generalisation. Runs log the accuracy on the other pairs beside it; of older runs and
# of checkpoints that others trained it is known at the checkpoints alone. Between them the accuracy
# on all test pairs bounds it: with a share w of them mirrored,
#
#     (accuracy - w) / (1 - w) <= unmirrored accuracy <= accuracy / (1 - w).


@dataclass(frozen=True)
class Thresholds:
    """Crossings that define `memorization_step` and `grok_step`; losses where no accuracy is.

    They hold for smoothed curves, and have to be held: see `Phases`.
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

    `least` and `most` bound the (smoothed) accuracy on every logged row; None where it was logged
    itself, or where the share of mirrored pairs is not known. `too_few` says why it decides
    nothing.
    """

    accuracy: Curve | None
    loss: Curve | None
    least: Curve | None = None
    most: Curve | None = None
    too_few: str | None = None

    def reached(self, threshold: float, step: Step | None) -> tuple[Step | None, Step]:
        """When a threshold is held: the first step at which that is certain, the last before it.

        `step` is the first one of the curve at which it is held, None for never. The second number
        is the last step at which it is certainly not reached yet, 0 where there is none.
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

    def step_of(self, accuracy: float, loss: float) -> Step | None:
        """The first logged step from which an accuracy is held; a loss where there is none."""
        if self.accuracy is not None:
            smooth = self.accuracy.smoothed()
            row = smooth.first_held(smooth.values >= accuracy)
            if row is not None and smooth.cannot_date(row):
                return None
            return self.reached(accuracy, None if row is None else smooth.step(row))[0]
        if self.loss is None:
            return None
        smooth = self.loss.smoothed()
        row = smooth.first_held(smooth.values < loss)
        return None if row is None or smooth.cannot_date(row) else smooth.step(row)


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
    exact = dict(zip(found.accuracy.steps.tolist(), found.accuracy.values.tolist(), strict=True))
    least = np.clip((test.values - share) / (1 - share), 0, 1)
    most = np.clip(test.values / (1 - share), 0, 1)
    for row, step in enumerate(test.steps.tolist()):
        least[row] = max(least[row], exact[step]) if step in exact else least[row]
        most[row] = min(most[row], exact[step]) if step in exact else most[row]
    return replace(found, least=Curve(test.steps, least), most=Curve(test.steps, most))


@dataclass(frozen=True)
class Crossing:
    """The first logged step from which a threshold is held, or why there is none.

    `unseen`: it was crossed in the first row already, so before the log begins for all it shows.
    """

    step: Step | None
    why: str | None = None
    unseen: bool = False


def crossing(curves: Curves, side: str, accuracy: float, loss: float) -> Crossing:
    """Of the smoothed accuracy, or of the loss where there is none."""
    curve = curves.smooth(f"{side}_acc")
    holds = None if curve is None else curve.values >= accuracy
    if curve is None:
        curve = curves.smooth(f"{side}_loss")
        holds = None if curve is None else curve.values < loss
    if curve is None or holds is None:
        return Crossing(None, f"there is no {side} curve")
    position = curve.first_held(holds)
    if position is None:
        short = f"crossed for a while, and never held for {curve.hold} rows more"
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
        step = unmirrored.step_of(limits.test_acc, limits.test_loss)
        never = "its threshold is not seen to be crossed and held on unmirrored test pairs"
        return Crossing(step, never if step is None else None)
    if run is None:
        return Crossing(None, "there is no curve of unmirrored test pairs")
    if not has_mirrors(run.task):
        return Crossing(None, f"{run.task.title} has no mirrors; grok_step is of all test inputs")
    return Crossing(
        None, "the split is not known, leaves nothing to test on, or only losses were logged"
    )
