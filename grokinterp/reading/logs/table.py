"""What table is in a log, of which runs, and how was it read?

A file or a folder becomes a table in its format (`formats`), with a row a step and the rows of each
run apart (`shapes`), its steps, losses and accuracies under our names and in our units (`columns`),
and each step once.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError, shown
from grokinterp.base.files import HEAD
from grokinterp.base.paths import file_at, kind_at
from grokinterp.base.plugins import others_of, strangers
from grokinterp.reading.logs import (  # the readers of these register themselves
    arrays,  # noqa: F401
    json_files,  # noqa: F401
    parquet_files,  # noqa: F401
    saved_dictionaries,
)
from grokinterp.reading.logs.columns import Columns, columns_given, numbers_in
from grokinterp.reading.logs.contents import WANTED, unpacked
from grokinterp.reading.logs.event_files import event_files_in, read_events
from grokinterp.reading.logs.formats import LOG_FORMATS, Read
from grokinterp.reading.logs.lines import read_lines
from grokinterp.reading.logs.nested import without_names
from grokinterp.reading.logs.saved_dictionaries import holds_a_log, read_saved
from grokinterp.reading.logs.shapes import a_row_a_step, by_run

OF_LOG = (
    "metrics", "trainer_state", "history", "log", "logs", "losses", "curves", "train_log",
    "training_log", "training_history", "stats", "results", "progress",
)  # fmt: skip


@dataclass(frozen=True)
class Log:
    """The curves of one run in a log, a row a step, and how they were read."""

    table: pd.DataFrame
    word: str = "step"  # theirs, for its steps
    notes: tuple[str, ...] = ()
    run: str | None = None  # its name, of several
    steps_known: bool = True  # False where they are positions of checkpoints


def logs_at(
    path: Path, *, columns: Any = None, by: str | None = None, epochs: bool = False
) -> list[Log]:
    """The logs at a path: of one run, or of several in one file or folder."""
    given = columns_given(columns)
    file = path
    if kind_at(path) == "folder":
        found = log_in(path)
        if found is None:
            raise InputError(f"{path} holds no log that is known by its name; {WANTED}.")
        file = found
    logs = logs_of(read_table(file), str(file), columns=given, by=by, epochs=epochs)
    if file == path or file.is_dir():
        return logs
    return [replace(log, notes=(f"read {file.name} of it", *log.notes)) for log in logs]


def logs_of(
    frame: pd.DataFrame, source: str, *, columns: Columns, by: str | None, epochs: bool = False
) -> list[Log]:
    """The runs of a table as a tool has it."""
    shaped = a_row_a_step(_with_names(frame))
    telling, runs = by_run(shaped, source, by=by)
    logs = []
    for name, part in runs:
        where = source if name is None else f"{source}, run {shown(name)}"
        numbers = numbers_in(part, where, columns=columns, epochs=epochs, used=telling)
        table, said = one_row_a_step(numbers.table)
        known = bool(frame.attrs.get("steps_known", True))
        logs.append(Log(table, numbers.word, (*numbers.notes, *said), name, known))
    return logs


def _with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose columns have texts for names: numbers from 0 are those of no header."""
    if isinstance(frame.columns, pd.MultiIndex):
        names = ["/".join(str(x) for x in name if str(x).strip()) for name in frame.columns]
    elif frame.shape[1] and all(type(name) is int for name in frame.columns.tolist()):
        return without_names(frame.copy())
    else:
        return frame
    named = frame.copy()
    named.columns = pd.Index(names)
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
            notes.append(f"{repeated} steps were logged twice; the last row of each counts")
        numbers = groups.last().reset_index()[list(numbers.columns)]
    return numbers.reset_index(drop=True), notes


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
        return log_in(path) is not None
    if not path.is_file() or not path.stat().st_size:
        return False
    return _reader_of(path) is not read_saved or holds_a_log(path)


def log_in(folder: Path) -> Path | None:
    """The log of a folder: a file by its usual name, or the folder itself with event files."""
    there = {file.name for file in folder.iterdir() if file.is_file()}
    endings = [suffix for known in LOG_FORMATS.values() for suffix in known.suffixes]
    for stem in OF_LOG:
        for suffix in endings:
            for packed in ("", ".gz"):
                if (name := f"{stem}{suffix}{packed}") in there:
                    return folder / name
    if event_files_in(folder):
        return folder
    kept = ("", ".json", *saved_dictionaries.SUFFIXES)  # which hold other things as often
    only = [
        name for name in there
        if (suffix := Path(name.removesuffix(".gz")).suffix) in endings and suffix not in kept
    ]  # fmt: skip
    return folder / only[0] if len(only) == 1 else None


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
