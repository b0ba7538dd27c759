"""What computes the answer: neurons, attention, ablations, attributions, the algorithm."""

from grokinterp.circuits import hooks
from grokinterp.circuits.ablation import Ablation, ablate, spread
from grokinterp.circuits.interventions import Intervention
from grokinterp.circuits.neuron_logit import NeuronLogitMap, neuron_logit_directions
from grokinterp.circuits.neurons import NeuronClusters, neuron_clusters
from grokinterp.circuits.polynomials import (
    PolynomialFits,
    fitted_neurons,
    polynomial_fits,
    relu_regression,
)
from grokinterp.circuits.standard import standard_interventions

__all__ = [
    "Ablation",
    "Intervention",
    "NeuronClusters",
    "NeuronLogitMap",
    "PolynomialFits",
    "ablate",
    "fitted_neurons",
    "hooks",
    "neuron_clusters",
    "neuron_logit_directions",
    "polynomial_fits",
    "relu_regression",
    "spread",
    "standard_interventions",
]
