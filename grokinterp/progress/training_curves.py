"""Whose curves were given? Those of a run, of a table, or of a log of one run or of several."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
from torch import Tensor

from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import Result
from grokinterp.progress._detect_phases import run_or_logs
from grokinterp.progress.curves import CURVES, Curves, read_curves
from grokinterp.progress.levels import Crossing, Thresholds, crossing
from grokinterp.reading._load import Subject
from grokinterp.reading.logs.columns import Columns
from grokinterp.reading.logs.table import By
from grokinterp.runs.manifest import missing_split
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

Found = TypeVar("Found", bound=Result)


@dataclass(frozen=True)
class TrainingCurves:
    """The curves of one training, cleaned, and the run that they are of, where there is one."""

    curves: Curves
    notes: tuple[str, ...]
    steps_known: bool = True
    run: Run | None = None

    @property
    def memorized(self) -> Crossing:
        """When the training inputs are memorised, by the thresholds of `gi.detect_phases`."""
        train_acc, train_loss = self.curves.get("train_acc"), self.curves.get("train_loss")
        return crossing(train_acc, train_loss, "train", Thresholds())


@dataclass(frozen=True, kw_only=True)
class ResultsOfRuns(Result):
    """What was found of every run of a log, by the names of the runs; nothing is averaged.

    >>> import pandas as pd
    >>> import grokinterp as gi
    >>> log = gi.load("mod31-small").metrics.iloc[::10]
    >>> both = pd.concat([log.assign(seed=0), log.assign(seed=1)])
    >>> found = gi.progress.descents(both)
    >>> len(found), found["1"].t_interp
    (2, 300)
    """

    runs: Mapping[str, Result]

    def __getitem__(self, run: str) -> Result:
        if run not in self.runs:
            raise InputError(f"there is no run {shown(run)}; there are {', '.join(self.runs)}.")
        return self.runs[run]

    def __len__(self) -> int:
        return len(self.runs)

    def table(self) -> pd.DataFrame:
        """The tables of all runs, one after the other, with the name of each in `run`."""
        each = {name: found.table() for name, found in self.runs.items()}
        parts = [table for table in each.values() if len(table)] or list(each.values())[:1]
        frame = pd.concat(parts, ignore_index=True)
        names = [name for name, table in each.items() for _ in range(len(table))]
        frame.insert(0, "run", names)
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain values: {"runs": [...]}, each with its name in `run`."""
        return {"runs": [{"run": name, **found.to_dict()} for name, found in self.runs.items()]}


def of_each_training(
    x: Subject | pd.DataFrame,
    find: Callable[[TrainingCurves], Found],
    *,
    has: str,
    columns: Columns | str | None,
    by: By,
    task: Task | None,
    train_mask: Tensor | None,
) -> Found | ResultsOfRuns:
    """What `find` finds of a run or table, or of each run of a log that has several."""
    given, source = run_or_logs(
        x, columns=columns, by=by, task=task, train_mask=train_mask, has=has
    )
    if isinstance(given, Run):
        curves = read_curves(given.metrics, str(given.path))
        notes = curves.notes
        if given.train_mask is None and all(curves.get(column) is None for column in CURVES):
            notes = (*notes, missing_split((given.manifest.source or {}).get("file")))
        return find(TrainingCurves(curves, notes, given.steps_known, given))
    found: dict[str | None, Found] = {}
    for log in given:
        where = source if log.run is None else f"{source}, run {shown(log.run)}"
        curves = read_curves(log.table, where)
        notes = (*log.notes, *curves.notes)
        found[log.run] = find(TrainingCurves(curves, notes, log.steps_known))
    if None in found:
        return found[None]
    return ResultsOfRuns(runs={str(name): each for name, each in found.items()})
