"""Logs as tables of text: cells separated by commas, semicolons, tabs, bars or spaces.

The separator is the one that splits the first lines alike. Where it is no comma, numbers may have a
decimal comma: all of a file have, or none. A header may begin with "#", as numpy writes it, and
lines of comments may stand before and below it. Without a header columns are called 0, 1, 2, ...
"""

import csv
import io
import re
import warnings
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError, one_line
from grokinterp.reading.logs.cells import DECIMAL_COMMA, NOT_THERE, NUMBER, THOUSANDS
from grokinterp.reading.logs.contents import content_and_notes
from grokinterp.reading.logs.nested import without_names
from grokinterp.reading.logs.series import MOST_COLUMNS, is_axis
from grokinterp.reading.logs.table_text import plainly_spelled, table_part
from grokinterp.reading.words import curve_of, is_known, words_of

LONGEST_LINE = 100_000  # bytes: pandas takes seconds for a million cells in one
LOOKED_AT = 5  # lines, to tell the separator
SEPARATORS = ("\t", ";", "|", ",")  # a comma may also be a decimal one
SPACES = r"\s+"
OF_RULES = frozenset(b" \t|:+-=\r")  # what a line below a header, or around a table, is of
ONE_GROUP = re.compile(r"[+-]?\d{1,3},\d{3}", re.ASCII)
GROUPED = re.compile(rb"(?<![\d.,])[1-9]\d{0,2}\.\d{3}(?!\d)")
WANTED = "give a CSV with a column 'step' and losses or accuracies"


class _Form(NamedTuple):
    """How a table is written."""

    separator: str
    has_header: bool


def is_table(content: bytes) -> bool:
    r"""Whether text is a table whose header names something known, or one of numbers alone.

    >>> is_table(b"step train_acc\n0 0.1\n"), is_table(b"step=0 train_acc=0.1\n")
    (True, False)
    """
    lines = _first_lines(_without_comments(table_part(content)))
    if not lines:
        return False
    form = _form_of(lines)
    names = _cells_of(lines[0], form.separator)
    if not form.has_header:
        return len(names) > 1
    if not any(map(is_known, names)) or any(name and _is_number(name) for name in names):
        return False
    return len(lines) == 1 or any(map(_is_number, _cells_of(lines[1], form.separator)))


def read_delimited(path: Path) -> pd.DataFrame:
    """A table of text of another tool, column names stripped; what is none is refused in one line.

    Names that stand twice in the header stay, so that who uses such a column can refuse it.
    """
    content, notes = content_and_notes(path)
    content = _without_rules(_without_comments(table_part(content)))
    form = _form_of(_first_lines(content))
    content = plainly_spelled(content, form.separator)
    _check_lines(path, content, form.separator)
    try:
        frame = _table(content, form, path)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; {WANTED}.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not a CSV that can be read: {_reason(error)}.") from None
    if form.separator == ",":
        _join_thousands(frame, path)
    else:
        frame = _with_points(frame, content, form, path)
        frame = _with_whole_steps(frame, content, form, path)
    if notes:
        frame.attrs["notes"] = [*frame.attrs.get("notes", ()), *notes]
    return frame


def _table(content: bytes, form: _Form, path: Path, **options: Any) -> pd.DataFrame:
    header = _read(content, form, header=None, nrows=1, dtype=str, keep_default_na=False)
    names = [str(name).strip() for name in header.iloc[0]]
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{path} has more than {MOST_COLUMNS} columns; keep those of the log.")
    if not form.has_header:
        return without_names(_read(content, form, header=None, **options))
    _read(content, form, nrows=1)  # a first row longer than the header is found after all others
    frame = _read(content, form, **options)
    frame.columns = pd.Index(names)
    return _without_headers(frame)


def _without_headers(frame: pd.DataFrame) -> pd.DataFrame:
    """Without rows that are the header again, as of a file that several runs of a script wrote."""
    first = frame.iloc[:, 0] if frame.shape[1] else pd.Series(dtype=float)
    if pd.api.types.is_numeric_dtype(first) or not (first == frame.columns[0]).any():
        return frame
    again = (frame.astype(str).to_numpy() == np.array(frame.columns, dtype=str)).all(axis=1)
    kept = frame[~again].reset_index(drop=True)
    if again.any():
        kept.attrs["notes"] = [f"its header stands there {int(again.sum()) + 1} times"]
    return kept


