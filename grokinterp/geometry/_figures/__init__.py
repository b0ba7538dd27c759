"""What `.plot()` draws of the results of this room."""

from grokinterp.geometry._figures import curvature, line, paths, plane, used_or_not

__all__ = ["curvature", "line", "paths", "plane", "used_or_not"]
