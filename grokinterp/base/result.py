"""What every result has: a table, a picture, plain values, and a card in a notebook."""

import importlib
from collections.abc import Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T", bound=Callable[..., Any])

ROWS = 12  # of a table; the rest is counted
LEFT = 'style="text-align: left"'  # Jupyter aligns cells to the right
INHERIT = 'style="color: inherit"'  # pages without a doctype give tables black text


_DRAWINGS: dict[type, Callable[..., Any]] = {}


class Result:
    """The base of what analyses return: it knows who draws it, without importing that."""

    def _drawn(self, **options: Any) -> Any:
        """The figure that the room of this result draws of it."""
        room = ".".join(type(self).__module__.split(".")[:2])
        importlib.import_module(f"{room}._figures")
        return _DRAWINGS[type(self)](self, **options)


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


def _table(table: "pd.DataFrame") -> str:
    """Cells whole: pandas' own would cut them at the reader's display options."""
    shown = table.head(ROWS).astype(object)
    rows = [f"<th {LEFT}>{_text(column)}</th>" for column in table.columns]
    lines = [f"<tr>{''.join(rows)}</tr>"]
    for row in shown.where(shown.notna(), None).itertuples(index=False, name=None):
        lines.append(f"<tr>{''.join(f'<td {LEFT}>{_text(_cell(x))}</td>' for x in row)}</tr>")
    rest = len(table) - len(shown)
    return f"<table {INHERIT}>{''.join(lines)}</table>" + (f"... and {rest} more" if rest else "")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " to ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    """Escaped, and such that any encoding of Unicode can write it."""
    return escape(str(value).encode("utf-8", "backslashreplace").decode())
