"""What computes the answer: neurons, attention, ablations, attributions, the algorithm.

Every function takes `x` first, the rest by name:

x            a run, a snapshot, or a HookedTransformer or TransformerBridge with `task`
step         of a run: the checkpoint, -1 for the last
frequencies  the key frequencies; those of the logits (of a run's last checkpoint) unless given
task         of a model: what it was trained on, such as `gi.ModularTask("add", p=113)`
train_mask   of a model: true for every row a*p + b trained on; without it, train and test are null

Each returns a frozen dataclass with a `.table()`, leaves the model as it is, and raises InputError,
one line, for what the model or the task does not have. Losses are in nats, over the p answers.
"""

from grokinterp.circuits import hooks
from grokinterp.circuits.ablation import Ablation, ablate, spread
from grokinterp.circuits.algorithm import Algorithm, algorithm
from grokinterp.circuits.attention import Attention, attention, commutativity
from grokinterp.circuits.attention_fits import AttentionFits, attention_fits, fitted_patterns
from grokinterp.circuits.attention_inputs import AttentionPatterns, attention_patterns
from grokinterp.circuits.attention_readout import AttentionReadout, attention_readout
from grokinterp.circuits.attribution import Attribution, attribution
from grokinterp.circuits.circles import Circularity, circularity
from grokinterp.circuits.faithfulness import Faithfulness, faithfulness
from grokinterp.circuits.gradients import GradientSymmetricity, gradient_symmetricity
from grokinterp.circuits.graph import CircuitGraph, circuit_graph
from grokinterp.circuits.interventions import Intervention
from grokinterp.circuits.isolation import CircleIsolation, isolate_circles
from grokinterp.circuits.logit_shape import (
    DistanceIrrelevance,
    LogitForms,
    distance_irrelevance,
    logit_forms,
)
from grokinterp.circuits.neuron_logit import NeuronLogitMap, neuron_logit_directions
from grokinterp.circuits.neurons import NeuronClusters, neuron_clusters
from grokinterp.circuits.paper_table import PaperTable, paper_table
from grokinterp.circuits.polynomials import (
    PolynomialFits,
    fitted_neurons,
    polynomial_fits,
    relu_regression,
)
from grokinterp.circuits.standard import standard_interventions

__all__ = [
    "Ablation",
    "Algorithm",
    "Attention",
    "AttentionFits",
    "AttentionPatterns",
    "AttentionReadout",
    "Attribution",
    "CircleIsolation",
    "CircuitGraph",
    "Circularity",
    "DistanceIrrelevance",
    "Faithfulness",
    "GradientSymmetricity",
    "Intervention",
    "LogitForms",
    "NeuronClusters",
    "NeuronLogitMap",
    "PaperTable",
    "PolynomialFits",
    "ablate",
    "algorithm",
    "attention",
    "attention_fits",
    "attention_patterns",
    "attention_readout",
    "attribution",
    "circuit_graph",
    "circularity",
    "commutativity",
    "distance_irrelevance",
    "faithfulness",
    "fitted_neurons",
    "fitted_patterns",
    "gradient_symmetricity",
    "hooks",
    "isolate_circles",
    "logit_forms",
    "neuron_clusters",
    "neuron_logit_directions",
    "paper_table",
    "polynomial_fits",
    "relu_regression",
    "spread",
    "standard_interventions",
]
