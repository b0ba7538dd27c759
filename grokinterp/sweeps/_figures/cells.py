"""A sweep's table as figures need it: keys as axes, runs as cells, and all of it in words."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.checks import listed
from grokinterp.base.errors import InputError, nearest
from grokinterp.figures._figure import LABEL_COLOURS, SERIES, checked, plain
from grokinterp.progress.labels import LABELS
from grokinterp.recipe.keys import CHANCE, every_key
from grokinterp.sweeps.statistics import MedianInterval, median_interval
from grokinterp.sweeps.sweep import VARIANT
from grokinterp.sweeps.table import NOTE, RUN, read_results

TIMES = ("memorization_step", "grok_step", "t_train", "t_test")
UNITS = {**dict.fromkeys(TIMES, "updates"), "train_loss": "nats", "test_loss": "nats"}
LONGEST = 28  # letters of a name in a figure
LABEL, NO_LABEL = "label", "no label"
MOST_TICKS = 16  # with a name each
MOST_LINES = 25  # of a text shown on hover


def name_of(given: object, *, longest: int = LONGEST) -> str:
    """Somebody else's name for a figure: no tags, and no longer than there is space for.

    >>> name_of("<b>"), name_of("weight decay", longest=8)
    ('&lt;b&gt;', 'weight …')
    """
    text = " ".join(str(given).split())
    return plain(text if len(text) <= longest else text[: longest - 1] + "…")


def short_number(value: float) -> str:
    """A number as cells show it, in three digits or as a whole one.

    >>> short_number(8120.0), short_number(1234567.5), short_number(0.98342), short_number(3.2e-7)
    ('8,120', '1.23e+06', '0.983', '3.2e-07')
    """
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def heading(title: str, lines: Sequence[str]) -> str:
    """The title of a figure with smaller lines below."""
    return "<br>".join([title, *(f'<span style="font-size:12px">{line}</span>' for line in lines)])


def titled(column: str) -> str:
    """A column as the title of an axis, with its unit if that is known."""
    return name_of(column) + (f" ({UNITS[column]})" if column in UNITS else "")


def counted(labels: Sequence[str], between: str = ", ") -> str:
    """How many have each label.

    >>> counted(["grokked", "memorized", "grokked"])
    '2 grokked, 1 memorized'
    """
    return between.join(f"{n} {name_of(label)}" for label, n in Counter(labels).most_common())


def spans_decades(values: Iterable[float]) -> bool:
    """Whether an axis or a scale of colours is better logarithmic: above 0, over a decade or more.

    >>> spans_decades([1, 10]), spans_decades([1, 9]), spans_decades([0, 100])
    (True, False, False)
    """
    found = [value for value in values if not math.isnan(value)]
    return bool(found) and min(found) > 0 and max(found) >= 10 * min(found)


def log_ticks(values: Iterable[float], *, heights: bool = False) -> dict[str, Any]:
    """Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten; at powers over two decades.

    They stand at these values, or with `heights` at the logarithms of them. There are none for
    values that span less than a decade.

    >>> log_ticks([150, 2500])["ticktext"]
    ['200', '500', '1,000', '2,000']
    """
    found = [value for value in values if not math.isnan(value)]
    if not spans_decades(found):
        return {}
    low, high = min(found), max(found)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    all_ticks = [step * 10.0**power for power in powers for step in steps]
    ticks = [tick for tick in all_ticks if low * 0.999 <= tick <= high * 1.001]
    places = [math.log10(tick) for tick in ticks] if heights else ticks
    return {"tickvals": places, "ticktext": [short_number(tick) for tick in ticks]}


@dataclass(frozen=True)
class Axis:
    """The values of a column, or of several together: numbers by size, all else as they come.

    `places` has the place in `names` of every row, `numbers` the values themselves where all of
    them are numbers.
    """

    title: str
    names: tuple[str, ...]
    places: np.ndarray
    numbers: tuple[float, ...] | None = None
    alone: bool = True  # of one column, so that its name is not in the names

    def full_names(self) -> list[str]:
        """The values with the names of their columns."""
        return [f"{self.title} = {name}" if self.alone else name for name in self.names]

    def ticks(self) -> dict[str, Any]:
        """Ticks at the places 0, 1, 2 and so on; of very many every second, third and so on."""
        shown = range(0, len(self.names), -(-len(self.names) // MOST_TICKS))
        return {"tickvals": list(shown), "ticktext": [self.names[i] for i in shown]}

    def positions(self) -> tuple[float, ...]:
        """Where the values stand on an axis: at themselves, or in order at 0, 1, 2 and so on.

        In order too where a logarithmic axis would do but for a 0: all would crowd at one end.
        """
        above = [number for number in self.numbers or () if number > 0]
        if self.numbers is None or (min(self.numbers) == 0 and spans_decades(above)):
            return tuple(map(float, range(len(self.names))))
        return self.numbers


@dataclass(frozen=True)
class Cell:
    """The runs (row numbers) that share their values on the axes, and the median of a measure.

    `summary` is of the values that there are, `without` are the rows without one.
    """

    rows: tuple[int, ...]
    summary: MedianInterval
    without: tuple[int, ...]

    def median_lines(self, of_all: str = "") -> list[str]:
        """The median and its interval as lines on hover; no line where there is none."""
        found = self.summary
        median = f"median {found.median:,.6g} of {found.n}{of_all}"
        interval = f"{found.coverage:.0%} interval {found.low:,.6g} to {found.high:,.6g}"
        return [median] * (found.n > 0) + [interval] * (found.coverage > 0)


def label_colours(
    labels: Iterable[str], known: Mapping[str, str] = LABEL_COLOURS
) -> dict[str, str]:
    """The colour of each label: first those that runs have, then others as they come.

    >>> list(label_colours(["no label", "steady", "grokked", "steady"]))
    ['grokked', 'steady', 'no label']
    """
    found = dict.fromkeys(labels)
    names = [*(x for x in LABELS if x in found), *(x for x in found if x not in LABELS)]
    return {name: known.get(name, SERIES[i % len(SERIES)]) for i, name in enumerate(names)}


class Table:
    """A sweep's table by its columns; a cell that is empty is None."""

    def __init__(self, given: pd.DataFrame | str | Path) -> None:
        """The table, or that of the folder or file at a path; refused where it has no run."""
        frame = read_results(given) if isinstance(given, str | Path) else given
        checked(frame, pd.DataFrame, "run_sweep(...) or pandas.read_csv(results.csv)")
        if frame.empty:
            raise InputError("the table has no run; give one with one row per run.")
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise InputError(f"the table has two columns {twice!r}; rename one.")
        self.frame = frame

    def column(self, name: str) -> list[Any]:
        """The cells of a column; the nearest name for one that is not there.

        >>> Table(pd.DataFrame({"lr": [0.1, None]})).column("lr")
        [0.1, None]
        """
        if not isinstance(name, str) or name not in self.frame.columns:
            advice = nearest(str(name), map(str, self.frame.columns))
            raise InputError(f"the table has no column {name!r}; {advice}")
        return [
            None if x is pd.NA or x == "" or (isinstance(x, Real) and x != x) else x
            for x in self.frame[name].tolist()
        ]

    def column_if_any(self, name: str) -> list[Any]:
        """The cells of a column, all of them empty where there is none."""
        return self.column(name) if name in self.frame.columns else [None] * len(self.frame)

    @cached_property
    def varied(self) -> dict[str, list[Any]]:
        """What has more than one value, with its cells: recipe keys, seeds too, and variants."""
        known = {VARIANT, *(key for keys in every_key().values() for key in keys)}
        cells = {key: self.column(key) for key in self.frame.columns if key in known}
        return {key: each for key, each in cells.items() if len({*map(str, each)}) > 1}

    def determined(self, key: str, by: Sequence[str]) -> bool:
        """Whether a key has one value for each combination of the others."""
        points = {*zip(*(map(str, self.column(name)) for name in (*by, key)), strict=True)}
        return len({point[:-1] for point in points}) == len(points)

    def axis(self, *columns: str, least: int = 2) -> Axis:
        """The axis of a column, or of the values that several have together, named after them all.

        >>> Table(pd.DataFrame({"lr": [0.1, 0.01, 0.1]})).axis("lr").names
        ('0.01', '0.1')
        """
        found = [_axis(column, self.column(column)) for column in columns]
        points, places = np.unique([axis.places for axis in found], axis=1, return_inverse=True)
        if points.shape[1] < least:
            name, here = " and ".join(columns), found[0].names[0]
            raise InputError(f"{name!r} has one value, {here}; an axis takes two or more.")
        if len(found) == 1:
            return found[0]
        names = tuple(
            ", ".join(f"{axis.title}={axis.names[i]}" for axis, i in zip(found, point, strict=True))
            for point in points.T
        )
        title = " and ".join(axis.title for axis in found)
        return Axis(title, names, places.ravel(), alone=False)

    def numbers(self, column: str) -> np.ndarray:
        """The values of a column, NaN where a run has no finite one; InputError where none has."""
        cells = self.column(column)
        if wrong := [cell for cell in cells if cell is not None and not isinstance(cell, Real)]:
            raise InputError(
                f"{column!r} is no number ({str(wrong[0])[:40]!r}); give a column of numbers, such "
                "as 'test_loss'."
            )
        values = np.array([math.nan if cell is None else float(cell) for cell in cells])
        values[~np.isfinite(values)] = math.nan
        if np.isnan(values).all():
            raise InputError(f"no run has a value in {column!r}; give another column.")
        return values

    def labels(self, *, asked: bool) -> list[str]:
        """The label of every run, or "no label"; `asked` refuses a table without any."""
        cells = self.column(LABEL) if asked else self.column_if_any(LABEL)
        labels = [NO_LABEL if cell is None else str(cell) for cell in cells]
        if asked and set(labels) == {NO_LABEL}:
            raise InputError("no run has a label; give value= a column of numbers.")
        return labels


