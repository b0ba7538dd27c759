"""A measure of a sweep against one recipe key: single runs, medians with intervals, a power law."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.checks import truth
from grokinterp.figures._figure import COLOURS, DASHES, SERIES, Figure, faded, figure, series
from grokinterp.sweeps._figures.cells import (
    MOST_TICKS,
    TIMES,
    Axis,
    Cell,
    Grouped,
    heading,
    label_colours,
    log_ticks,
    name_of,
    spans_decades,
    titled,
)
from grokinterp.sweeps.statistics import CONFIDENCE, FEWEST_PLACES, FEWEST_POINTS, power_law

MOST_GROUPS = len(SERIES) * len(DASHES)
HEIGHT, ROW = 520, 24  # pixels; ROW of a line in the strip of the runs without a value
NOWHERE: list[Any] = [None]


@dataclass(frozen=True)
class _Group:
    """The runs of one line: their cells by the place on the x axis."""

    name: str
    number: int
    cells: Mapping[int, Cell]
    style: Mapping[str, str]


def plot_scaling(
    table: pd.DataFrame | str | Path,
    *,
    x: str,
    value: str = "grok_step",
    by: str | Sequence[str] | None = None,
    fit: bool = False,
) -> Figure:
    """A measure against one key of a sweep's table: runs as dots, their medians as a line.

    Bars are intervals of order statistics for the median (`statistics.MedianInterval`); hovering
    shows their probability. A median is open where a run has no value, since it does not know of
    that run. The strip above counts the runs without a value at each x. An axis is logarithmic
    where its values are above 0 and span a decade, and with `fit`. An x that is not a number has
    its values in order, and so has one that would be logarithmic but for a 0. `by` makes a line for
    each value of another key, or for each combination of several; without it, dots have the colours
    of the runs' labels. Runs that differ in further keys are pooled, which the title says.

    `fit` adds a power law, value = a x^b, and the 95 % interval of b (`statistics.power_law`), over
    the runs at those x where every run has a value: runs cut off before they reach one would bend
    it. It does not show that a power law holds. With fewer than six runs or three x it is
    undetermined, which the legend says.

    InputError for a column that is not there, an x with one value, a `value` that no run has as a
    number, and for more than 24 lines.

    >>> import grokinterp as gi, pandas as pd
    >>> runs = [(7, 0, 400), (7, 1, 500), (11, 0, 900), (11, 1, 1000), (23, 0, 3900), (23, 1, 4100)]
    >>> table = pd.DataFrame(runs, columns=["p", "seed", "grok_step"])
    >>> drawn = gi.viz.plot_scaling(table, x="p", fit=True)
    >>> drawn.layout.title.text.partition("<br>")[0]
    'grok_step (updates) by p'
    >>> [line.name for line in drawn.data]
    ['median', 'exponent 1.85 (95%: 1.54 to 1.99)', 'no label']
    """
    fit = truth("fit", fit)
    runs = Grouped(table, value, by, most=MOST_GROUPS, which="lines can be told apart", x=x)
    (across,), values = runs.axes, runs.values
    cells, alone = sorted(runs.cells.items()), {"color": COLOURS["other"], "dash": "solid"}
    groups = [
        _Group(
            name, i, {j: cell for (k, j), cell in cells if k == i}, series(i) if runs.by else alone
        )
        for i, name in enumerate(runs.by.full_names() if runs.by else ["median"])
    ]
    absent = any(cell.without for cell in runs.cells.values())
    drawn = _axes(across, titled(value), values, fit=fit, n=len(groups) * absent)
    places = across.positions()
    x_of = np.array(places)[across.places]
    for group in groups:
        _medians(drawn, places, across, group)
        if absent:
            _without(drawn, places, group, runs)
        if fit:
            _fitted(drawn, places, values, across, group)
    if runs.by is None:
        colours = label_colours(runs.every_label)
        dots = [(np.array(runs.every_label) == x, name_of(x), colours[x]) for x in colours]
    else:
        dots = [(runs.by.places == x.number, x.name, x.style["color"]) for x in groups]
    for rows, name, colour in dots:
        with_value = np.flatnonzero(rows & ~np.isnan(values)).tolist()
        drawn.add_scatter(
            x=x_of[with_value],
            y=values[with_value],
            customdata=[runs.run(row) for row in with_value],
            hovertemplate="%{customdata}<extra></extra>",
            mode="markers",
            marker={"color": faded(colour, 0.6), "size": 7},
            name=name,
            legendgroup=name,
            showlegend=runs.by is None,
        )
    bars = runs.coverages()
    lines = [f"median, bars: interval for it{bars}" if bars else "median; no interval"]
    if absent:
        what = "without it when training ended" if value in TIMES else "without a value"
        lines += [f"above: runs {what}, of all", "open symbols: median of the other runs"]
    lines += runs.pooled("runs at one x")
    legend = len(groups) * (2 if fit else 1)
    return drawn.update_layout(
        title_text=heading(f"{titled(value)} by {across.title}", lines),
        margin_t=78 + 18 * len(lines),
        height=drawn.layout.height + 18 * len(lines) + 22 * max(0, legend - 2),
    )


def _axes(across: Axis, title: str, values: np.ndarray, *, fit: bool, n: int) -> Figure:
    """The empty figure; `n` lines of a strip above for the runs without a value."""
    drawn = figure("", across.title, title)
    drawn.update_layout(height=HEIGHT + n * ROW, hovermode="closest")
    if n:
        share = n * ROW / (HEIGHT + n * ROW - 150)
        drawn.update_layout(
            yaxis={"domain": [0, 1 - share - 0.02]},
            yaxis2={
                "domain": [1 - share, 1], "anchor": "x", "range": [n - 0.5, -0.5], "tickvals": [],
                "ticks": "", "showline": False,
            },
        )  # fmt: skip
    straight = fit and bool(np.nanmin(values) > 0)  # on logarithmic axes a power law is
    if straight or spans_decades(values):
        drawn.update_layout(yaxis={"type": "log", **log_ticks(values)})
    places = across.positions()
    if places != across.numbers:
        return drawn.update_xaxes(range=[-0.5, len(places) - 0.5], **across.ticks())
    each = {"tickvals": list(places), "ticktext": list(across.names)}
    ticks = each if len(places) <= MOST_TICKS else log_ticks(places)
    log = spans_decades(places) or (straight and min(places) > 0)
    return drawn.update_xaxes(type="log" if log else "linear", **ticks)


def _medians(drawn: Figure, places: Sequence[float], across: Axis, group: _Group) -> None:
    """The line of the medians with their intervals, open where runs have no value."""
    cells = {j: cell for j, cell in group.cells.items() if cell.summary.n}
    found = [cell.summary for cell in cells.values()]
    drawn.add_scatter(
        x=[places[j] for j in cells] or NOWHERE,  # a line without a point is in the legend too
        y=[one.median for one in found] or NOWHERE,
        error_y={
            "array": [one.high - one.median for one in found],
            "arrayminus": [one.median - one.low for one in found],
            "thickness": 1.5,
            "width": 5,
        },
        customdata=[
            "<br>".join(
                [
                    f"{group.name}, {across.title} {across.names[j]}",
                    *cell.median_lines(f" of {len(cell.rows)} runs"),
                ]
            )
            for j, cell in cells.items()
        ],
        hovertemplate="%{customdata}<extra></extra>",
        mode="lines+markers",
        line=dict(group.style),
        marker={
            "size": 11,
            "color": group.style["color"],
            "symbol": ["diamond-open" if cell.without else "diamond" for cell in cells.values()],
        },
        name=group.name,
        legendgroup=group.name,
    )


def _without(drawn: Figure, places: Sequence[float], group: _Group, runs: Grouped) -> None:
    """How many runs have no value, in the strip above at each x that has such runs.

    Numbers of very many x would overlap: there they are crosses, and hovering shows the number.
    """
    cells = {j: cell for j, cell in group.cells.items() if cell.without}
    drawn.add_scatter(
        x=[places[j] for j in cells],
        y=[group.number] * len(cells),
        text=[f"{len(cell.without)}/{len(cell.rows)}" for cell in cells.values()],
        customdata=[
            f"no value: {len(cell.without)} of {len(cell.rows)} runs<br>" + runs.runs(cell.without)
            for cell in cells.values()
        ],
        hovertemplate="%{customdata}<extra></extra>",
        mode="text" if len(places) <= MOST_TICKS else "markers",
        textfont={"color": group.style["color"], "size": 12},
        marker={"color": group.style["color"], "size": 6, "symbol": "x"},
        name=group.name,
        legendgroup=group.name,
        showlegend=False,
        yaxis="y2",
    )


def _fitted(
    drawn: Figure, places: Sequence[float], values: np.ndarray, across: Axis, group: _Group
) -> None:
    """The power law over the x where no run is without a value, or why there is none."""
    whole = [j for j, cell in group.cells.items() if not cell.without]
    rows = sorted(row for j in whole for row in group.cells[j].rows)
    numbers = across.numbers or (math.nan,) * len(across.names)
    law = power_law([numbers[j] for j in across.places[rows]], values[rows].tolist())
    words = f"exponent {law.exponent:.3g} ({CONFIDENCE:.0%}: {law.low:.3g} to {law.high:.3g})"
    x = y = NOWHERE
    if math.isnan(law.exponent):
        words = f"no power law: it takes {FEWEST_PLACES} x, {FEWEST_POINTS} runs"
        if len(rows) >= FEWEST_POINTS and len(whole) >= FEWEST_PLACES:
            words = "no power law: not all above 0"
    elif places == numbers:
        x = np.geomspace(places[whole[0]], places[whole[-1]], 50).tolist()
        y = [law.factor * one**law.exponent for one in x]
    else:
        x = [places[j] for j in whole]
        y = [law.factor * numbers[j] ** law.exponent for j in whole]
    drawn.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"color": group.style["color"], "dash": "dot", "width": 1.5},
        hovertemplate=f"power law of {law.n} runs<br>{words}<extra></extra>",
        name=words,
        legendgroup=group.name,
    )
