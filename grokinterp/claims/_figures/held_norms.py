"""The norm landscape: what training comes to at every held norm, and how free runs walk there."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from grokinterp.base.result import draws, found_by
from grokinterp.claims.held_norms import NormLandscape, norm_landscape
from grokinterp.claims.zone_of_norms import Zone
from grokinterp.figures._figure import (
    COLOURS,
    SERIES,
    Figure,
    checked,
    faded,
    figure,
    plain,
    says,
)

THIN = 0.006  # of a norm: half the width of a zone of one norm
PATHS = (SERIES[3], SERIES[4], SERIES[5])  # of free runs, by seed
TICKS = [digit * 10.0**power for power in range(-3, 4) for digit in (1, 2, 5)]
MOST_TICKS = 8  # that do not run into each other
MARKS = {"t99": ("circle-open", "train 99 %"), "t95": ("circle", "test 95 %")}


@draws(NormLandscape)
@found_by(norm_landscape, NormLandscape)
def plot_norm_landscape(found: NormLandscape) -> Figure:
    """Loss and accuracy at every held norm, and below them the step at which norms are passed.

    The axis is N / N0, logarithmic; lines are medians over seeds, bars the smallest and the largest
    of them: solid of the last logged step, dashed the best over the log. Shaded is the zone in
    which more than half of the seeds generalise, and faintly from there to the next norms that were
    tried, and fail. At the bottom, step against norm: free runs as lines, of the weight decay that
    most of them have, and when each run, free or held, fits the training inputs and when it
    generalises. A held run that never does has no mark.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_norm_landscape(gi.load("mod31-small"))
    >>> [line.name for line in drawn.data]
    ['free run', 'free: train 99 %', 'free: test 95 %']
    """
    checked(found, NormLandscape, "claims.norm_landscape")
    drawn = figure("Which norms generalise, and where training goes")
    table = found.table()
    if not len(table) and not found.free:
        return says(drawn, found.notes)
    n = 3 if len(table) else 1
    drawn.set_subplots(
        rows=n, cols=1, shared_xaxes=True, vertical_spacing=0.05,
        row_heights=[0.34, 0.3, 0.36][-n:],
    )  # fmt: skip
    for row, what in enumerate(("loss", "acc"), start=1):
        for part in ("train", "test") if len(table) else ():
            for best in ("", "best_"):
                name = f"{best}{part}_{what}"
                known = table[table[name].notna()]
                drawn.add_scatter(
                    x=known["alpha"], y=known[name], customdata=known["norm"],
                    name=f"{part}, best over the log" if best else f"{part}, last step",
                    legendgroup=f"{best}{part}", showlegend=row == 1, mode="lines+markers",
                    line={"color": COLOURS[part], "dash": "dash" if best else "solid", "width": 2},
                    marker={"size": 5 if best else 7},
                    error_y=_bars(known, name) if not best and known["n_seeds"].max() > 1 else None,
                    hovertemplate="N = %{customdata:.4g}: %{y:.4g}", row=row, col=1,
                )  # fmt: skip
    _paths(drawn, found, row=n)
    _held_dates(drawn, found, row=n)
    _zone(drawn, found.zone, rows=n)
    if n == 3:
        drawn.update_yaxes(title_text="loss (nats)", type="log", row=1, col=1)
        drawn.update_yaxes(title_text="accuracy", range=[-0.04, 1.04], row=2, col=1)
    drawn.update_yaxes(title_text="step (updates)", rangemode="tozero", row=n, col=1)
    ticks = _ticks(found)
    drawn.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{x:g}" for x in ticks])
    title = f"N / N0, with N0 = {found.n0:.4g}" if math.isfinite(found.n0) else "N / N0"
    drawn.update_xaxes(title_text=title, row=n, col=1)
    return drawn.update_layout(hovermode="closest", showlegend=True, height=260 + 220 * n)


def _bars(table: Any, name: str) -> dict[str, Any]:
    """From the smallest to the largest seed."""
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3,
        "array": table[f"{name}_high"] - table[name],
        "arrayminus": table[name] - table[f"{name}_low"],
    }  # fmt: skip


def _paths(drawn: Figure, found: NormLandscape, *, row: int) -> None:
    """The norms of free runs with the usual weight decay, and where they fit and generalise."""
    decays = Counter(each["weight_decay"] for each in found.free)
    those = [x for x in found.free if x["weight_decay"] == decays.most_common(1)[0][0]]
    seeds = sorted({each["seed"] for each in those})
    for i, each in enumerate(those):
        colour = PATHS[seeds.index(each["seed"]) % len(PATHS)]
        steps, norms = np.array(found.paths[each["run"]]).T
        drawn.add_scatter(
            x=norms / each["n0"], y=steps, mode="lines", name="free run", legendgroup="free",
            showlegend=i == 0, line={"color": colour, "width": 2},
            hovertemplate=f"{plain(each['run'])}<br>%{{x:.4g}} N0 at step %{{y}}<extra></extra>",
            row=row, col=1,
        )  # fmt: skip
        for date, (symbol, name) in MARKS.items():
            if each[date] is not None:
                drawn.add_scatter(
                    x=[each[f"alpha_{date}"]], y=[each[date]], mode="markers",
                    name=f"free: {name}",
                    legendgroup=date, showlegend=i == 0,
                    marker=_mark(symbol, 10, colour),
                    hovertemplate=f"{plain(each['run'])}<br>{name}: step %{{y}}, %{{x:.4g}} N0"
                    "<extra></extra>",
                    row=row, col=1,
                )  # fmt: skip


def _mark(symbol: str, size: int, colour: str) -> dict[str, Any]:
    return {"symbol": symbol, "size": size, "color": colour, "line": {"width": 2, "color": colour}}


def _held_dates(drawn: Figure, found: NormLandscape, *, row: int) -> None:
    """When held runs fit and generalise."""
    for date, (symbol, name) in MARKS.items():
        those = [x for x in found.runs if x["kind"] == "held" and x[date] is not None]
        if those:
            drawn.add_scatter(
                x=[x["alpha"] for x in those], y=[x[date] for x in those], mode="markers",
                name=f"held: {name}",
                marker=_mark(
                    symbol.replace("circle", "diamond"), 9,
                    COLOURS["train" if date == "t99" else "test"],
                ),
                customdata=[plain(x["run"]) for x in those],
                hovertemplate=f"%{{customdata}}<br>{name}: step %{{y}}<extra></extra>",
                row=row, col=1,
            )  # fmt: skip


def _zone(drawn: Figure, zone: Zone, *, rows: int) -> None:
    """The norms that generalise, shaded; more faintly, from there to the next ones that fail."""
    if zone.low is None or zone.high is None:
        return
    low, high = zone.low, zone.high
    thin = THIN if low == high else 0.0
    known = ((low * (1 - thin), high * (1 + thin), 0.3, "generalises"),)
    edges = (
        (zone.below or low, low, 0.1, "not tried"),
        (high, zone.above or high, 0.1, "not tried"),
    )
    named = set[str]()
    for start, end, opacity, name in (*known, *edges):
        for row in range(1, rows + 1) if start < end else ():
            drawn.add_vrect(
                start, end, fillcolor=faded(COLOURS["key"], opacity), line_width=0, layer="below",
                row=row, col=1,
            )  # fmt: skip
            if name not in named:
                drawn.layout.shapes[-1].update(showlegend=True, name=name)
                named.add(name)


def _ticks(found: NormLandscape) -> Sequence[float]:
    """The held norms, or round numbers where they are too many or none."""
    alphas = [each["alpha"] for each in found.norms]
    if 0 < len(alphas) <= MOST_TICKS:
        return alphas
    return TICKS
