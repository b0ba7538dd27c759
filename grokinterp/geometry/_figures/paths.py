"""Pictures of runs as paths, of predictions and of weights: where they go, and how straight."""

import math
from typing import Any

import plotly.graph_objects as go

from grokinterp.base.checks import whole
from grokinterp.base.errors import InputError
from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    PHASES,
    SERIES,
    STEPS,
    Figure,
    checked,
    faded,
    figure,
    known_alone,
    plain,
    series,
    square,
)
from grokinterp.geometry.paths import InformationPath, information_path
from grokinterp.geometry.predictions import TrajectoryEmbedding, trajectory_embedding
from grokinterp.geometry.tangent_kernel import TangentKernel, kernel, word_of
from grokinterp.geometry.weight_path import Drift, drift

UNIT = "nats<sup>1/2</sup>"
FAR = {"x": 1.7, "y": 1.7, "z": 1.3}  # a phone is narrower than the camera expects


@draws(TrajectoryEmbedding)
@found_by(trajectory_embedding, TrajectoryEmbedding)
def plot_trajectories(found: TrajectoryEmbedding, *, dimensions: int = 2) -> Figure:
    """One line per run through its checkpoints in order, open at the start, a diamond at the end.

    Axes, in nats^(1/2), have one scale; their titles give their share of sum |lambda|, and say that
    they count backwards where lambda is negative. The title has the stress of all embedded
    dimensions. InputError where the embedding has fewer `dimensions`, or these are not 2 or 3.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_trajectories(gi.load("mod31-small"), n_samples=64)
    >>> [line.name for line in drawn.data], len(drawn.data[0].x), drawn.data[0].marker.symbol[-1]
    (['mod31-small'], 26, 'diamond')
    """
    checked(found, TrajectoryEmbedding, "geometry.trajectory_embedding")
    dimensions = whole("dimensions", dimensions, least=2, most=3, such_as="2 or 3")
    if found.coordinates.shape[1] < dimensions:
        raise InputError(
            f"the embedding has {found.coordinates.shape[1]} dimensions; embed the runs with "
            f"dimensions={dimensions}."
        )
    drawn = figure(
        f"Trajectories in prediction space<br>stress {found.stress:.4g} in "
        f"{found.coordinates.shape[1]} dimensions"
    )
    titles = [
        f"x{i} ({share:.1%}{', backwards' if eigenvalue < 0 else ''}), {UNIT}"
        for i, share, eigenvalue in zip(
            range(1, dimensions + 1), found.explained, found.eigenvalues, strict=False
        )
    ]
    for i, (name, rows) in enumerate(found.table().groupby("run", sort=False)):
        symbols = ["circle"] * len(rows)
        symbols[0], symbols[-1] = "circle-open", "diamond"
        where = {axis: rows[f"x{n}"] for n, axis in enumerate("xyz"[:dimensions], start=1)}
        trace: Any = go.Scatter if dimensions == 2 else go.Scatter3d
        place = "".join(f"<br>x{n} %{{{axis}:.5g}} {UNIT}" for n, axis in enumerate(where, start=1))
        drawn.add_trace(
            trace(
                **where,
                mode="lines+markers",
                name=plain(str(name)),
                customdata=rows.step,
                hovertemplate=f"%{{fullData.name}}<br>step %{{customdata}}{place}<extra></extra>",
                line={**series(i), "width": 2 if dimensions == 2 else 4},
                marker={
                    "symbol": symbols,
                    "size": [9 if symbol != "circle" else 4 for symbol in symbols],
                    "color": series(i)["color"],
                    "line": {"color": series(i)["color"], "width": 1.5},
                },
            )
        )
    drawn.update_layout(height=560, hovermode="closest", showlegend=True)
    if dimensions == 3:
        axes = {f"{x}axis_title_text": title for x, title in zip("xyz", titles, strict=True)}
        return drawn.update_layout(scene={"aspectmode": "data", "camera_eye": FAR, **axes})
    return square(drawn.update_xaxes(title_text=titles[0]).update_yaxes(title_text=titles[1]))


