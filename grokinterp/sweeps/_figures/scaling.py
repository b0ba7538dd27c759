"""A measure of a sweep against one recipe key: single runs, medians with intervals, a power law."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.checks import truth
from grokinterp.base.errors import InputError
from grokinterp.figures._figure import COLOURS, DASHES, LABELS, SERIES, Figure, figure, series
from grokinterp.sweeps._figures.cells import (
    MOST_TICKS,
    TIMES,
    Axis,
    Cell,
    Told,
    axis_of,
    cell_of,
    check_table,
    coverages,
    heading,
    keys_of,
    labels_of,
    log_ticks,
    name_of,
    numbers_of,
    ordered,
    pooled,
    spans_decades,
    titled,
)
from grokinterp.sweeps.statistics import CONFIDENCE, FEWEST_PLACES, FEWEST_POINTS, power_law

MOST_LINES = len(SERIES) * len(DASHES)
HEIGHT, ROW = 520, 24  # pixels; ROW of a line in the strip of the runs without a value

NOWHERE: list[Any] = [None]


@dataclass(frozen=True)
class _Group:
    """The runs of one line: their rows, and their cells by the place on the x axis."""

    name: str
    number: int
    rows: np.ndarray
    cells: Mapping[int, Cell]
    style: Mapping[str, str]


def plot_scaling(
    table: pd.DataFrame,
    *,
    x: str,
    value: str = "grok_step",
    by: str | Sequence[str] | None = None,
    fit: bool = False,
) -> Figure:
    """A measure against one key of a sweep's table: runs as dots, their medians as a line.

    Bars are intervals of order statistics for the median (`statistics.Spread`), their probability
    is told on hover; a median is open where a run has no value, since it does not know of that run.
    The strip above counts the runs without a value at each x. An axis is logarithmic where its
    values are above 0 and span a decade, and with `fit`. An x that is no number has places in
    order, and so has one that would be logarithmic but for a 0. `by` makes a line for each value of
    another key, or for each combination of several; without it, dots have the colours of the runs'
    labels. Runs that differ in further keys are pooled, which the title says.

    `fit` adds a power law, value = a x^b, and the 95 % interval of b (`statistics.power_law`), over
    the runs at those x where every run has a value: runs cut off before they reach one would bend
    it. It does not show that a power law holds. With fewer than six runs or three x it is
    undetermined, which the legend says.

    InputError for a column that is not there, an x with one value, a `value` that no run has as a
    number, and for more than 24 lines.
    """
    check_table(table)
    others = keys_of(by)
    fit = truth("fit", fit)
    used = [x, *others]
    across = axis_of(table, x)
    groups = axis_of(table, *others, least=1) if others else None
    if len(set(used)) < len(used):
        raise InputError(f"{', '.join(used)}: x and by are different keys; give each once.")
    if groups and len(groups.names) > MOST_LINES:
        raise InputError(
            f"{' and '.join(others)} has {len(groups.names)} values; at most {MOST_LINES} lines "
            "can be told apart, so give a part of the table."
        )
    values = numbers_of(table, value)
    told = Told(table, values, used)
    drawn_groups = _groups(across, groups, values)
    cells = [cell for group in drawn_groups for cell in group.cells.values()]
    absent = any(cell.missing for cell in cells)
    drawn = _axes(across, titled(value), values, fit=fit, n=len(drawn_groups) * absent)
    places = across.positions()
    x_of = np.array(places)[across.places]
    for group in drawn_groups:
        _medians(drawn, places, across, group)
        if absent:
            _without(drawn, places, group, told)
        if fit:
            _fitted(drawn, places, values, across, group)
    if groups is None:
        labels = np.array(labels_of(table, asked=False))
        for i, label in enumerate(ordered(labels.tolist())):
            colour = LABELS.get(label, SERIES[i % len(SERIES)])
            rows = np.flatnonzero((labels == label) & ~np.isnan(values))
            _dots(drawn, x_of, values, told, rows, name_of(label), colour, legend=True)
    for group in drawn_groups if groups else []:
        rows = group.rows[~np.isnan(values[group.rows])]
        _dots(drawn, x_of, values, told, rows, group.name, group.style["color"], legend=False)
    bars = coverages(cell.spread for cell in cells)
    lines = [f"median, bars: interval for it{bars}" if bars else "median; no interval"]
    if absent:
        what = "without it when training ended" if value in TIMES else "without a value"
        lines += [f"above: runs {what}, of all", "open symbols: median of the other runs"]
    if extra := pooled(table, used):
        lines.append(f"runs at one x differ in {', '.join(map(name_of, extra))} too")
    title = heading(f"{titled(value)} by {across.title}", lines)
    legend = len(drawn_groups) * (2 if fit else 1)
    return drawn.update_layout(
        title_text=title,
        margin_t=78 + 18 * len(lines),
        height=drawn.layout.height + 18 * len(lines) + 22 * max(0, legend - 2),
    )


def _groups(across: Axis, groups: Axis | None, values: np.ndarray) -> list[_Group]:
    found = []
    legends = groups.told() if groups else ["median"]
    for i, legend in enumerate(legends):
        here = groups.places == i if groups else np.ones(len(values), bool)
        rows = np.flatnonzero(here)
        cells = {
            int(j): cell_of(rows[across.places[rows] == j].tolist(), values)
            for j in np.unique(across.places[rows])
        }
        style = series(i) if groups else {"color": COLOURS["other"], "dash": "solid"}
        found.append(_Group(legend, i, rows, cells, style))
    return found


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
        ticks = log_ticks(values) if spans_decades(values) else {}
        drawn.update_layout(yaxis={"type": "log", **ticks})
    places = across.positions()
    if places == across.numbers:
        log = spans_decades(places) or (straight and min(places) > 0)
        drawn.update_xaxes(type="log" if log else "linear")
    else:
        drawn.update_xaxes(range=[-0.5, len(places) - 0.5])
    if len(places) <= MOST_TICKS:
        drawn.update_xaxes(tickvals=list(places), ticktext=list(across.names))
    elif places != across.numbers:
        shown = range(0, len(places), -(-len(places) // MOST_TICKS))
        drawn.update_xaxes(tickvals=[*shown], ticktext=[across.names[i] for i in shown])
    elif spans_decades(places):
        drawn.update_xaxes(**log_ticks(places))
    return drawn


def _dots(
    drawn: Figure, x: np.ndarray, values: np.ndarray, told: Told, rows: np.ndarray, name: str,
    colour: str, *, legend: bool,
) -> None:  # fmt: skip
    """Runs, each told on hover."""
    drawn.add_scatter(
        x=x[rows],
        y=values[rows],
        customdata=[told.run(row) for row in rows.tolist()],
        hovertemplate="%{customdata}<extra></extra>",
        mode="markers",
        marker={"color": colour, "size": 7, "opacity": 0.6},
        name=name,
        legendgroup=name,
        showlegend=legend,
    )


def _medians(drawn: Figure, places: Sequence[float], across: Axis, group: _Group) -> None:
    """The line of the medians with their intervals, open where runs have no value."""
    cells = {j: cell for j, cell in group.cells.items() if cell.spread.n}
    found = [cell.spread for cell in cells.values()]
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
            f"{group.name}, {across.title} {across.names[j]}<br>{_words(cell)}"
            for j, cell in cells.items()
        ],
        hovertemplate="%{customdata}<extra></extra>",
        mode="lines+markers",
        line=dict(group.style),
        marker={
            "size": 11,
            "color": group.style["color"],
            "symbol": ["diamond-open" if cell.missing else "diamond" for cell in cells.values()],
        },
        name=group.name,
        legendgroup=group.name,
    )


def _words(cell: Cell) -> str:
    found = cell.spread
    lines = [f"median {found.median:,.6g} of {found.n} of {len(cell.rows)} runs"]
    if found.coverage:
        lines.append(f"{found.coverage:.0%} interval {found.low:,.6g} to {found.high:,.6g}")
    return "<br>".join(lines)


def _without(drawn: Figure, places: Sequence[float], group: _Group, told: Told) -> None:
    """How many runs have no value, in the strip above at each x that has such runs.

    Numbers of very many x would overlap: those are crosses, which tell theirs on hover.
    """
    cells = {j: cell for j, cell in group.cells.items() if cell.missing}
    drawn.add_scatter(
        x=[places[j] for j in cells],
        y=[group.number] * len(cells),
        text=[f"{cell.missing}/{len(cell.rows)}" for cell in cells.values()],
        customdata=[
            f"no value: {cell.missing} of {len(cell.rows)} runs<br>{told.runs(cell.without)}"
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
    whole = [j for j, cell in sorted(group.cells.items()) if not cell.missing]
    rows = group.rows[np.isin(across.places[group.rows], whole)]
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
