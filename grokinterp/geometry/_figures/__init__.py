"""What `.plot()` draws of the results of this room."""

from grokinterp.geometry._figures import curvature, paths

__all__ = ["curvature", "paths"]
