"""What table is in a log, of which runs, and how was it read?

A file or a folder becomes a table in its format (`formats`), with a row a step and the rows of each
run apart (`shapes`), its steps, losses and accuracies under our names and in our units (`columns`),
and each step once.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError, names, one_line, shown
from grokinterp.base.files import HEAD
from grokinterp.base.paths import file_at, kind_at
from grokinterp.base.plugins import others_of, strangers
from grokinterp.reading.logs import (  # the readers of these register themselves
    arrays,  # noqa: F401
    json_files,  # noqa: F401
    parquet_files,  # noqa: F401
)
from grokinterp.reading.logs.cells import column_names
from grokinterp.reading.logs.columns import Columns, columns_given
from grokinterp.reading.logs.contents import WANTED, unpacked
from grokinterp.reading.logs.event_files import event_files_in, read_events
from grokinterp.reading.logs.formats import LOG_FORMATS, Read
from grokinterp.reading.logs.lines import read_lines
from grokinterp.reading.logs.numbers import numbers_in
from grokinterp.reading.logs.saved_dictionaries import holds_a_log, read_saved
from grokinterp.reading.logs.series import begins_again, earlier_run, is_axis
from grokinterp.reading.logs.shapes import a_row_a_step, by_run, without_lists
from grokinterp.reading.words import curve_of, side_of, words_of
from grokinterp.runs.manifest import is_run_folder

OF_LOG = (
    "metrics", "trainer_state", "history", "log", "logs", "losses", "curves", "train_log",
    "training_log", "training_history", "stats", "results", "progress",
)  # fmt: skip
TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".npz")  # mostly logs, whatever their names
MOST_LOGS = 1000  # files and folders of a folder that are looked at
MOSTLY = 0.5  # of the steps come again, where other settings are in the same log
MOST_SETTINGS = 1000
FEW_ROWS = 5  # of one step, that say nothing
_FEW_COLUMNS = 5  # of a run without a curve: those that hold settings

By = str | Sequence[str] | None


@dataclass(frozen=True)
class Log:
    """The curves of one run in a log, a row a step, and how they were read."""

    table: pd.DataFrame
    word: str = "step"  # theirs, for its steps
    notes: tuple[str, ...] = ()
    run: str | None = None  # its name, of several
    steps_known: bool = True  # False where they are positions of checkpoints


def logs_at(path: Path, *, columns: Any = None, by: By = None, epochs: bool = False) -> list[Log]:
    """The logs at a path: of one run, or of several in one file or folder."""
    given = columns_given(columns)
    if kind_at(path) != "folder":
        return logs_of(read_table(path), str(path), columns=given, by=by, epochs=epochs)
    refused: list[InputError] = []
    for file in logs_in(path):
        try:
            logs = logs_of(read_table(file), str(file), columns=given, by=by, epochs=epochs)
        except InputError as error:
            refused.append(error)
            continue
        if file == path:
            return logs
        said = f"read {file.relative_to(path)} of it"
        return [replace(log, notes=(said, *log.notes)) for log in logs]
    if refused:
        raise refused[0]
    if several := several_in(path):
        return _of_several(path, several, columns=given, by=by, epochs=epochs)
    raise InputError(f"{path} holds no log that is known by its name; give the file itself.")


def several_in(folder: Path) -> dict[str, Path]:
    """Several logs in a folder that has none of its own, by their names; without following links.

    They are tables in it, or folders with a log each.
    """
    there = sorted(islice(folder.iterdir(), MOST_LOGS + 1), key=lambda x: _by_numbers(x.name))
    there = [x for x in there if not x.is_symlink() and not x.name.startswith(".")]
    if len(there) > MOST_LOGS:
        return {}
    if files := [x for x in there if x.is_file() and _is_table(x)]:
        stems = [Path(_unpacked_name(x)).stem for x in files]
        alike = len(set(stems)) < len(stems)
        found = {x.name if alike else stem: x for x, stem in zip(files, stems, strict=True)}
    else:
        found = {x.name: x for x in there if x.is_dir() and _has_own(x)}
    return found if len(found) > 1 else {}


def _has_own(folder: Path) -> bool:
    """Whether a folder has a log that is no link, and is no run of ours."""
    file = next(_files_in(folder), None)
    return file is not None and not file.is_symlink() and not is_run_folder(folder)


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """A key to sort names by in which numbers count as such."""
    return [(int(x), "") if x.isdecimal() else (0, x) for x in re.split(r"(\d{1,9})", name)]


def _of_several(
    folder: Path, several: dict[str, Path], *, columns: Columns, by: By, epochs: bool
) -> list[Log]:
    """The logs of a folder: those of several runs, or of the sides of one, by their names."""
    if sides := _sides_in(several, folder):
        parts = [_of_side(_only_table(several[name]), side) for name, side in sides.items()]
        logs = logs_of(
            pd.concat(parts, ignore_index=True), str(folder), columns=columns, by=by, epochs=epochs
        )
        said = f"read {names(several, spelled=str)} of it, each a side"
        return [replace(log, notes=(said, *log.notes)) for log in logs]
    found, refused = dict[str, list[Log]](), dict[str, InputError]()
    for name, path in several.items():
        try:
            logs = logs_at(path, columns=columns, by=by, epochs=epochs)
            if not any(len(log.table) for log in logs):
                raise InputError(f"{path} has no rows; {WANTED}.")
            found[name] = logs
        except InputError as error:
            refused[name] = error
    first = one_line(str(next(iter(refused.values()), "")), most=200)
    if not found:
        raise InputError(
            f"{folder} is not a run, and of its {len(several)} logs none can be read ({first})."
        )
    notes = ["a run a file or folder in it"]
    if refused:
        notes.append(f"left out: {names(refused, spelled=str)} ({first})")
    return [
        replace(log, run=name if log.run is None else f"{name}/{log.run}",
                notes=(*notes, *log.notes))
        for name, logs in found.items() for log in logs
    ]  # fmt: skip


def _sides_in(several: Iterable[str], folder: Path) -> dict[str, str]:
    """The sides that several logs are named after; none where they are named after runs."""
    words = {name: words_of(name) for name in several}
    shared = set.intersection(*map(set, words.values()))
    sides = {
        name: side for name, own in words.items()
        if (side := side_of([x for x in own if x not in shared]))
    }  # fmt: skip
    some = any(side_of([word]) for own in words.values() for word in own if word not in shared)
    if some and len(sides) < len(words):
        raise InputError(
            f"{folder} has logs of which some are named after a side "
            f"({names(several, spelled=str)}); give one of them, or write both sides in one file."
        )
    return sides


def _of_side(table: pd.DataFrame, side: str) -> pd.DataFrame:
    """A table with the side before the names of losses and accuracies that say none."""
    table = a_row_a_step(_with_names(table))
    measures = {name: curve_of(words_of(str(name))) for name in table.columns}
    return table.rename(columns={
        name: f"{side}_{name}" for name, measure in measures.items() if measure and not measure[0]
    })  # fmt: skip


def _only_table(path: Path) -> pd.DataFrame:
    return read_table(next(_files_in(path)) if path.is_dir() else path)


def logs_of(
    frame: pd.DataFrame, source: str, *, columns: Columns, by: By, epochs: bool = False
) -> list[Log]:
    """The runs of a table as a tool has it."""
    steps_known = bool(frame.attrs.get("steps_known", True))
    shaped = a_row_a_step(without_lists(_with_names(frame), source))
    telling, runs = by_run(shaped, source, by=by)
    if by is None and (more := _what_else_tells(runs, source, telling, columns)):
        telling, runs = by_run(shaped, source, by=[str(x) for x in (*telling, more)])
    logs, empty = [], []
    for name, part in runs:
        where = source if name is None else f"{source}, run {shown(name)}"
        try:
            numbers = numbers_in(part, where, columns=columns, epochs=epochs, used=telling)
        except InputError:
            if len(runs) == 1 or part.dropna(axis=1, how="all").shape[1] > _FEW_COLUMNS:
                raise
            empty.append(str(name))
            continue
        if len(runs) > 1 and not numbers.table.drop(columns="step").notna().any(axis=None):
            empty.append(str(name))
            continue
        _refuse_one_step(numbers.table, where)
        last, again = _of_last_run(numbers.table)
        table, said = one_row_a_step(last)
        logs.append(Log(table, numbers.word, (*numbers.notes, *again, *said), name, steps_known))
    if not logs:
        raise InputError(f"{source} has no run with a loss or accuracy at a step; {WANTED}.")
    if len(runs) > 1:
        notes = [f"runs are told apart by {column_names(telling)}"]
        notes += [f"runs without a curve are left out: {names(empty, spelled=str)}"] * bool(empty)
        logs = [replace(log, notes=(*notes, *log.notes)) for log in logs]
    return logs


def _what_else_tells(
    runs: list[tuple[str | None, pd.DataFrame]], source: str, telling: list[Any], columns: Columns
) -> str | None:
    """A column besides that tells runs apart, where most steps come again and again without it.

    A grid of settings has the same steps for each of them: taken as one run, its later rows would
    count for all.
    """
    part = max((rows for _, rows in runs), key=len)
    others = [
        x for x in part.columns
        if isinstance(part[x], pd.Series) and x not in telling and not is_axis(str(x))
        and curve_of(words_of(str(x))) is None
    ]  # fmt: skip
    if not others:
        return None
    try:
        numbers = numbers_in(part, source, columns=columns)
    except InputError:
        return None
    values = numbers.table.notna().groupby(numbers.table["step"]).sum().drop(columns="step")
    if not (values.max(axis=1) > 1).mean() > MOSTLY or len(numbers.table) != len(part):
        return None
    step = numbers.table["step"].to_numpy()
    for column in others:
        n = part[column].nunique(dropna=False)
        if column not in numbers.taken and 1 < n <= MOST_SETTINGS:
            cells = part[column].astype(str).to_numpy()
            if not pd.DataFrame({"step": step, "by": cells}).duplicated().any():
                return str(column)
    return None


def _refuse_one_step(table: pd.DataFrame, source: str) -> None:
    """A log whose every row is of one step was written without saying them."""
    steps = table["step"].dropna()
    if (
        len(steps) >= FEW_ROWS
        and steps.nunique() == 1
        and table.drop(columns="step").count().max() > 2
    ):
        raise InputError(
            f"{source} has {len(steps)} rows, all of step {steps.iloc[0]:.6g}; say which column "
            "counts, such as --columns step=epoch, or --columns step=row to count rows."
        )


def _with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose columns have texts for names, its index one of them where that has a name.

    Numbers for names are those of a table without a header.
    """
    index = [name for name in frame.index.names if isinstance(name, str) and name not in frame]
    if index and len(index) == frame.index.nlevels:
        frame = frame.reset_index()
    if isinstance(frame.columns, pd.MultiIndex):
        given = ["/".join(str(x) for x in name if str(x).strip()) for name in frame.columns]
    elif any(not isinstance(name, str) for name in frame.columns):
        given = [str(name) for name in frame.columns]
    else:
        return frame
    headerless = all(type(name) is int for name in frame.columns.tolist())
    named = frame.copy()
    named.columns = pd.Index(given)
    named.attrs = {**frame.attrs, "headerless": headerless}
    return named


