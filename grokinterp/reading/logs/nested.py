"""Which series of numbers are in nested dictionaries and lists, as JSON and pickles hold them?

Understood are lists of records; dictionaries of lists; nested ones, whose names are joined
(`{"train": {"acc": [...]}}` is `train/acc`); records or numbers by step; lists of pairs of a step
and a number; and groups that only hold these ("log_history", "metrics"). A dictionary of several
such logs is one of several runs.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from grokinterp.base.errors import InputError, names, shown
from grokinterp.reading.file_contents import GROUPS, numbers_in
from grokinterp.reading.logs.series import MOST_CELLS, MOST_COLUMNS, Series, is_axis, table_of
from grokinterp.reading.words import (
    LONGEST_KEY,
    counts_epochs,
    curve_of,
    is_about_losses,
    side_of,
    step_word,
    words_of,
)

DEEPEST = 6  # group within a group
LONGEST_STEP = 17  # digits of a step that is a name
PLAIN_GROUPS = GROUPS | {"data", "scalars"}  # whose names say nothing
NAMES_OF_RUNS = ("run", "name", "run_name", "id", "seed", "label", "title")
_NAMED_STEP = re.compile(r"(?:step|epoch|iter|iteration)[ _=-]?(\d+)", re.IGNORECASE)
RUN = "run"  # the column that says of which run a row is

FEWEST_STEPS = 4  # beside a matrix of runs: one as wide may be of pairs or triples

Groups = tuple[str, ...]  # names, the outermost first


class Matrix(NamedTuple):
    """A loss or accuracy with two axes of which nothing says what they are."""

    name: str
    shape: tuple[int, ...]

    @property
    def said(self) -> str:
        """What it is, in words."""
        return f"{self.name} is a matrix of {' x '.join(map(str, self.shape))}"


Part = Series | pd.DataFrame | Matrix | str  # of nested data; a text is a note


def table_in(data: Any, source: str) -> pd.DataFrame:
    """The table in nested data; InputError where nothing in it is a log.

    >>> table_in({"train": {"acc": [0.1, 1.0]}, "step": [0, 10]}, "x.json").to_dict("list")
    {'train/acc': [0.1, 1.0], 'step': [0.0, 10.0]}
    >>> table_in([{"step": 0, "acc": {"test": 0.5}}], "x.json").to_dict("list")
    {'step': [0], 'acc/test': [0.5]}
    """
    if isinstance(data, list | tuple) and data and isinstance(data[0], Mapping):
        return _of_list(data, source)
    if isinstance(data, list | tuple | np.ndarray):
        head = data[0] if len(data) and isinstance(data[0], list | tuple) else ()
        named = bool(head) and all(isinstance(x, str) for x in head)  # a header as first row
        if (rows := _rows_of_numbers(data[1:] if named else data)) is not None:
            if named and len(head) == rows.shape[1]:
                return pd.DataFrame(rows.to_numpy(), columns=[_name(x) for x in head])
            return rows
    if not isinstance(data, Mapping):
        raise InputError(f"{source} holds {_kind(data)}, no log; give records or lists of numbers.")
    if (written := _of_pandas(data)) is not None:
        return written
    (only,) = data.values() if len(data) == 1 else (None,)
    if (rows := _rows_of_numbers(only)) is not None:
        return rows
    if (runs := _by_run(data, source)) is not None:
        return runs
    if (records := _records_by_step(data)) is not None:
        return _noted(_of_records(records, source), _keys_as_steps(data))
    parts = list(_parts(_opened(data), ()))
    tables = [part for part in parts if isinstance(part, pd.DataFrame)]
    series = [part for part in parts if isinstance(part, Series)]
    unread = [part for part in parts if isinstance(part, Matrix)]
    notes = [part for part in parts if isinstance(part, str)]
    if series:
        tables.insert(0, table_of(series, source))
    if unread and not any(map(_has_curves, tables)):
        raise InputError(
            f"{source}: {unread[0].said}, and nothing says what its rows and columns are; give a "
            "list a run and metric, such as train_acc_seed0."
        )
    notes += [f"{one.said}, left out as nothing says of what" for one in unread]
    if not tables:
        raise InputError(
            f"{source} holds no lists of numbers (found: {names(data, spelled=str) or 'nothing'}); "
            "give losses or accuracies against step."
        )
    notes += [note for table in tables for note in table.attrs.get("notes", ())]
    return _noted(tables[0] if len(tables) == 1 else _one_after_the_other(tables, source), notes)


def _noted(table: pd.DataFrame, notes: Sequence[str]) -> pd.DataFrame:
    table.attrs["notes"] = list(dict.fromkeys((*table.attrs.get("notes", ()), *notes)))
    return table


def _below_each_other(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    notes = [note for table in tables for note in table.attrs.get("notes", ())]
    return _noted(pd.concat(tables, ignore_index=True), notes)


def _of_pandas(data: Mapping[Any, Any]) -> pd.DataFrame | None:
    """The table that pandas wrote by columns, split, or with its schema; None if it is none."""
    if {"columns", "data"} <= set(data):
        rows, columns = _rows_of_numbers(data["data"]), data["columns"]
        if rows is None or not isinstance(columns, list) or len(columns) != rows.shape[1]:
            return None
        table = pd.DataFrame(rows.to_numpy(), columns=[_name(column) for column in columns])
        index = data.get("index")
        if (
            isinstance(index, list)
            and len(index) == len(table)
            and index != list(range(len(index)))
        ):
            table.insert(0, "index", index)
        return table
    if {"schema", "data"} == set(data) and isinstance(data["data"], list):
        return _of_records(data["data"], "") if data["data"] else None
    keys = [list(x) if isinstance(x, Mapping) else None for x in data.values()]
    is_axis_there = any(is_axis(_name(key)) for key in data)
    alike = len(keys) > 1 and keys[0] and all(x == keys[0] for x in keys)
    if is_axis_there and alike and all(_step(key) is not None for key in keys[0] or ()):
        return pd.DataFrame({_name(name): list(x.values()) for name, x in data.items()})
    return None  # those were its rows by their number


def _opened(data: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """What is in a mapping that has nothing else than one other, whatever that is called."""
    for _ in range(DEEPEST):
        inside = [x for x in data.values() if isinstance(x, Mapping | list | tuple)]
        (name,) = data if len(data) == 1 else ("",)
        if len(inside) != 1 or not isinstance(inside[0], Mapping) or not isinstance(name, str):
            break
        if any(map(is_about_losses, words_of(name))):
            break
        data = inside[0]
    return data


def _one_after_the_other(tables: Sequence[pd.DataFrame], source: str) -> pd.DataFrame:
    """Tables of the same run: the rows of each, under one name of their steps."""
    same = [table.rename(columns={_axis_of(table): "step"}) for table in tables]
    columns = {column for table in same for column in table}
    if len(columns) * sum(map(len, same)) > MOST_CELLS:
        raise InputError(f"{source} holds {len(columns)} metrics in {len(same)} lists; keep some.")
    joined = pd.concat(same, ignore_index=True)
    if "step" in joined and pd.api.types.is_numeric_dtype(joined["step"]):
        joined = joined.sort_values("step", kind="stable", ignore_index=True)
    return joined


def _axis_of(table: pd.DataFrame) -> object:
    """The column of a table that says its steps, updates before epochs."""
    found = [name for name in map(str, table.columns) if is_axis(name)]
    return min(found, key=lambda name: counts_epochs(words_of(name)[-1]), default=None)


def _parts(
    data: Mapping[Any, Any], about: Groups, axes: Sequence[np.ndarray] = ()
) -> Iterator[Part]:
    """The series and tables in a mapping, groups opened; `axes` are lists of steps around it."""
    axes = [*axes, *_axes_in(data)]
    for key, value in islice(data.items(), MOST_COLUMNS * 10):
        name = _name(key)
        plain = "_".join(words_of(name))
        path = about if plain in PLAIN_GROUPS and not curve_of(words_of(name)) else (*about, name)
        full = "/".join((*about, name))
        if isinstance(value, Mapping):
            if (by_step := _numbers_by_step(value)) is not None:
                yield Series(full, *by_step)
                yield from _keys_as_steps(value)
            elif (own := _with_own_steps(value)) is not None:
                yield Series(full, *own)
            elif (records := _records_by_step(value)) is not None:
                yield _noted(_of_records(records, full, prefix=path), _keys_as_steps(value))
            elif runs := _lists_by_run(full, value):
                yield from runs
            elif len(about) < DEEPEST:
                yield from _parts(value, path, axes)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            yield _of_list(value, full, prefix=path)
        elif (array := _array_in(value)) is not None and array.ndim and len(array):
            yield from _series_in(full, array, axes)


def _axes_in(data: Mapping[Any, Any]) -> list[np.ndarray]:
    """The lists of steps in a mapping."""
    arrays = [
        numbers_in(value) for key, value in islice(data.items(), MOST_COLUMNS * 10)
        if isinstance(value, list | tuple | np.ndarray | Tensor) and is_axis(_name(key))
    ]  # fmt: skip
    return [x.reshape(-1) for x in arrays if x is not None and x.size == max(x.shape, default=0)]


def _lists_by_run(name: str, value: Mapping[Any, Any]) -> list[Series]:
    """The lists of a loss or accuracy by numbers, such as those of seeds; none if it has others."""
    if not (curve_of(words_of(name)) or (None,))[0]:
        return []
    found = []
    for key, x in value.items():
        array = numbers_in(x) if isinstance(x, list | tuple | np.ndarray | Tensor) else None
        if not _is_plain_number(key) or array is None or array.ndim != 1 or len(array) < 2:
            return []
        found.append(Series(f"{name}/{RUN} {key}", array))
    return found


def _array_in(value: Any) -> np.ndarray | None:
    array = numbers_in(value)
    return _as_array(value) if array is None and isinstance(value, list | tuple) else array


def _series_in(name: str, array: np.ndarray, axes: Sequence[np.ndarray]) -> Iterator[Part]:
    """A list of numbers; one of pairs of a step and a number, maybe with a wall time before; runs.

    A matrix beside a list of steps has a column a run, or a row a run.
    """
    measure = curve_of(words_of(name))
    if array.ndim == 1 or array.size == max(array.shape):
        yield Series(name, array.reshape(-1))
    elif array.ndim == 2 and array.size and measure:
        beside = [n for n in array.shape if any(len(axis) == n for axis in axes)]
        steps = array[:, -2]
        is_own = not beside or any(np.array_equal(steps, axis) for axis in axes)
        if array.shape[1] in (2, 3) and is_own and _are_steps(steps):
            yield Series(name, array[:, -1], steps)
        elif len(beside) == 1 and beside[0] >= FEWEST_STEPS and _are_of_runs(array, measure[0]):
            runs = array.T if len(array) == beside[0] else array
            yield from (Series(f"{name}/{RUN}{i}", values) for i, values in enumerate(runs))
            yield f"{Matrix(name, array.shape).said}: {len(runs)} runs"
        else:
            yield Matrix(name, array.shape)


def _are_of_runs(array: np.ndarray, side: str | None) -> bool:
    """Whether a matrix may have a column or a row a run.

    Without a side its two columns may be train and test; they may also be how many were right, and
    of how many.
    """
    whole = array[:, -1]
    are_counts = (whole == whole[0]).all() and whole[0] > 1 and (whole >= array.T).all()
    return side is not None and not are_counts and min(array.shape) <= MOST_COLUMNS


def _with_own_steps(value: Mapping[Any, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Values and steps of a metric that keeps both, as Sacred writes it; None if it does not."""
    lists = {str(key).lower(): x for key, x in value.items() if isinstance(x, list | np.ndarray)}
    values = next((lists[x] for x in ("values", "value", "y") if x in lists), None)
    steps = next((lists[x] for x in ("steps", "step", "x", "epochs", "epoch") if x in lists), None)
    if values is None or steps is None or len(values) != len(steps) or not len(steps):
        return None
    arrays = numbers_in(values), numbers_in(steps)
    return arrays if arrays[0] is not None and arrays[1] is not None else None  # type: ignore[return-value]