def _axis(column: str, cells: Sequence[Any]) -> Axis:
    if gaps := cells.count(None):
        raise InputError(
            f"{column!r} is empty in {gaps} of {len(cells)} rows; leave those out, such as with "
            f"table.dropna(subset=[{column!r}])."
        )
    if all(isinstance(cell, Real) and not isinstance(cell, bool) for cell in cells):
        numbers, places = np.unique(np.array(cells, float), return_inverse=True)
        short = next(
            names
            for style in (short_number, "{:g}".format, repr)
            if len(set(names := [style(one) for one in numbers.tolist()])) == len(numbers)
        )
        return Axis(name_of(column), tuple(short), places, tuple(numbers.tolist()))
    words = [str(list(cell) if isinstance(cell, tuple) else cell) for cell in cells]
    levels = list(dict.fromkeys(words))
    names = [name_of(level) for level in levels]
    if len(set(names)) < len(names):  # told apart by their ends alone
        names = [f"{name} ({i})" for i, name in enumerate(names)]
    return Axis(name_of(column), tuple(names), np.array([levels.index(word) for word in words]))


class Grouped(Table):
    """The runs of a table in cells: by their values on `axes`, and of `by`, if that is given.

    `values` has the measure of every run (NaN where there is none, and for labels), `every_label`
    its label. A cell is found by its place on `by`, or 0, and those on the axes, the last first.
    """

    def __init__(
        self, given: pd.DataFrame | str | Path, value: str, by: object, *, most: int, which: str,
        of_labels: bool = False, **columns: str,
    ) -> None:  # fmt: skip
        """`which` says what there are at most `most` of, one for each value of `by`."""
        super().__init__(given)
        n = len(self.frame)
        others = [by] if isinstance(by, str) else by
        others = listed("by", () if others is None else others, such_as="['seed']")
        used = [*columns.values(), *others]
        self.axes = [self.axis(column) for column in columns.values()]
        self.by = self.axis(*others, least=1) if others else None
        if len(set(used)) < len(used):
            names = f"{', '.join(columns)} and by"
            raise InputError(f"{', '.join(used)}: {names} are different keys; give each once.")
        if self.by and len(self.by.names) > most:
            raise InputError(
                f"{' and '.join(others)} has {len(self.by.names)} values; at most {most} {which}, "
                "so give a part of the table."
            )
        self.values = np.full(n, math.nan) if of_labels else self.numbers(value)
        self.every_label = self.labels(asked=of_labels)
        self._used, self._of_labels = used, of_labels
        self._others = {key: cells for key, cells in self.varied.items() if key not in used}
        self._names = self.column(RUN) if RUN in self.frame.columns else [*range(n)]
        self._notes = self.column_if_any(NOTE)
        places = [axis.places for axis in reversed(self.axes)]
        places.insert(0, self.by.places if self.by else np.zeros(n, int))
        rows_at: dict[tuple[int, ...], list[int]] = {}
        for row, place in enumerate(zip(*(each.tolist() for each in places), strict=True)):
            rows_at.setdefault(place, []).append(row)
        self.cells = {place: self._cell(rows) for place, rows in rows_at.items()}

    def _cell(self, rows: list[int]) -> Cell:
        without = [] if self._of_labels else [row for row in rows if math.isnan(self.values[row])]
        return Cell(tuple(rows), median_interval(self.values[rows].tolist()), tuple(without))

    def counted(self, cell: Cell, between: str = ", ") -> str:
        """How many runs of a cell have each label."""
        return counted([self.every_label[row] for row in cell.rows], between)

    def coverages(self) -> str:
        """The least and the largest probability of an interval, such as " (50% to 75%)"."""
        shares = [cell.summary.coverage for cell in self.cells.values() if cell.summary.coverage]
        ends = dict.fromkeys(f"{end(shares):.0%}" for end in (min, max)) if shares else {}
        return f" ({' to '.join(ends)})" if ends else ""

    def pooled(self, which: str) -> list[str]:
        """A line on the keys other than seeds in which runs of one cell differ."""
        keys = [key for key in self._others if key not in CHANCE]
        names = [name_of(key) for key in keys if not self.determined(key, self._used)]
        return [f"{which} differ in {', '.join(names)} too"] if names else []

    def run(self, row: int) -> str:
        """A run in a line: what tells it from others of its cell, its value, label and note."""
        which = ", ".join(f"{name_of(k)} {name_of(c[row])}" for k, c in self._others.items())
        parts = []
        if not self._of_labels:
            value = self.values[row]
            parts.append("no value" if math.isnan(value) else f"{value:,.6g}")
        if LABEL in self.frame.columns:
            parts.append(name_of(self.every_label[row]))
        if self._notes[row] is not None:
            parts.append(f"note: {name_of(self._notes[row], longest=80)}")
        return f"{which or name_of(self._names[row])}: {', '.join(parts)}"

    def runs(self, rows: Sequence[int]) -> str:
        """A line each; of very many the first, and how many more there are."""
        lines = [self.run(row) for row in rows[:MOST_LINES]]
        if len(rows) > MOST_LINES:
            lines.append(f"and {len(rows) - MOST_LINES} more runs")
        return "<br>".join(lines)