def one_row_a_step(numbers: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Each step once, in order, and notes on what was done.

    Columns count by themselves: a row that lacks a number leaves that of another row of its step,
    and of two numbers the later one counts.
    """
    notes = []
    if (missing := numbers["step"].isna()).any():
        numbers = numbers[~missing]
        notes.append(f"{int(missing.sum())} rows without a step were left out")
    if not numbers["step"].is_monotonic_increasing:
        numbers = numbers.sort_values("step", kind="stable")
        notes.append("steps were not in order and have been sorted")
    if not numbers["step"].is_unique:
        groups = numbers.groupby("step", sort=False)
        counts = groups.count()
        repeated = int(((counts > 1).any(axis=1) | (counts.max(axis=1) == 0)).sum())
        if repeated:
            times = int(counts.to_numpy().max())
            often = "twice" if times <= 2 else f"up to {times} times"
            what = "step was" if repeated == 1 else "steps were"
            notes.append(f"{repeated} {what} logged {often}; the last row of each counts")
        numbers = groups.last().reset_index()[list(numbers.columns)]
    return numbers.reset_index(drop=True), notes


def _of_last_run(numbers: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the last run of a log to which several were written, and a note on the others.

    Columns count by themselves, as a log may have all rows of one before those of another; what
    stands before the first that begins again is of an earlier run in all of them.
    """
    steps, rows = numbers["step"].to_numpy(float), numbers.index.to_numpy()
    known, starts = ~np.isnan(steps), {}
    for name in numbers.columns.drop("step"):
        own = np.flatnonzero(known & ~np.isnan(numbers[name].to_numpy(float)))
        if at := begins_again(steps[own]):
            starts[name] = own[at]
    if not starts:
        return numbers, []
    first = min(starts.values(), key=lambda at: rows[at])
    kept = numbers.copy()
    for name, at in starts.items():
        kept[name] = kept[name].where(np.arange(len(kept)) >= at)
    kept = kept[rows >= rows[first]].dropna(how="all", subset=kept.columns.drop("step"))
    return kept, [earlier_run(steps[first], int(rows[first]))]


def read_table(path: str | Path) -> pd.DataFrame:
    """The table of a log as its tool has it, packed or not, in the format that it is known by."""
    path = Path(path)  # pandas would fetch a URL
    if path.is_dir():
        return read_events(path)
    with unpacked(file_at(path, wanted=WANTED)) as plain:
        read = _reader_of(plain)
        with strangers(f"the log_format of {path}", read):
            frame = read(plain)
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"the log_format of {path} returns {shown(frame)}; return a DataFrame.")
    return frame


