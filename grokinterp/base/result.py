"""What all results have: a table, a picture, plain values, a text, and a card in a notebook."""

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from html import escape
from inspect import Parameter, signature, unwrap
from typing import TYPE_CHECKING, Any, TypeVar

from grokinterp.base.errors import InputError
from grokinterp.base.names import unknown_argument

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T", bound=Callable[..., Any])

ROWS = 12  # of a table; the rest is counted
LEFT = 'style="text-align: left"'  # Jupyter aligns cells to the right
INHERIT = 'style="color: inherit"'  # pages without a doctype give tables black text
_DRAWINGS: dict[type, Callable[..., Any]] = {}


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an analysis found: a table, a picture, plain values, and notes to read with them.

    Results are frozen dataclasses, made by name. `notes` say what was assumed, and what the numbers
    do not show. `str()` has the same text as the card that a notebook shows.
    """

    notes: tuple[str, ...] = ()

    def table(self) -> "pd.DataFrame":
        """The numbers as a table."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Every field in plain values, as JSON has them: numbers, text, lists and dicts."""
        return {each.name: plain_values(getattr(self, each.name)) for each in fields(self)}

    def plot(self, *args: Any, **options: Any) -> Any:
        """The figure of these numbers, as `_figures` of their room draws it, with its options."""
        figures = f"{'.'.join(type(self).__module__.split('.')[:2])}._figures"
        try:
            importlib.import_module(figures)
        except ModuleNotFoundError as error:
            if error.name != figures:
                raise
        if type(self) not in _DRAWINGS:
            raise InputError(f"{type(self).__name__} has no picture; .table() has its numbers.")
        draw = _DRAWINGS[type(self)]
        own = list(getattr(unwrap(draw), "__kwdefaults__", None) or ())
        if not options.keys() <= set(own):
            raise unknown_argument(draw, options, own)
        return draw(self, *args, **options)

    def _title(self) -> str:
        """The first line of a card: by default the class's name, such as "Key frequencies"."""
        words = re.findall("[A-Z]+(?![a-z])|[A-Z][a-z]+", type(self).__name__)
        return " ".join([words[0], *(w if w.isupper() else w.lower() for w in words[1:])])

    def _lines(self) -> list[str]:
        """The lines of a card between its title and its table."""
        return []

    def _short_table(self) -> "pd.DataFrame":
        """The part of the table that a card shows."""
        return self.table()

    def __str__(self) -> str:
        return text_card(self._title(), self._lines(), self._short_table(), notes=self.notes)

    def _repr_html_(self) -> str:
        return card(self._title(), self._lines(), self._short_table(), notes=self.notes)


def draws(kind: type) -> Callable[[T], T]:
    """Say that a function of a room's `_figures` draws the results of a kind."""

    def register(function: T) -> T:
        _DRAWINGS[kind] = function
        return function

    return register


