"""What `.plot()` draws of the results of this room."""

from grokinterp.geometry._figures import paths, representations

__all__ = ["paths", "representations"]
