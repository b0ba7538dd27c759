"""What number does a cell of a log stand for, and which columns have names of their own?"""

import datetime
import math
import re
import sys
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.errors import LONGEST_VALUE, InputError, names, shown

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII)
NOT_THERE = ("", "nan", "na", "n/a", "null", "none", "<na>")
LONGEST_NUMBER = 60  # characters; with 17 digits a float is exact
DECIMAL_COMMA = re.compile(
    r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE
)
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?", re.ASCII)
PERCENT = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*%", re.ASCII)
OF_TENSOR = re.compile(rf"tensor\(({NUMBER.pattern}|nan)(,[^)]*)?\)", re.ASCII)
BOLD = re.compile(r"(\*\*|__)(.*)\1")  # of Markdown
WITH_SPREAD = re.compile(rf"({NUMBER.pattern})\s*(?:\u00b1|\+/-)\s*{NUMBER.pattern}", re.ASCII)
OF_WHOLE = re.compile(r"(\d{1,16})\s*/\s*(\d{1,16})", re.ASCII)
NAMED_STEP = re.compile(r"(?:step|epoch|iter|iteration)[ :#=]*(\d+)", re.ASCII | re.IGNORECASE)
MOST_BITS = 10_000  # of a number whose digits Python writes out
_FORMS = (  # of cells that mean a number, or a date, and what to do about them
    (re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(\D.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(\D.*)?"
                r"|\d+:\d{2}(:\d.*)?", re.DOTALL), "a date or time"),
    (re.compile(r"[+-]?\d{1,3}([,' _\u00a0\u202f]\d{3})+(\.\d+)?"),
     "a number with thousands separators; leave them out"),
    (re.compile(r"[+-]?\d*,\d+"), "a number with a decimal comma; write a point"),
    (re.compile(r"[+-]?[\d.]+\s*%"), "a percentage; give shares from 0 to 1"),
)  # fmt: skip


def single_column(frame: pd.DataFrame, name: str, source: str) -> pd.Series:
    """A column of a table; one that stands there twice is refused."""
    given = frame[name]
    if isinstance(given, pd.DataFrame):
        times = "two" if given.shape[1] == 2 else f"{given.shape[1]}"
        raise InputError(f"{source} has {times} columns {name!r}; keep one.")
    return given


def as_numbers(values: pd.Series, where: str) -> pd.Series:
    """A column as floats, NaN where nothing stands; the first cell that is no number is named.

    `where` says which column of which file it is, for the message. Of a mean and its spread
    (`0.95 +/- 0.01`) the mean counts.

    >>> as_numbers(pd.Series(["1", " 2.5 ", None]), "x.csv, column 'step'").tolist()
    [1.0, 2.5, nan]
    >>> as_numbers(pd.Series(["1", "0x10"]), "column 'step'")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: column 'step' has '0x10' in row 2, no number; give numbers.
    """
    if pd.api.types.is_any_real_numeric_dtype(values.dtype):
        return pd.Series(values.to_numpy(float, na_value=math.nan), values.index)
    numbers = [_number(cell, where, row) for row, cell in enumerate(values.tolist(), start=1)]
    return pd.Series(numbers, values.index, dtype=float)


def _number(cell: Any, where: str, row: int) -> float:
    problem = "no number"
    if isinstance(cell, str):
        if len(cell) > LONGEST_NUMBER:
            problem = f"no number ({len(cell)} characters)"
            cell = cell[:LONGEST_VALUE] + cell[-LONGEST_VALUE:]
        elif (number := _number_in(text := _bare(cell))) is not None:
            return number
        else:
            problem = next((words for form, words in _FORMS if form.fullmatch(text)), problem)
    elif cell is None or cell is pd.NA or cell is pd.NaT:
        return math.nan
    elif isinstance(cell, (datetime.date, datetime.time, datetime.timedelta, pd.Period)):
        problem, cell = "a date or time", str(cell)
    elif not isinstance(cell, (bool, np.bool_, bytes)):
        try:
            return float(cell)
        except OverflowError:
            problem = f"no number below {sys.float_info.max:.2g}"
            if isinstance(cell, int) and cell.bit_length() < MOST_BITS:
                cell = str(cell)
        except (TypeError, ValueError, RuntimeError):
            pass
    advice = "" if ";" in problem else "; give numbers"
    raise InputError(f"{where} has {shown(cell)} in row {row}, {problem}{advice}.")


