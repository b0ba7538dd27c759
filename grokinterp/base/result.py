"""What every result has: a table, a picture, plain values, and a card in a notebook."""

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T", bound=Callable[..., Any])

ROWS = 12  # of a table; the rest is counted
LEFT = 'style="text-align: left"'  # Jupyter aligns cells to the right
INHERIT = 'style="color: inherit"'  # pages without a doctype give tables black text


_DRAWINGS: dict[type, Callable[..., Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an analysis found: a table, a picture, plain values, and what is to be read with it.

    Results are frozen dataclasses, made by name. `notes` say what was assumed, and what the numbers
    do not show. `str()` is what the command line prints, and a notebook shows the same as a card.
    """

    notes: tuple[str, ...] = ()

    def table(self) -> "pd.DataFrame":
        """The numbers as a table."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain values: numbers, text, lists and dicts, as JSON has them."""
        return {each.name: plain_values(getattr(self, each.name)) for each in fields(self)}

    def _drawn(self, **options: Any) -> Any:
        """The figure that `_figures` of this result's room draws of it, imported when needed."""
        room = ".".join(type(self).__module__.split(".")[:2])
        importlib.import_module(f"{room}._figures")
        return _DRAWINGS[type(self)](self, **options)

    def _title(self) -> str:
        """What stands above a card: "Key frequencies" of KeyFrequencies, unless a result says."""
        words = re.findall("[A-Z]+(?![a-z])|[A-Z][a-z]+", type(self).__name__)
        return " ".join([words[0], *(w if w.isupper() else w.lower() for w in words[1:])])

    def _lines(self) -> list[str]:
        """What a card says before its table."""
        return []

    def _short_table(self) -> "pd.DataFrame":
        """What a card shows of the table."""
        return self.table()

    def __str__(self) -> str:
        return text_card(self._title(), self._lines(), self._short_table(), notes=self.notes)

    def _repr_html_(self) -> str:
        return card(self._title(), self._lines(), self._short_table(), notes=self.notes)


def draws(kind: type) -> Callable[[T], T]:
    """Name the function that draws the results of a kind; it lies in `_figures` of their room."""

    def register(function: T) -> T:
        _DRAWINGS[kind] = function
        return function

    return register


class Html(str):
    """HTML that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return str(self)


def card(
    title: str,
    lines: Iterable[str] = (),
    table: "pd.DataFrame | None" = None,
    *,
    notes: Iterable[str] = (),
) -> str:
    """A piece of HTML: a title, lines, at most `ROWS` rows of a table, notes as a list below it.

    Everything is escaped, names of files and tasks above all. There is no script and no colour, so
    that it is as legible in a dark notebook as in a light one. Floats have four digits, what is not
    known is a dash.

    >>> card("a < b", ["one"])
    '<div><b>a &lt; b</b><br>one</div>'
    """
    parts = ["<br>".join([f"<b>{_text(title)}</b>", *map(_text, lines)])]
    if table is not None and len(table):
        parts.append(_table(table))
    if listed := "".join(f"<li>{_text(note)}</li>" for note in notes):
        parts.append(f"<ul>{listed}</ul>")
    return f"<div>{''.join(parts)}</div>"


def text_card(
    title: str,
    lines: Iterable[str] = (),
    table: "pd.DataFrame | None" = None,
    *,
    notes: Iterable[str] = (),
) -> str:
    """The same as plain text: a title, lines, at most `ROWS` rows of a table, notes below it.

    >>> print(text_card("Circles", ["of one model"], notes=["a note"]))
    Circles
      of one model
      - a note
    """
    found = [title, *(f"  {line}" for line in lines)]
    if table is not None and len(table):
        shown = _first_rows(table)
        rows = [
            [str(column) for column in table.columns],
            *([_cell(x) for x in row] for row in shown),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            found.append(f"  {'  '.join(cells)}".rstrip())
        found += [f"  ... and {len(table) - ROWS} more"] * (len(table) > ROWS)
    return "\n".join([*found, *(f"  - {note}" for note in notes)])


def _first_rows(table: "pd.DataFrame") -> Iterable[tuple[Any, ...]]:
    """At most `ROWS` rows of a table, None for what is not known."""
    shown = table.head(ROWS).astype(object)
    return shown.where(shown.notna(), None).itertuples(index=False, name=None)


def _table(table: "pd.DataFrame") -> str:
    """Cells whole: pandas' own would cut them at the reader's display options."""
    rows = [f"<th {LEFT}>{_text(column)}</th>" for column in table.columns]
    lines = [f"<tr>{''.join(rows)}</tr>"]
    for row in _first_rows(table):
        lines.append(f"<tr>{''.join(f'<td {LEFT}>{_text(_cell(x))}</td>' for x in row)}</tr>")
    rest = len(table) - ROWS
    more = f"... and {rest} more" if rest > 0 else ""
    return f"<table {INHERIT}>{''.join(lines)}</table>{more}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " to ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    """Escaped, and such that any encoding of Unicode can write it."""
    return escape(str(value).encode("utf-8", "backslashreplace").decode())


def plain_values(value: Any) -> Any:
    """A value as JSON has it: plain numbers, text, lists and dicts; NaN is None.

    >>> plain_values({1: (2.0, math.nan)})
    {'1': [2.0, None]}
    """
    if isinstance(value, Mapping):
        return {str(plain_values(key)): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain_values({each.name: getattr(value, each.name) for each in fields(value)})
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a table of pandas
        return plain_values(value.to_dict("records"))
    if hasattr(value, "tolist"):  # of numpy and torch, a number or an array
        return plain_values(value.tolist())
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if type(value).__name__ in ("NAType", "NaTType"):  # of pandas
        return None
    return str(value).encode(errors="backslashreplace").decode()  # names may hold other bytes
