"""Attention, over all pairs and as CircuitsVis shows it on some, and what each part writes."""

import importlib.util
import json
import uuid
from pathlib import Path

from grokinterp.base.errors import InputError, nearest
from grokinterp.base.result import Html, draws
from grokinterp.circuits._attention import Attention, AttentionPatterns
from grokinterp.circuits._attribution import Attribution
from grokinterp.figures._figure import COLOURS, FROM_ZERO, Figure, at, checked, figure, series
from grokinterp.figures.heat_maps import images

POSITIONS = {"a": "operand a", "b": "operand b", "equals": '"="'}
HATCHES = {"constant": "/", "rest": "x"}  # of bars; the other frequencies are plain grey


@draws(Attention)
def plot_attention(found: Attention, *, to: str = "a") -> Figure:
    """Attention from the answer position to one position over all pairs (a, b), a panel per head.

    `to` is "a", "b" or, where there is one, "equals". Colours are from 0 to 1 at every step.
    """
    checked(found, Attention, "circuits.attention")
    positions = list(POSITIONS)[: found.pattern.shape[1]]
    if to not in positions:
        raise InputError(f"to={to!r} is no position of the inputs; {nearest(str(to), positions)}")
    pattern = found.pattern[:, positions.index(to)].float().numpy()
    return images(
        f"Attention of layer {found.layer} to {POSITIONS[to]}{at(found.step)}",
        {f"head {head}": one for head, one in enumerate(pattern)},
        bar="attention",
        colours={"colorscale": FROM_ZERO, "zmin": 0, "zmax": 1},
        hover="a = %{y}, b = %{x}<br>attention %{z:.5g}",
    )


@draws(AttentionPatterns)
def attention_html(found: AttentionPatterns) -> Html:
    """CircuitsVis' view of every input, one below the other, with its script inside (1.3 MB).

    What `circuitsvis.attention.attention_heads` gives as `local_src`, for several inputs at once.
    On a white ground, which its black text needs. InputError where CircuitsVis is not installed.
    """
    script = circuitsvis_script()
    name = f"attention-{uuid.uuid4().hex}"
    blocks = "".join(
        f'<p>a = {a}, b = {b} (layer {found.layer}{at(found.step)})</p><div id="{name}-{i}"></div>'
        for i, (a, b) in enumerate(found.inputs)
    )
    calls = "".join(
        f'CircuitsVis.render("{name}-{i}", CircuitsVis.AttentionHeads, '
        f"{json.dumps(found.props(i))});\n"
        for i in range(len(found.inputs))
    )
    return Html(
        f'<div style="background: #fff; color: #222; padding: 1px 12px">{blocks}</div>'
        f'<script type="module">{script}\n{calls}</script>'
    )


def circuitsvis_script() -> str:
    """CircuitsVis' script from the installed package, fit to stand inside a page's <script>.

    It defines `CircuitsVis`, whose `render(id, CircuitsVis.AttentionHeads, props)` draws into the
    element of that id, again and again. It is read, not imported: its package imports more.
    InputError where it is not installed.
    """
    found = importlib.util.find_spec("circuitsvis")
    if found is None or found.origin is None:
        raise InputError(
            "CircuitsVis is not installed: pip install 'grokinterp[circuitsvis]'; "
            "circuits.attention(x).plot() needs none."
        )
    script = (Path(found.origin).parent / "dist" / "cdn" / "iife.js").read_text(encoding="utf-8")
    script = script.partition("\n//# sourceMappingURL")[0]
    return script.replace("</script", r"<\/script")  # in its strings: the same string


@draws(Attribution)
def plot_attribution(found: Attribution) -> Figure:
    """A bar per part, in logits: its share of the mean margin, split by frequency of the logits.

    Without an answer group there are no frequencies, and every bar is whole.
    """
    checked(found, Attribution, "circuits.attribution")
    title = f"Mean margin{at(found.step)}: {found.total:.4g} logits"
    drawn = figure(title, "margin added (logits)")
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
                "pattern": {"shape": HATCHES.get(str(column), "")},
                "line": {"width": 0},
            },
            hovertemplate="%{y}, %{fullData.name}<br>%{x:.5g} logits<extra></extra>",
        )
    drawn.add_vline(x=0, line={"width": 1, "color": COLOURS["other"]})
    drawn.update_yaxes(autorange="reversed", tickfont={"size": 11}, dtick=1)
    return drawn.update_layout(
        barmode="relative", hovermode="closest", showlegend=True, height=190 + 26 * len(frame)
    )
