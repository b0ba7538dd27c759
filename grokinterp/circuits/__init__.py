"""What computes the answer: neurons, attention, ablations, attributions, the algorithm.

Every function takes `x` first, the rest by name:

x            a run or its path, a snapshot, or a model (a HookedTransformer, say) with `task`
step         of a run: the checkpoint, -1 for the last
frequencies  the key frequencies; those of the logits (of a run's last checkpoint) unless given
task         of a model: what it was trained on, such as `gi.ModularTask("add", p=113)`
train_mask   of a model: true for every row a*p + b trained on; without it, train and test are null

Each returns a frozen dataclass with a `.table()`, leaves the model as it is, and raises InputError,
one line, for what the model or the task does not have. Losses are in nats, over the p answers.
"""

from grokinterp.base.names import room_names
from grokinterp.circuits import hooks, standard
from grokinterp.circuits._algorithm import Algorithm, algorithm
from grokinterp.circuits._attention import (
    Attention,
    AttentionPatterns,
    attention,
    attention_patterns,
    commutativity,
)
from grokinterp.circuits._attention_readout import (
    AttentionFits,
    AttentionReadout,
    attention_fits,
    attention_readout,
    fitted_patterns,
)
from grokinterp.circuits._attribution import Attribution, attribution
from grokinterp.circuits._paper_table import PaperTable, paper_table
from grokinterp.circuits.ablation import Ablation, ablate, ablation_ratios
from grokinterp.circuits.circles import CircleIsolation, Circularity, circularity, isolate_circles
from grokinterp.circuits.circuit import CircuitGraph, Faithfulness, circuit_graph, faithfulness
from grokinterp.circuits.clock_and_pizza import (
    DistanceIrrelevance,
    GradientSymmetricity,
    LogitForms,
    distance_irrelevance,
    gradient_symmetricity,
    logit_forms,
)
from grokinterp.circuits.interventions import Intervention
from grokinterp.circuits.neurons import (
    NeuronClusters,
    NeuronLogitMap,
    neuron_clusters,
    neuron_logit_directions,
)
from grokinterp.circuits.norms_of_clusters import ClusterNorms, cluster_norms
from grokinterp.circuits.polynomials import (
    PolynomialFits,
    fitted_neurons,
    polynomial_fits,
    relu_regression,
)
from grokinterp.fourier._key_frequencies import of_any_with_keys

standard_interventions = of_any_with_keys(standard.standard_interventions, needed=False)

__all__ = [
    "Ablation", "Algorithm", "Attention", "AttentionFits", "AttentionPatterns", "AttentionReadout",
    "Attribution", "CircleIsolation", "CircuitGraph", "Circularity", "ClusterNorms",
    "DistanceIrrelevance", "Faithfulness", "GradientSymmetricity", "Intervention", "LogitForms",
    "NeuronClusters", "NeuronLogitMap", "PaperTable", "PolynomialFits", "ablate", "ablation_ratios",
    "algorithm", "attention", "attention_fits", "attention_patterns", "attention_readout",
    "attribution", "circuit_graph", "circularity", "cluster_norms", "commutativity",
    "distance_irrelevance", "faithfulness", "fitted_neurons", "fitted_patterns",
    "gradient_symmetricity", "hooks", "isolate_circles", "logit_forms", "neuron_clusters",
    "neuron_logit_directions", "paper_table", "polynomial_fits", "relu_regression",
    "standard_interventions",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
