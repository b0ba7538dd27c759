"""How does a table become one a run, with a column a metric and a row a step?

Three other shapes are known: a column a run and metric, as the page of Weights & Biases exports
them (`run-1 - train_acc`) and scripts write them (`train_acc_seed0`, `wd_0.1/train_acc`); a row a
side, with a column that says which (`split` is train or val); and a row a number, with its metric's
name and value (`tag`, `value`).

Rows of several runs are told apart by a column `run`, `name` or `seed` that has several values, or
by the one that is named. Without one a log is of one run.
"""

import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.checks import refused
from grokinterp.base.errors import InputError, shown
from grokinterp.reading.logs.cells import column_names, single_column
from grokinterp.reading.logs.nested import RUN
from grokinterp.reading.logs.series import MOST_COLUMNS, is_axis
from grokinterp.reading.words import curve_of, is_known, side_of, words_of

_NUMBER = r"\d+(?:\.\d+)?(?:e-?\d+)?"
_RUN = (
    r"\(?(?P<run>(?:seed|run|trial|exp|experiment|replica|repeat|model|wd|weight[ _]decay|lr|"
    rf"learning[ _]rate|p|frac|train[ _]frac|fraction)[ _=-]?{_NUMBER})\)?"
)
OF_RUN = (
    re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<bound>__(MIN|MAX))?", re.DOTALL),
    re.compile(rf"{_RUN}[ /._:,-]+(?P<metric>.+)(?P<bound>)", re.IGNORECASE),
    re.compile(rf"(?P<metric>.+?)[ /._:,-]+{_RUN}(?P<bound>)", re.IGNORECASE),
)
SIDES = (
    "split", "subset", "partition", "phase", "mode", "stage", "set", "dataset", "data", "fold",
    "type", "event", "kind",
)  # fmt: skip
METRICS = ("metric", "tag", "name", "key", "measure", "quantity", "variable")
VALUES = ("value", "values", "val", "scalar")
TELLING = (  # names of columns that say of which run a row is
    "run", "run_name", "run_id", "runid", "experiment", "exp", "trial", "trial_id", "name", "seed",
    "random_seed", "model_seed", "dir_name",
)  # fmt: skip
MOST_RUNS = 10_000
MOST_SIDES = 10


