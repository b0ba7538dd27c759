"""Figures: what `.plot()` on a result draws."""

from grokinterp.viz.ablation import plot_ablation, plot_faithfulness
from grokinterp.viz.attention import circuitsvis_script, plot_attention
from grokinterp.viz.attribution import plot_attribution
from grokinterp.viz.circles import plot_embedding_circles
from grokinterp.viz.circuit import plot_circuit_graph
from grokinterp.viz.clusters import plot_neuron_clusters
from grokinterp.viz.comparison import comparison_page, plot_comparison
from grokinterp.viz.curves import plot_emergence, plot_phases, plot_progress
from grokinterp.viz.figure import Figure
from grokinterp.viz.geometry import plot_information_path, plot_trajectories
from grokinterp.viz.images import plot_correctness, plot_logits
from grokinterp.viz.neurons import plot_neuron_fourier, plot_neurons
from grokinterp.viz.phase_diagram import plot_phase_diagram
from grokinterp.viz.pruning import plot_pruning_curves
from grokinterp.viz.scaling import plot_scaling
from grokinterp.viz.spectra import (
    plot_embedding_heat_map,
    plot_embedding_spectrum,
    plot_fourier_heat_map,
    plot_key_frequencies,
    plot_neuron_logit_spectrum,
)
from grokinterp.viz.sweeps import sweep_page

__all__ = [
    "Figure",
    "circuitsvis_script",
    "comparison_page",
    "plot_ablation",
    "plot_attention",
    "plot_attribution",
    "plot_circuit_graph",
    "plot_comparison",
    "plot_correctness",
    "plot_embedding_circles",
    "plot_embedding_heat_map",
    "plot_embedding_spectrum",
    "plot_emergence",
    "plot_faithfulness",
    "plot_fourier_heat_map",
    "plot_information_path",
    "plot_key_frequencies",
    "plot_logits",
    "plot_neuron_clusters",
    "plot_neuron_fourier",
    "plot_neuron_logit_spectrum",
    "plot_neurons",
    "plot_phase_diagram",
    "plot_phases",
    "plot_progress",
    "plot_pruning_curves",
    "plot_scaling",
    "plot_trajectories",
    "sweep_page",
]
