"""What `.plot()` draws of the results of this room: curves over training, and what they tell."""

from grokinterp.progress._figures import curves, transitions

__all__ = ["curves", "transitions"]
