"""What a model answers on every pair of operands, where it looks, and what each part adds."""

import importlib.util
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch

from grokinterp.base.checks import finite, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Html, draws, found_by
from grokinterp.circuits._attention import Attention, AttentionPatterns, attention
from grokinterp.circuits._attribution import Attribution, attribution
from grokinterp.figures._figure import (
    COLOURS,
    FROM_ZERO,
    Figure,
    at,
    checked,
    figure,
    series,
    square,
)
from grokinterp.figures.heat_maps import around_zero, checked_numbers, images, table
from grokinterp.fourier._figures import Shown, draw_steps
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot

ANSWERS = {  # name: colour; the code in the image is its place here
    "wrong, test": "#D55E00",
    "wrong, train": "#CC79A7",
    "right, test": "#009E73",
    "right, train": "#7FCDB2",
}


def plot_correctness(x: Subject, **shown: Unpack[Shown]) -> Figure:
    """Which pairs (a, b) a model answers rightly, those trained on and the others apart.

    Right is where the largest of the p logits is the answer's; without a split all pairs count as
    test. `shown` is `step` (one, several, or "all" of a run: then with a slider), and of a model
    `task` and `train_mask`, as in `gi.ablate`. InputError for logits that are not finite.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> gi.viz.plot_correctness(run).layout.title.text
    'Answers, step 10000: 99.79% right'
    >>> len(gi.viz.plot_correctness(run, step=[0, 1000, -1]).frames)
    3
    """
    return draw_steps(x, lambda snapshot, _: correctness(snapshot), **shown)


def correctness(snapshot: Snapshot) -> Figure:
    """The same of one snapshot."""
    task = snapshot.modular_task
    right = finite(f"the logits{at(snapshot.step)}", snapshot.logits).argmax(dim=1) == task.labels
    trained = torch.zeros_like(right) if snapshot.train_mask is None else snapshot.train_mask
    code = 2 * right.to(torch.int8) + trained.to(torch.int8)
    share = right.double().mean()
    drawn = figure(f"Answers{at(snapshot.step)}: {share:.2%} right", "operand b", "operand a")
    colours = list(ANSWERS.values())
    # A name in each cell would make the page ten times as large: the code, and what codes mean.
    codes = "<br>".join(f"{i} = {name}" for i, name in enumerate(ANSWERS))
    drawn.add_heatmap(
        z=table(task.on_grid(code)),
        zmin=-0.5,
        zmax=3.5,
        colorscale=[[(i + j) / 4, colour] for i, colour in enumerate(colours) for j in (0, 1)],
        colorbar={"tickvals": [0, 1, 2, 3], "ticktext": list(ANSWERS)},
        hovertemplate=f"a = %{{y}}, b = %{{x}}<br><b>code %{{z}}</b>, where<br>{codes}"
        "<extra></extra>",
    )
    return square(drawn)


def plot_logits(x: Subject, *, classes: Sequence[int] = (0,), **shown: Unpack[Shown]) -> Figure:
    """The logits of answer classes over all pairs (a, b), a panel per class, as they are.

    Nothing is taken out: a shift of all classes, which no softmax sees, shows too. Colours are
    around 0, on one scale for all panels that is each step's own. `shown` as in `plot_correctness`.
    InputError for no class, one that is not an answer, and logits that are not finite.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_logits(gi.load("mod31-small"), classes=[0, 7])
    >>> drawn.layout.title.text, [panel.text for panel in drawn.layout.annotations]
    ('Logits, step 10000', ['class 0', 'class 7'])
    """
    return draw_steps(x, lambda snapshot, _: logit_images(snapshot, classes), **shown)


def logit_images(snapshot: Snapshot, classes: Sequence[int]) -> Figure:
    """The same of one snapshot."""
    task = snapshot.modular_task
    chosen = checked_numbers(classes, "class", below=task.p)
    logits = finite(f"the logits{at(snapshot.step)}", snapshot.logits)
    of_class = {f"class {c}": table(task.on_grid(logits[:, c])) for c in chosen}
    return images(
        f"Logits{at(snapshot.step)}",
        of_class,
        bar="logit, scale of this step",
        colours=around_zero(of_class.values()),
        hover="a = %{y}, b = %{x}<br>logit %{z:.5g}",
    )


POSITIONS = {"a": "operand a", "b": "operand b", "equals": '"="'}  # others by their own names
HATCHES = {"constant": "/", "rest": "x"}  # of bars; the other frequencies are plain grey


@draws(Attention)
@found_by(attention, Attention)
def plot_attention(found: Attention, *, to: str = "a") -> Figure:
    """Attention from the answer position to one position over all pairs (a, b), a panel per head.

    `to` is one of `found.positions`: "a", "b", "equals" for "=", another word of the layout.
    Colours are from 0 to 1 at every step.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_attention(gi.load("mod31-small"), to="b")
    >>> drawn.layout.title.text, len(drawn.data)
    ('Attention of layer 0 to operand b, step 10000', 4)
    """
    checked(found, Attention, "circuits.attention")
    word("to", to, found.positions)
    pattern = found.pattern[:, found.positions.index(to)].float().numpy()
    return images(
        f"Attention of layer {found.layer} to {POSITIONS.get(to, to)}{at(found.step)}",
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
    layer = f"(layer {found.layer}{at(found.step)})"
    blocks = calls = ""
    for i, (a, b) in enumerate(found.inputs):
        blocks += f'<p>a = {a}, b = {b} {layer}</p><div id="{name}-{i}"></div>'
        props = json.dumps(found.props(i))
        calls += f'CircuitsVis.render("{name}-{i}", CircuitsVis.AttentionHeads, {props});\n'
    return Html(
        f'<div style="background: #fff; color: #222; padding: 1px 12px">{blocks}</div>'
        f'<script type="module">{script}\n{calls}</script>'
    )


def circuitsvis_script() -> str:
    """CircuitsVis' script from the installed package, fit to stand inside a page's <script>.

    It defines `CircuitsVis`, whose `render(id, CircuitsVis.AttentionHeads, props)` draws into the
    element of that id, again and again. It is read, not imported: its package imports more.
    InputError where it is not installed.

    >>> import grokinterp as gi
    >>> page = "<script>" + gi.viz.circuitsvis_script() + "</script>"
    >>> "AttentionHeads" in page
    True
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
@found_by(attribution, Attribution)
def plot_attribution(found: Attribution) -> Figure:
    """A bar per part, in logits: its share of the mean margin, split by frequency of the logits.

    Without an answer group there are no frequencies, and every bar is whole.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_attribution(gi.load("mod31-small"), against="best")
    >>> drawn.layout.xaxis.title.text, drawn.data[0].y[-3:]
    ('margin added (logits)', ('MLP, no cluster', 'MLP bias', 'unembedding bias'))
    >>> [bars.name for bars in drawn.data]
    ['k = 1', 'k = 8', 'k = 14', 'other', 'constant', 'rest']
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
