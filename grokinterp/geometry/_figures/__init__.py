"""What `.plot()` draws of the results of this room."""

from grokinterp.geometry._figures import paths

__all__ = ["paths"]
