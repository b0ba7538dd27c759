"""Does the test loss descend twice, with a peak between? Double descent in time, in five tests.

Epoch-wise double descent (Nakkiran et al. 2019, arXiv 1912.02292) is a fall of the test error, a
rise around the time at which the training set is fitted, and a second fall. That grokking is a case
of it is a conjecture (Davies et al. 2023, arXiv 2303.06173). A hump of the loss alone is not enough
to tell, so the conditions here, this package's own, say which part is missing.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor

from grokinterp.base.checks import whole
from grokinterp.base.result import Result
from grokinterp.progress.curves import Curve, Step, read_measures, running_median
from grokinterp.progress.scored_checkpoints import unseen_measures
from grokinterp.progress.training_curves import ResultsOfRuns, TrainingCurves, of_each_training
from grokinterp.reading._load import Subject
from grokinterp.reading.logs.columns import Columns
from grokinterp.reading.logs.table import By
from grokinterp.tasks.task import Task, has_mirrors

LEAST = {"loss": 0.1, "error": 0.02}  # nats, and a share: how far an extreme has to stand out
CONDITIONS = ("first_descent", "ascent", "second_descent", "at_interpolation")
NEAR = (0.5, 2.0)  # t_peak / t_interp
FEWEST_ROWS = 5  # of a curve: with fewer nothing can be said about two descents


@dataclass(frozen=True)
class Extreme:
    """A maximum or minimum of a curve, at the step and with the value that were logged."""

    kind: Literal["max", "min"]
    step: Step
    value: float


@dataclass(frozen=True, kw_only=True)
class Descent:
    """The extremes of one curve, test loss or test error, and the conditions that it meets.

    `min1` is the lowest extreme before the `peak`, `min2` the lowest after it. The peak is the
    maximum that stands out most from the lower ones on both sides; without one, `min1` is the
    lowest extreme. Conditions are None where the data cannot say.
    """

    curve: str  # "test_loss", "test_error" or "test_error_unmirrored"
    chance: float | None  # the value of a uniform answer
    start: float
    end: float
    extremes: tuple[Extreme, ...]
    min1: Extreme | None
    peak: Extreme | None
    min2: Extreme | None
    ratio: float | None  # t_peak / t_interp
    first_descent: bool | None
    ascent: bool | None
    second_descent: bool | None
    at_interpolation: bool | None
    values: pd.DataFrame = field(repr=False)  # step and value, as logged

    @property
    def holds(self) -> bool | None:
        """Whether all four conditions do."""
        return _all(getattr(self, name) for name in CONDITIONS)


@dataclass(frozen=True, kw_only=True)
class Descents(Result):
    """Test loss and test error over training: what falls and rises, and whether it is twice.

    `t_interp` is the step at which training inputs are fitted (train accuracy 0.99, held).

    >>> import grokinterp as gi
    >>> found = gi.progress.descents(gi.load("mod31-small").metrics, n_classes=31)
    >>> found.double_descent, found.conditions
    (False, {'first_descent': False, 'ascent': True, 'second_descent': True,
     'at_interpolation': True, 'same_on_error': False})
    """

    loss: Descent | None
    error: Descent | None
    t_interp: Step | None

    @property
    def conditions(self) -> dict[str, bool | None]:
        """The five conditions of double descent, of the loss and then of the error."""
        found = {name: getattr(self.loss, name, None) for name in CONDITIONS}
        return found | {"same_on_error": None if self.error is None else self.error.holds}

    @property
    def double_descent(self) -> bool | None:
        """Whether all five hold; None where none fails and some cannot be told."""
        return _all(self.conditions.values())

    def table(self) -> pd.DataFrame:
        """One row per curve: its values at the extremes, their steps, and the conditions."""
        rows = []
        for each in (self.loss, self.error):
            if each is None:
                continue
            row: dict[str, object] = {"curve": each.curve, "start": each.start}
            for name in ("min1", "peak", "min2"):
                extreme = getattr(each, name)
                row[name] = math.nan if extreme is None else extreme.value
                row[f"{name}_step"] = None if extreme is None else extreme.step
            row |= {"end": each.end, "chance": each.chance, "ratio": each.ratio}
            rows.append(row | {name: getattr(each, name) for name in CONDITIONS})
        columns = [
            "curve", "start", "min1", "min1_step", "peak", "peak_step", "min2", "min2_step", "end",
            "chance", "ratio", *CONDITIONS,
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def extremes(self) -> pd.DataFrame:
        """One row per extreme of either curve, in order."""
        rows = [
            {"curve": each.curve, **vars(extreme)}
            for each in (self.loss, self.error)
            if each is not None
            for extreme in each.extremes
        ]
        return pd.DataFrame(rows, columns=["curve", "kind", "step", "value"])

    def _lines(self) -> list[str]:
        words = {True: "yes", False: "no", None: "unknown"}
        said = ", ".join(
            f"{name.replace('_', ' ')} {words[held]}" for name, held in self.conditions.items()
        )
        return [f"double descent: {words[self.double_descent]}", said]


def descents(
    x: Subject | pd.DataFrame,
    *,
    n_classes: int | None = None,
    measures: pd.DataFrame | None = None,
    columns: Columns | str | None = None,
    by: By = None,
    task: Task | None = None,
    train_mask: Tensor | None = None,  # truth values, [n_inputs]
    progress: bool = False,
) -> Descents | ResultsOfRuns:
    r"""Is this double descent in time: two falls of the test loss, and a peak at interpolation?

    Extremes of the test loss (nats) are turning points of its running median of 3 rows from which
    it moves away by at least 0.1 on both sides (at an end: on one), and of the test error,
    1 - accuracy, by 0.02; each is reported with the logged value next to it. The error is that of
    unmirrored test pairs where they are known, at checkpoints if not in the log.

    Five conditions: (1) a first descent to below chance, ln C for C classes (1 - 1/C of the error);
    (2) an ascent to a peak; (3) a second descent below the first minimum; (4) t_peak / t_interp
    from 1/2 to 2; (5) the same four on the error. A large initialisation starts above ln C; losing
    that excess is not learning, hence (1).

    `x` is what `gi.detect_phases` takes, with `columns` and `by`; a log of several runs gives
    `ResultsOfRuns`. C is that of a run's task; for a log it is `n_classes`, without which (1) is
    None. `measures`, the table of `gi.progress_measures`, spares computing the error again.

    Nakkiran et al. 2019 (arXiv 1912.02292) describe the phenomenon, Davies et al. 2023 (arXiv
    2303.06173) relate it to grokking; the conditions are this package's own. A hump of the loss
    does not tell grokking from learning: steady runs have one too. Double descent in the size of a
    network needs a sweep.

    >>> import grokinterp as gi
    >>> found = gi.progress.descents(gi.load("mod31-small"))
    >>> found.table()[["curve", "start", "min1", "peak", "peak_step", "end", "ratio"]].round(2)
                       curve  start  min1  peak  peak_step   end  ratio
    0              test_loss   3.47  3.46  4.32        150  0.01   0.58
    1  test_error_unmirrored   0.95  0.95  1.00         10  0.02   0.04
    """
    if n_classes is not None:
        n_classes = whole("n_classes", n_classes, least=2, such_as="113")
    known = None if measures is None else read_measures(measures)

    def find(given: TrainingCurves) -> Descents:
        return _descents(given, n_classes, known, progress)

    return of_each_training(
        x, find, has="curves", columns=columns, by=by, task=task, train_mask=train_mask
    )


def _descents(
    given: TrainingCurves, n_classes: int | None, measures: pd.DataFrame | None, progress: bool
) -> Descents:
    notes = list(given.notes)
    if n_classes is None and given.run is not None:
        n_classes = given.run.task.n_classes
    if n_classes is None:
        notes.append("first_descent is unknown: n_classes= says how many answers there are")
    memorized = given.memorized
    t_interp = memorized.step if given.steps_known else None
    if not given.steps_known:
        notes.append("at_interpolation is unknown: nobody knows the steps of these checkpoints")
    elif t_interp is None:
        notes.append(f"at_interpolation is unknown: fitting is undated ({memorized.why})")
    curve = given.curves.get("test_loss")
    loss = None
    if curve is None:
        notes.append("there is no test loss")
    else:
        chance = None if n_classes is None else math.log(n_classes)
        loss = descent_of(curve, "test_loss", LEAST["loss"], chance=chance, t_interp=t_interp)
    name, accuracy, said = _accuracy(given, measures, progress)
    error = None
    notes += said
    if accuracy is not None:
        chance = None if n_classes is None else 1 - 1 / n_classes
        curve = replace(accuracy, values=1 - accuracy.values)
        error = descent_of(curve, name, LEAST["error"], chance=chance, t_interp=t_interp)
    for each in (loss, error):
        if each is not None and len(each.values) < FEWEST_ROWS:
            known = f"known at {len(each.values)} steps, and it takes {FEWEST_ROWS}"
            notes.append(f"nothing can be said of {each.curve.replace('_', ' ')}: {known}")
    return Descents(loss=loss, error=error, t_interp=t_interp, notes=tuple(notes))


def _accuracy(
    given: TrainingCurves, measures: pd.DataFrame | None, progress: bool
) -> tuple[str, Curve | None, list[str]]:
    """Test accuracy, of unmirrored pairs where they are known, by name; and what is to be said."""
    column, run = "test_acc_unmirrored", given.run
    if (logged := given.curves.get(column)) is not None:
        return "test_error_unmirrored", logged, ["the error is of logged unmirrored test pairs"]
    if run is not None and has_mirrors(run.task):
        found = unseen_measures(run, progress=progress) if measures is None else measures
        if column in found and (known := found[found[column].notna()]).size:
            curve = Curve(known["step"].to_numpy(), known[column].to_numpy(float))
            said = f"the error is of unmirrored test pairs, known at {len(curve)} checkpoints"
            return "test_error_unmirrored", curve, [said]
    accuracy = given.curves.get("test_acc")
    if accuracy is None:
        return "test_error", None, ["there is no test accuracy"]
    mirrored = run is None or has_mirrors(run.task)
    said = "the error is of all test inputs, whose mirrors may be trained on"
    return "test_error", accuracy, [said] if mirrored else []


def descent_of(
    curve: Curve, name: str, least: float, *, chance: float | None, t_interp: Step | None
) -> Descent:
    """The extremes of a curve that stand out by `least`, and the conditions that they meet.

    >>> curve = Curve(np.arange(0, 70, 10), np.array([5.0, 3.0, 3.0, 4.0, 4.0, 1.0, 1.0]))
    >>> found = descent_of(curve, "test_loss", 0.1, chance=4.5, t_interp=30)
    >>> found.min1.value, found.peak.value, found.peak.step, found.holds
    (3.0, 4.0, 30, True)
    """
    smooth = running_median(curve.values, 3)
    turns = turning_points(smooth, least)
    extremes = tuple(_logged(curve, row, kind) for row, kind in turns)
    peak = _peak([float(smooth[row]) for row, _ in turns], [kind for _, kind in turns])
    before = extremes if peak is None else extremes[:peak]
    lows = [each for each in before if each.kind == "min"]
    min1 = min(lows, key=lambda each: each.value, default=None)
    later = [each for each in extremes[peak:] if each.kind == "min"] if peak is not None else []
    min2 = min(later, key=lambda each: each.value, default=None)
    fell = min1 is not None and any(
        each.kind == "max" and each.step < min1.step for each in extremes
    )
    first: bool | None = False
    if fell and min1 is not None:
        first = None if chance is None else min1.value < chance
    top = None if peak is None else extremes[peak]
    ratio = None if top is None or not t_interp else top.step / t_interp
    near: bool | None = False
    if top is not None:
        near = None if ratio is None else NEAR[0] <= ratio <= NEAR[1]
    second = min1 is not None and min2 is not None and min2.value < min1.value
    enough = len(curve) >= FEWEST_ROWS
    return Descent(
        curve=name, chance=chance, start=float(curve.values[0]), end=float(curve.values[-1]),
        extremes=extremes, min1=min1, peak=top, min2=min2, ratio=ratio,
        first_descent=first if enough else None, ascent=top is not None if enough else None,
        second_descent=second if enough else None, at_interpolation=near if enough else None,
        values=pd.DataFrame({"step": curve.steps, "value": curve.values}),
    )  # fmt: skip


def turning_points(values: np.ndarray, least: float) -> list[tuple[int, Literal["max", "min"]]]:
    """Where a curve turns, by at least so much on both sides (at its ends: on one), in order.

    Maxima and minima take turns. A curve that moves less has none.

    >>> turning_points(np.array([3.0, 1.0, 1.05, 2.0, 0.0]), 0.1)
    [(0, 'max'), (1, 'min'), (3, 'max'), (4, 'min')]
    """
    found: list[tuple[int, Literal["max", "min"]]] = []
    high = low = 0
    curve: list[float] = values.tolist()
    for row, value in enumerate(curve):
        may_be_max = not found or found[-1][1] == "min"
        may_be_min = not found or found[-1][1] == "max"
        if value > curve[high]:
            high = row
        if value < curve[low]:
            low = row
        if may_be_max and curve[high] - value >= least:
            found.append((high, "max"))
            low = row
        elif may_be_min and value - curve[low] >= least:
            found.append((low, "min"))
            high = row
    if found:
        found.append((low, "min") if found[-1][1] == "max" else (high, "max"))
    return found


def _peak(values: list[float], kinds: list[Literal["max", "min"]]) -> int | None:
    """Which extreme is the peak: a maximum after a minimum, standing out most on both sides."""
    found = [
        (min(value - min(values[:i]), value - min(values[i + 1 :], default=-math.inf)), i)
        for i, (value, kind) in enumerate(zip(values, kinds, strict=True))
        if kind == "max" and i > 0
    ]
    return max(found, key=lambda each: each[0])[1] if found else None


def _logged(curve: Curve, row: int, kind: Literal["max", "min"]) -> Extreme:
    """The most extreme logged value among a row of the running median and its two neighbours."""
    first = max(row - 1, 0)
    near = curve.values[first : row + 2]
    row = first + int(near.argmax() if kind == "max" else near.argmin())
    return Extreme(kind, curve.step(row), float(curve.values[row]))


def _all(held: Iterable[bool | None]) -> bool | None:
    """True where all hold, False where one does not, else None."""
    known = list(held)
    if False in known:
        return False
    return None if None in known else True
