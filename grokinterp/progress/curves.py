"""Learning curves as phase detection reads them: cleaned, with a note for everything that was done.

A table has a `step` column and at least one of train_loss, test_loss, train_acc, test_acc, as
metrics.csv of a run and what `grokinterp.reading.logs` makes of other logs. `test_loss_unmirrored`
and `test_acc_unmirrored` are read too where it has them. Steps are whole numbers from 0 on, or
evenly spaced fractions, as of logs that are written several times an epoch; dates and times are no
steps.
"""

import datetime
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from grokinterp.base.checks import instance
from grokinterp.base.errors import InputError, shown
from grokinterp.reading._read_log import read_log
from grokinterp.reading.logs.cells import as_numbers, column_names, single_column
from grokinterp.reading.logs.table import one_row_a_step
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.runs.metrics import COLUMNS, ROUNDING, UNMIRRORED

Step = int | float  # a float only where a log's own steps are fractions

EVEN = 0.05  # of the spacing, by which a fraction may be off: 0.13, 0.26, 0.38 are rounded eighths
ADVICE = "give the number of updates (or of epochs) as 'step'"
FIRST_YEAR, LAST_YEAR = 2008, 2100
LONGEST_TRAINING = 366 * 86_400  # seconds
UNITS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds"}


def checked_steps(steps: np.ndarray, source: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Sorted steps as they are kept, int64, or float where they are fractions; and a note on them.

    Refused: negative ones, those beyond 2**53, fractions that are not evenly spaced, and what is
    certainly a time.

    >>> checked_steps(np.array([0.0, 0.25, 0.5]), "x.csv")[1]
    ('steps are fractions, evenly spaced by 0.25: they are kept as they are given',)
    """
    if when := _as_times(steps):
        raise InputError(f"{source} has times as steps, {when}; {ADVICE}.")
    if (steps < 0).any() or (steps > LARGEST_STEP).any():
        wrong = steps[(steps < 0) | (steps > LARGEST_STEP)][0]
        raise InputError(
            f"{source} has step {wrong:.10g}, and steps are whole numbers from 0 to 2**53."
        )
    broken = steps[steps % 1 != 0]
    if len(broken) == 0:
        return steps.astype(np.int64), ()
    even, spacing = np.linspace(steps[0], steps[-1], len(steps), retstep=True)
    if len(steps) == 1 or not (np.abs(steps - even) <= EVEN * spacing).all():
        raise InputError(
            f"{source} has steps that are not whole numbers from 0 on, such as {broken[0]:.10g}, "
            f"nor evenly spaced; {ADVICE}."
        )
    note = f"steps are fractions, evenly spaced by {spacing:.4g}: they are kept as they are given"
    return steps.astype(float), (note,)


def _as_times(steps: np.ndarray) -> str | None:
    """What a column of wall times says, or None where it could be one of steps.

    Times since 1970 are certain from 2008 on where less than a year passes, dates (such as
    20260131) where all rows are.
    """
    if len(steps) < 2:
        return None
    first, last = float(steps[0]), float(steps[-1])
    for unit, name in UNITS.items():
        years = (first / unit / 31_556_952 + 1970, last / unit / 31_556_952 + 1970)
        if years[0] >= FIRST_YEAR and years[1] <= LAST_YEAR:
            if last - first > LONGEST_TRAINING * unit:
                return None
            date = datetime.datetime.fromtimestamp(first / unit, datetime.UTC)
            return f"{name} since 1970 ({first:.0f} is {date:%Y-%m-%d})"
    if first >= FIRST_YEAR * 10_000 and last < LAST_YEAR * 10_000 and not (steps % 1).any():
        days = pd.Series(steps.astype(int).astype(str))
        if pd.to_datetime(days, format="%Y%m%d", errors="coerce").notna().all():
            return f"dates such as {shown(int(first))}"
    return None


CURVES = COLUMNS
USED = (*CURVES, *UNMIRRORED, "excluded_loss")  # what phases use of a table
FEW_ROWS = 5  # fewer accuracies than these decide nothing
MANY_TIMES = 10  # where there are ten times as many losses
HELD_ROWS = 5  # a level counts when it is held for five more rows,
HELD_SHARE = 0.01  # or for this share of the log's rows, whichever is more


def running_median(values: np.ndarray, width: int) -> np.ndarray:
    """The median of every `width` neighbours, an odd number; beyond its ends a curve goes on level.

    That of scipy takes minutes for a million rows of which many are equal.

    >>> running_median(np.array([0.0, 9.0, 1.0, 2.0]), 3).tolist()
    [0.0, 1.0, 2.0, 2.0]
    """
    if width == 1 or len(values) == 0:
        return values
    padded = np.pad(values, width // 2, mode="edge")
    found: np.ndarray = pd.Series(padded).rolling(width).median().to_numpy()[width - 1 :]
    return found


@dataclass(frozen=True)
class Curve:
    """One column against step: finite values only, steps strictly increasing."""

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)

    def hold(self, share: float = HELD_SHARE) -> int:
        """For how many rows after its first a level has to be held: 5, or a share of the log.

        >>> Curve(np.arange(40), np.zeros(40)).hold(), Curve(np.arange(1201), np.zeros(1201)).hold()
        (5, 13)
        """
        return max(HELD_ROWS, math.ceil(share * len(self)))

    @property
    def starts_late(self) -> bool:
        """Whether it begins further from step 0 than its first rows lie apart, or has one row."""
        if len(self) == 0 or self.steps[0] == 0:
            return False
        return len(self) == 1 or bool(self.steps[0] > np.diff(self.steps[:HELD_ROWS]).max())

    def held(self, holds: np.ndarray, *, share: float = HELD_SHARE) -> np.ndarray:
        """Rows from which `holds` is true without a gap for `hold(share)` more, or to the end.

        >>> curve = Curve(np.arange(9), np.array([0, 1, 0, 1, 1, 1, 1, 1, 1]))
        >>> curve.held(curve.values > 0).nonzero()[0].tolist()
        [3, 4, 5, 6, 7, 8]
        """
        rows, n = np.arange(len(holds)), len(holds)
        gaps = np.append(np.flatnonzero(~holds), n)
        until = gaps[np.searchsorted(gaps, rows)]
        kept: np.ndarray = holds & ((until - rows > self.hold(share)) | (until == n))
        return kept

    def first_held(self, holds: np.ndarray, *, share: float = HELD_SHARE) -> int | None:
        """Position of the first row from which `holds` is true and stays so (`held`), or None."""
        where = np.flatnonzero(self.held(holds, share=share))
        return int(where[0]) if len(where) else None

    def step_held(self, holds: np.ndarray, *, share: float = HELD_SHARE) -> Step | None:
        """The step of that row."""
        row = self.first_held(holds, share=share)
        return None if row is None else self.step(row)

    def step(self, position: int) -> Step:
        """The step of a position, as a plain number."""
        step: Step = self.steps[position].item()
        return step

    def cannot_date(self, position: int) -> bool:
        """Whether what is seen at a position, the first, may be from before the log begins."""
        return position == 0 and (self.starts_late or self.step(0) == 0)

    def up_to(self, step: Step) -> "Curve":
        """Its rows up to a step."""
        kept = self.steps <= step
        return Curve(self.steps[kept], self.values[kept])

    def smoothed(self) -> "Curve":
        """The running median of 3 rows (5 from 100 rows on); a monotone curve stays as it is."""
        width = 3 if len(self) < 100 else 5  # a dense log can spare two neighbouring rows
        return Curve(self.steps, running_median(self.values, width))


@dataclass(frozen=True)
class Curves:
    """All curves of a run; `notes` says what was wrong with the table and what was done."""

    frame: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def log(self) -> Curve:
        """All logged steps, as a curve of their own."""
        steps = self.frame["step"].to_numpy()
        return Curve(steps, steps)

    def get(self, column: str) -> Curve | None:
        """The curve of a column, or None when it is absent or has no finite value."""
        if column not in self.frame:
            return None
        values = self.frame[column].to_numpy(float)
        finite = np.isfinite(values)
        if not finite.any():
            return None
        return Curve(self.frame["step"].to_numpy()[finite], values[finite])

    def smooth(self, column: str) -> Curve | None:
        """The same, smoothed: what labels, steps and boundaries are read from."""
        curve = self.get(column)
        return None if curve is None else curve.smoothed()


def read_curves(frame: pd.DataFrame, source: str = "the table") -> Curves:
    """Check and clean a table of curves, a row a `step`.

    Refused: no usable column or one that stands there twice, no rows, text where numbers belong,
    accuracies that are not shares, losses below 0, steps that are none. Repaired, with a note:
    unsorted, duplicate (the last row counts) and missing steps, losses and accuracies that rounding
    put outside their range. Other columns are left out.
    """
    used = [column for column in USED if column in frame]
    if not set(used) & set(CURVES):
        raise InputError(
            f"{source} has none of the columns {', '.join(CURVES)} (found: "
            f"{column_names(frame.columns)}); at least one is needed."
        )
    if len(frame) == 0:
        raise InputError(f"{source} has no rows; give at least one logged step.")
    numbers = numeric_columns(frame, ("step", *used), source)
    notes = [note for x in used for note in _into_range(numbers, x, source)]
    numbers, said = by_step(numbers, source, "nothing to date")
    return Curves(numbers, (*notes, *said))


def by_step(numbers: pd.DataFrame, source: str, advice: str) -> tuple[pd.DataFrame, list[str]]:
    """Rows in the order of checked steps, each step once, with a note for what was done to them."""
    found, notes = one_row_a_step(numbers)
    if len(found) == 0:
        raise InputError(f"{source} has no row with a step; {advice}.")
    steps, said = checked_steps(found["step"].to_numpy(), source)
    return found.assign(step=steps), [*notes, *said]


def numeric_columns(frame: pd.DataFrame, columns: Iterable[str], source: str) -> pd.DataFrame:
    """Columns of a table as numbers; one that stands there twice, or has text, is refused."""
    found = {}
    for column in columns:
        given = single_column(frame, column, source)
        found[column] = as_numbers(given, f"{source}, column {column!r}")
    return pd.DataFrame(found)


def read_measures(given: pd.DataFrame) -> pd.DataFrame:
    """Progress measures that were given, the columns that are read of them as numbers."""
    what, advice = "the table of measures", "give what gi.progress_measures(run) returns"
    instance(given, pd.DataFrame, "table of measures", give=advice)
    if "step" not in given:
        raise InputError(f"{what} has no column 'step'; {advice}.")
    columns = [x for x in ("step", *USED) if x in given and x not in CURVES]
    found, _ = by_step(numeric_columns(given, columns, what), what, advice)
    found.attrs = given.attrs
    return found


def without_few_accuracies(curves: Curves) -> Curves:
    """Without accuracies known at a few rows only, such as one checkpoint's, which date nothing."""
    rows = {x: 0 if (c := curves.get(x)) is None else len(c) for x in (*CURVES, *UNMIRRORED)}
    losses = min(rows["train_loss"], rows["test_loss"])
    most = max(rows["train_acc"], rows["test_acc"])
    if not 0 < most < FEW_ROWS or losses < MANY_TIMES * most:
        return curves
    sparse = [x for x in rows if x in curves.frame and ("_acc" in x or x in UNMIRRORED)]
    note = f"accuracies are known at {most} of {losses} logged steps only: losses decide"
    return Curves(curves.frame.drop(columns=sparse), (*curves.notes, note))


def read_csv_curves(path: str | Path) -> pd.DataFrame:
    """The curves of a log, as version 0.2.0 called `gi.read_log`."""
    warnings.warn("read_csv_curves has moved; write gi.read_log.", DeprecationWarning, stacklevel=2)
    return read_log(path)


def _into_range(numbers: pd.DataFrame, column: str, source: str) -> list[str]:
    """Put into its range what rounding moved out of it, with a note; refuse what is outside."""
    values, share = numbers[column].to_numpy(), "_acc" in column
    outside = values[(values < -ROUNDING) | (share & (values > 1 + ROUNDING))]
    if len(outside) and share:
        raise InputError(
            f"{source}, column {column!r} has {outside[0]:g}; give accuracies as shares from "
            "0 to 1."
        )
    if len(outside):
        raise InputError(
            f"{source}, column {column!r} has {outside.min():g}, and a cross-entropy is not "
            "negative; if these are logarithms, give the losses themselves (10**x for log10, "
            "exp(x) for ln)."
        )
    notes = []
    if share and (above := int((values > 1).sum())):
        notes.append(f"{column}: {above} rows that rounding put above 1 are taken as 1")
    if below := int((values < 0).sum()):
        notes.append(f"{column}: {below} rows that rounding made negative are taken as 0")
    if notes:
        numbers[column] = values.clip(0, 1 if share else None)
    return notes
