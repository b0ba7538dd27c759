"""Figures: what `.plot()` on a result draws."""

from grokinterp.viz.attention import circuitsvis_script, plot_attention
from grokinterp.viz.circles import plot_embedding_circles
from grokinterp.viz.comparison import comparison_page, plot_comparison
from grokinterp.viz.encodings import plot_fourier_heat_map, plot_pruning_curves
from grokinterp.viz.figure import Figure
from grokinterp.viz.frequencies import plot_key_frequencies
from grokinterp.viz.images import plot_correctness, plot_logits
from grokinterp.viz.learning import plot_phases
from grokinterp.viz.neurons import plot_neuron_fourier, plot_neurons

__all__ = [
    "Figure",
    "circuitsvis_script",
    "comparison_page",
    "plot_attention",
    "plot_comparison",
    "plot_correctness",
    "plot_embedding_circles",
    "plot_fourier_heat_map",
    "plot_key_frequencies",
    "plot_logits",
    "plot_neuron_fourier",
    "plot_neurons",
    "plot_phases",
    "plot_pruning_curves",
]
