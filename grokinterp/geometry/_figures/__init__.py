"""What `.plot()` draws of the results of this room."""

from grokinterp.geometry._figures import (
    basin,
    curvature,
    line,
    loss_slices,
    paths,
    plane,
    representations,
    used_or_not,
)

__all__ = [
    "basin",
    "curvature",
    "line",
    "loss_slices",
    "paths",
    "plane",
    "representations",
    "used_or_not",
]
