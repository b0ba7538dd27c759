"""What `.plot()` draws of the results of this room, and pictures of single models."""

from grokinterp.circuits._figures import ablation, answers, circles, graph, neurons, norms

__all__ = ["ablation", "answers", "circles", "graph", "neurons", "norms"]
