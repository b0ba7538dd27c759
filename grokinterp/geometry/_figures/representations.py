"""When do clouds of operands and answers become circles? Their measures, and the clouds."""

from collections.abc import Sequence

import torch

from grokinterp.base.checks import listed, whole
from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    AROUND_CIRCLE,
    COLOURS,
    SERIES,
    STEPS,
    Figure,
    at,
    checked,
    figure,
    known_alone,
    place,
    says,
    small_multiples,
)
from grokinterp.geometry._representations import Plane, Representations, representations
from grokinterp.geometry.predictions import evenly
from grokinterp.progress._figures.curves import shade

MOST_STEPS = 4  # of a figure of clouds: beyond them panels are too small
REACH = 2.2  # of a panel, in RMS radii of its points: a circle has 1
PANELS = (  # measure, its null, the title of its axis
    ("symmetry", "symmetry_null95", "group symmetry"),
    ("key_share", None, "key share"),
    ("h1", "h1_null95", "longest loop (radii)"),
)


@draws(Representations)
@found_by(representations, Representations)
def plot_representations(found: Representations) -> Figure:
    """Symmetry, share of the key frequencies and longest loop of every cloud against step.

    Dotted lines of the same colour are what chance passes in 5 %. A diamond is a cloud's
    transition; those of test accuracy and test loss are marked on the lower edge of the upper
    panel, by an x and a cross. Phases are shaded, as far as the run's curves tell them.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_representations("mod31-small", step=[0, 300, 10_000], n_null=0)
    >>> [line.name for line in drawn.data if line.showlegend]
    ['embedding', 'unembedding', 'answers']
    """
    checked(found, Representations, "geometry.representations")
    table = found.table()
    drawn = figure("From clouds to circles", STEPS)
    panels = [each for each in PANELS if table[each[0]].notna().any()]
    if not panels:
        return says(drawn, found.notes)
    drawn.set_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    mode, size = ("lines+markers", 4) if len(found.steps) > 1 else ("markers", 9)
    for i, cloud in enumerate(found.clouds):
        rows, colour = table[table["cloud"] == cloud], SERIES[i % len(SERIES)]
        for row, (name, null, _) in enumerate(panels, start=1):
            drawn.add_scatter(
                x=rows["step"], y=rows[name], name=cloud.replace("_", " "), legendgroup=cloud,
                showlegend=row == 1, mode=mode, marker={"size": size}, line={"color": colour},
                hovertemplate="%{y:.4g}", row=row, col=1,
            )  # fmt: skip
            if null is not None and rows[null].notna().any():
                drawn.add_scatter(
                    x=rows["step"], y=rows[null], name="passed by chance in 5 %",
                    showlegend=(i, row) == (0, 1), mode=mode, marker={"size": size / 2},
                    line={"color": colour, "dash": "dot", "width": 1.2}, hovertemplate="%{y:.4g}",
                    row=row, col=1,
                )  # fmt: skip
        _mark(drawn, found, cloud, colour)
    for name, symbol in (("test_accuracy", "x"), ("test_loss", "cross")):
        dated = found.transition(name)
        if dated is not None and dated.step is not None and len(found.steps) > 1:
            drawn.add_scatter(
                x=[dated.step], y=[0], name=f"{name.replace('_', ' ')} {dated.step}",
                mode="markers", marker={"symbol": symbol, "size": 10, "color": COLOURS["other"]},
                hovertemplate="transition of " + name.replace("_", " "), cliponaxis=False,
                row=1, col=1,
            )  # fmt: skip
    for row, (_, _, title) in enumerate(panels, start=1):
        drawn.update_yaxes(title_text=title, rangemode="tozero", row=row, col=1)
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=len(panels), col=1)
    if len(found.steps) > 1:
        shade(drawn, found, last=found.steps[-1])
        drawn.update_xaxes(range=[found.steps[0], found.steps[-1]])
    drawn.update_layout(hovermode="x unified", height=270 * len(panels) + 130)
    return known_alone(drawn, found.notes)


def _mark(drawn: Figure, found: Representations, cloud: str, colour: str) -> None:
    """The transition of a cloud, on its curve in the upper panel."""
    dated, table = found.transition(cloud), found.table()
    if dated is None or dated.step is None:
        return
    at = table[(table["cloud"] == cloud) & (table["step"] == dated.step)]
    drawn.add_scatter(
        x=[dated.step], y=at["symmetry"], name=f"{cloud.replace('_', ' ')} {dated.step}",
        mode="markers", marker={
            "symbol": "diamond", "size": 11, "color": colour,
            "line": {"color": "white", "width": 1},
        },
        hovertemplate=f"transition, from {dated.interval[0] if dated.interval else 0}",
        row=1, col=1,
    )  # fmt: skip


