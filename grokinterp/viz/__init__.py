"""Figures: what `.plot()` on a result draws."""

from grokinterp.viz.comparison import comparison_page, plot_comparison
from grokinterp.viz.encodings import plot_fourier_heat_map, plot_pruning_curves
from grokinterp.viz.figure import Figure
from grokinterp.viz.frequencies import plot_key_frequencies
from grokinterp.viz.images import plot_correctness
from grokinterp.viz.learning import plot_phases

__all__ = [
    "Figure",
    "comparison_page",
    "plot_comparison",
    "plot_correctness",
    "plot_fourier_heat_map",
    "plot_key_frequencies",
    "plot_phases",
    "plot_pruning_curves",
]