def is_log(path: Path) -> bool:
    """Whether a path leads to a log, and to no checkpoints."""
    if path.is_dir():
        return next(logs_in(path), None) is not None or bool(several_in(path))
    if not path.is_file() or not path.stat().st_size:
        return False
    return _reader_of(path) is not read_saved or holds_a_log(path)


def logs_in(folder: Path) -> Iterator[Path]:
    """What may be the log of a folder, in the order in which it is tried.

    Files by their usual names, the folder itself where it has event files, its only table, and the
    same of a folder within: the only one with a log, or the last of those that count checkpoints.
    """
    found = _by_name(folder)
    yield from found
    if event_files_in(folder):
        yield folder
    tables = _tables_in(folder, found)
    if len(tables) == 1:
        yield tables[0]
    if found or tables:
        return
    inner = [x for x in folder.iterdir() if x.is_dir() and not x.is_symlink() and _by_name(x)]
    if len(inner) == 1 or (inner and all(x.name.startswith("checkpoint-") for x in inner)):
        last = max(inner, key=lambda x: (len(x.name), x.name))
        yield from _by_name(last)


def _files_in(folder: Path) -> Iterator[Path]:
    """What may be the log of a folder, of the files in it."""
    found = _by_name(folder)
    yield from found
    if len(tables := _tables_in(folder, found)) == 1:
        yield tables[0]


