"""The figure functions under their names of 0.2.0; `.plot()` of a result draws the same."""

from grokinterp.base.names import room_names
from grokinterp.circuits._figures.ablation import plot_ablation, plot_faithfulness
from grokinterp.circuits._figures.answers import (
    circuitsvis_script,
    plot_attention,
    plot_attribution,
    plot_correctness,
    plot_logits,
)
from grokinterp.circuits._figures.circles import plot_embedding_circles
from grokinterp.circuits._figures.graph import plot_circuit_graph
from grokinterp.circuits._figures.neurons import (
    plot_neuron_clusters,
    plot_neuron_fourier,
    plot_neurons,
)
from grokinterp.circuits._figures.norms import plot_cluster_norms
from grokinterp.claims._figures.held_norms import plot_norm_landscape
from grokinterp.claims._figures.speed_ups import plot_speed_ups
from grokinterp.claims._figures.training_sizes import plot_critical_size
from grokinterp.claims._figures.verdicts import explain_page, plot_explain
from grokinterp.comparison._figures import comparison_page, plot_comparison
from grokinterp.encodings._figures import plot_efficiency, plot_pruning_curves, plot_ranks
from grokinterp.figures._figure import Figure
from grokinterp.fourier._figures import (
    plot_embedding_heat_map,
    plot_embedding_spectrum,
    plot_fourier_heat_map,
    plot_key_frequencies,
    plot_neuron_logit_spectrum,
)
from grokinterp.geometry._figures.basin import plot_learning_coefficient
from grokinterp.geometry._figures.curvature import (
    plot_curvature,
    plot_noise_radius,
    plot_spectral_density,
)
from grokinterp.geometry._figures.line import plot_mode_connectivity
from grokinterp.geometry._figures.loss_slices import plot_loss_slice
from grokinterp.geometry._figures.paths import (
    plot_drift,
    plot_information_path,
    plot_kernel,
    plot_trajectories,
)
from grokinterp.geometry._figures.plane import plot_weight_plane
from grokinterp.geometry._figures.representations import plot_clouds, plot_representations
from grokinterp.geometry._figures.used_or_not import plot_routing
from grokinterp.progress._figures.curves import plot_emergence, plot_phases, plot_progress
from grokinterp.progress._figures.transitions import (
    plot_abruptness,
    plot_descents,
    plot_phase_shares,
    plot_slingshots,
)
from grokinterp.sweeps._figures.page import sweep_page
from grokinterp.sweeps._figures.phase_diagram import plot_phase_diagram
from grokinterp.sweeps._figures.scaling import plot_scaling
from grokinterp.training._figures import plot_balance

__all__ = [
    "Figure", "circuitsvis_script", "comparison_page", "explain_page", "plot_ablation",
    "plot_abruptness", "plot_attention", "plot_attribution", "plot_balance",
    "plot_circuit_graph", "plot_clouds", "plot_cluster_norms", "plot_comparison",
    "plot_correctness", "plot_critical_size", "plot_curvature", "plot_descents", "plot_drift",
    "plot_efficiency", "plot_embedding_circles", "plot_embedding_heat_map",
    "plot_embedding_spectrum", "plot_emergence", "plot_explain", "plot_faithfulness",
    "plot_fourier_heat_map", "plot_information_path", "plot_kernel", "plot_key_frequencies",
    "plot_learning_coefficient", "plot_logits", "plot_loss_slice", "plot_mode_connectivity",
    "plot_neuron_clusters", "plot_neuron_fourier", "plot_neuron_logit_spectrum", "plot_neurons",
    "plot_noise_radius", "plot_norm_landscape", "plot_phase_diagram", "plot_phase_shares",
    "plot_phases", "plot_progress", "plot_pruning_curves", "plot_ranks", "plot_representations",
    "plot_routing", "plot_scaling", "plot_slingshots", "plot_spectral_density",
    "plot_speed_ups", "plot_trajectories", "plot_weight_plane", "sweep_page",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
