"""What `.plot()` draws of the results of this room."""

from grokinterp.geometry._figures import basin, loss_slices, paths

__all__ = ["basin", "loss_slices", "paths"]