def found_by(analysis: Callable[..., Any], kind: type) -> Callable[[T], T]:
    """Let a picture of what an analysis found be drawn of what that analysis takes, in one call.

        @draws(Ablation)
        @found_by(ablate, Ablation)
        def plot_ablation(found):

    so that `plot_ablation(run, placebos=10)` draws `ablate(run, placebos=10)`.
    """
    name = analysis.__name__

    def of_any(draw: T) -> T:
        (first, *own), takes = (list(signature(f).parameters.values()) for f in (draw, analysis))
        its = {each.name for each in own}

        @wraps(draw)
        def plot(x: Any, **options: Any) -> Any:
            mine = {key: options.pop(key) for key in its & options.keys()}
            if not isinstance(x, kind):
                return draw(analysis(x, **options), **mine)
            for key in options:
                raise InputError(f"{key!r} is of {name}, which has found this; leave it out here.")
            return draw(x, **mine)

        named = (Parameter.KEYWORD_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        theirs = [
            each.replace(kind=Parameter.KEYWORD_ONLY)  # a picture takes all but x by name
            for each in takes[1:]
            if each.kind in named and each.name not in its
        ]
        shown = [first.replace(name="x", annotation=Parameter.empty), *own, *theirs]
        plot.__signature__ = signature(draw).replace(parameters=shown)  # type: ignore[attr-defined]
        about, example, rest = (draw.__doc__ or "").partition("\n    >>> ")
        given = f"`x` is what `{name}` found, or what it takes, with its arguments by name."
        plot.__doc__ = f"{about.rstrip()}\n\n    {given}\n{example}{rest}"
        return plot  # type: ignore[return-value]

    return of_any


class Html(str):
    """HTML that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"<HTML of {len(self)} characters>"  # what a notebook keeps beside it as plain text


def card(
    title: str,
    lines: Iterable[str] = (),
    table: "pd.DataFrame | None" = None,
    *,
    notes: Iterable[str] = (),
    most: int = ROWS,
) -> str:
    """A piece of HTML: a title, lines, at most so many rows of a table, and notes below it.

    Everything is escaped, names of files and tasks above all. There is no script and no colour: it
    is as legible in a dark notebook as in a light one. Floats have four digits; a dash stands for
    what is not known.

    >>> card("a < b", ["one"])
    '<div><b>a &lt; b</b><br>one</div>'
    """
    parts = ["<br>".join([f"<b>{_text(title)}</b>", *map(_text, lines)])]
    if table is not None and len(table):
        head, *rows = _cells(table, most)
        body = _row("th", head) + "".join(_row("td", row) for row in rows)
        parts.append(f"<table {INHERIT}>{body}</table>{_more(table, most)}")
    if listed := "".join(f"<li>{_text(note)}</li>" for note in notes):
        parts.append(f"<ul>{listed}</ul>")
    return f"<div>{''.join(parts)}</div>"


def text_card(
    title: str,
    lines: Iterable[str] = (),
    table: "pd.DataFrame | None" = None,
    *,
    notes: Iterable[str] = (),
    most: int = ROWS,
) -> str:
    """A card as plain text, with at most so many rows of its table.

    >>> print(text_card("Circles", ["of one model"], notes=["a note"]))
    Circles
      of one model
      - a note
    """
    shown = [] if table is None else text_table(table, most=most)
    found = [title, *(f"  {line}" for line in [*lines, *shown])]
    return "\n".join([*found, *(f"  - {note}" for note in notes)])


def text_table(table: "pd.DataFrame", *, most: int = ROWS) -> list[str]:
    """The lines of a table, at most so many of its rows: numbers to the right, words to the left.

    >>> import pandas as pd
    >>> for line in text_table(pd.DataFrame({"k": [9, 55], "share": [0.25, None]})):
    ...     print(line)
     k  share
     9   0.25
    55      -
    """
    if not len(table):
        return []
    rows = _cells(table, most)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [_is_number(table.iloc[:, i]) for i in range(table.shape[1])]
    lines = []
    for row in rows:
        cells = (
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, right, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    return [*lines, _more(table, most)] if len(table) > most else lines


def _is_number(column: "pd.Series[Any]") -> bool:
    known = column.dropna().tolist()
    plain = all(isinstance(x, int | float) and not isinstance(x, bool) for x in known)
    return bool(known) and plain


def _cells(table: "pd.DataFrame", most: int = ROWS) -> list[list[str]]:
    """The columns' names and at most so many rows, whole: pandas would cut long cells."""
    shown = table.head(most).astype(object)
    rows = shown.where(shown.notna(), None).itertuples(index=False, name=None)
    return [[str(column) for column in table.columns], *([_cell(x) for x in row] for row in rows)]


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag} {LEFT}>{_text(cell)}</{tag}>' for cell in cells)}</tr>"


def _more(table: "pd.DataFrame", most: int = ROWS) -> str:
    return f"... and {len(table) - most} more" if len(table) > most else ""


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " to ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    """Escaped, and in a form that any encoding of Unicode can write."""
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
