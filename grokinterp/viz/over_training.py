"""Figures that move through training: one figure a step becomes one with a slider and a button."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool
from plotly.basedatatypes import BasePlotlyType
from torch import Tensor

from grokinterp.circuits.subject import Subject, steps_of, subject_of
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.task import Task
from grokinterp.viz.figure import Figure

Draw = Callable[[Snapshot, tuple[int, ...]], Figure]  # of a model and its key frequencies


def draw_steps(
    x: Subject,
    draw: Draw,
    *,
    step: int | Sequence[int] | Literal["all"] = -1,
    frequencies: Sequence[int] | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Figure:
    """What `draw` makes of one step, or of several with a slider: the arguments of `gi.ablate`."""
    figures: dict[int, Figure] = {}
    for one in steps_of(x, step):
        snapshot, keys = subject_of(
            x, step=one, frequencies=frequencies, task=task, train_mask=train_mask
        )
        figures[-1 if snapshot.step is None else snapshot.step] = draw(snapshot, keys)
    return over_training(figures)


def over_training(figures: Mapping[int, Figure]) -> Figure:
    """The figure of the last step with a frame for every step, and controls to move through them.

    The figures are of one kind: as many traces, of the same types, in the same order. A frame,
    named by its step, holds what differs from the figure of the last step in any frame.
    """
    *_, last = figures
    still = figures[last]
    if len(figures) == 1:
        return still
    several = list(figures.values())
    changed = [_differing([figure.data[i] for figure in several]) for i in range(len(still.data))]
    traces = [i for i, names in enumerate(changed) if names]
    layout = _differing([figure.layout for figure in several])
    frames = [
        {
            "name": str(step),
            "traces": traces,
            "data": [
                {"type": still.data[i].type} | {name: figure.data[i][name] for name in changed[i]}
                for i in traces
            ],
            "layout": {name: figure.layout[name] for name in layout},
        }
        for step, figure in figures.items()
    ]
    drawn = Figure(data=still.data, layout=still.layout, frames=frames)
    return drawn.update_layout(**_controls([str(step) for step in figures]))


def _differing(several: Sequence[BasePlotlyType]) -> list[str]:
    """The attributes that are not the same in all."""
    names = dict.fromkeys(name for one in several for name in one.to_plotly_json())
    first = several[0]
    return [
        name for name in names if not all(_equal(first[name], one[name]) for one in several[1:])
    ]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)  # NaN differ from NaN: such a value is in every frame
    return bool(one == other)


def _controls(steps: Sequence[str]) -> dict[str, Any]:
    at_once = {"mode": "immediate", "transition": {"duration": 0}}
    to_one = {**at_once, "frame": {"duration": 0, "redraw": True}}
    through = {**at_once, "frame": {"duration": 250, "redraw": True}, "fromcurrent": True}
    slider = {
        "active": len(steps) - 1,
        "currentvalue": {"prefix": "step ", "xanchor": "right"},
        "steps": [{"label": step, "method": "animate", "args": [[step], to_one]} for step in steps],
        "x": 0.12,
        "len": 0.88,
        "pad": {"t": 55},
    }
    menu = {
        "type": "buttons",
        "direction": "left",
        "showactive": False,
        "buttons": [
            {"label": "▶", "method": "animate", "args": [None, through]},
            {"label": "❚❚", "method": "animate", "args": [[None], to_one]},
        ],
        "x": 0,
        "xanchor": "left",
        "y": 0,
        "yanchor": "top",
        "pad": {"t": 65},
    }
    return {"sliders": [slider], "updatemenus": [menu]}
