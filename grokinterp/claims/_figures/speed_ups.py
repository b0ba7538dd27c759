"""When runs memorise and generalise, by the way in which they are trained."""

import math

from grokinterp.base.result import draws, found_by
from grokinterp.claims.paired_dates import SpeedUp
from grokinterp.claims.sooner_than_baseline import SpeedUps, speed_ups
from grokinterp.figures._figure import COLOURS, Figure, checked, figure, known_alone, plain

ROW = 30  # pixels of a method
AROUND = 210  # of title, axis and legend
TICKS = [digit * 10**power for power in range(9) for digit in (1, 2, 5)]
DATES = (  # column, name of its dots, colour and symbol; rings lie over dots and do not hide them
    ("t95", "t95: generalises", COLOURS["test"], "circle"),
    ("t99", "t99: fits the training data", COLOURS["train"], "circle-open"),
)


@draws(SpeedUps)
@found_by(speed_ups, SpeedUps)
def plot_speed_ups(found: SpeedUps) -> Figure:
    """Dates of every run, a row for each way to train, soonest first; updates on a log axis.

    Open dots are t99, filled ones t95, a run each; the bar is the median t95. Vertical lines are
    the median t95 of the baseline and of the tuned baseline, and the last update of the longest
    run. What has no date is said on the right: runs that never generalise, and those that fail to
    fit the training data.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_speed_ups(gi.load("mod31-small"))
    >>> [dots.name for dots in drawn.data]
    ['t95: generalises', 't99: fits the training data', 'median t95']
    """
    checked(found, SpeedUps, "claims.speed_ups")
    frame = found.runs()
    methods = [each.method for each in found.methods]
    drawn = figure("When runs memorise and generalise", "step (optimiser updates)")
    for column, name, colour, symbol in DATES:
        known = frame[frame[column].map(lambda t: 0 < t < math.inf)]
        drawn.add_scatter(
            x=known[column],
            y=known["method"].map(plain),
            customdata=known["run"].map(plain),
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 9,
                    "line": {"width": 1.5, "color": colour}},
            hovertemplate=f"%{{customdata}}<br>{column} = %{{x}}<extra></extra>",
        )  # fmt: skip
    dated = [each for each in found.methods if each.t95 < math.inf]
    drawn.add_scatter(
        x=[each.t95 for each in dated],
        y=[plain(each.method) for each in dated],
        mode="markers",
        name="median t95",
        marker={"color": COLOURS["test"], "symbol": "line-ns", "size": 20,
                "line": {"width": 3, "color": COLOURS["test"]}},
        hovertemplate="median t95 = %{x}<extra></extra>",
    )  # fmt: skip
    lines = [(found.baseline, "baseline", "dash", COLOURS["test"])]
    if found.tuned not in ("", found.baseline):
        lines.append((found.tuned, f"tuned: {found.tuned}", "dot", COLOURS["key"]))
    for method, name, dash, colour in lines:
        if math.isfinite(t := found[method].t95):
            drawn.add_vline(t, line={"dash": dash, "width": 1.5, "color": colour}, layer="below")
            drawn.layout.shapes[-1].update(showlegend=True, name=name)
    drawn.add_vline(found.budget, line={"width": 1.5, "color": COLOURS["other"]}, layer="below")
    drawn.layout.shapes[-1].update(showlegend=True, name=f"last update: {found.budget:,}")
    for each in found.methods:
        if text := _undated(each):
            drawn.add_annotation(
                text=text, x=1.01, xref="paper", xanchor="left", y=plain(each.method),
                showarrow=False, font={"size": 12},
            )  # fmt: skip
    drawn.update_xaxes(type="log", tickvals=TICKS, showgrid=True)
    drawn.update_yaxes(
        categoryorder="array",
        categoryarray=[plain(name) for name in reversed(methods)],
        range=[-0.6, len(methods) - 0.4],
        showgrid=True,
    )
    drawn.update_layout(
        height=ROW * len(methods) + AROUND, margin={"r": 130}, hovermode="closest", showlegend=True
    )
    return known_alone(drawn, found.notes)


def _undated(each: SpeedUp) -> str:
    """How many runs of a method have no date, in words."""
    counts = {"never": each.never, "failed": each.failed}
    told = ", ".join(f"{word} {n}" for word, n in counts.items() if n)
    return told and f"{told} of {each.runs}"
