"""The files that people keep beside a checkpoint: its configuration and its log."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.errors import InputError
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED
from grokinterp.runs.tables import as_numbers, left_out, read_table

LARGEST = 1_000_000  # bytes of a configuration
LARGEST_LOG = 100_000_000


def config_beside(path: Path) -> Mapping[str, Any]:
    """A JSON object that goes by the checkpoint's name; empty where there is none."""
    stem = path.stem
    names = [f"{stem}.json", re.sub("^model", "config", stem) + ".json", f"config_{stem}.json"]
    for file in [path / "config.json"] if path.is_dir() else map(path.with_name, names):
        if file.is_file() and file.stat().st_size <= LARGEST:
            try:
                found = json.loads(file.read_bytes())
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    return {}


def log_beside(path: Path) -> pd.DataFrame | None:
    """A CSV of losses or accuracies against step that goes by the checkpoint's name."""
    file = path / "metrics.csv" if path.is_dir() else path.with_suffix(".csv")
    if not file.is_file() or file.stat().st_size > LARGEST_LOG:
        return None
    try:
        return read_log(file)
    except InputError:
        return None


def read_log(path: Path) -> pd.DataFrame:
    """A CSV of losses or accuracies against step, as numbers.

    Rows without a step are left out, and other columns, which `.attrs["notes"]` names; of equal
    steps the last row counts.
    """
    table = read_table(path)
    used = [column for column in ("step", *COLUMNS, *UNMIRRORED) if column in table]
    if "step" not in used or len(used) < 2:
        raise InputError(
            f"{path} is no log: it needs one column 'step' and at least one of "
            f"{', '.join(COLUMNS)}."
        )
    for column in used:
        if isinstance(table[column], pd.DataFrame):
            raise InputError(f"{path} has two columns {column!r}; keep one.")
    numbers = pd.DataFrame(
        {column: as_numbers(table[column], f"{path}, column {column!r}") for column in used}
    ).dropna(subset="step")
    steps = numbers["step"]
    if not ((steps % 1 == 0) & (steps >= 0) & (steps < LARGEST_STEP)).all():
        raise InputError(f"{path} has steps that are not whole numbers from 0 on.")
    kept = numbers.astype({"step": "int64"}).drop_duplicates("step", keep="last")
    kept.attrs["notes"] = [f"of its log, {note}" for note in left_out(table, used)]
    return kept
