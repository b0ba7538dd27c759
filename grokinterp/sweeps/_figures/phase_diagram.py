"""Phase diagrams of a sweep: two recipe keys as axes, in each cell what its runs have in common."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from plotly.colors import sample_colorscale

from grokinterp.base.errors import InputError
from grokinterp.figures._figure import FROM_ZERO, LABELS, SERIES, Figure, figure, ink_on
from grokinterp.figures.heat_maps import around_zero
from grokinterp.sweeps._figures.cells import (
    LABEL,
    MOST_TICKS,
    NO_LABEL,
    Axis,
    Cell,
    Told,
    axis_of,
    cell_of,
    check_table,
    counted,
    coverages,
    heading,
    interval,
    keys_of,
    labels_of,
    log_ticks,
    name_of,
    number,
    numbers_of,
    ordered,
    pooled,
    spans_decades,
    titled,
)
from grokinterp.sweeps.statistics import MIXED

NOTHING = "#D9D9D9"  # a cell whose runs have no value
OTHER_LABELS = {MIXED: SERIES[4], NO_LABEL: NOTHING}
MOST_PANELS = 12
CELL = 64  # pixels, the height of a row of cells
BETWEEN = 92  # pixels from one panel to the next: an axis and a name
ABOVE, BELOW = 90, 84  # pixels: title; axis and legend
MOST_TEXT, MOST_TALL = 8, 12  # columns and rows of cells that hold three lines of text
BAR = {  # upright, since plotly 7.1 moves all titles of a figure with a bar above it
    "thickness": 10, "lenmode": "pixels", "len": 260, "y": 1, "yanchor": "top", "xpad": 6,
}  # fmt: skip

Place = tuple[int, int, int]  # of a cell: panel, y, x


def plot_phase_diagram(
    table: pd.DataFrame,
    *,
    x: str,
    y: str,
    value: str = "grok_step",
    by: str | Sequence[str] | None = None,
) -> Figure:
    """A grid of two keys of a sweep's table; the cells are coloured by the median over their runs.

    In a cell stand the median over the runs that have a value, the interval of order statistics for
    it (`statistics.Spread`; takes two runs) and how many runs have one. Grey cells have runs but no
    value, and say which labels those have; where nothing was trained, there is no cell. Colours are
    logarithmic where the medians span a decade. With more than eight columns or twelve rows only
    the median stands there, and the rest is told on hover, with the value of every run.
    `value="label"` shows the label that more than half of the runs of a cell have, else "mixed".

    Cells are equally large whatever the values of the keys are. `by` makes a panel for each value
    of another key, or for each combination of several. Runs that differ in further keys are pooled,
    which the title says. The median does not know of runs without a value: where some never
    grokked, it is that of those that did. InputError for a column that is not there, for an axis
    with one value, for a `value` that no run has as a number, and for more than twelve panels.
    """
    check_table(table)
    others = keys_of(by)
    used = [x, y, *others]
    across, up = axis_of(table, x), axis_of(table, y)
    panels = axis_of(table, *others, least=1) if others else None
    if len(set(used)) < len(used):
        raise InputError(f"{', '.join(used)}: x, y and by are different keys; give each once.")
    n_panels = len(panels.names) if panels else 1
    if n_panels > MOST_PANELS:
        raise InputError(
            f"{' and '.join(others)} has {n_panels} values; at most {MOST_PANELS} panels fit a "
            "figure, so give a part of the table."
        )
    of_label = value == LABEL
    values = None if of_label else numbers_of(table, value)
    labels = labels_of(table, asked=of_label)
    where = [np.zeros(len(table), int) if panels is None else panels.places, up.places]
    rows: dict[Place, list[int]] = {}
    for row, place in enumerate(zip(*where, across.places, strict=True)):
        rows.setdefault((int(place[0]), int(place[1]), int(place[2])), []).append(row)
    cells = {place: cell_of(here, values) for place, here in rows.items()}
    grid = _Grid(cells, across, up, labels, Told(table, values, used))
    drawn = _panels(across, up, panels, n_panels)
    lines = _labels(drawn, grid) if of_label else _medians(drawn, grid, value)
    if extra := pooled(table, used):
        lines.append(f"runs of a cell differ in {', '.join(map(name_of, extra))} too")
    drawn.layout.title.text = heading(f"{titled(value)} by {across.title}, {up.title}", lines)
    return drawn


def _panels(across: Axis, up: Axis, panels: Axis | None, n: int) -> Figure:
    """Empty panels below each other, so that cells stay wide enough for their text on a phone."""
    tall = max(2, len(up.names)) * _cell_height(up)
    height = n * tall + (n - 1) * BETWEEN
    drawn = figure("")
    drawn.set_subplots(
        rows=n, cols=1, vertical_spacing=BETWEEN / height if n > 1 else None,
        subplot_titles=panels.told() if panels else None,
    )  # fmt: skip
    drawn.update_annotations(font_size=13)
    drawn.update_xaxes(title_text=across.title, title_standoff=8, **_ticks(across))
    drawn.update_yaxes(title_text=up.title, title_standoff=8, **_ticks(up))
    top = ABOVE + (14 if panels else 0)  # and the name of a panel
    return drawn.update_layout(height=height + top + BELOW, margin={"t": top, "b": BELOW})


def _cell_height(up: Axis) -> int:
    return CELL if len(up.names) <= MOST_TALL else max(12, CELL * MOST_TALL // len(up.names))


def _ticks(axis: Axis) -> dict[str, Any]:
    """Ticks at the middles of cells; of very many every second, third and so on."""
    n = len(axis.names)
    shown = range(0, n, -(-n // MOST_TICKS))
    return {
        "tickvals": list(shown),
        "ticktext": [axis.names[i] for i in shown],
        "range": [-0.5, n - 0.5],
    }


def _medians(drawn: Figure, grid: "_Grid", value: str) -> list[str]:
    """Draw the medians; the lines that the title says of them."""
    cells = {where: cell for where, cell in grid.cells.items() if cell.spread.n}
    medians = {where: cell.spread.median for where, cell in cells.items()}
    log = spans_decades(medians.values())
    heights = {where: math.log10(m) if log else m for where, m in medians.items()}
    several = any(len(cell.rows) > 1 for cell in grid.cells.values())
    short = len(grid.across.names) > MOST_TEXT or len(grid.up.names) > MOST_TALL
    scale = _scale(list(heights.values()), log=log)
    texts = {
        where: number(cell.spread.median) + ("" if short or not several else _about(cell))
        for where, cell in cells.items()
    }
    grounds = {where: _colour(height, scale) for where, height in heights.items()}
    bar = BAR | (log_ticks(medians.values(), heights=True) if log else {"nticks": 6})
    grid.draw(drawn, heights, texts, grounds, {**scale, "colorbar": bar})
    empty = {where: 0.0 for where in grid.cells if where not in cells}
    if empty:
        texts = {where: grid.none(where, short=short) for where in empty}
        grid.draw(drawn, empty, texts, dict.fromkeys(empty, NOTHING), _discrete([NOTHING]))
        _in_legend(drawn, "no run has a value", NOTHING)
    if not several:
        return ["one run a cell"]
    if short:
        return ["median over runs"]
    share = coverages(cell.spread for cell in cells.values())
    return [f"median over runs, interval for it{share}, number of runs"]


def _about(cell: Cell) -> str:
    """The lines below a median."""
    found, n = cell.spread, len(cell.rows)
    between = f"<br>{interval(found)}" if found.coverage else ""
    return between + (f"<br>{found.n} of {n}" if cell.missing else f"<br>n = {n}")


def _scale(heights: Sequence[float], *, log: bool) -> dict[str, Any]:
    low, high = min(heights), max(heights)
    if low < 0 < high and not log:
        return around_zero([np.array(heights)])
    return {"colorscale": FROM_ZERO, "zmin": low, "zmax": high if high > low else low + 1}


def _colour(height: float, scale: Mapping[str, Any]) -> str:
    share = (height - scale["zmin"]) / (scale["zmax"] - scale["zmin"])
    return str(sample_colorscale(scale["colorscale"], [share])[0])


def _discrete(colours: Sequence[str]) -> dict[str, Any]:
    """The scale that gives 0, 1, 2 ... these colours."""
    n = len(colours)
    scale = [[(i + end) / n, colour] for i, colour in enumerate(colours) for end in (0, 1)]
    return {"colorscale": scale, "zmin": -0.5, "zmax": n - 0.5, "showscale": False}


def _in_legend(drawn: Figure, name: str, colour: str) -> None:
    marker = {"symbol": "square", "size": 13, "color": colour}
    drawn.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name)


def _labels(drawn: Figure, grid: "_Grid") -> list[str]:
    """Draw the labels; the lines that the title says of them."""
    found: dict[Place, str] = {}
    texts: dict[Place, str] = {}
    for where in grid.cells:
        here = grid.labels_in(where)
        most, n = Counter(here).most_common(1)[0]
        if 2 * n > len(here):
            found[where], texts[where] = most, f"{name_of(most)}<br>{n} of {len(here)}"
        else:
            found[where], texts[where] = MIXED, f"{MIXED}<br>{_in_lines(counted(here))}"
    known = LABELS | OTHER_LABELS
    names = ordered(found.values())
    colours = [known.get(name, SERIES[i % len(SERIES)]) for i, name in enumerate(names)]
    codes = {where: float(names.index(label)) for where, label in found.items()}
    grounds = {where: colours[int(code)] for where, code in codes.items()}
    grid.draw(drawn, codes, texts, grounds, _discrete(colours))
    for name, colour in zip(names, colours, strict=True):
        _in_legend(drawn, name_of(name), colour)
    return ["label of most runs" + "; mixed: none has more than half" * (MIXED in names)]


def _in_lines(counts: str) -> str:
    return counts.replace(", ", "<br>")


@dataclass(frozen=True)
class _Grid:
    """The cells of all panels, and what is told of them."""

    cells: Mapping[Place, Cell]
    across: Axis
    up: Axis
    labels: Sequence[str]
    told: Told

    def labels_in(self, where: Place) -> list[str]:
        return [self.labels[row] for row in self.cells[where].rows]

    def none(self, where: Place, *, short: bool) -> str:
        """What stands in a cell without a value."""
        text = f"0 of {len(self.cells[where].rows)}"
        return text if short else f"{text}<br>{_in_lines(counted(self.labels_in(where)))}"

    def hover(self, where: Place) -> str:
        cell, (_, i, j) = self.cells[where], where
        found = cell.spread
        lines = [
            f"{self.across.title} {self.across.names[j]}, {self.up.title} {self.up.names[i]}",
            f"<b>{counted(self.labels_in(where))}</b>",
        ]
        if found.n:
            lines.append(f"median {found.median:,.6g} of {found.n}")
        if found.coverage:
            lines.append(f"{found.coverage:.0%} interval {found.low:,.6g} to {found.high:,.6g}")
        if self.told.valued and cell.missing:
            lines.append(f"{cell.missing} of {len(cell.rows)} runs have no value")
        return "<br>".join([*lines, self.told.runs(cell.rows)])

    def draw(
        self, drawn: Figure, heights: Mapping[Place, float], texts: Mapping[Place, str],
        grounds: Mapping[Place, str], style: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """The cells in `heights` and no others, each in its panel, with one bar of colours.

        Text has one colour a trace, so black and white make two. Tags for colours would do too, but
        plotly counts their letters where it fits the text into the cells.
        """
        inks = {where: ink_on(grounds[where]) for where in heights}
        for i, (panel, ink) in enumerate(sorted({(w[0], inks[w]) for w in heights})):
            here = [where for where in heights if (where[0], inks[where]) == (panel, ink)]
            drawn.add_heatmap(
                z=self._rows(panel, {where: heights[where] for where in here}, None),
                text=self._rows(panel, {where: texts[where] for where in here}, ""),
                customdata=self._rows(panel, {where: self.hover(where) for where in here}, ""),
                texttemplate="%{text}",
                textfont={"color": ink},
                hovertemplate="%{customdata}<extra></extra>",
                hoverongaps=False,
                xgap=2,
                ygap=2,
                row=panel + 1,
                col=1,
                **{"showscale": i == 0, **style},
            )

    def _rows(self, panel: int, values: Mapping[Place, Any], nothing: object) -> list[list[Any]]:
        places = [
            [(panel, i, j) for j in range(len(self.across.names))]
            for i in range(len(self.up.names))
        ]
        return [[values.get(where, nothing) for where in row] for row in places]