def _bare(cell: str) -> str:
    """A cell in lower case, without blanks around it and the marks of bold type."""
    text = cell.strip().lower()
    return found[2].strip() if (found := BOLD.fullmatch(text)) else text


def _number_in(text: str) -> float | None:
    if text in NOT_THERE:
        return math.nan
    if NUMBER.fullmatch(text):
        return float(text)
    found = OF_TENSOR.fullmatch(text) or WITH_SPREAD.fullmatch(text)
    return float(found[1]) if found else None


def left_out(frame: pd.DataFrame, used: Collection[str]) -> tuple[str, ...]:
    """A note that names the columns of a table that were not used; none where all were."""
    others = [x for x in frame.columns if x not in used and is_named(x)]
    return (f"columns left out, not read here: {column_names(others)}",) * bool(others)


def column_names(columns: Iterable[object]) -> str:
    """The names of columns for a message, as many as `names` lists.

    >>> column_names(["a", "b"]), column_names(f"column_{i}" for i in range(100))[-30:]
    ('a, b', 'column_5, column_6 and 93 more')
    """
    return names(filter(is_named, columns), spelled=str) or "none"


def is_named(column: object) -> bool:
    """Whether a column has a name of its own: an index that pandas wrote out has none."""
    return str(column).strip() != "" and not str(column).startswith("Unnamed: ")


def shares_of_counts(values: pd.Series) -> pd.Series | None:
    """A column whose every cell says how many of how many were right, as shares; else None.

    >>> shares_of_counts(pd.Series(["45/60", "60/60"])).tolist()
    [0.75, 1.0]
    """
    parts = _parts_of_wholes(values)
    return (
        None if parts is None else pd.Series([x / y for x, y in parts], values.index, dtype=float)
    )


def plain_steps(values: pd.Series) -> pd.Series:
    """A column of steps without a word in each cell, or without their number after it.

    >>> plain_steps(pd.Series(["Epoch 5", "Epoch 10"])).tolist()
    ['5', '10']
    >>> plain_steps(pd.Series(["5/100", "10/100"])).tolist()
    [5, 10]
    """
    if values.dtype.kind in "iuf":
        return values
    parts = _parts_of_wholes(values)
    if parts is not None and len({whole for _, whole in parts}) == 1:
        return pd.Series([part for part, _ in parts], values.index)
    named = [NAMED_STEP.fullmatch(x.strip()) if isinstance(x, str) else None for x in values]
    return pd.Series([x[1] for x in named if x], values.index) if all(named) else values


def _parts_of_wholes(values: pd.Series) -> list[tuple[int, int]] | None:
    """The two numbers of each cell such as 45/60; None where one is none."""
    if not len(values) or not isinstance(values.iloc[0], str) or "/" not in values.iloc[0]:
        return None
    cells = [OF_WHOLE.fullmatch(x.strip()) if isinstance(x, str) else None for x in values]
    pairs = [(int(x[1]), int(x[2])) for x in cells if x]
    is_whole = len(pairs) == len(cells) and all(part <= whole and whole for part, whole in pairs)
    return pairs if pairs and is_whole else None


def percent_signs(values: pd.Series) -> pd.Series | None:
    """A column whose every cell has a percent sign, as shares; None if one has not.

    >>> percent_signs(pd.Series(["50 %", None, "100%"])).tolist()
    [0.5, nan, 1.0]
    """
    if values.dtype.kind in "iuf":
        return None
    cells = values.tolist()
    if not any(isinstance(cell, str) and "%" in cell for cell in cells):
        return None
    shares = []
    for cell in cells:
        if found := PERCENT.fullmatch(cell.strip()) if isinstance(cell, str) else None:
            shares.append(float(found[1]) / 100)
        elif cell is None or cell != cell or str(cell).strip().lower() in NOT_THERE:
            shares.append(math.nan)
        else:
            return None
    return pd.Series(shares, values.index, dtype=float)
