"""Regimes side by side over training, and the page of a comparison."""

import pandas as pd
import plotly.graph_objects as go

from grokinterp.base.result import draws, found_by
from grokinterp.comparison._compare import Comparison, compare
from grokinterp.comparison.lineup import PLACES, REGIMES
from grokinterp.figures._figure import LABEL_COLOURS, Figure, checked, faded, figure, place
from grokinterp.figures.pages import asset, html_table, render

PANELS = {  # measure of `Comparison.aligned`: title of its axis
    "test_loss": "test loss (nats)",
    "c": "compressibility c",
    "ipr_input": "mean input IPR",
    "r_energy": "median |r| with energy",
    "weight_norm": "L2 weight norm",
    "path_length": "path length (nats<sup>1/2</sup>)",
}


@draws(Comparison)
@found_by(compare, Comparison)
def plot_comparison(found: Comparison) -> Figure:
    """Medians of each regime over training, one panel per measure; intervals over seeds are shaded.

    Aligned as the comparison was: by phase the axis runs from the start over learning train and
    learning test to the end of each run.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> tiny = gi.Recipe(p=7, d_model=8, d_head=4, d_mlp=16, steps=20, checkpoints=(0, 20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     runs = [gi.train(tiny.replace(seed=i), f"{folder}/{i}", progress=False) for i in (0, 1)]
    ...     drawn = gi.viz.plot_comparison(runs)
    >>> drawn.layout.title.text
    'Grokked against steady<br>0 grokked, 0 steady'
    """
    checked(found, Comparison, "gi.compare")
    table = found.aligned()
    measures = [name for name in PANELS if not table.empty and (table.measure == name).any()]
    title = "Grokked against steady<br>" + ", ".join(
        f"{list(found.regimes.values()).count(regime)} {regime}" for regime in REGIMES
    )
    if found.align == "phase":
        words = [name.replace(" ", "<br>") for name in PLACES.values()]
        scale = {"tickvals": [*PLACES], "ticktext": words, "range": [-0.05, 3.05]}
        drawn = figure(title, axis := "phase")
        drawn.update_layout(meta={"x": "phase"})  # a report marks the current one
    else:
        scale = {"type": "log"}
        drawn = figure(title, axis := "step + 1 (updates)")
    if not measures:
        return drawn.add_annotation(text="no grokked or steady run to draw", showarrow=False)
    n_rows = -(-len(measures) // 2)
    cells: list[list[dict[str, str] | None]] = [
        [{}, {} if 2 * row + 1 < len(measures) else None] for row in range(n_rows)
    ]
    names = [PANELS[name] for name in measures]
    drawn.set_subplots(rows=n_rows, cols=2, specs=cells, subplot_titles=names)
    drawn.update_layout(height=330 * n_rows + 120, margin={"t": 100})
    drawn.update_annotations(font={"size": 12})  # names of panels side by side on a phone
    drawn.update_xaxes(title_text=axis, **scale)
    for i, name in enumerate(measures):
        for regime in REGIMES:
            rows = table[(table.measure == name) & (table.regime == regime)]
            for trace in _band(rows, regime, first=i == 0):
                drawn.add_trace(trace, **place(i))
        if name == "test_loss":
            drawn.update_yaxes(type="log", nticks=6, **place(i))
    return drawn


def _band(rows: pd.DataFrame, regime: str, *, first: bool) -> list[go.Scatter]:
    """The line of the medians, and the area between the ends of their intervals.

    Points are open where a run of the regime has no value: the median is then of other runs than
    its neighbours are.
    """
    colour = LABEL_COLOURS[regime]
    places = rows.step + 1 if "step" in rows else rows.position
    seen = rows.low.notna()
    symbols = [
        "circle" if n == of else "circle-open" for n, of in zip(rows.n, rows.n_runs, strict=True)
    ]
    edges = {"x": places[seen], "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        go.Scatter(**edges, y=rows.low[seen], showlegend=False, legendgroup=regime),
        go.Scatter(
            **edges, y=rows.high[seen], fill="tonexty", showlegend=False, legendgroup=regime,
            fillcolor=faded(colour, 0.2),
        ),
        go.Scatter(
            x=places, y=rows["median"], name=regime, legendgroup=regime, showlegend=first,
            mode="lines+markers", line={"color": colour},
            marker={"size": 6, "symbol": symbols},
            customdata=rows[["n", "n_runs"]],
            hovertemplate="%{y:.4g} (%{customdata[0]} of %{customdata[1]} runs)",
        ),
    ]  # fmt: skip


def comparison_page(found: Comparison) -> str:
    """One HTML page that needs no network: verdicts, figure, measures, runs and reservations.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> tiny = gi.Recipe(p=7, d_model=8, d_head=4, d_mlp=16, steps=20, checkpoints=(0, 20))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     runs = [gi.train(tiny.replace(seed=i), f"{folder}/{i}", progress=False) for i in (0, 1)]
    ...     page = gi.viz.comparison_page(gi.compare(runs))
    >>> page[:15], "</html>" in page
    ('<!doctype html>', True)
    """
    checked(found, Comparison, "gi.compare")
    measures = found.table()
    first = [column for column in ("measure", "meaning") if column in measures]
    return render(
        "comparison.html.j2",
        found=found,
        style=asset("page.css"),
        chart=found.plot().to_html(full_html=False, include_plotlyjs=True),
        measures=html_table(measures[[*first, *measures.columns.drop(first)]], "{:.4g}".format),
        runs=html_table(found.runs(), "{:.4g}".format),
    )
