"""Phase diagrams of a sweep: two recipe keys as axes, in each cell what its runs have in common."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from plotly.colors import sample_colorscale

from grokinterp.figures._figure import FROM_ZERO, LABEL_COLOURS, SERIES, Figure, figure, ink_on
from grokinterp.figures.heat_maps import around_zero
from grokinterp.sweeps._figures.cells import (
    LABEL,
    NO_LABEL,
    Axis,
    Cell,
    Grouped,
    heading,
    label_colours,
    log_ticks,
    name_of,
    short_number,
    spans_decades,
    titled,
)
from grokinterp.sweeps.statistics import MIXED

NOTHING, NO_VALUE = "#D9D9D9", "no run has a value"  # of a cell
OTHER_LABELS = {MIXED: SERIES[4], NO_LABEL: NOTHING}
MOST_PANELS = 12
CELL = 64  # pixels, the height of a row of cells
BETWEEN = 92  # pixels from one panel to the next: an axis and a name
ABOVE, BELOW = 90, 84  # pixels: title; axis and legend
MOST_TEXT, MOST_TALL = 8, 12  # columns and rows of cells that hold three lines of text
SIDE_BAR = {  # upright, since plotly 7.1 moves all titles of a figure with a bar above it
    "thickness": 10, "lenmode": "pixels", "len": 260, "y": 1, "yanchor": "top", "xpad": 6,
}  # fmt: skip

CellIndex = tuple[int, ...]  # of a cell: panel, y, x


def plot_phase_diagram(
    table: pd.DataFrame | str | Path,
    *,
    x: str,
    y: str,
    value: str = "grok_step",
    by: str | Sequence[str] | None = None,
) -> Figure:
    """A grid of two keys of a sweep's table; the cells are coloured by the median over their runs.

    A cell shows the median over the runs that have a value, its interval of order statistics
    (`statistics.MedianInterval`; takes two runs) and how many runs have one. Grey cells have runs
    but no value, and say which labels those have; where nothing was trained, there is no cell.
    Colours are logarithmic where the medians span a decade. With more than eight columns or twelve
    rows, cells show only the median; hovering shows the rest, with the value of every run.
    `value="label"` shows the label that more than half of the runs of a cell have, else "mixed".

    Cells are equally large whatever the values of the keys are. `by` makes a panel for each value
    of another key, or for each combination of several. Runs that differ in further keys are pooled,
    which the title says. The median does not know of runs without a value: where some never
    grokked, it is that of those that did. InputError for a column that is not there, for an axis
    with one value, for a `value` that no run has as a number, and for more than twelve panels.

    >>> import grokinterp as gi, pandas as pd
    >>> cells = [(0.1, 0.3, 9000), (0.1, 0.6, 4000), (1.0, 0.3, 3000), (1.0, 0.6, 700)]
    >>> table = pd.DataFrame(cells, columns=["weight_decay", "train_fraction", "grok_step"])
    >>> drawn = gi.viz.plot_phase_diagram(table, x="train_fraction", y="weight_decay")
    >>> drawn.layout.title.text.partition("<br>")[0], drawn.layout.xaxis.ticktext
    ('grok_step (updates) by train_fraction, weight_decay', ('0.3', '0.6'))
    """
    grid = _Grid(table, value, by, x=x, y=y)
    lines = grid.draw_labels() if value == LABEL else grid.draw_medians()
    lines += grid.pooled("runs of a cell")
    title = heading(f"{titled(value)} by {grid.across.title}, {grid.up.title}", lines)
    return grid.drawn.update_layout(title_text=title)


def _panels(across: Axis, up: Axis, panels: Axis | None) -> Figure:
    """Empty panels below each other, so that cells stay wide enough for their text on a phone."""
    n, n_rows = len(panels.names) if panels else 1, len(up.names)
    cell_height = CELL if n_rows <= MOST_TALL else max(12, CELL * MOST_TALL // n_rows)
    tall = max(2, n_rows) * cell_height
    height = n * tall + (n - 1) * BETWEEN
    drawn = figure("")
    drawn.set_subplots(
        rows=n, cols=1, vertical_spacing=BETWEEN / height if n > 1 else None,
        subplot_titles=panels.full_names() if panels else None,
    )  # fmt: skip
    drawn.update_annotations(font_size=13)
    for update, axis in ((drawn.update_xaxes, across), (drawn.update_yaxes, up)):
        ends = [-0.5, len(axis.names) - 0.5]  # ticks are at the middles of cells
        update(title_text=axis.title, title_standoff=8, range=ends, **axis.ticks())
    top = ABOVE + (14 if panels else 0)  # and the name of a panel
    return drawn.update_layout(height=height + top + BELOW, margin={"t": top, "b": BELOW})


def _about(cell: Cell) -> str:
    """The lines below a median."""
    found, n = cell.summary, len(cell.rows)
    between = (
        f"<br>{short_number(found.low)} to {short_number(found.high)}" if found.coverage else ""
    )
    return between + (f"<br>{found.n} of {n}" if cell.without else f"<br>n = {n}")


def _scale(heights: Sequence[float], *, log: bool) -> dict[str, Any]:
    low, high = min(heights), max(heights)
    if low < 0 < high and not log:
        return around_zero([np.array(heights)])
    return {"colorscale": FROM_ZERO, "zmin": low, "zmax": high if high > low else low + 1}


class _Grid(Grouped):
    """The cells of all panels, and the figure that they are drawn in."""

    def __init__(
        self, table: pd.DataFrame | str | Path, value: str, by: object, *, x: str, y: str
    ) -> None:
        super().__init__(
            table, value, by, most=MOST_PANELS, which="panels fit a figure",
            of_labels=value == LABEL, x=x, y=y,
        )  # fmt: skip
        self.across, self.up = self.axes
        self.drawn = _panels(self.across, self.up, self.by)

    def draw_medians(self) -> list[str]:
        """Draw the medians; what the title says about them, in lines."""
        cells = self.cells
        medians = {where: cell.summary.median for where, cell in cells.items() if cell.summary.n}
        log = spans_decades(medians.values())
        heights = {where: math.log10(m) if log else m for where, m in medians.items()}
        several = any(len(cell.rows) > 1 for cell in cells.values())
        short = len(self.across.names) > MOST_TEXT or len(self.up.names) > MOST_TALL
        texts = {
            where: short_number(median) + ("" if short or not several else _about(cells[where]))
            for where, median in medians.items()
        }
        bar = SIDE_BAR | (log_ticks(medians.values(), heights=True) if log else {"nticks": 6})
        scale = _scale(list(heights.values()), log=log)
        shares = [(h - scale["zmin"]) / (scale["zmax"] - scale["zmin"]) for h in heights.values()]
        grounds = dict(zip(heights, sample_colorscale(scale["colorscale"], shares), strict=True))
        self.draw(heights, texts, grounds, {**scale, "colorbar": bar})
        if texts := {
            where: f"0 of {len(cell.rows)}" + ("" if short else f"<br>{self.counted(cell, '<br>')}")
            for where, cell in cells.items()
            if where not in medians
        }:
            self.draw_named(dict.fromkeys(texts, NO_VALUE), texts, {NO_VALUE: NOTHING})
        if not several:
            return ["one run a cell"]
        if short:
            return ["median over runs"]
        return [f"median over runs, interval for it{self.coverages()}, number of runs"]

    def draw_labels(self) -> list[str]:
        """Draw the labels; what the title says about them, in lines."""
        found: dict[CellIndex, str] = {}
        texts: dict[CellIndex, str] = {}
        for where, cell in self.cells.items():
            here = [self.every_label[row] for row in cell.rows]
            most, n = Counter(here).most_common(1)[0]
            if 2 * n > len(here):
                found[where], texts[where] = most, f"{name_of(most)}<br>{n} of {len(here)}"
            else:
                found[where], texts[where] = MIXED, f"{MIXED}<br>{self.counted(cell, '<br>')}"
        colours = label_colours(found.values(), LABEL_COLOURS | OTHER_LABELS)
        self.draw_named(found, texts, colours)
        return ["label of most runs" + "; mixed: none has more than half" * (MIXED in colours)]

    def hover(self, where: CellIndex) -> str:
        cell, (_, i, j) = self.cells[where], where
        lines = [
            f"{self.across.title} {self.across.names[j]}, {self.up.title} {self.up.names[i]}",
            f"<b>{self.counted(cell)}</b>",
            *cell.median_lines(),
        ]
        if cell.without:
            lines.append(f"{len(cell.without)} of {len(cell.rows)} runs have no value")
        return "<br>".join([*lines, self.runs(cell.rows)])

    def draw(
        self, heights: Mapping[CellIndex, float], texts: Mapping[CellIndex, str],
        grounds: Mapping[CellIndex, str], style: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """The cells in `heights` and no others, each in its panel, with one bar of colours.

        Text has one colour a trace, so black and white make two. Tags for colours would do too, but
        plotly counts their letters where it fits the text into the cells.
        """
        inks = {where: ink_on(ground) for where, ground in grounds.items()}
        ys, xs = range(len(self.up.names)), range(len(self.across.names))
        for k, (panel, ink) in enumerate(sorted({(w[0], ink) for w, ink in inks.items()})):
            rows = [[(panel, i, j) for j in xs] for i in ys]
            here = {where for where in inks if inks[where] == ink}
            self.drawn.add_heatmap(
                z=[[heights[w] if w in here else None for w in row] for row in rows],
                text=[[texts[w] if w in here else "" for w in row] for row in rows],
                customdata=[[self.hover(w) if w in here else "" for w in row] for row in rows],
                texttemplate="%{text}",
                textfont={"color": ink},
                hovertemplate="%{customdata}<extra></extra>",
                hoverongaps=False,
                xgap=2,
                ygap=2,
                row=panel + 1,
                col=1,
                **{"showscale": k == 0, **style},
            )

    def draw_named(
        self,
        names: Mapping[CellIndex, str],
        texts: Mapping[CellIndex, str],
        colours: Mapping[str, str],
    ) -> None:
        """The cells in `names`, each in the colour of its name, which the legend shows."""
        n, codes = len(colours), {name: float(i) for i, name in enumerate(colours)}
        scale = [[(codes[name] + end) / n, colours[name]] for name in codes for end in (0, 1)]
        style = {"colorscale": scale, "zmin": -0.5, "zmax": n - 0.5, "showscale": False}
        heights = {where: codes[name] for where, name in names.items()}
        self.draw(heights, texts, {where: colours[names[where]] for where in names}, style)
        for name, colour in colours.items():
            marker = {"symbol": "square", "size": 13, "color": colour}
            self.drawn.add_scatter(
                x=[None], y=[None], mode="markers", marker=marker, name=name_of(name)
            )
