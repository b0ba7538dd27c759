"""When a threshold is crossed and held, or why that is not known."""

from dataclasses import dataclass

from grokinterp.progress.curves import Curves
from grokinterp.progress.logged_steps import Step
from grokinterp.progress.phases import Thresholds
from grokinterp.progress.unmirrored import Unmirrored
from grokinterp.runs.run import Run
from grokinterp.tasks import has_mirrors


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