def _tables_in(folder: Path, found: Sequence[Path]) -> list[Path]:
    """The tables of a folder under unusual names."""
    return sorted(
        file for file in folder.iterdir()
        if file.is_file() and file not in found and _is_table(file)
    )  # fmt: skip


def _is_table(file: Path) -> bool:
    return Path(_unpacked_name(file)).suffix in TABLES


def _by_name(folder: Path) -> list[Path]:
    """The files of a folder that have the usual names of logs."""
    there = {_unpacked_name(file): file for file in folder.iterdir() if file.is_file()}
    endings = [suffix for known in LOG_FORMATS.values() for suffix in known.suffixes]
    names = [f"{stem}{suffix}" for stem in OF_LOG for suffix in endings]
    return [there[name] for name in names if name in there]


def _unpacked_name(file: Path) -> str:
    return file.stem if file.suffix in (".gz", ".bz2", ".xz") else file.name


def _reader_of(path: Path) -> Read:
    """What reads a file: a plug-in, by its ending; ours, by how it begins, or by its ending."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    ending = path.suffix.lower()
    known = list(LOG_FORMATS.values())
    if not any(ending in each.suffixes for each in known):
        known = list(LOG_FORMATS.every())
    ended = [each for each in known if ending in each.suffixes]
    strange = [each for each in ended if others_of([each.read.__module__])]
    begun = [each for each in known if each.begins is not None and each.begins(head)]
    found = next(iter([*strange[::-1], *begun, *ended]), None)
    return read_lines if found is None else found.read
