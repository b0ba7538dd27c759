"""A CSV of another tool as a table, and its cells as numbers: read, or refused in one line.

Cells are separated by commas, numbers have a point and no other separator, text is UTF-8 (or UTF-16
with its mark). Whatever a file holds, it is refused within seconds: its size, the length of its
lines and the number of its columns are limited.
"""

import codecs
import datetime
import io
import math
import re
import sys
import warnings
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.errors import LONGEST_VALUE, InputError, one_line, shown
from grokinterp.base.files import HEAD, kind_of

LARGEST = 256_000_000  # bytes
MOST_COLUMNS = 1000
LONGEST_LINE = 100_000  # bytes: pandas takes seconds for a million cells in one
MARKS = (  # the longer first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
WANTED = "give a CSV with a column 'step' and losses or accuracies"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII)
NOT_THERE = ("", "nan", "na", "n/a", "null", "none", "<na>")
LONGEST_NUMBER = 60  # characters; with 17 digits a float is said to the last bit
MOST_BITS = 10_000  # of a number whose digits Python writes out
_FORMS = (  # of cells that mean a number, or a date, and what to do about them
    (re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(\D.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(\D.*)?"
                r"|\d+:\d{2}(:\d.*)?", re.DOTALL), "a date or time"),
    (re.compile(r"[+-]?\d{1,3}([,' _\u00a0\u202f]\d{3})+(\.\d+)?"),
     "a number with thousands separators; leave them out"),
    (re.compile(r"[+-]?\d*,\d+"), "a number with a decimal comma; write a point"),
    (re.compile(r"[+-]?[\d.]+\s*%"), "a percentage; give shares from 0 to 1"),
)  # fmt: skip


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV file of another tool, column names stripped; what is none is refused in one line.

    Names that stand twice in the header stay as they are, so that who uses such a column can refuse
    it.
    """
    path = Path(path)  # pandas would fetch a URL
    if not path.is_file():
        raise InputError(f"{path} is not a file; {WANTED}.")
    content = _utf8(path, _content(path))
    _check_lines(path, content)
    try:
        header = _read(content, header=None, nrows=1, dtype=str, keep_default_na=False)
        names = [str(name).strip() for name in header.iloc[0]]
        _check_header(path, names)
        _read(content, nrows=1)  # a first row longer than the header is found after all others
        frame = _read(content)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; give a CSV with a header and rows.") from None
    except InputError:
        raise
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        raise InputError(f"{path} is not a CSV that can be read: {_reason(error)}.") from None
    frame.columns = pd.Index(names)
    return frame


def _read(content: bytes, **options: Any) -> pd.DataFrame:
    with warnings.catch_warnings(action="ignore"):  # of columns whose cells are of several types
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(content), index_col=False, skipinitialspace=True,
            float_precision="round_trip", **options,
        )  # fmt: skip


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path} is empty; give a CSV with a header and rows.")
    with path.open("rb") as file:
        head = file.read(HEAD)
        if kind := kind_of(head):
            raise InputError(f"{path} is {kind.what}, no CSV; {kind.advice or WANTED}.")
        if size > LARGEST:
            raise InputError(
                f"{path} is {size / 1e6:.0f} MB large, and a log of at most {LARGEST / 1e6:.0f} MB "
                "is read; keep the columns that are needed, or every tenth row."
            )
        file.seek(0)
        return file.read()


def _utf8(path: Path, content: bytes) -> bytes:
    """The content in UTF-8, of which it is sure."""
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        recoded = content if encoding == "utf-8" else text.encode()
    except UnicodeError as error:
        at = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(
            f"{path} is not text in {encoding.upper()}{at}; {WANTED}, saved as UTF-8."
        ) from None
    if (zero := recoded.find(b"\0")) >= 0:
        line = recoded.count(b"\n", 0, zero) + 1
        raise InputError(
            f"{path} has bytes of zero, the first in line {line}: it is no text, or damaged; "
            f"{WANTED}, saved as UTF-8."
        )
    return recoded


def _check_lines(path: Path, content: bytes) -> None:
    """Refuse lines that are too long for a row of a log, and too wide a header or first row.

    pandas refuses rows with more cells than these two.
    """
    start = 0
    while len(content) - start > LONGEST_LINE:
        window = start, start + LONGEST_LINE + 1
        end = max(content.rfind(b"\n", *window), content.rfind(b"\r", *window))
        if end < 0:
            raise _wide(path, content, start, len(content[start:].partition(b"\n")[0]))
        start = end + 1
    for line in islice(re.finditer(rb"[^\r\n]+", content[: 2 * LONGEST_LINE]), 2):
        if b'"' not in line[0] and line[0].count(b",") > MOST_COLUMNS:
            raise _wide(path, content, line.start(), len(line[0]))


def _wide(path: Path, content: bytes, start: int, length: int) -> InputError:
    line = content.count(b"\n", 0, start) + 1
    commas = content.count(b",", start, start + length)
    many = f"{commas + 1} cells" if commas >= MOST_COLUMNS else f"{length} characters"
    return InputError(
        f"{path} has {many} in line {line}; {WANTED}, of at most {MOST_COLUMNS} columns and "
        f"{LONGEST_LINE} characters a line."
    )


def _check_header(path: Path, names: list[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{path} has more than {MOST_COLUMNS} columns; keep those of the log.")
    for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
        if len(names) == 1 and separator in names[0]:
            raise InputError(f"{path} separates its cells by {name}; separate them by commas.")


def _reason(error: Exception) -> str:
    """What pandas says, in other words where it says it in those of its code."""
    text = str(error)
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        expected, line, seen = found.groups()
        return f"line {line} has {seen} cells, and those before it {expected}"
    if found := re.search(r"EOF inside string starting at row (\d+)", text):
        return f"the quote that opens in row {found[1]} is never closed"
    if "Length of header" in text:
        return "its rows have more cells than its header"
    return one_line(text, most=120)


def left_out(frame: pd.DataFrame, used: Collection[str]) -> tuple[str, ...]:
    """A note that names the columns of a table that were not used; none where all were."""
    others = [x for x in frame.columns if x not in used and _is_named(x)]
    return (f"columns left out, not read here: {listed(others)}",) * bool(others)


def listed(columns: Iterable[object]) -> str:
    """The names of columns for a message: as many as 80 characters hold, and how many more.

    >>> listed(["a", "b"]), listed(f"column_{i}" for i in range(100))[-30:]
    ('a, b', 'column_5, column_6 and 93 more')
    """
    names = [one_line(str(x), most=LONGEST_VALUE // 2) for x in columns if _is_named(x)]
    kept = len(names)
    while kept > 1 and len(_joined(names, kept)) > LONGEST_VALUE:
        kept -= 1
    return _joined(names, kept) or "none"


def _joined(names: list[str], kept: int) -> str:
    more = f" and {len(names) - kept} more" if kept < len(names) else ""
    return ", ".join(names[:kept]) + more


def _is_named(column: object) -> bool:
    """Whether a column has a name of its own: an index that pandas wrote out has none."""
    return str(column).strip() != "" and not str(column).startswith("Unnamed: ")


def as_numbers(values: pd.Series, where: str) -> pd.Series:
    """A column as floats, NaN where nothing stands; the first cell that is no number is named.

    `where` says which column of which file it is, for the message.

    >>> as_numbers(pd.Series(["1", " 2.5 ", None]), "x.csv, column 'step'").tolist()
    [1.0, 2.5, nan]
    >>> as_numbers(pd.Series(["1", "0x10"]), "x.csv, column 'step'")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: x.csv, column 'step' has '0x10' in row 2, no number; give numbers.
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
        elif (text := cell.strip().lower()) in NOT_THERE:
            return math.nan
        elif NUMBER.fullmatch(text):
            return float(text)
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