def a_row_a_step(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with a column a metric; one that has that already, as it is."""
    for reshape in (_runs_below_each_other, _sides_beside_each_other, _metrics_as_columns):
        notes = frame.attrs
        frame = reshape(frame)
        frame.attrs = {**notes, **frame.attrs}
    return frame


def without_lists(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """A row a step of a table with a row a run, whose cells are lists."""
    lists = [
        x for x in frame.columns[~frame.columns.duplicated(keep=False)]
        if is_known(str(x)) and _is_list(next(iter(frame[x].dropna().tolist()), None))
    ]  # fmt: skip
    axes = [x for x in frame.columns if is_axis(str(x))]
    if not any(curve_of(words_of(str(x))) for x in lists) or not set(axes) <= set(lists):
        return frame
    lengths = [[len(x) if _is_list(x) else 0 for x in frame[name]] for name in lists]
    if any(len(set(of_row)) > 1 for of_row in zip(*lengths, strict=True)):
        raise InputError(
            f"{source} has lists in the cells of {column_names(lists)}, in one row of several "
            "lengths; give a row a step, or lists of one length."
        )
    rows = frame.explode(lists, ignore_index=True)
    rows.attrs = frame.attrs
    return rows.astype(dict.fromkeys(lists, float), errors="ignore")


def _is_list(cell: object) -> bool:
    return isinstance(cell, list | tuple | np.ndarray)


def _runs_below_each_other(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of runs that stand side by side, with a column `run` where there are several.

    Beside the same curve without a run they are something else of it, such as its percentiles.
    """
    for form in OF_RUN:
        found = {
            name: match for name in frame.columns
            if isinstance(name, str) and curve_of(words_of(name)) is None
            and (match := form.fullmatch(name))
            and (curve_of(words_of(match["metric"])) or is_axis(match["metric"]))
        }  # fmt: skip
        if found:
            break
    else:
        return frame
    metrics = {match["metric"] for match in found.values()}
    if any(name in metrics and curve_of(words_of(str(name))) for name in frame.columns):
        return frame
    runs = list(dict.fromkeys(match["run"] for match in found.values()))
    bounds = [name for name, match in found.items() if match["bound"]]  # of a smoothed curve
    once = frame.columns[~frame.columns.duplicated(keep=False)]
    common = [name for name in once if name not in found and name not in metrics]
    for name in found:
        single_column(frame, name, "the log")
    parts = []
    for run in runs:
        own = {
            name: match["metric"] for name, match in found.items()
            if match["run"] == run and name not in bounds
        }  # fmt: skip
        if own:
            part = frame[[*common, *own]].rename(columns=own)
            parts.append(part[part[list(own.values())].notna().any(axis=1)].assign(**{RUN: run}))
    joined = pd.concat(parts, ignore_index=True)
    return joined.drop(columns=RUN) if len(parts) == 1 else joined


def _sides_beside_each_other(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of train and of test, told apart by a column, under names with their side."""
    column = next(
        (x for x in frame.columns if str(x).lower() in SIDES and _are_sides(frame[x])), None
    )
    if column is None:
        return frame
    measured = [
        name for name in frame.columns
        if name != column and (measure := curve_of(words_of(str(name)))) and measure[0] is None
    ]  # fmt: skip
    if not measured:
        return frame
    sides = frame[column].where(frame[column].notna(), "other").astype(str).str.strip()
    rest = frame.drop(columns=[column, *measured])
    wide = {
        f"{side}_{name}": frame[name].where(sides == side)
        for side in dict.fromkeys(sides) for name in measured
    }  # fmt: skip
    return rest.assign(**wide)


def _are_sides(cells: pd.DataFrame | pd.Series) -> bool:
    """Whether cells name sides, most of them: rows of others count for nothing."""
    if isinstance(cells, pd.DataFrame) or cells.nunique() > MOST_SIDES:
        return False
    known = [side_of(words_of(str(cell))) is not None for cell in cells.unique()]
    return sum(known) >= max(1, len(known) - 2) and any(known)


def _metrics_as_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of one number each, whose name stands beside it."""
    name = _the(frame, METRICS)
    value = _the(frame, VALUES)
    if name is None or value is None or not len(frame):
        return frame
    metrics = frame[name].dropna().astype(str).unique()
    if len(metrics) > MOST_COLUMNS or not any(curve_of(words_of(x)) for x in metrics):
        return frame
    rest = frame.drop(columns=[name, value])
    said = frame[name].astype(str)
    wide = {metric: frame[value].where(said == metric) for metric in metrics}
    return rest.assign(**wide)


def _the(frame: pd.DataFrame, words: tuple[str, ...]) -> Hashable | None:
    return next(
        (x for word in words for x in frame.columns
         if str(x).strip().lower() == word and isinstance(frame[x], pd.Series)), None
    )  # fmt: skip


def by_run(
    frame: pd.DataFrame, source: str, *, by: str | Sequence[str] | None = None
) -> tuple[list[Hashable], list[tuple[str | None, pd.DataFrame]]]:
    """The columns that tell runs apart, and the rows of each run under its name.

    >>> rows = pd.DataFrame({"seed": [0, 0, 1], "step": [0, 1, 0]})
    >>> columns, runs = by_run(rows, "x.csv")
    >>> columns, [(name, len(part)) for name, part in runs]
    (['seed'], [('0', 2), ('1', 1)])
    """
    if by is not None:
        columns = [_named(frame, name, source) for name in _names(frame, by)]
    else:
        columns = _telling(frame)
    if not columns or not len(frame):
        return columns, [(None, frame)]
    runs = list(_parts(frame, columns, source))
    if by is None and len(runs) == 1:
        return columns, [(None, frame)]
    return columns, runs


def _names(frame: pd.DataFrame, by: object) -> list[str]:
    """The columns that were named: in a list, or in one text with commas between."""
    given = [by] if isinstance(by, str) else by
    if (
        not isinstance(given, list | tuple)
        or not given
        or not all(isinstance(x, str) and x.strip() for x in given)
    ):
        raise refused("by", by, "the name of a column", "such as 'seed', or 'seed,lr' for two")
    if isinstance(by, str) and "," in by and by not in frame.columns:
        return [part.strip() for part in by.split(",") if part.strip()]
    return list(given)


def _named(frame: pd.DataFrame, name: str, source: str) -> Hashable:
    if is_axis(name) or curve_of(words_of(name)):
        raise InputError(f"by={shown(name)} names steps or a curve; give a column such as 'seed'.")
    found = [x for x in frame.columns if str(x).strip().lower() == name.strip().lower()]
    if name in frame.columns:
        found = [name]
    if len(found) != 1 or isinstance(frame[found[0]], pd.DataFrame):
        raise InputError(
            f"{source} has {'no' if not found else 'two'} column {shown(name)} to tell runs apart "
            f"by (found: {column_names(frame.columns)}); give one of these."
        )
    return found[0]


def _telling(frame: pd.DataFrame) -> list[Hashable]:
    """The fewest columns that say of which run a row is: one where it tells what all do."""
    found: list[Hashable] = [
        x for word in TELLING for x in frame.columns
        if str(x).strip().lower() == word and isinstance(frame[x], pd.Series)
        and frame[x].nunique(dropna=False) > 1
    ]  # fmt: skip
    found = [x for x in found if frame[x].nunique(dropna=False) < len(frame)]
    if len(found) < 2:
        return found
    every = frame.groupby(found, dropna=False, sort=False).ngroups
    return next(([x] for x in found if frame[x].nunique(dropna=False) == every), found)


def _parts(
    frame: pd.DataFrame, columns: list[Hashable], source: str
) -> Iterator[tuple[str | None, pd.DataFrame]]:
    named = frame[columns].map(_text)  # 1 and "1", or with a blank after it, are one run
    groups: Any = frame.groupby([named[x] for x in columns], sort=False)
    if groups.ngroups > MOST_RUNS:
        raise InputError(
            f"{source} has {groups.ngroups} runs by {column_names(columns)}; at most {MOST_RUNS} "
            "are told apart: give another column with by=."
        )
    for key, part in groups:
        part.attrs = dict(frame.attrs)
        yield ", ".join(key), part


def _text(value: object) -> str:
    """A value as the name of a run: a whole number without its point."""
    return (
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    )