@draws(InformationPath)
@found_by(information_path, InformationPath)
def plot_information_path(found: InformationPath) -> Figure:
    """Length so far, and geodesic distance from the first checkpoint, against step.

    Both in nats^(1/2): where the second follows the first the path is straight. The title has the
    straightness of the whole, an upper bound.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_information_path(gi.load("mod31-small"), n_samples=64)
    >>> [line.name for line in drawn.data], drawn.layout.yaxis.title.text
    (['length so far', 'distance from the start'], 'distance (nats<sup>1/2</sup>)')
    """
    checked(found, InformationPath, "geometry.information_path")
    straight = found.straightness
    how = "no motion" if math.isnan(straight) else f"straightness {straight:.4g}"
    drawn = figure(f"Path of the predictions: {how}", STEPS, f"distance ({UNIT})")
    so_far = [0.0, *found.distances.diagonal(1).cumsum(0).tolist()]
    for name, values, colour in (
        ("length so far", so_far, COLOURS["train"]),
        ("distance from the start", found.distances[0].tolist(), COLOURS["test"]),
    ):
        drawn.add_scatter(
            x=list(found.steps),
            y=values,
            name=name,
            mode="lines+markers",
            marker={"size": 4},
            line={"color": colour},
            hovertemplate=f"%{{y:.5g}} {UNIT}",
        )
    return drawn.update_layout(hovermode="x unified")


@draws(Drift)
@found_by(drift, Drift)
def plot_drift(found: Drift) -> Figure:
    """How far the weights get on the plateau, where each step points, and along how few directions.

    Above, on log axes, the distance from the first checkpoint of the plateau beside what steps of
    the same lengths would give, each orthogonal to all others or all the same way; left out where
    there is no plateau of two steps. In the middle the cosine of every step with -theta and with
    the step before, at the checkpoint where it begins, the plateau shaded. Below the first
    principal components beside those of a random walk with steps of the same lengths.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_drift(gi.load("mod31-small"))
    >>> drawn.layout.title.text
    'Path of the weights<br>displacement ~ time<sup>0.61</sup> on the plateau, 300 to 2,250'
    """
    checked(found, Drift, "geometry.drift")
    table = found.table()
    on_plateau = table[table.displacement > 0]  # on log axes, where 0 has no place
    shown = len(on_plateau) > 1
    title = "no plateau"
    if found.window is not None:
        start, end = found.window
        title = f"plateau {start:,} to {end:,}"
        if not math.isnan(found.exponent):
            power = f"time<sup>{found.exponent:.2g}</sup>"
            title = f"displacement ~ {power} on the plateau, {start:,} to {end:,}"
    drawn = figure(f"Path of the weights<br>{title}")
    drawn.set_subplots(
        rows=2 + shown, cols=1, vertical_spacing=0.12 if shown else 0.18,
        row_heights=[0.42, 0.29, 0.29] if shown else [0.5, 0.5],
    )  # fmt: skip
    if shown:
        lines = {
            "straight": ("if straight", {"color": COLOURS["other"], "dash": "dash"}),
            "displacement": ("displacement", {"color": COLOURS["test"]}),
            "uncorrelated": ("if uncorrelated", {"color": COLOURS["other"], "dash": "dot"}),
        }
        for column, (name, line) in lines.items():
            drawn.add_scatter(
                x=on_plateau.to - start, y=on_plateau[column], name=name, line=line,
                mode="lines+markers", marker={"size": 4}, hovertemplate="%{y:.5g}", row=1, col=1,
            )  # fmt: skip
        log = {"type": "log", "dtick": "D2", "exponentformat": "none", "row": 1, "col": 1}
        drawn.update_xaxes(title_text=f"steps since {start:,}", **log)
        drawn.update_yaxes(title_text="distance of weights", **log)
    for column, name, colour in (
        ("cos_origin", "along -θ", SERIES[0]),
        ("cos_previous", "along the step before", SERIES[2]),
    ):
        drawn.add_scatter(
            x=table.step, y=table[column], name=name, line={"color": colour},
            mode="lines+markers", marker={"size": 4}, hovertemplate="%{y:.5g}",
            row=1 + shown, col=1,
        )  # fmt: skip
    if found.window is not None:
        drawn.add_vrect(
            x0=start, x1=end, fillcolor=PHASES["memorization"], opacity=0.2, line_width=0,
            layer="below", row=1 + shown, col=1,
        )  # fmt: skip
    drawn.update_xaxes(title_text=STEPS, row=1 + shown, col=1)
    drawn.update_yaxes(title_text="cosine of a step", row=1 + shown, col=1)
    components = found.components()
    for part, colour in (("whole", COLOURS["train"]), ("plateau", COLOURS["test"])):
        bars = components[components.part == part]
        if not len(bars):
            continue
        drawn.add_bar(
            x=bars.component, y=bars.share, name=f"components, {part}", marker_color=colour,
            hovertemplate="%{y:.2%}", offsetgroup=part, row=2 + shown, col=1,
        )  # fmt: skip
        drawn.add_bar(
            x=bars.component, y=bars.share_of_random_walk, name=f"random walk, {part}",
            marker={"color": faded(colour, 0.35)}, hovertemplate="%{y:.2%}",
            offsetgroup=f"walk {part}", row=2 + shown, col=1,
        )  # fmt: skip
    drawn.update_xaxes(title_text="principal component", dtick=1, row=2 + shown, col=1)
    drawn.update_yaxes(title_text="share of variance", rangemode="tozero", row=2 + shown, col=1)
    drawn.update_layout(hovermode="x unified", height=900 if shown else 640, bargap=0.25)
    return known_alone(drawn, found.notes)


