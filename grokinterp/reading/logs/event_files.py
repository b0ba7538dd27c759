"""Logs of TensorBoard: event files, or folders of them.

Their records are read by tensorboard's own loader (`pip install "grokinterp[tensorboard]"`), which
compares every checksum. A folder is one run; folders within it are runs of their own, or the sides
of one where they are named so ("train", "validation", as Keras names them).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError, shown
from grokinterp.base.paths import file_at
from grokinterp.reading.logs.contents import WANTED
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.nested import RUN
from grokinterp.reading.logs.series import MOST_COLUMNS, Series, table_of
from grokinterp.reading.words import curve_of, side_of, words_of

LARGEST = 512_000_000  # bytes, of one file: pictures and graphs are in it too
MOST_FILES = 1000
NAME = "*tfevents*"
Points = dict[str, list[tuple[int, float]]]  # steps and values by tag, in the order of the file


def _is_event_file(head: bytes) -> bool:
    return b"brain.Event:" in head[:64]


@log_format("tensorboard", suffixes=(".tfevents",), begins=_is_event_file)
def read_events(path: Path) -> pd.DataFrame:
    """The scalars of an event file, or of all in a folder and its folders."""
    if not path.is_dir():
        return _table(_points([path]), path)
    files = event_files_in(path)
    folders = sorted({file.parent for file in files})
    parts = {folder: _points([x for x in files if x.parent == folder]) for folder in folders}
    runs: dict[str, Points] = {}
    for folder, points in parts.items():
        for tag, values in points.items():
            run, name = _run_and_name(folder.relative_to(path), tag)
            runs.setdefault(run, {}).setdefault(name, []).extend(values)
    tables = {run: _table(points, path) for run, points in runs.items() if points}
    if len(tables) == 1:
        return next(iter(tables.values()))
    if not tables:
        return _table({}, path)
    named = [table.assign(**{RUN: run or "."}) for run, table in tables.items()]
    return pd.concat(named, ignore_index=True)


def event_files_in(folder: Path) -> list[Path]:
    """The event files of a folder and its folders, by name: the later ones go on with the log."""
    found = sorted(file for file in folder.rglob(NAME) if file.is_file() and not file.is_symlink())
    if len(found) > MOST_FILES:
        raise InputError(f"{folder} has {len(found)} event files; give the folder of one run.")
    return found


def _run_and_name(folder: Path, tag: str) -> tuple[str, str]:
    """The run that a tag in a folder within is of, and its name.

    Of several scalars that are added under one tag each has a folder of its own, "tag_name"; and a
    folder that has the name of a side says it of all tags in it.
    """
    parts = list(folder.parts)
    own = parts[-1].removeprefix(f"{tag.replace('/', '_')}_") if parts else ""
    if parts and own != parts[-1]:
        name = f"{tag}/{own}" if curve_of(words_of(f"{tag}/{own}")) else own
        return "/".join(parts[:-1]), name
    sides = [part for part in parts if side_of(words_of(part))]
    rest = [part for part in parts if part not in sides]
    return "/".join(rest), f"{sides[-1]}/{tag}" if sides else tag


def _points(files: list[Path]) -> Points:
    found: Points = {}
    for file in files:
        for tag, step, value in _scalars(file):
            if tag not in found and len(found) == MOST_COLUMNS:
                raise InputError(f"{file} has more than {MOST_COLUMNS} tags; keep the curves.")
            found.setdefault(tag, []).append((step, value))
    return found


def _scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every scalar of a file; a last record that is cut off ends it."""
    file_at(path, wanted=WANTED, largest=LARGEST)
    try:
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.util import tensor_util
    except ImportError:
        raise InputError(
            f"{path} is an event file of TensorBoard, which its own reader reads; install it: "
            "pip install 'grokinterp[tensorboard]'."
        ) from None
    loader: Any = LegacyEventFileLoader(str(path))
    try:
        for event in loader.Load():
            if not isinstance(event, Event) or not event.HasField("summary"):
                continue
            for value in event.summary.value:
                if (number := _number(value, tensor_util)) is not None:
                    yield value.tag, event.step, number
    except InputError:
        raise
    except Exception as error:  # of a record that is damaged; the loader has no one class for it
        raise InputError(
            f"{path} is damaged ({shown(str(error) or type(error).__name__)}); restore it from a "
            "copy."
        ) from None


def _number(value: Any, tensor_util: Any) -> float | None:
    """The number of a summary: a scalar of version 1, or a tensor of one number of version 2."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    kinds = ("scalars", "")
    if not value.HasField("tensor") or value.metadata.plugin_data.plugin_name not in kinds:
        return None
    if len(value.tensor.tensor_shape.dim):
        return None
    array = np.asarray(tensor_util.make_ndarray(value.tensor))
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "iuf" else None


def _table(points: Mapping[str, list[tuple[int, float]]], path: Path) -> pd.DataFrame:
    if not points:
        raise InputError(f"{path} has no scalars; give the event file of a run's losses.")
    series = []
    for tag, values in points.items():
        steps, numbers = zip(*values, strict=True)
        series.append(Series(tag, np.array(numbers, float), np.array(steps)))
    return table_of(series, str(path))
