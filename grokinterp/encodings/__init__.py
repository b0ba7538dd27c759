"""How a model encodes what it learnt, and how it came there: features, pruning, sizes.

Every measure takes `x` first (a run, a snapshot, or a model with `task`; those over training a
run), the rest by name, and returns a table, or a frozen dataclass with a `.table()`. What cannot be
measured is an InputError, one line.
"""

import grokinterp.encodings.run_measures  # noqa: F401 - registers them
from grokinterp.base.names import room_names
from grokinterp.encodings._features import features, observable_correlations
from grokinterp.encodings._sizes import (
    QuantizedSize,
    Sizes,
    compressed_bytes,
    effective_rank,
    quantize,
    quantized_size,
    sizes,
)
from grokinterp.encodings.bases import Coordinates, coordinates
from grokinterp.encodings.pruning import (
    PruningOrder,
    magnitudes,
    prune,
    pruning_order,
    weight_names,
)
from grokinterp.encodings.pruning_curves import PruningCurve, compressibility, pruning_curve

__all__ = [
    "Coordinates",
    "PruningCurve",
    "PruningOrder",
    "QuantizedSize",
    "Sizes",
    "compressed_bytes",
    "compressibility",
    "coordinates",
    "effective_rank",
    "features",
    "magnitudes",
    "observable_correlations",
    "prune",
    "pruning_curve",
    "pruning_order",
    "quantize",
    "quantized_size",
    "sizes",
    "weight_names",
]
__getattr__, __dir__ = room_names(__name__, __all__)
