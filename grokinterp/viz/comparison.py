"""Regimes side by side over training, and the page that tells a comparison."""

from html import escape

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from grokinterp.encodings.comparison.compare import Comparison
from grokinterp.encodings.comparison.lineup import REGIMES
from grokinterp.viz.figure import Figure, figure
from grokinterp.viz.theme import COLOURS

REGIME_COLOURS = {"grokked": COLOURS["test"], "steady": COLOURS["train"]}
PANELS = {  # measure of `Comparison.aligned`: title of its axis
    "test_loss": "test loss (nats)",
    "c": "compressibility c",
    "ipr_input": "mean input IPR",
    "r_energy": "median |r| with energy",
    "weight_norm": "L2 weight norm",
    "path_length": "information length",
}
LOGARITHMIC = ("test_loss", "weight_norm")
PLACES = {0: "start", 1: "train learned", 2: "test learned", 3: "end"}


def plot_comparison(found: Comparison) -> Figure:
    """Medians of each regime over training, its interval over seeds shaded, a panel a measure.

    Aligned as the comparison was: by phase the axis runs from the start over learning train and
    learning test to the end of each run.
    """
    table = found.aligned()
    measures = [name for name in PANELS if not table.empty and (table.measure == name).any()]
    title = "Grokked against steady<br>" + ", ".join(
        f"{list(found.regimes.values()).count(regime)} {regime}" for regime in REGIMES
    )
    x, axis = ("position", "") if found.align == "phase" else ("step", "step + 1 (updates)")
    drawn = figure(title, axis, "")
    if not measures:
        return drawn.add_annotation(text="no grokked or steady run to draw", showarrow=False)
    n_rows = -(-len(measures) // 2)
    grid = make_subplots(rows=n_rows, cols=2, subplot_titles=[PANELS[name] for name in measures])
    drawn = Figure(grid).update_layout(drawn.layout, height=330 * n_rows + 120, margin={"t": 100})
    drawn.update_annotations(font={"size": 12})  # names of panels side by side on a phone
    for i, name in enumerate(measures):
        at = {"row": i // 2 + 1, "col": i % 2 + 1}
        for regime in REGIMES:
            rows = table[(table.measure == name) & (table.regime == regime)]
            for trace in _band(rows, x, regime, first=i == 0):
                drawn.add_trace(trace, **at)
        if name in LOGARITHMIC:
            drawn.update_yaxes(type="log", exponentformat="power", **at)
        if x == "step":
            drawn.update_xaxes(type="log", title=axis, **at)
        else:
            ticks = {"tickvals": [*PLACES], "ticktext": [*PLACES.values()]}
            drawn.update_xaxes(range=[-0.05, 3.05], **ticks, **at)
    return drawn


def _band(rows: pd.DataFrame, x: str, regime: str, *, first: bool) -> list[go.Scatter]:
    """The line of the medians, and the area between the ends of their intervals.

    Points are open where a run of the regime has no value: the median is then of other runs than
    its neighbours are.
    """
    colour = REGIME_COLOURS[regime]
    places = rows[x] + 1 if x == "step" else rows[x]
    seen = rows.low.notna()
    symbols = [
        "circle" if n == of else "circle-open" for n, of in zip(rows.n, rows.n_runs, strict=True)
    ]
    edges = {"x": places[seen], "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        go.Scatter(**edges, y=rows.low[seen], showlegend=False, legendgroup=regime),
        go.Scatter(
            **edges, y=rows.high[seen], fill="tonexty", fillcolor=_faint(colour), showlegend=False,
            legendgroup=regime,
        ),
        go.Scatter(
            x=places, y=rows["median"], name=regime, legendgroup=regime, showlegend=first,
            mode="lines+markers", line={"color": colour},
            marker={"size": 6, "symbol": symbols},
            customdata=rows[["n", "n_runs"]],
            hovertemplate="%{y:.4g} (%{customdata[0]} of %{customdata[1]} runs)",
        ),
    ]  # fmt: skip


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.2)"


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
div.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 13px }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd }
th, td { text-align: left; vertical-align: top } table.numbers td { white-space: nowrap }
.supported { color: #00664a } .contradicted { color: #a33c00 } .undetermined { color: #555 }
"""


def comparison_page(found: Comparison) -> str:
    """One HTML page that needs no network: verdicts, figure, measures, runs and reservations."""
    claims = "".join(
        f"<tr><td>{escape(claim.statement)}<br><small>{escape(claim.source)}</small></td>"
        f'<td class="{claim.verdict}"><b>{claim.verdict}</b></td>'
        f"<td>{escape(claim.reason)}<details><summary>rule, numbers</summary>"
        f"<p>{escape(claim.rule)}</p><p>{_numbers(dict(claim.numbers))}</p></details></td>"
        f"<td>{' and '.join(f'{n} {escape(regime)}' for regime, n in claim.seeds.items())}</td>"
        f"<td>{escape(claim.would_change)}</td></tr>"
        for claim in found.claims
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes) or "<li>none</li>"
    chart = found.plot().to_html(full_html=False, include_plotlyjs=True)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Grokked against steady</title><style>{STYLE}</style></head><body>"
        "<h1>Grokked against steady</h1>"
        "<p>Claims of Manning-Coe et al. 2025 (arXiv 2502.01739), as these runs have it.</p>"
        '<div class="wide"><table><tr><th>claim</th><th>verdict</th><th>why</th><th>seeds</th>'
        f"<th>what would change it</th></tr>{claims}</table></div>"
        f"<h2>Reservations</h2><ul>{notes}</ul><h2>Over training</h2>"
        "<p>Medians over runs, their intervals shaded. At open points some runs have no value, so "
        f"that the median is of other runs than beside it.</p>{chart}"
        f"<h2>Measures</h2>{_table(_meaning_first(found.table()))}<h2>Runs</h2>{_table(found.runs())}"
        "</body></html>"
    )


def _table(frame: pd.DataFrame) -> str:
    shown = frame.to_html(
        index=False, classes="numbers", border=0, na_rep="", float_format="{:.4g}".format
    )
    return f'<div class="wide">{shown}</div>'


def _meaning_first(table: pd.DataFrame) -> pd.DataFrame:
    first = [column for column in ("measure", "meaning") if column in table]
    return table[[*first, *table.columns.drop(first)]]


def _numbers(numbers: dict[str, float]) -> str:
    return escape(", ".join(f"{name} = {value:.4g}" for name, value in numbers.items()))
