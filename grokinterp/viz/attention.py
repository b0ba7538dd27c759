"""Attention: maps over all pairs of operands, and CircuitsVis' view of chosen inputs."""

import importlib.util
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from grokinterp.circuits.attention import Attention
from grokinterp.errors import InputError, nearest
from grokinterp.viz.checks import checked
from grokinterp.viz.figure import Figure, at
from grokinterp.viz.images import images
from grokinterp.viz.theme import FROM_ZERO

if TYPE_CHECKING:
    from grokinterp.circuits.attention_inputs import AttentionPatterns

POSITIONS = {"a": "operand a", "b": "operand b", "equals": '"="'}


def plot_attention(found: Attention, *, to: str = "a") -> Figure:
    """Attention from the answer position to one position over all pairs (a, b), a panel a head.

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


class Html(str):
    """HTML that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return str(self)


def attention_html(found: "AttentionPatterns") -> Html:
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
