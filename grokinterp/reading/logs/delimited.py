"""Logs as tables of text, cells separated by commas."""

import codecs
import io
import re
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError, one_line
from grokinterp.base.files import HEAD, kind_of
from grokinterp.base.paths import file_at
from grokinterp.reading.logs.formats import log_format

LARGEST_CSV = 256_000_000  # and of any
MOST_COLUMNS = 1000
LONGEST_LINE = 100_000  # bytes: pandas takes seconds for a million cells in one
MARKS = (  # the longer first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
WANTED = "give a CSV with a column 'step' and losses or accuracies"


@log_format("csv", suffixes=(".csv",))
def read_csv_table(path: Path) -> pd.DataFrame:
    """A CSV file of another tool, column names stripped; what is none is refused in one line.

    Names that stand twice in the header stay, so that who uses such a column can refuse it.
    """
    content = _content(path)
    _check_lines(path, content)
    try:
        header = _read(content, header=None, nrows=1, dtype=str, keep_default_na=False)
        names = [str(name).strip() for name in header.iloc[0]]
        if len(names) > MOST_COLUMNS:
            raise InputError(f"{path} has more than {MOST_COLUMNS} columns; keep those of the log.")
        for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
            if len(names) == 1 and separator in names[0]:
                raise InputError(f"{path} separates its cells by {name}; separate them by commas.")
        _read(content, nrows=1)  # a first row longer than the header is found after all others
        frame = _read(content)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; {WANTED}.") from None
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
    """The content of a text file in UTF-8; what is no text, or too large, is refused."""
    size = file_at(path, wanted=WANTED).stat().st_size
    with path.open("rb") as file:
        if kind := kind_of(file.read(HEAD)):
            raise InputError(f"{path} is {kind.what}, no CSV; {kind.advice or WANTED}.")
        if size > LARGEST_CSV:
            raise InputError(
                f"{path} is {size / 1e6:.0f} MB large, and a log of at most "
                f"{LARGEST_CSV / 1e6:.0f} MB is read; keep the columns that are needed, or every "
                "tenth row."
            )
        file.seek(0)
        content = file.read()
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
    """Refuse lines that are too long, and too wide a header or first row (of others, pandas)."""
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
