"""Figures: what `.plot()` on a result draws."""

from grokinterp.viz.encodings import plot_fourier_heat_map, plot_pruning_curves
from grokinterp.viz.frequencies import plot_key_frequencies
from grokinterp.viz.learning import plot_phases

__all__ = [
    "plot_fourier_heat_map",
    "plot_key_frequencies",
    "plot_phases",
    "plot_pruning_curves",
]
