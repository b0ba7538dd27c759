"""When does the shape of a cloud change, and within how many steps? Beside accuracy and loss.

One rule for all curves, so that shapes and fit can be compared: after memorisation, the first
checkpoint from which a curve stays above the middle between its value then and its maximum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grokinterp.base.errors import InputError
from grokinterp.progress.curves import read_curves
from grokinterp.progress.rises import rise_of
from grokinterp.progress.scored_checkpoints import choose_rows, score
from grokinterp.runs.metrics import UNMIRRORED
from grokinterp.runs.run import Run
from grokinterp.tasks.task import has_mirrors

LEAST_RISE = 0.2  # of a share, from 0 to 1; of a loss, as a share of what it is at memorisation
FIT = ("test_accuracy", "test_loss")
Points = tuple[list[int], list[float]]  # steps and values


@dataclass(frozen=True, kw_only=True)
class Transition:
    """The step at which a curve passes the middle of its rise for good, or why there is none.

    `cloud` is the name of a cloud, whose curve is its group symmetry, or "test_accuracy" or
    "test_loss". `interval` are the checkpoint before `step` and `step`; `width` are the steps from
    10 to 90 % of the rise, on straight lines between checkpoints. Where `step` is None, `reason`
    says why.

    >>> import grokinterp as gi
    >>> found = gi.geometry.representations("mod31-small", of="unembedding", n_null=0)
    >>> [(each.cloud, each.step, each.interval) for each in found.transitions[:2]]
    [('unembedding', 1000, (800, 1000)), ('test_accuracy', 1400, (1390, 1400))]
    """

    cloud: str
    step: int | None = None
    interval: tuple[int, int] | None = None
    width: float | None = None
    reason: str = ""


def transition_of(
    cloud: str,
    steps: Sequence[int],
    values: Sequence[float],
    *,
    after: float | None,
    falls: bool = False,
    least_rise: float = LEAST_RISE,
) -> Transition:
    """The transition of a curve after memorisation; NaN values are left out.

    >>> found = transition_of("answers", [0, 10, 20, 30], [0.0, 0.1, 0.9, 1.0], after=5)
    >>> found.step, found.interval, round(found.width, 1)
    (20, (10, 20), 9.9)
    >>> transition_of("answers", [0, 10, 20], [0.0, 0.9, 1.0], after=5).reason
    'memorised at 5, it rises from 0.9 to 1, by less than 0.2'
    """
    known = [(step, y) for step, y in zip(steps, values, strict=True) if math.isfinite(y)]
    if not known:
        return Transition(cloud=cloud, reason="there is no curve of it")
    if len(known) < 2:
        return Transition(cloud=cloud, reason="one checkpoint dates nothing")
    if after is None:
        return Transition(cloud=cloud, reason="nobody knows when the run memorised, if it did")
    late = [(step, y) for step, y in known if step >= after]
    if len(late) < 2:
        return Transition(cloud=cloud, reason=f"fewer than 2 checkpoints from step {after:g} on")
    at, given = [step for step, _ in late], np.array([y for _, y in late])
    y = -given if falls else given
    level, rise = (y[0] + y.max()) / 2, y.max() - y[0]
    if rise < least_rise:
        ends = f"{given[0]:.3g} to {given[int(y.argmax())]:.3g}"
        how = f"memorised at {after:g}, it {'falls' if falls else 'rises'} from {ends}"
        return Transition(cloud=cloud, reason=f"{how}, by less than {least_rise:.3g}")
    last_below = int(np.flatnonzero(y <= level)[-1])
    if last_below + 1 == len(y):
        return Transition(cloud=cloud, reason="it does not stay beyond the middle of its rise")
    width = rise_of(cloud, at, given.tolist(), falls=falls).width
    return Transition(
        cloud=cloud, step=at[last_below + 1], interval=(at[last_below], at[last_below + 1]),
        width=width,
    )  # fmt: skip


def fit_transitions(
    run: Run, steps: Sequence[int], after: float | None
) -> tuple[tuple[Transition, ...], str]:
    """Those of test accuracy and test loss, and on what they are.

    On unmirrored pairs where there are mirrors: as logged, or at these checkpoints where they were
    not. On all test inputs else.
    """
    try:
        curves, how = _fit_curves(run, steps)
    except InputError as error:
        reason = str(error).rstrip(".")
        return tuple(Transition(cloud=name, reason=reason) for name in FIT), ""
    found = []
    for name, (at, values) in zip(FIT, curves, strict=True):
        falls = name == "test_loss"
        start = next((y for s, y in zip(at, values, strict=True) if s >= (after or 0)), 1.0)
        least = LEAST_RISE * (start if falls and math.isfinite(start) else 1.0)
        found.append(transition_of(name, at, values, after=after, falls=falls, least_rise=least))
    return tuple(found), how


def _fit_curves(run: Run, steps: Sequence[int]) -> tuple[list[Points], str]:
    """Steps and values of accuracy and of loss, and of which inputs they are."""
    curves = read_curves(run.metrics, str(run.path))
    logged = [curves.smooth(name) for name in reversed(UNMIRRORED)]
    how = "on unmirrored test pairs, as logged"
    if logged[0] is None and has_mirrors(run.task):
        chosen = choose_rows(run, "unmirrored")
        if len(chosen.numbers):
            seen = [score(run.snapshot(step), chosen.numbers, step) for step in steps]
            accuracies = [float(each.right.double().mean()) for each in seen]
            losses = [float(each.losses.mean()) for each in seen]
            at = list(steps)
            return [(at, accuracies), (at, losses)], "on unmirrored test pairs, at checkpoints"
    if logged[0] is None:
        logged = [curves.smooth(name) for name in ("test_acc", "test_loss")]
        how = "on all test inputs, as logged" if any(logged) else ""
    return [([], []) if x is None else (x.steps.tolist(), x.values.tolist()) for x in logged], how


def first_above(
    steps: Sequence[int], values: Sequence[float], nulls: Sequence[float]
) -> int | None:
    """The first of two checkpoints in a row at which a value is above its null.

    >>> first_above([0, 1, 2, 3], [0.3, 0.1, 0.3, 0.4], [0.2, 0.2, 0.2, 0.2])
    2
    """
    above = [y > null for y, null in zip(values, nulls, strict=True)]
    pairs = zip(steps, above, above[1:], strict=False)
    return next((step for step, now, then in pairs if now and then), None)


def held_above(steps: Sequence[int], values: Sequence[float], nulls: Sequence[float]) -> int | None:
    """The first checkpoint from which a value stays above its null, two of them at least.

    >>> held_above([0, 1, 2, 3, 4], [0.3, 0.3, 0.1, 0.3, 0.4], [0.2, 0.2, 0.2, 0.2, 0.2])
    3
    """
    below = [i for i, (y, null) in enumerate(zip(values, nulls, strict=True)) if not y > null]
    start = max(below, default=-1) + 1
    return steps[start] if len(steps) - start > 1 else None
