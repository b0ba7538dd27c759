"""Learning curves as phase detection reads them: cleaned, with a note for everything that was done.

Any table with a `step` column and at least one of train_loss, test_loss, train_acc, test_acc will
do: metrics.csv of a run, a CSV of another tool, a DataFrame.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from grokinterp.errors import InputError

CURVES = ("train_loss", "test_loss", "train_acc", "test_acc")


@dataclass(frozen=True)
class Curve:
    """One column against step: finite values only, steps strictly increasing."""

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def first(self, holds: np.ndarray) -> int | None:
        """Position of the first row where `holds`, or None."""
        where = np.flatnonzero(holds)
        return int(where[0]) if len(where) else None

    def neighbours(self, position: int) -> tuple[int, int]:
        """The logged steps before and after a position (itself at an end)."""
        before, after = max(position - 1, 0), min(position + 1, len(self) - 1)
        return int(self.steps[before]), int(self.steps[after])


@dataclass(frozen=True)
class Curves:
    """All curves of a run; `notes` says what was wrong with the table and what was done."""

    frame: pd.DataFrame
    notes: tuple[str, ...]

    def get(self, column: str) -> Curve | None:
        """The curve of a column, or None when it is absent or has no finite value."""
        if column not in self.frame:
            return None
        values = self.frame[column].to_numpy(float)
        finite = np.isfinite(values)
        if not finite.any():
            return None
        return Curve(self.frame["step"].to_numpy(np.int64)[finite], values[finite])

    @property
    def last_step(self) -> int:
        """The last logged step."""
        return int(self.frame["step"].iloc[-1])


def read_curves(frame: pd.DataFrame, source: str = "the table") -> Curves:
    """Check and clean a table of curves.

    Refused: no `step` column, no usable column, no rows, text where numbers belong. Repaired, with
    a note: unsorted steps, duplicate steps (the last row counts), steps that are missing.
    """
    if "step" not in frame:
        found = ", ".join(map(str, frame.columns)) or "none"
        raise InputError(
            f"{source} has no column 'step' (found: {found}); name the step column so."
        )
    used = [column for column in CURVES if column in frame]
    if not used:
        raise InputError(
            f"{source} has none of the columns {', '.join(CURVES)}; at least one is needed."
        )
    if len(frame) == 0:
        raise InputError(f"{source} has no rows; give at least one logged step.")
    extra = [c for c in frame.columns if c not in ("step", *used) and _is_numeric(frame[c])]
    numbers = frame[["step", *used, *extra]].copy()
    for column in ("step", *used):
        try:
            numbers[column] = pd.to_numeric(numbers[column])
        except (ValueError, TypeError) as error:
            raise InputError(f"{source}, column {column!r}: {error}; give numbers.") from None
    notes = []
    steps = numbers["step"].to_numpy(float)
    if (missing := ~np.isfinite(steps)).any():
        numbers = numbers[~missing]
        notes.append(f"{int(missing.sum())} rows without a step were left out")
    if len(numbers) == 0 or all(not np.isfinite(numbers[c].to_numpy(float)).any() for c in used):
        raise InputError(f"{source} has no finite value in {', '.join(used)}; nothing to date.")
    if (numbers["step"] < 0).any() or (numbers["step"] % 1 != 0).any():
        raise InputError(f"{source} has steps that are not whole numbers from 0 on.")
    numbers["step"] = numbers["step"].astype("int64")
    if not numbers["step"].is_monotonic_increasing:
        numbers = numbers.sort_values("step", kind="stable")
        notes.append("steps were not in order and have been sorted")
    if (repeated := numbers["step"].duplicated(keep="last")).any():
        numbers = numbers[~repeated]
        notes.append(f"{int(repeated.sum())} steps were logged twice; the last row of each counts")
    return Curves(numbers.reset_index(drop=True), tuple(notes))


def read_csv_curves(path: str | Path) -> pd.DataFrame:
    """A CSV file as a table; unreadable ones are refused in one line."""
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; give a CSV with a header and rows.") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not a CSV that can be read ({reason}).") from None


def _is_numeric(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column)
