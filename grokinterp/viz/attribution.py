"""What each part of a model adds to the margin of the right answer."""

from grokinterp.circuits.attribution import Attribution
from grokinterp.viz.checks import checked
from grokinterp.viz.figure import Figure, at, figure
from grokinterp.viz.theme import COLOURS, series

PATTERNS = {"constant": "/", "rest": "x"}  # beside plain grey, that of the other frequencies


def plot_attribution(found: Attribution) -> Figure:
    """A bar a part, in logits: its share of the mean margin, split by frequency of the logits.

    Without an answer group there are no frequencies, and every bar is whole.
    """
    checked(found, Attribution, "circuits.attribution")
    drawn = figure(
        f"Mean margin{at(found.step)}: {found.total:.4g} logits", "margin added (logits)"
    )
    if found.spectrum is None:
        frame = found.table().set_index("part")[["margin"]]
    else:
        frame = found.by_frequency().drop(index="all parts", columns="margin")
    for i, column in enumerate(frame.columns):
        key = column in found.frequencies
        drawn.add_bar(
            x=frame[column],
            y=list(frame.index),
            orientation="h",
            name=f"k = {column}" if key else str(column),
            marker={
                "color": series(i)["color"] if key else COLOURS["other"],
                "pattern": {"shape": PATTERNS.get(str(column), "")},
                "line": {"width": 0},
            },
            hovertemplate="%{y}, %{fullData.name}<br>%{x:.5g} logits<extra></extra>",
        )
    drawn.add_vline(x=0, line={"width": 1, "color": COLOURS["other"]})
    drawn.update_yaxes(autorange="reversed", tickfont={"size": 11}, dtick=1)
    return drawn.update_layout(
        barmode="relative", hovermode="closest", showlegend=True, height=190 + 26 * len(frame)
    )
