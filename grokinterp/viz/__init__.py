"""Figures: what `.plot()` on a result draws."""

from grokinterp.viz.frequencies import plot_key_frequencies
from grokinterp.viz.learning import plot_phases

__all__ = ["plot_key_frequencies", "plot_phases"]
