"""`gi.detect_phases`: what lies at a path, or was given, and its phases."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import overload

import pandas as pd
from torch import Tensor
from torch.nn import Module

from grokinterp.base.checks import number, refused, word
from grokinterp.base.errors import InputError, named, one_line
from grokinterp.base.paths import as_path, kind_at
from grokinterp.models.user_models import HookedModel
from grokinterp.progress.curves import read_measures
from grokinterp.progress.levels import Thresholds
from grokinterp.progress.phases import Phases, PhasesOfRuns, phases_of
from grokinterp.reading._load import Subject, load, run_of
from grokinterp.reading.addresses import calling_by_address, local_copy
from grokinterp.reading.checkpoint_formats import SUFFIXES, is_foreign
from grokinterp.reading.logs.columns import Columns, columns_given
from grokinterp.reading.logs.table import By, Log, is_log, logs_at, logs_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.manifest import is_run_folder
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task


def run_or_log(
    path: str | Path, *, columns: Columns | str | None = None, by: By = None
) -> Run | list[Log]:
    """What lies at a path: a run, checkpoints of others, or a log of one run or several.

    `columns` and `by` are for logs, as of `gi.read_log`.
    """
    path = as_path("x", local_copy(path), such_as="runs/mine")
    with calling_by_address(path):
        if _is_log(path):
            return logs_at(path, columns=columns, by=by)
        try:
            run = load(path)
        except InputError as error:
            return _logs_beside(path, error, columns, by)
        if columns or by:
            given = "columns" if columns else "by"
            raise InputError(f"{path} is a run, and {given}= is for logs; leave it out.")
        return run


def _logs_beside(path: Path, error: InputError, columns: Columns | str | None, by: By) -> list[Log]:
    """The log beside weights that cannot be read, with a note; without one, their refusal.

    It is a file of their folder, or in the same file.
    """
    in_folder = path.is_dir() and not is_run_folder(path) and is_log(path)
    if not in_folder and not (path.is_file() and is_foreign(path)):
        raise error
    try:
        logs = logs_at(path, columns=columns, by=by)
    except InputError:
        raise error from None
    note = f"its checkpoints are not read: {one_line(str(error), most=200)}"
    return [replace(log, notes=(note, *log.notes)) for log in logs]


def _is_log(path: Path) -> bool:
    if kind_at(path) == "folder":
        return not is_run_folder(path) and not is_foreign(path) and is_log(path)
    if path.suffix not in SUFFIXES and not is_foreign(path):
        return True
    return path.is_file() and is_foreign(path) and is_log(path)


@overload
def detect_phases(
    x: Run,
    *,
    measures: pd.DataFrame | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    ceiling: float | None = None,
) -> Phases: ...


@overload
def detect_phases(
    x: Subject | pd.DataFrame,
    *,
    measures: pd.DataFrame | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    ceiling: float | None = None,
    columns: Columns | str | None = None,
    by: By = None,
    task: Task | None = None,
    train_mask: Tensor | None = None,  # truth values, [n_inputs]
) -> Phases | PhasesOfRuns: ...


def detect_phases(
    x: Subject | pd.DataFrame,
    *,
    measures: pd.DataFrame | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    ceiling: float | None = None,
    columns: Columns | str | None = None,
    by: By = None,
    task: Task | None = None,
    train_mask: Tensor | None = None,  # truth values, [n_inputs]
) -> Phases | PhasesOfRuns:
    """Label a run or a table of curves and date its phases.

        gi.detect_phases("runs/mine")
        gi.detect_phases("log.csv", columns={"step": "epoch", "test_acc": "val/acc"})

    `x` is a run, a table, or the path of a run, of checkpoints of others or of a log of any tool
    (`gi.read_log` says which), or the address of one of these, such as `hf://user/repo/log.csv`. A
    run is read from metrics.csv and from the progress measures of its
    checkpoints (`measures` spares computing them again); a log or a table from its steps, losses
    and accuracies (at least one), with `excluded_loss` used when present. They are found by their
    names in any of the usual words; `columns` says which is which, by our names, and
    `Phases.notes` how it was read. A log of several runs, told apart by a column such as `seed` or
    the one that `by` names, gives a `PhasesOfRuns`.

    `ceiling` is the best test accuracy that the task allows, that of a run's task (`task.ceiling`)
    unless given, else 1: a run generalises when it comes within 5 % of it or of its own train
    accuracy, whichever is less.

    A snapshot, or a model with its `task`, is a run of one checkpoint: it says what is learned, and
    dates nothing.

    The label is that of `grokinterp.progress.labels`, the boundaries those of
    `grokinterp.progress.boundaries`; nothing is set by hand for a run.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.detect_phases(run)
    >>> found.label, found.memorization_step, found.grok_step, found.key_frequencies
    ('grokked', 260, 3530, (1, 8, 14))
    >>> found.table()[["name", "start", "end"]]
                    name  start   end
    0       memorization      0  1390
    1  circuit_formation   1390  2330
    2            cleanup   2330  7150
    >>> gi.detect_phases(run.metrics[["step", "train_acc", "test_acc"]]).label  # a table
    'grokked'
    """
    limits = _thresholds(thresholds)
    if ceiling is not None:
        ceiling = number("ceiling", ceiling, most=1, such_as="0.95")
    if measures is not None:
        measures = read_measures(measures)
    found, source = run_or_logs(x, columns=columns, by=by, task=task, train_mask=train_mask)
    return phases_of(found, source, measures=measures, limits=limits, ceiling=ceiling)


def run_or_logs(
    x: Subject | pd.DataFrame,
    *,
    columns: Columns | str | None = None,
    by: By = None,
    task: Task | None = None,
    train_mask: Tensor | None = None,  # truth values, [n_inputs]
    has: str = "phases",
) -> tuple[Run | list[Log], str]:
    """What was given, a run or the logs of one or several, and what messages call it.

    `has` is what such things have, for the refusal of what is none.
    """
    source = "the table"
    if isinstance(x, str | Path):
        source = str(x)
        found = run_or_log(x, columns=columns, by=by)
        if isinstance(found, Run):
            found = run_of(found, task=task, train_mask=train_mask)
    elif isinstance(x, pd.DataFrame):
        found = logs_of(x, source, columns=columns_given(columns), by=by)
    elif not isinstance(x, Run | Snapshot | HookedModel | Module):
        raise InputError(
            f"{named(x)} has no {has}; give a run (gi.load(path)), its path, a snapshot, a model "
            "with task=, or a DataFrame with a 'step' column and losses or accuracies."
        )
    else:
        found = run_of(x, task=task, train_mask=train_mask)
        if columns or by:
            raise InputError("columns= and by= are for logs and tables; leave them out for a run.")
    if isinstance(found, list) and (task is not None or train_mask is not None):
        raise InputError("task= and train_mask= are for models; leave them out for a log.")
    return found, source


def _thresholds(given: Thresholds | Mapping[str, float] | None) -> Thresholds:
    if given is None or isinstance(given, Thresholds):
        return given or Thresholds()
    if not isinstance(given, Mapping):
        raise refused("thresholds", given, "a dict", "such as {'test_acc': 0.95}")
    for name in given:
        word("threshold", name, asdict(Thresholds()))
    return Thresholds(**given)
