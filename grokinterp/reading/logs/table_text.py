"""Which part of a text is its table, and how are the numbers in it spelled plainly?

A table may stand below lines of a log; a spreadsheet names its separator in a line before it, and
groups digits by spaces or apostrophes; a printed table has an index that its header does not name.
"""

import re

from grokinterp.reading.logs.cells import NOT_THERE, NUMBER
from grokinterp.reading.logs.line_numbers import SPACES
from grokinterp.reading.logs.series import is_axis
from grokinterp.reading.words import curve_of, words_of

LINES_BEFORE = 200  # a header, at most
INDEX = "index"  # the name that its column gets
_SEPARATOR = re.compile(rb"(\xef\xbb\xbf)?\"?sep=([,;|\t ])\"?[ ,;]*\r?\n", re.IGNORECASE)
_GROUPED = re.compile(rf"(?<=\d)[{SPACES}'\u2019](?=\d{{3}}(?!\d))")
_GROUPED_BY_SPACE = re.compile(r"(?<![\d.,])(\d{1,3}(?: \d{3})+)(?=[;\t\r\n,]|$)")
_SPACE = re.compile(rf"[{SPACES}]")
_COLOUR = re.compile(rb"\x1b\[[\d;]*[A-Za-z]")
_BOXES = str.maketrans(
    dict.fromkeys(map(chr, range(0x2500, 0x2580)), "-") | dict.fromkeys("\u2502\u2503\u2551", "|")
)
_CELLS = re.compile(r"\s*[,;\t|]\s*|\s+")


def table_part(content: bytes) -> bytes:
    """The table in a text, from its header on; the text itself where it has no lines before it."""
    content = _plainly_drawn(_COLOUR.sub(b"", content))
    if found := _SEPARATOR.match(content):
        content = content[found.end() :]
    return _with_index(_from_header(content))


def _plainly_drawn(content: bytes) -> bytes:
    """A table whose lines are of characters of boxes, with bars and dashes in their place."""
    if not content.lstrip().startswith((b"\xe2\x94", b"\xe2\x95")):
        return content
    return content.decode(errors="replace").translate(_BOXES).encode()


def plainly_spelled(content: bytes, separator: str) -> bytes:
    r"""A table without spaces and apostrophes that group digits.

    >>> plainly_spelled("1'000;0,5\u00a0%".encode(), ";")
    b'1000;0,5 %'
    """
    marks = [*SPACES, "'", "\u2019"]
    if separator in ";\t|" and b" " in content:
        text = content.decode(errors="replace")
        content = _GROUPED_BY_SPACE.sub(lambda x: x[1].replace(" ", ""), text).encode()
    if not any(mark.encode() in content for mark in marks):
        return content
    return _SPACE.sub(" ", _GROUPED.sub("", content.decode())).encode()


def _from_header(content: bytes) -> bytes:
    """From the first line on that names steps and a curve, and has numbers below it."""
    start = 0
    for _ in range(LINES_BEFORE):
        end = content.find(b"\n", start)
        if end < 0 or end - start > 10_000:
            return content
        line = content[start:end].decode(errors="replace").strip("\ufeff\r\n ")
        names = [x for x in _CELLS.split(line.strip("|")) if x]
        measured = [name for name in names if curve_of(words_of(name.strip("\"'")))]
        if measured and any(is_axis(name.strip("\"'")) for name in names):
            return content[start:] if start and _has_row(content, end, len(names)) else content
        start = end + 1
    return content


def _has_row(content: bytes, start: int, most: int) -> bool:
    """Whether the next lines are numbers, as many as there are names or one more."""
    below = content[start : start + 20_000].decode(errors="replace").split("\n")[1:3]
    cells = [[x for x in _CELLS.split(line.strip(" \r|")) if x] for line in below]
    return any(row and 1 < len(row) <= most + 1 and all(map(_is_number, row)) for row in cells)


def _with_index(content: bytes) -> bytes:
    """With a name for the first column, where a printed table has an index without one."""
    head = content[:100_000].decode(errors="replace")
    lines = [line for line in head.split("\n")[:6] if line.strip()]
    if len(lines) < 2 or not lines[0].startswith(" "):
        return content
    names = lines[0].split()
    rows = [line.split() for line in lines[1:]]
    if any(len(row) != len(names) + 1 for row in rows) or not any(map(is_axis, names)):
        return content
    if not all(row[0].isdigit() and all(map(_is_number, row)) for row in rows):
        return content
    return f"{INDEX} ".encode() + content.lstrip(b" ")


def _is_number(cell: str) -> bool:
    text = cell.strip("\"'%").lower().replace(",", ".")
    return text in NOT_THERE or bool(NUMBER.fullmatch(text))