def _of_list(found: Sequence[Any], source: str, *, prefix: Groups = ()) -> pd.DataFrame:
    """The table of a list of records, or of one of logs, each of a run."""
    tables, seen = [], dict[str, int]()
    for number, log in enumerate(found):
        if not isinstance(log, Mapping) or not _has_lists(log):
            return _of_records(found, source, prefix=prefix)
        about = {_name(key): x for key, x in log.items() if isinstance(x, str | int | float)}
        name = next((about[key] for key in NAMES_OF_RUNS if key in about), number)
        seen[_name(name)] = seen.get(_name(name), 0) + 1
        again = f" ({seen[_name(name)]})" if seen[_name(name)] > 1 else ""
        rest = {key: x for key, x in log.items() if not isinstance(x, str | int | float)}
        table = table_in(rest, source)
        if not _has_curves(table):
            return _of_records(found, source, prefix=prefix)
        tables.append(_of_run(table, _name(name) + again))
    return _below_each_other(tables)


def _of_run(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table of a run, or of several within, with the name in its column."""
    inner = f"{name}/" + table[RUN].astype(str) if RUN in table else name
    return table.assign(**{RUN: inner})


def _has_lists(value: Any, depth: int = 0) -> bool:
    """Whether somewhere in a mapping is a list, so that it is a log of its own, and no record."""
    if isinstance(value, Mapping):
        return depth < DEEPEST and any(_has_lists(x, depth + 1) for x in value.values())
    return isinstance(value, list | tuple | np.ndarray) and len(value) > 1


def _has_curves(table: pd.DataFrame) -> bool:
    names_of_curves = (str(column).rpartition(f"/{RUN}")[0] or str(column) for column in table)
    return any(curve_of(words_of(name)) for name in names_of_curves)


def _name(key: Any) -> str:
    """A key or a text of a file in a form that any encoding can write, and not too long."""
    return str(key)[:LONGEST_KEY].encode(errors="backslashreplace").decode()


def _of_records(records: Sequence[Any], source: str, *, prefix: Groups = ()) -> pd.DataFrame:
    """A table of a row a record; what is nested in one has the names of its groups before it."""
    rows = []
    seen: dict[str, None] = {}
    for record in records:
        if isinstance(record, Mapping):
            row = dict(_cells(record, prefix))
            seen.update(dict.fromkeys(row))
            if len(seen) > MOST_COLUMNS or len(seen) * len(records) > MOST_CELLS:
                raise InputError(
                    f"{source} has records with {len(seen)} names; keep the losses and accuracies."
                )
            rows.append(row)
    return pd.DataFrame(rows, columns=list(seen))


def _cells(record: Mapping[Any, Any], about: Groups) -> Iterator[tuple[str, Any]]:
    for key, value in islice(record.items(), MOST_COLUMNS):
        name = _name(key)
        if isinstance(value, Mapping) and len(about) < DEEPEST:
            inner = about if "_".join(words_of(name)) in PLAIN_GROUPS else (*about, name)
            yield from _cells(value, inner)
        elif value is None or isinstance(value, str | int | float):
            is_step = step_word(words_of(name)) is not None
            cell = _name(value) if isinstance(value, str) else value
            yield name if is_step else "/".join((*about, name)), cell
        elif (array := numbers_in(value)) is not None and array.size == 1:
            yield "/".join((*about, name)), array.item()


def _by_run(data: Mapping[Any, Any], source: str) -> pd.DataFrame | None:
    """The table of several runs, of a mapping whose every value is a log; else None."""
    logs = {_name(k): x for k, x in data.items() if isinstance(x, Mapping | list | tuple)}
    if len(logs) < 2 or len(logs) < len(data) or len(logs) > MOST_COLUMNS:
        return None
    tables = []
    for name, log in logs.items():
        words = words_of(name)
        plain = "_".join(words)
        holds = isinstance(log, Mapping) or (len(log) > 0 and isinstance(log[0], Mapping))
        known = curve_of(words) or side_of(words) or is_axis(name) or plain in PLAIN_GROUPS
        if not holds or known or (name.isdecimal() and _is_record(log)):
            return None
        try:
            table = table_in(log, source)
        except InputError:
            return None
        if not _has_curves(table):
            return None
        tables.append(_of_run(table, name))
    return _below_each_other(tables)


def _is_record(value: Any) -> bool:
    """Whether a mapping has numbers alone, as the record of one step."""
    return isinstance(value, Mapping) and all(
        isinstance(x, int | float | str | None) for x in value.values()
    )


def _records_by_step(value: Mapping[Any, Any]) -> list[dict[str, Any]] | None:
    """Records that a mapping has by their steps, each with its step; None if it has others.

    Where all say steps of their own, the numbers are those of rows, as pandas writes them.
    """
    rows: list[dict[str, Any]] = []
    for key, record in value.items():
        if (step := _step(key)) is None or not isinstance(record, Mapping):
            return None
        rows.append(dict(record) if _has_axis(record) else {"step": step, **record})
    return rows or None


def _has_axis(record: Mapping[Any, Any]) -> bool:
    return any(is_axis(_name(key)) for key in islice(record, MOST_COLUMNS))


def _keys_as_steps(value: Mapping[Any, Any]) -> list[str]:
    """A note where what a mapping has under plain numbers is taken to be at these steps."""
    keys = [float(key) for key in value if _is_plain_number(key)]
    own = any(isinstance(x, Mapping) and _has_axis(x) for x in value.values())
    if not keys or own:
        return []
    return [
        f"the numbers {min(keys):.6g} to {max(keys):.6g} by which its records are kept are taken "
        "to be steps"
    ]


def _is_plain_number(key: Any) -> bool:
    """Whether a key is a number that no word says to be a step."""
    return _step(key) is not None and not (isinstance(key, str) and _NAMED_STEP.fullmatch(key))


def _numbers_by_step(value: Mapping[Any, Any]) -> tuple[np.ndarray, np.ndarray] | None:
    """Values and steps of a mapping from steps to numbers, in their order; None if it is none."""
    found: dict[float, float] = {}
    for key, x in value.items():
        if (step := _step(key)) is None or not isinstance(x, int | float):
            return None
        found[step] = float(x)
    steps = sorted(found)
    return (np.array([found[step] for step in steps]), np.array(steps)) if steps else None


def _step(key: Any) -> float | None:
    """The step that a key is, in JSON as text."""
    if isinstance(key, str) and (found := _NAMED_STEP.fullmatch(key)):
        key = found[1]
    if isinstance(key, str) and len(key) <= LONGEST_STEP and key.replace(".", "", 1).isdecimal():
        key = float(key) if "." in key else int(key)
    return key if isinstance(key, int | float) and math.isfinite(key) and key >= 0 else None


def _are_steps(steps: np.ndarray) -> bool:
    """Whether numbers rise as steps do, and are no shares of 1."""
    rise = np.isfinite(steps).all() and (np.diff(steps) >= 0).all() and steps[0] >= 0
    return bool(rise and (not (steps % 1).any() or steps[-1] > 1))


def _rows_of_numbers(data: Any) -> pd.DataFrame | None:
    """A list of rows of numbers as a table without names of columns."""
    if not isinstance(data, list | tuple | np.ndarray) or not len(data):
        return None
    array = data if isinstance(data, np.ndarray) else numbers_in(data)
    if array is None:
        array = _as_array(data)
    if array is None or array.ndim != 2 or not array.size or array.dtype.kind not in "biuf":
        return None
    return without_names(pd.DataFrame(array))


def without_names(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose columns have numbers for names, counted from 0."""
    frame.columns = pd.Index([str(i) for i in range(frame.shape[1])])
    frame.attrs["headerless"] = True
    return frame


def _as_array(data: Any) -> np.ndarray | None:
    first = data[0] if len(data) else None
    if not isinstance(first, list | tuple) or len(first) > MOST_COLUMNS:
        return None
    try:
        return np.array([[math.nan if x is None else x for x in row] for row in data], dtype=float)
    except (TypeError, ValueError, OverflowError):
        return None


def _kind(data: Any) -> str:
    if isinstance(data, list | tuple):
        return f"a list of {len(data)}" + (f", {shown(data[0])} first" if data else "")
    return f"one {type(data).__name__}"
