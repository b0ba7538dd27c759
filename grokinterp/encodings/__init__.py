"""How a model encodes what it learnt, and how it came there: features, pruning, geometry, regimes.

Every measure takes `x` first (a run, a snapshot, or a model with `task`; those over training a
run), the rest by name, and returns a table, or a frozen dataclass with a `.table()`. What cannot be
measured is an InputError, one line.
"""

from grokinterp.encodings.bases import Coordinates, coordinates
from grokinterp.encodings.comparison import (
    Claim,
    Comparison,
    RunProfile,
    compare,
)
from grokinterp.encodings.compressibility import compressibility
from grokinterp.encodings.features import features, observable_correlations
from grokinterp.encodings.geometry.fisher import FisherDiagonal, fisher_diagonal
from grokinterp.encodings.geometry.limits import Limit
from grokinterp.encodings.geometry.metric import FisherMetric, fisher_metric
from grokinterp.encodings.geometry.paths import (
    InformationPath,
    information_path,
    path_of,
    stages_of,
)
from grokinterp.encodings.geometry.predictions import (
    fisher_rao_distance,
    geodesic_point,
    pairwise_distances,
    root_probabilities,
)
from grokinterp.encodings.geometry.step_geometry import step_geometry
from grokinterp.encodings.geometry.trajectories import TrajectoryEmbedding, trajectory_embedding
from grokinterp.encodings.pruning import (
    PruningOrder,
    magnitudes,
    prune,
    pruning_order,
    weight_names,
)
from grokinterp.encodings.pruning_curves import PruningCurve, pruning_curve
from grokinterp.encodings.run_measures import RUN_MEASURES, measured, measuring
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
    "Claim",
    "Comparison",
    "Coordinates",
    "FisherDiagonal",
    "FisherMetric",
    "InformationPath",
    "Limit",
    "NeuronIPR",
    "PruningCurve",
    "PruningOrder",
    "QuantizedSize",
    "RunProfile",
    "Sizes",
    "TrajectoryEmbedding",
    "compare",
    "compressed_bytes",
    "compressibility",
    "coordinates",
    "effective_rank",
    "features",
    "fisher_diagonal",
    "fisher_metric",
    "fisher_rao_distance",
    "fourier_heat_map",
    "geodesic_point",
    "information_path",
    "magnitudes",
    "measured",
    "measuring",
    "neuron_ipr",
    "observable_correlations",
    "pairwise_distances",
    "path_of",
    "prune",
    "pruning_curve",
    "pruning_order",
    "quantize",
    "quantized_size",
    "root_probabilities",
    "sizes",
    "stages_of",
    "step_geometry",
    "trajectory_embedding",
    "weight_names",
]