@found_by(representations, Representations)
def plot_clouds(found: Representations, *, steps: Sequence[int] | None = None) -> Figure:
    """The clouds themselves at a few steps, in the plane of their strongest key frequency.

    A row of panels per cloud, a column per step: four of those that were measured, spread evenly,
    unless `steps` says which. The plane of frequency k is that of cos and sin of w_k x; colours go
    once around as k x goes from 0 to n, so that a circle is a ring of colours in their order. k is
    the key frequency of the largest share of that cloud at that step. Without key frequencies, or
    where points are left out, axes are the first two principal components and colours the places of
    the points. Every panel has its own scale, 1 being the RMS radius of its points in the plane. It
    is a projection: what looks round here may be a small part of the cloud, as percentages say.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_clouds("mod31-small", step=[0, 300, 10_000], n_null=0)
    >>> [panel.text for panel in drawn.layout.annotations][:2], len(drawn.data)
    (['embedding, 0<br>k = 8 (10%)', 'embedding, 300<br>k = 14 (31%)'], 9)
    """
    checked(found, Representations, "geometry.representations")
    if not found.planes:
        return says(figure("Clouds"), found.notes)
    chosen = _steps(found, steps)
    clouds = [x for x in found.clouds if any(each.cloud == x for each in found.planes)]
    names, panels = [], []
    for cloud in clouds:
        for step in chosen:
            plane, seen = _seen(found, cloud, step)
            names.append(f"{cloud.replace('_', ' ')}, {step:,}<br>{seen}")
            panels.append(plane)
    drawn = figure("Clouds of operands and answers")
    drawn.set_subplots(
        rows=len(clouds), cols=len(chosen), subplot_titles=names,
        horizontal_spacing=0.02, vertical_spacing=0.16 / len(clouds),
    )  # fmt: skip
    drawn.update_annotations(font_size=12)
    for i, plane in enumerate(panels):
        if plane is not None:
            _draw(drawn, plane, found, row=i // len(chosen) + 1, col=i % len(chosen) + 1)
    ends = {"range": [-REACH, REACH], "showticklabels": False, "ticks": "", "title_text": None}
    drawn.update_xaxes(**ends, constrain="domain").update_yaxes(**ends, constrain="domain")
    for axis in drawn.select_yaxes():
        axis.scaleanchor = "x" + axis.plotly_name.removeprefix("yaxis")
    return drawn.update_layout(height=240 * len(clouds) + 140, margin={"t": 110}, showlegend=False)


def clouds_at(found: Representations, step: int) -> Figure:
    """The clouds of one step, side by side: as `plot_clouds`, with as many panels at every step."""
    clouds = [x for x in found.clouds if any(each.cloud == x for each in found.planes)]
    panels = [_seen(found, cloud, step) for cloud in clouds]
    names = [
        f"{cloud.replace('_', ' ')}<br>{seen}"
        for cloud, (_, seen) in zip(clouds, panels, strict=True)
    ]
    drawn = small_multiples(f"Clouds of operands and answers{at(step)}", names, "", "")
    for i, (plane, _) in enumerate(panels):
        if plane is None:  # a figure over training has as many traces at every step
            drawn.add_scatter(x=[], y=[], mode="markers", **place(i))
        else:
            _draw(drawn, plane, found, **place(i))
    ends = {"range": [-REACH, REACH], "showticklabels": False, "ticks": ""}
    drawn.update_xaxes(**ends).update_yaxes(**ends)
    return drawn.update_layout(showlegend=False)


def _seen(found: Representations, cloud: str, step: int) -> tuple[Plane | None, str]:
    """The plane that a cloud is drawn in, and what it is in words."""
    k, share = _strongest(found, cloud, step)
    for plane in found.planes:
        if (plane.step, plane.cloud, plane.frequency) == (step, cloud, k):
            return plane, "principal components" if k is None else f"k = {k} ({share:.0%})"
    return None, "no points"


def _steps(found: Representations, steps: Sequence[int] | None) -> list[int]:
    if steps is None:
        return evenly(found.steps, MOST_STEPS)
    given = [whole("step", x, least=0, such_as="0") for x in listed("steps", steps, such_as="[0]")]
    unknown = [step for step in given if step not in found.steps]
    if unknown or not 0 < len(given) <= MOST_STEPS:
        raise InputError(
            f"steps={shown(steps)} are not 1 to {MOST_STEPS} of the steps that were measured; give "
            f"some of {', '.join(map(str, found.steps[:8]))}{' ...' * (len(found.steps) > 8)}."
        )
    return given


def _strongest(found: Representations, cloud: str, step: int) -> tuple[int | None, float]:
    """The key frequency of the largest share, and its share; None without key frequencies."""
    table = found.frequencies()
    key = table[(table["cloud"] == cloud) & (table["step"] == step) & table["key"].astype(bool)]
    if not len(key):
        return None, 0.0
    best = key.sort_values("share").iloc[-1]
    return int(best["frequency"]), float(best["share"])


def _draw(drawn: Figure, plane: Plane, found: Representations, *, row: int, col: int) -> None:
    points = plane.points.double()
    scale = float(points.square().sum(dim=1).mean().sqrt()) or 1.0
    n, k = max(len(points), int(plane.elements.max()) + 1), plane.frequency or 1
    drawn.add_scatter(
        x=(points[:, 0] / scale).tolist(), y=(points[:, 1] / scale).tolist(), mode="markers",
        marker={
            "color": torch.remainder(k * plane.elements, n).tolist(), "cmin": 0, "cmax": n,
            "colorscale": AROUND_CIRCLE, "size": 5,
        },
        customdata=plane.elements.tolist(),
        hovertemplate="x = %{customdata}<br>(%{x:.3g}, %{y:.3g})<extra></extra>",
        name=f"{plane.cloud}, step {plane.step}",
        row=row, col=col,
    )  # fmt: skip
