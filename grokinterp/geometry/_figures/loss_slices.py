"""Pictures of the loss along a line or on a plane through the weights."""

import numpy as np

from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    FROM_ZERO,
    SERIES,
    Figure,
    at,
    checked,
    figure,
    place,
    small_multiples,
)
from grokinterp.figures.heat_maps import BAR
from grokinterp.geometry.slices_of_loss import LossSlice, loss_slice

LEAST = 1e-12  # nats: what a log axis can show of a loss of 0
OF_ROWS = {"train": COLOURS["train"], "unmirrored": COLOURS["test"], "test": COLOURS["test"]}


@draws(LossSlice)
@found_by(loss_slice, LossSlice)
def plot_loss_slice(found: LossSlice) -> Figure:
    """The loss (log) and the accuracy along a line; on a plane, contours of the loss.

    Lines are in the colours of the rows; dotted lines mark the checkpoints. On a plane the first
    direction goes to the right, colours and contours are powers of ten of the loss in nats, and a
    cross marks the checkpoint.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_loss_slice(gi.load("mod31-small"), n_points=5)
    >>> [line.name for line in drawn.data[:2]], drawn.layout.yaxis.title.text
    (['train', 'unmirrored'], 'loss (nats)')
    """
    checked(found, LossSlice, "geometry.loss_slice")
    return _line(found) if len(found.directions) == 1 else _plane(found)


def _line(found: LossSlice) -> Figure:
    between = found.normalise is None
    title = (
        f"Loss along a random direction{at(found.step)}<br>a step of 1 is as long as the weights"
    )
    axis = "alpha"
    if between:
        where = f"step {found.to}" + (f" of {found.other}" if found.other else "")
        title = f"Loss on the straight line from step {found.step} to {where}"
        axis = f"alpha (0: step {found.step}, 1: {where})"
    drawn = figure(title)
    drawn.set_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for i, name in enumerate(found.rows):
        colour = OF_ROWS.get(name, SERIES[2 + i])
        for row, (values, hover) in enumerate(
            (
                (found.losses[name].clamp(min=LEAST), "%{y:.4g}"),
                (found.accuracies[name], "%{y:.1%}"),
            ),
            start=1,
        ):
            drawn.add_scatter(
                x=list(found.alphas), y=values.tolist(), name=name, legendgroup=name,
                showlegend=row == 1, mode="lines+markers", marker={"size": 3},
                line={"color": colour}, hovertemplate=hover, row=row, col=1,
            )  # fmt: skip
    for end in (0, 1) if between else (0,):
        drawn.add_vline(x=end, line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]})
    drawn.data = tuple(sorted(drawn.data, key=lambda trace: not trace.showlegend))
    drawn.update_yaxes(
        title_text="loss (nats)", type="log", exponentformat="power", minexponent=2, row=1, col=1
    )
    drawn.update_yaxes(title_text="accuracy", range=[-0.03, 1.03], row=2, col=1)
    drawn.update_xaxes(title_text=axis, row=2, col=1)
    return drawn.update_layout(hovermode="x unified", height=600)


def _plane(found: LossSlice) -> Figure:
    logs = {name: found.losses[name].clamp(min=LEAST).log10().T.numpy() for name in found.rows}
    low = min(float(z.min()) for z in logs.values())
    high = max(float(z.max()) for z in logs.values())
    levels = {"start": np.floor(low), "end": np.ceil(high), "size": 0.5}
    drawn = small_multiples(
        f"Loss on a plane of two random directions{at(found.step)}<br>"
        "steps of 1 are as long as the weights",
        list(logs), "alpha", "beta",
    )  # fmt: skip
    for i, (name, z) in enumerate(logs.items()):
        drawn.add_contour(
            x=list(found.alphas), y=list(found.alphas), z=z, name=name, colorscale=FROM_ZERO,
            zmin=low, zmax=high, contours=levels,
            line={"width": 0.5}, showscale=i == 0,
            colorbar=BAR | {"title": {"text": "log10 of the loss (nats)", "side": "top"}},
            hovertemplate="%{x:.3g}, %{y:.3g}: 10^%{z:.3g} nats<extra>" + name + "</extra>",
            **place(i),
        )  # fmt: skip
        drawn.add_scatter(
            x=[0], y=[0], mode="markers", marker={"symbol": "x-thin-open", "size": 9,
            "color": COLOURS["test"], "line": {"width": 2}}, showlegend=False, hoverinfo="skip",
            **place(i),
        )  # fmt: skip
    return drawn
