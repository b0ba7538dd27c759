"""Every claim at a glance: its verdict, and the number that decides against its threshold."""

import math
from collections.abc import Sequence
from textwrap import wrap

from grokinterp.base.result import draws, found_by
from grokinterp.claims._explain import Claims, explain
from grokinterp.claims.registry import Claim, Verdict
from grokinterp.figures._figure import COLOURS, Figure, checked, figure, plain
from grokinterp.figures.pages import asset, html_table, render

LOOKS: dict[Verdict, tuple[str, str]] = {  # colours and marks
    "supported": (COLOURS["key"], "circle"),
    "contradicted": (COLOURS["test"], "x"),
    "undetermined": (COLOURS["other"], "circle-open"),
}
FARTHEST = 1.5  # decades from the threshold that are drawn
WITHOUT = 0.75  # where a verdict stands that no single number decides
PER_LINE = 44  # letters of a statement
ROW = 40  # pixels


@draws(Claims)
@found_by(explain, Claims)
def plot_explain(found: Claims) -> Figure:
    """One row per claim: the verdict, and how far its number is from the threshold, in decades.

    To the right of the line a number supports its claim, to the left it does not; the axis is the
    ratio of number and threshold, ends at 30 times, and is turned where smaller numbers support.
    Claims that no single number decides stand half-way, on the side of their verdict; undetermined
    ones without a number on the line.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_explain(gi.load("mod31-small"), claims=["A2", "A3"])
    >>> [trace.name for trace in drawn.data]
    ['supported', 'contradicted']
    """
    rows = list(reversed(found.claims))  # the first one at the top
    drawn = figure(found._title())
    for verdict, (colour, mark) in LOOKS.items():
        its = [(y, each) for y, each in enumerate(rows) if each.verdict == verdict]
        if not its:
            continue
        places = [place_of(each) for _, each in its]
        drawn.add_scatter(
            x=places,
            y=[y for y, _ in its],
            mode="markers",
            name=verdict,
            marker={"color": colour, "symbol": mark, "size": 11},
            # From the threshold to the number.
            error_x={
                "type": "data", "symmetric": False, "array": [max(0, -x) for x in places],
                "arrayminus": [max(0, x) for x in places], "width": 0, "thickness": 2,
            },
            hovertext=[_hover(each) for _, each in its],
            hoverinfo="text",
        )  # fmt: skip
    for y, each in enumerate(rows):
        drawn.add_annotation(
            x=1.0, xref="paper", xanchor="left", y=y, text=_number(each), showarrow=False,
            align="left", font={"size": 12}, xshift=8,
        )  # fmt: skip
    drawn.add_vline(x=0, line={"width": 1, "color": COLOURS["other"]})
    span = FARTHEST + 0.15
    drawn.update_xaxes(
        range=[-span, span],
        tickvals=[-1, 0, 1],
        ticktext=["10 times off", "threshold", "10 times beyond"],
        title_text="\u2190 against the claim \u00b7 for the claim \u2192",
    )
    drawn.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[_name(each) for each in rows],
        range=[-0.7, len(rows) - 0.3], tickfont={"size": 12}, showgrid=True,
    )  # fmt: skip
    drawn.update_layout(
        height=ROW * len(rows) + 170,
        margin={"r": 190, "t": 60, "b": 90},
        showlegend=True,
    )
    return drawn


def explain_page(found: Claims) -> str:
    """One HTML page that needs no network: the figure, every verdict with its rule and numbers.

    >>> import grokinterp as gi
    >>> page = gi.viz.explain_page(gi.explain(gi.load("mod31-small"), claims=["A2", "A3"]))
    >>> page[:15], "lower norm" in page, "</html>" in page
    ('<!doctype html>', False, True)
    """
    checked(found, Claims, "gi.explain")
    by_run = found.of_each_run()
    return render(
        "explain.html.j2",
        title=found._title(),
        found=found,
        style=asset("page.css"),
        chart=found.plot().to_html(full_html=False, include_plotlyjs=True),
        by_run="" if by_run.empty else html_table(by_run, str),
    )


def place_of(claim: Claim) -> float:
    """Decades from the threshold, positive where the number supports.

    >>> import grokinterp as gi
    >>> found = gi.explain(gi.load("mod31-small"), claims=["A3"])["A3"]
    >>> round(found.numbers["k_over_decay"] / found.threshold.at, 2), round(place_of(found), 2)
    (0.21, -0.67)
    """
    sides: dict[Verdict, float] = {"supported": 1, "contradicted": -1, "undetermined": 0}
    edge = claim.threshold
    value = math.nan if edge is None else claim.numbers.get(edge.number, math.nan)
    if edge is None or not (value > 0 and edge.at > 0):
        return WITHOUT * sides[claim.verdict]
    decades = math.log10(value / edge.at) * (1 if edge.side == "above" else -1)
    return max(-FARTHEST, min(FARTHEST, decades))


def _name(claim: Claim) -> str:
    return "<br>".join(_cut(wrap(f"{plain(claim.name)}  {plain(claim.statement)}", PER_LINE)))


def _number(claim: Claim) -> str:
    """The number and its threshold, or what is missing."""
    edge = claim.threshold
    if edge is not None and (value := claim.numbers.get(edge.number, math.nan)) == value:
        words = edge.number.replace("_", " ")
        return f"{plain(words)} {value:.3g}<br>supports {edge.side} {edge.at:g}"
    if claim.verdict == "undetermined":
        return "<br>".join(_cut(wrap(f"needs {plain(claim.needs)}", 28)))
    return ""


def _cut(lines: Sequence[str]) -> list[str]:
    return list(lines[:2]) if len(lines) < 3 else [lines[0], f"{lines[1]} \u2026"]


def _hover(claim: Claim) -> str:
    words = [f"<b>{plain(claim.name)} {claim.verdict}</b>"]
    return "<br>".join([*words, *wrap(plain(claim.statement), 80), *wrap(plain(claim.reason), 80)])
