"""What `.plot()` draws of the results of this room, and pictures of single models."""

from grokinterp.circuits._figures import ablation, answers, representations

__all__ = ["ablation", "answers", "representations"]
