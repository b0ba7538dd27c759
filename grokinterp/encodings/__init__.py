"""How economically a model encodes what it learnt: pruning, bases of weights, sizes.

Every measure takes `x` first (a run, a snapshot, or a model with `task`; those over training a
run), the rest by name, and returns a table, or a frozen dataclass with a `.table()`. What cannot be
measured is an InputError, one line.
"""

from grokinterp.encodings.bases import Coordinates, coordinates
from grokinterp.encodings.compressibility import compressibility
from grokinterp.encodings.features import features, observable_correlations
from grokinterp.encodings.fisher import FisherDiagonal, fisher_diagonal
from grokinterp.encodings.pruning import (
    PruningOrder,
    magnitudes,
    prune,
    pruning_order,
    weight_names,
)
from grokinterp.encodings.pruning_curves import PruningCurve, pruning_curve
from grokinterp.encodings.run_measures import RUN_MEASURES, check_run_measures, measured
from grokinterp.encodings.sizes import (
    QuantizedSize,
    Sizes,
    compressed_bytes,
    effective_rank,
    quantize,
    quantized_size,
    sizes,
)
from grokinterp.fourier.localization import NeuronIPR, fourier_heat_map, neuron_ipr

__all__ = [
    "RUN_MEASURES",
    "Coordinates",
    "FisherDiagonal",
    "NeuronIPR",
    "PruningCurve",
    "PruningOrder",
    "QuantizedSize",
    "Sizes",
    "check_run_measures",
    "compressed_bytes",
    "compressibility",
    "coordinates",
    "effective_rank",
    "features",
    "fisher_diagonal",
    "fourier_heat_map",
    "magnitudes",
    "measured",
    "neuron_ipr",
    "observable_correlations",
    "prune",
    "pruning_curve",
    "pruning_order",
    "quantize",
    "quantized_size",
    "sizes",
    "weight_names",
]