@draws(TangentKernel)
@found_by(kernel, TangentKernel)
def plot_kernel(found: TangentKernel) -> Figure:
    """How far the tangent kernel has moved from the first step's, and how near the labels' it is.

    Means over the sets of probes, with bars from the smallest to the largest set. A dotted line
    marks `memorization_step`, the transition (from the end of memorisation to that of cleanup) is
    shaded. Both are cosines of kernels: their scale is nothing to them.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_kernel(gi.load("mod31-small"), steps=[0, 300, 10000], sets=2, probes=1)
    >>> [line.name for line in drawn.data], drawn.layout.yaxis.title.text
    (['distance from step 0', 'alignment with the labels'], '1 - alignment')
    """
    checked(found, TangentKernel, "geometry.kernel")
    lazy, rich = word_of(found.lazy), word_of(found.rich)
    told = f"lazy at memorisation: {lazy}, rich at the transition: {rich}"
    drawn = figure(f"Tangent kernel<br>{told}", STEPS)
    drawn.set_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=2, col=1)
    for row, (name, values, unit, colour) in enumerate(
        (
            (f"distance from step {found.steps[0]}", found.distances, "1 - alignment", SERIES[1]),
            ("alignment with the labels", found.alignments, "alignment", SERIES[0]),
        ),
        start=1,
    ):
        mean = values.mean(dim=1)
        drawn.add_scatter(
            x=list(found.steps),
            y=mean.tolist(),
            error_y={
                "array": (values.amax(dim=1) - mean).tolist(),
                "arrayminus": (mean - values.amin(dim=1)).tolist(),
                "thickness": 1,
                "width": 3,
                "visible": found.sets > 1,
            },
            name=name,
            mode="lines+markers",
            marker={"size": 4},
            line={"color": colour},
            hovertemplate="%{y:.4g}",
            row=row,
            col=1,
        )
        drawn.update_yaxes(title_text=unit, rangemode="tozero", row=row, col=1)
    if found.transition is not None:
        start, end = found.transition
        drawn.add_vrect(
            x0=start, x1=end, fillcolor=PHASES["cleanup"], opacity=0.2, line_width=0, layer="below"
        )
        drawn.layout.shapes[-1].update(showlegend=True, name="transition")
    if (step := found.memorization_step) is not None:
        drawn.add_vline(x=step, line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]})
        drawn.layout.shapes[-1].update(showlegend=True, name=f"memorization_step {step}")
    return known_alone(drawn.update_layout(hovermode="x unified", height=600), found.notes)
