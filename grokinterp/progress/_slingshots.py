"""Does training jump after it has memorised? Spikes of the train loss, as slingshots have them.

Thilak et al. 2022 (arXiv 2206.04817) saw, with Adam and without weight decay, cycles in which the
norm of the last layer grows and then stays, and the train loss spikes in between; some of their
networks generalise at such a spike. The detector here is this package's own. It looks at the loss
alone.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from torch import Tensor

from grokinterp.base.checks import number
from grokinterp.base.result import Result
from grokinterp.progress.curves import Step, running_median
from grokinterp.progress.training_curves import ResultsOfRuns, TrainingCurves, of_each_training
from grokinterp.reading._load import Subject
from grokinterp.reading.logs.columns import Columns
from grokinterp.reading.logs.table import By
from grokinterp.tasks.task import Task

TIMES = 10.0  # the running median: a train loss above it is a spike
WIDTH = 21  # rows, of that median
QUIET = 200  # steps after memorising that are not looked at, when the loss still falls steeply


@dataclass(frozen=True, kw_only=True)
class Slingshot:
    """Neighbouring logged rows whose train loss is a spike, and the highest of them."""

    first: Step
    last: Step
    step: Step
    train_loss: float
    ratio: float  # over the running median there


@dataclass(frozen=True, kw_only=True)
class Slingshots(Result):
    """The spikes of the train loss from `begin` on; `curve` has the loss, its median, the ratio.

    `largest` is the highest ratio over the running median, at step `largest_at`. None, with the
    reason in `notes`, where nothing could be looked at: `slingshots` is then None too.

    >>> import grokinterp as gi
    >>> found = gi.progress.slingshots(gi.load("mod31-small"))
    >>> found.begin, found.slingshots, round(found.largest, 4)
    (460, (), 1.0003)
    """

    times: float  # the running median, above which a row is a spike
    begin: Step | None
    slingshots: tuple[Slingshot, ...] | None
    largest: float | None = None
    largest_at: Step | None = None
    curve: pd.DataFrame = field(repr=False)

    @property
    def n(self) -> int | None:
        """How many slingshots there are; None where nobody can say."""
        return None if self.slingshots is None else len(self.slingshots)

    def table(self) -> pd.DataFrame:
        """One row per slingshot: its first and last logged step, and the highest row."""
        columns = ["first", "last", "step", "train_loss", "ratio"]
        return pd.DataFrame([vars(each) for each in self.slingshots or ()], columns=columns)

    def _lines(self) -> list[str]:
        if self.largest is None:
            return []
        where = f"largest train loss {self.largest:.3g} times its median, at {self.largest_at}"
        return [f"{self.n} from step {self.begin} on; {where}"]


def slingshots(
    x: Subject | pd.DataFrame,
    *,
    times: float = TIMES,
    columns: Columns | str | None = None,
    by: By = None,
    task: Task | None = None,
    train_mask: Tensor | None = None,  # truth values, [n_inputs]
) -> Slingshots | ResultsOfRuns:
    """Where does the train loss spike after memorising, as in the slingshot mechanism?

    A row of the log is a spike where its train loss is above `times` its running median of 21 rows;
    neighbouring spikes are one slingshot. Only rows from 200 steps after memorising on (train
    accuracy 0.99, held, as `gi.detect_phases` has it) are looked at. A median of 0, such as of a
    loss that float32 rounds to 0, has no ratio: such rows are left out, with a note.

    `x` is what `gi.detect_phases` takes, with `columns` and `by`; a log of several runs gives
    `ResultsOfRuns`. Nothing can be said (None, with a note) of a run that does not memorise, of
    fewer than 21 rows after it has, and where steps are not known.

    Thilak et al. 2022 (arXiv 2206.04817) name and describe slingshots. The detector, this package's
    own, misses what lasts longer than 10 rows of the log, what happens between rows, and jumps from
    a loss that was falling fast, where the median is still high. A spike is no proof of their
    mechanism (the norm of the last layer would have to jump too), and none shows that
    generalisation needs it.

    >>> import grokinterp as gi
    >>> log = gi.load("mod31-small").metrics.copy()
    >>> log.loc[log.step == 5000, "train_loss"] *= 50
    >>> gi.progress.slingshots(log).table()[["first", "last", "ratio"]].round(1)
       first  last  ratio
    0   5000  5000   50.0
    """
    times = number("times", times, above=1, such_as="10")
    return of_each_training(
        x,
        partial(_slingshots, times=times),
        has="curves",
        columns=columns,
        by=by,
        task=task,
        train_mask=train_mask,
    )


def _slingshots(given: TrainingCurves, *, times: float) -> Slingshots:
    notes = list(given.notes)
    curve, memorized = given.curves.get("train_loss"), given.memorized
    nothing = pd.DataFrame(columns=["step", "train_loss", "median", "ratio"])

    def unknown(why: str, frame: pd.DataFrame = nothing) -> Slingshots:
        said = (*notes, why)
        return Slingshots(times=times, begin=None, slingshots=None, notes=said, curve=frame)

    if curve is None:
        return unknown("there is no train loss")
    median = running_median(curve.values, WIDTH)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(median > 0, curve.values / median, np.nan)
    frame = pd.DataFrame(
        {"step": curve.steps, "train_loss": curve.values, "median": median, "ratio": ratio}
    )
    if not given.steps_known:
        return unknown("nobody knows the steps of these checkpoints", frame)
    if memorized.step is None:
        return unknown(f"memorising is undated ({memorized.why})", frame)
    begin = memorized.step + QUIET
    late = frame["step"].to_numpy() >= begin
    if (n := int(late.sum())) < WIDTH:
        return unknown(f"{n} rows from step {begin} on, and the median takes {WIDTH}", frame)
    if without := int(np.isnan(ratio[late]).sum()):
        notes.append(f"{without} rows have a median of 0 and no ratio")
    if without == n:
        return unknown("no row has a ratio", frame)
    top = int(np.nanargmax(np.where(late, ratio, np.nan)))
    spikes = np.flatnonzero(late & (ratio > times))
    groups = np.split(spikes, np.flatnonzero(np.diff(spikes) > 1) + 1) if len(spikes) else []
    found = []
    for rows in groups:
        highest = int(rows[np.argmax(ratio[rows])])
        found.append(
            Slingshot(
                first=curve.step(int(rows[0])), last=curve.step(int(rows[-1])),
                step=curve.step(highest), train_loss=float(curve.values[highest]),
                ratio=float(ratio[highest]),
            )
        )  # fmt: skip
    return Slingshots(
        times=times, begin=begin, slingshots=tuple(found), largest=float(ratio[top]),
        largest_at=curve.step(top), curve=frame, notes=tuple(notes),
    )  # fmt: skip
