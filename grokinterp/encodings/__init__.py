"""How a model encodes what it learnt, and how it came there: features, pruning, sizes."""

from grokinterp.base.names import room_names
from grokinterp.encodings._sizes import (
    QuantizedSize,
    Sizes,
    compressed_bytes,
    quantize,
    quantized_size,
    sizes,
)
from grokinterp.encodings.bases import Coordinates, coordinates
from grokinterp.encodings.circuit_efficiency import (
    Efficiency,
    EfficiencyFit,
    efficiency,
    efficiency_fit,
)
from grokinterp.encodings.pruning import (
    PruningOrder,
    magnitudes,
    prune,
    pruning_order,
    weight_names,
)
from grokinterp.encodings.pruning_curves import PruningCurve, compressibility, pruning_curve
from grokinterp.encodings.ranks_over_training import Ranks, ranks
from grokinterp.encodings.run_measures import features, observable_correlations
from grokinterp.geometry.ranks_of_matrices import effective_rank, effective_ranks

__all__ = [
    "Coordinates", "Efficiency", "EfficiencyFit", "PruningCurve", "PruningOrder", "QuantizedSize",
    "Ranks", "Sizes", "compressed_bytes", "compressibility", "coordinates", "effective_rank",
    "effective_ranks", "efficiency", "efficiency_fit", "features", "magnitudes",
    "observable_correlations", "prune", "pruning_curve", "pruning_order", "quantize",
    "quantized_size", "ranks", "sizes", "weight_names",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
