"""Figures that move through training: one per step becomes one with a slider and a button."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from plotly.basedatatypes import BasePlotlyType

from grokinterp.figures._figure import Figure


def over_training(figures: Mapping[int, Figure]) -> Figure:
    """The figure of the last step with a frame for every step, and controls to move through them.

    The figures are of one kind: as many traces, of the same types, in the same order. A frame,
    named by its step, holds only what is not the same at all steps: plotly works out the places of
    axes by itself, and a frame that had them would undo that.
    """
    figures = dict(sorted(figures.items()))
    *_, last = figures
    still = figures[last]
    if len(figures) == 1:
        return still
    several = figures.values()
    traces = [_differing([drawn.data[i] for drawn in several]) for i in range(len(still.data))]
    moving = [i for i, steps in enumerate(traces) if steps[0]]
    layouts = _differing([drawn.layout for drawn in several], parts=True)
    frames = [
        {
            "name": str(step),
            "traces": moving,
            "data": [{"type": still.data[i].type} | traces[i][k] for i in moving],
            "layout": layouts[k],
        }
        for k, step in enumerate(figures)
    ]
    drawn = Figure(data=still.data, layout=still.layout, frames=frames)
    return drawn.update_layout(**_controls([str(step) for step in figures]))


def _differing(several: Sequence[BasePlotlyType], *, parts: bool = False) -> list[dict[str, Any]]:
    """Of each the attributes that are not the same in all; with `parts`, such parts of them."""
    found: list[dict[str, Any]] = [{} for _ in several]
    for name in dict.fromkeys(name for one in several for name in one.to_plotly_json()):
        values = [one[name] for one in several]
        if all(_equal(values[0], value) for value in values[1:]):
            continue
        if parts and isinstance(values[0], BasePlotlyType):
            values = _differing(values)
        for own, value in zip(found, values, strict=True):
            own[name] = value
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(one, other)  # NaN differ from NaN: such a value is in every frame
    return bool(one == other)


def _controls(steps: Sequence[str]) -> dict[str, Any]:
    """The slider, and the buttons that play and pause."""
    at_once = {"mode": "immediate", "transition": {"duration": 0}}
    to_one = {**at_once, "frame": {"duration": 0, "redraw": True}}
    through = {**at_once, "frame": {"duration": 250, "redraw": True}, "fromcurrent": True}
    slider = {
        "active": len(steps) - 1,
        "currentvalue": {"prefix": "step ", "xanchor": "right"},
        "steps": [{"label": step, "method": "animate", "args": [[step], to_one]} for step in steps],
        "pad": {"t": 55, "l": 95},  # right of the buttons
    }
    menu = {
        "buttons": [
            {"label": "▶", "method": "animate", "args": [None, through]},
            {"label": "❚❚", "method": "animate", "args": [[None], to_one]},
        ],
        "type": "buttons", "direction": "left", "showactive": False, "pad": {"t": 65},
        "x": 0, "xanchor": "left", "y": 0, "yanchor": "top",
    }  # fmt: skip
    return {"sliders": [slider], "updatemenus": [menu]}