def _read(content: bytes, form: _Form, **options: Any) -> pd.DataFrame:
    with warnings.catch_warnings(action="ignore"):  # of columns whose cells are of several types
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(content), sep=form.separator, index_col=False, skipinitialspace=True,
            float_precision="round_trip", **options,
        )  # fmt: skip


def _first_lines(content: bytes) -> list[str]:
    """The first lines that are not empty."""
    head = content[: 2 * LONGEST_LINE].decode(errors="replace").removeprefix("\ufeff")
    return [line for line in re.split(r"[\r\n]+", head) if line.strip()][:LOOKED_AT]


def _without_rules(content: bytes) -> bytes:
    """Without the lines that are drawn in a table of text, such as one in Markdown."""

    def is_rule(line: bytes) -> bool:
        return (b"---" in line or b"===" in line) and OF_RULES.issuperset(line)

    if not any(is_rule(line.encode()) for line in _first_lines(content)):
        return content
    return b"\n".join(line for line in content.split(b"\n") if not is_rule(line))


def _without_comments(content: bytes) -> bytes:
    """Without lines of comments; a header in one before the table stays, as numpy writes it."""
    bare = content.removeprefix(b"\xef\xbb\xbf")
    while bare.lstrip().startswith(b"#"):
        line, _, rest = bare.lstrip().partition(b"\n")
        names = line.lstrip(b"# ")
        following = rest.lstrip()
        if not following.startswith(b"#"):
            first = _first_lines(names + b"\n" + following)
            form = _form_of(first)
            cells = [_cells_of(x, form.separator) for x in first[:2]]
            is_header = any(map(is_known, cells[0])) if cells else False
            if is_header and len(cells) == 2 and len(cells[0]) == len(cells[1]):
                return names + b"\n" + following
        bare = rest
    if b"\n#" not in bare or b'"' in bare:  # in which a line may be within a cell
        return bare
    return b"\n".join(line for line in bare.split(b"\n") if not line.startswith(b"#"))


def _form_of(lines: list[str]) -> _Form:
    """The separator that splits the first lines alike, and whether the first one has names."""
    separator = next((x for x in SEPARATORS if _splits(lines, x)), None)
    if separator is None:
        separator = SPACES if lines and "," not in lines[0] and _splits(lines, SPACES) else ","
    cells = _cells_of(lines[0], separator) if lines else []
    return _Form(separator, not all(map(_is_number, cells)) or not any(cells))


def _splits(lines: list[str], separator: str) -> bool:
    counts = {len(_cells_of(line, separator)) for line in lines}
    return len(counts) == 1 and counts.pop() > 1


def _cells_of(line: str, separator: str) -> list[str]:
    if separator == SPACES:
        return line.split()
    if len(line) > LONGEST_LINE:
        return []
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
    except (csv.Error, StopIteration):
        return line.split(separator)


def _is_number(cell: str) -> bool:
    text = cell.strip().lower()
    return text in NOT_THERE or bool(NUMBER.fullmatch(text) or DECIMAL_COMMA.fullmatch(text))


def _with_points(frame: pd.DataFrame, content: bytes, form: _Form, path: Path) -> pd.DataFrame:
    """The table with a point in its numbers, where its cells have commas in them."""
    texts = [
        cell
        for i in range(frame.shape[1])
        if not pd.api.types.is_numeric_dtype(frame.iloc[:, i])
        for cell in frame.iloc[:, i].tolist()
        if isinstance(cell, str) and "," in cell
    ]
    bare = [cell.rstrip(" %").strip() for cell in texts]
    if not any(map(DECIMAL_COMMA.fullmatch, bare)):
        return frame
    decimal = not all(map(THOUSANDS.fullmatch, bare))
    if not decimal:
        _check_groups(frame, path)
    whole = _table(content, form, path, dtype=str)
    point = (lambda x: x.replace(".", "").replace(",", ".")) if decimal else _joined
    for i in range(whole.shape[1]):
        cells = [
            point(x.strip()) if isinstance(x, str) and _has_comma(x.rstrip(" %"), decimal) else x
            for x in whole.iloc[:, i].tolist()
        ]
        whole.isetitem(i, np.array(cells, dtype=object))
    whole.attrs = {**frame.attrs, "notes": ["numbers have a decimal comma"] if decimal else []}
    return whole


