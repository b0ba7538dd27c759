"""What counts as the steps of a log: whole numbers from 0 on, or evenly spaced fractions.

Fractions are those of logs against epochs, written several times in each. Dates and times of day
are no steps: how long an update took is not how many there were.
"""

import datetime

import numpy as np

from grokinterp.errors import InputError, shown
from grokinterp.runs.manifest import LARGEST_STEP

Step = int | float  # a float only where a log's own steps are fractions

EVEN = 0.05  # of the spacing, by which a fraction may be off: 0.13, 0.26, 0.38 are rounded eighths
ADVICE = "give the number of updates (or of epochs) as 'step'"
FIRST_YEAR, LAST_YEAR = 2008, 2100
LONGEST_TRAINING = 366 * 86_400  # seconds
UNITS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds"}


def checked_steps(steps: np.ndarray, source: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Sorted steps without repetition, as they are kept: int64, or float where they are fractions.

    Also what is to be said about them. Refused: negative ones, those beyond 2**53, fractions that
    are not evenly spaced, and what is certainly a time.

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
    broken = steps % 1 != 0
    if not broken.any():
        return steps.astype(np.int64), ()
    gaps = np.diff(steps)
    spacing = (steps[-1] - steps[0]) / max(len(gaps), 1)
    off = np.abs(steps - np.linspace(steps[0], steps[-1], len(steps)))
    if len(gaps) == 0 or not (off <= EVEN * spacing).all():
        worst = steps[broken][0]
        raise InputError(
            f"{source} has steps that are not whole numbers from 0 on, such as {worst:.10g}, nor "
            f"evenly spaced; {ADVICE}."
        )
    note = f"steps are fractions, evenly spaced by {spacing:.4g}: they are kept as they are given"
    return steps.astype(float), (note,)


def _as_times(steps: np.ndarray) -> str | None:
    """What a column of wall times says, or None where it could be one of steps.

    Only what is certain: a log that begins at a step above 1.2 billion, which as seconds since 1970
    is 2008, and in which less than a year passes; or whose every step is a date such as 20260131.
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
    if all(map(_is_date, steps.tolist())):
        return f"dates such as {shown(int(first))}"
    return None


def _is_date(step: float) -> bool:
    """Whether a number is one of a day, YYYYMMDD."""
    if step % 1 or not FIRST_YEAR * 10_000 <= step < LAST_YEAR * 10_000:
        return False
    try:
        datetime.date(int(step) // 10_000, int(step) // 100 % 100, int(step) % 100)
    except ValueError:
        return False
    return True
