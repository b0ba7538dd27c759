"""The training loop."""

from grokinterp.training.loop import train

__all__ = ["train"]
