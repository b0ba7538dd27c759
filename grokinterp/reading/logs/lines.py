"""Logs as lines that people read: `step 1,000 | train/acc=0.52 (val loss: 1.3)`.

A number belongs to the name before it, with `=`, `:`, a bracket or nothing between: the longest run
of words that says a step, a loss or an accuracy. Lines without a step go on with the last one.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from grokinterp.reading.logs.contents import content_of
from grokinterp.reading.logs.delimited import is_table, read_delimited
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.series import MOST_COLUMNS, is_axis
from grokinterp.reading.words import curve_of, words_of

LOOKED_AT = 500_000  # bytes, to find out whether there are pairs
LONGEST_LINE = 20_000  # characters; of longer ones, such as those of a bar, the last are read
MOST_WORDS = 4  # of a name
_NUMBER = (
    r"[+-]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|[+-]?(?:inf|nan)\b"
)
_PAIR = re.compile(
    rf"(?<![\w.,/-])(?P<number>{_NUMBER})(?P<percent>\s?%)?"
    r"(?:\s?/\s?[\d,.]+)?"  # of so many
    r"(?![\w]|\.\d|:\d|-\d)",
    re.IGNORECASE,
)
_NO_TEXT = re.compile(r"\x1b\[[\d;]*[A-Za-z]|(?<![\w.])(tensor|np\.float\d\d|array)(?=\()")
_NAME = re.compile(r"[A-Za-z_][\w./@-]*|\([A-Za-z]+\)")
_GAP = re.compile(r"[\s=:\[\](){}<>|'\"#,;*~@-]*")  # between a name and its number
_BETWEEN = re.compile(r"[\s'\"]+")  # the words of a name
_OTHERS = {  # before a name, words that make it one of something else
    "best", "max", "min", "last", "previous", "prev", "initial", "target", "ema", "smoothed",
    "running", "std", "stderr", "delta", "log", "log10", "final", "lr", "total", "weight", "reg",
}  # fmt: skip


@log_format("lines", suffixes=(".log", ".out", ".txt"))
def read_lines(path: Path) -> pd.DataFrame:
    """A row a line that has a known name with a number; a table of text is read as one."""
    content = content_of(path)
    head = content[:LOOKED_AT].decode(errors="ignore")
    if is_table(content) or not has_pairs(head):
        return read_delimited(path)
    rows: list[dict[str, float | str]] = []
    names: dict[str, None] = {}
    last: dict[str, float | str] = {}
    for line in re.split(r"[\r\n]+", content.decode()):
        found = dict(_pairs(line[-LONGEST_LINE:]))
        if not found:
            continue
        steps = {name: number for name, number in found.items() if is_axis(name)}
        if len(steps) == len(found):  # a heading: what follows is of it
            last = steps
            continue
        if steps:
            last = steps
        rows.append({**last, **found})
        names.update(dict.fromkeys(rows[-1]))
    return pd.DataFrame(rows, columns=list(names)[:MOST_COLUMNS])


def has_pairs(text: str) -> bool:
    """Whether a line of the text has a known name with a number.

    >>> has_pairs("Epoch [3/10], Step [5/600], Loss: 0.25"), has_pairs("a note of 2026")
    (True, False)
    """
    return any(not is_axis(name) for line in text.splitlines() for name, _ in _pairs(line))


def _pairs(line: str) -> Iterator[tuple[str, float | str]]:
    """Names that are known and their numbers, in percent with the sign.

    >>> list(_pairs("INFO step 1,000: train loss 1.5e-3, val/acc=52%"))
    [('step', 1000.0), ('train loss', 0.0015), ('val/acc', '52%')]
    >>> list(_pairs("best val acc 0.9 epoch_time=3 lr=0.1"))
    []
    """
    line, start = _NO_TEXT.sub("", line), 0
    for found in _PAIR.finditer(line):
        name = _name_in(line[start : found.start()])
        start = found.end()
        if name is not None:
            number = float(found["number"].replace(",", ""))
            yield name, f"{found['number'].replace(',', '')}%" if found["percent"] else number


def _name_in(before: str) -> str | None:
    """The name at the end of what stands before a number; None where it is no known one."""
    words: list[str] = []
    end = len(before)
    gap = _GAP.match(before[::-1])
    end -= len(gap[0]) if gap else 0
    found = list(_NAME.finditer(before[:end]))
    while found and found[-1].end() == end and len(words) <= MOST_WORDS:
        word = found.pop()
        words.insert(0, word[0])
        between = _BETWEEN.search(before[: word.start()][::-1])
        if between is None or between.start() != 0:
            break
        end = word.start() - len(between[0])
    for first in range(len(words)):
        name = " ".join(words[first:])
        if curve_of(words_of(name)) or is_axis(name):
            return None if first and words[first - 1].lower() in _OTHERS else name
    return None