def _join_thousands(frame: pd.DataFrame, path: Path) -> None:
    """Columns whose quoted numbers from 1,000 on have commas, without these."""
    for i in range(frame.shape[1]):
        cells = frame.iloc[:, i]
        if pd.api.types.is_numeric_dtype(cells):
            continue
        texts = [cell.strip() for cell in cells.tolist() if isinstance(cell, str)]
        grouped = [cell for cell in texts if THOUSANDS.fullmatch(cell)]
        others = [cell for cell in texts if "," not in cell and _is_number(cell)]
        is_whole = len(grouped) + len(others) == len(texts)
        if len(grouped) > 1 and is_whole and not any(_is_large(cell) for cell in others):
            _check_groups(frame.iloc[:, [i]], path)
            joined = [_joined(x) if isinstance(x, str) else x for x in cells.tolist()]
            frame.isetitem(i, np.array(joined, dtype=object))


def _is_large(cell: str) -> bool:
    """Whether a number has so many digits that it would be grouped too."""
    return len(cell.lstrip("+-").partition(".")[0]) > len("999")


def _check_groups(frame: pd.DataFrame, path: Path) -> None:
    """Refuse a loss or accuracy whose every number has a comma before three digits."""
    for i, name in enumerate(frame.columns):
        cells = [str(cell).strip() for cell in frame.iloc[:, i].dropna().tolist()]
        if curve_of(words_of(str(name))) and cells and all(map(ONE_GROUP.fullmatch, cells)):
            raise InputError(
                f"{path}, column {str(name)!r} has numbers such as {cells[0]}, which may be "
                f"{cells[0].replace(',', '')} or {cells[0].replace(',', '.')}; write a point for "
                "decimals, and nothing between thousands."
            )


def _with_whole_steps(frame: pd.DataFrame, content: bytes, form: _Form, path: Path) -> pd.DataFrame:
    """The table with steps such as 1.000, beside ones such as 500, as thousands."""
    of_steps = [
        i for i, name in enumerate(frame.columns)
        if is_axis(str(name)) and frame.iloc[:, i].dtype.kind not in "iu"
    ]  # fmt: skip
    if not of_steps or not GROUPED.search(content):
        return frame
    written = _table(content, form, path, dtype=str)
    for i in of_steps:
        cells = [str(cell).strip() for cell in written.iloc[:, i].dropna().tolist()]
        grouped = [cell for cell in cells if re.fullmatch(r"[1-9]\d{0,2}(\.\d{3})+", cell)]
        if grouped and len(grouped) < len(cells) == len(grouped) + sum(map(str.isdigit, cells)):
            whole = written.iloc[:, i].str.strip().str.replace(".", "").astype(float)
            frame.isetitem(i, whole.to_numpy())
    return frame


def _joined(text: str) -> str:
    return text.replace(",", "")


def _has_comma(text: str, decimal: bool) -> bool:
    text = text.strip()
    if not decimal:
        return bool(THOUSANDS.fullmatch(text))
    return bool(DECIMAL_COMMA.fullmatch(text) or re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+", text))


def _check_lines(path: Path, content: bytes, separator: str) -> None:
    """Refuse lines that are too long, and too wide a header or first row (of others, pandas)."""
    start, mark = 0, b"," if separator == SPACES else separator.encode()
    while len(content) - start > LONGEST_LINE:
        window = start, start + LONGEST_LINE + 1
        end = max(content.rfind(b"\n", *window), content.rfind(b"\r", *window))
        if end < 0:
            raise _wide(path, content, start, len(content[start:].partition(b"\n")[0]), mark)
        start = end + 1
    for line in islice(re.finditer(rb"[^\r\n]+", content[: 2 * LONGEST_LINE]), 2):
        if b'"' not in line[0] and line[0].count(mark) > MOST_COLUMNS:
            raise _wide(path, content, line.start(), len(line[0]), mark)


def _wide(path: Path, content: bytes, start: int, length: int, mark: bytes) -> InputError:
    line = content.count(b"\n", 0, start) + 1
    marks = content.count(mark, start, start + length)
    many = f"{marks + 1} cells" if marks >= MOST_COLUMNS else f"{length} characters"
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
