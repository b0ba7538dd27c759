"""Lists of numbers in text, as Python, YAML and numpy print them: `train_acc: [0.1, 1.0]`.

The first number of a list is not the one of its name. Where a text has lists alone, they are the
columns of a table; beside lines with numbers of their own they are left out.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.reading.logs.line_numbers import name_before
from grokinterp.reading.logs.nested import table_in
from grokinterp.reading.words import curve_of, words_of

LONGEST_NAME = 60  # characters before a list that are looked at
LONGEST_LITERAL = 2_000_000  # characters of a dictionary that Python printed
_MORE = r"\s*[\w.+\-]+[\s,]+[\w.+\-][\w\s,.+\-]*"  # than one number
_LIST = re.compile(rf"\[{_MORE}\]|\({_MORE}\)")
_ARRAY = re.compile(r"[\w.]*(?:array|tensor)\($", re.IGNORECASE)
_APART = re.compile(r",\s*|\s+")
_ONE = re.compile(r"\d+,\d+|\d{1,3}(?:[, ]\d{3})+")  # 0,95 or 1,000
_GONE = " \u2026 "  # in the place of a list: nothing that a name could have


class _List(NamedTuple):
    """A list of several numbers with a name before it."""

    name: str
    values: list[float]
    start: int  # in the text
    end: int


def without_lists(text: str) -> tuple[str, list[str]]:
    """A text without its lists of several numbers, and the names of these.

    >>> without_lists("step 3 test_acc [0.5, 0.25] lr [0.1]")
    ('step 3 test_acc \u2026  lr [0.1]', ['test_acc'])
    """
    lists = _lists_in(text)
    parts, done = [], 0
    for one in lists:
        parts += [text[done : one.start], _GONE]
        done = one.end
    return "".join((*parts, text[done:])), list(dict.fromkeys(one.name for one in lists))


def table_of_lists(text: str, path: Path) -> pd.DataFrame:
    """The table whose columns are the lists of a text, a name each."""
    data: dict[str, list[float]] = {}
    for one in _lists_in(text):
        if one.name in data:
            raise InputError(
                f"{path} has several lists of numbers under {one.name!r}, and one number a step is "
                "read; write lines such as 'step=10 train_acc=0.5', or one list each."
            )
        data[one.name] = one.values
    return table_in(data, str(path))


def table_of_dictionary(text: str) -> pd.DataFrame | None:
    """The table of lists in a dictionary that Python printed; None where a text is no such one."""
    text = text.strip()
    if not (text[:1] == "{" and text[-1:] == "}" and "[" in text) or len(text) > LONGEST_LITERAL:
        return None
    try:
        table = table_in(ast.literal_eval(text), "")
    except (ValueError, SyntaxError, MemoryError, RecursionError, InputError):
        return None
    return table if any(curve_of(words_of(str(column))) for column in table) else None


def _lists_in(text: str) -> list[_List]:
    """The lists of losses and accuracies, and those of their steps where there are such."""
    lists = list(_named_lists(text))
    return lists if any(curve_of(words_of(one.name)) for one in lists) else []


def _named_lists(text: str) -> Iterator[_List]:
    for found in _LIST.finditer(text):
        start = found.start()
        before = text[max(0, start - LONGEST_NAME) : start].rpartition("\n")[2]
        name = name_before(_ARRAY.sub("", before))
        values = _numbers(found[0][1:-1]) if name else []
        if len(values) > 1:
            yield _List(name, values, start, found.end())


def _numbers(inside: str) -> list[float]:
    """The numbers in brackets; none where something else is in them, or one number."""
    inside = inside.strip().rstrip(",")
    if _ONE.fullmatch(inside) and not inside.startswith("0,0"):
        return []
    try:
        return [
            float("nan") if part in ("None", "null") else float(part)
            for part in _APART.split(inside)
        ]
    except ValueError:
        return []
