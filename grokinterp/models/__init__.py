"""Which network: its shape and weights, TransformerLens, any module, and the fast forward."""

from grokinterp.base.names import room_names
from grokinterp.models.architecture import Architecture, initial_weights
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.kinds import build_model
from grokinterp.models.mlp import MLPArchitecture

__all__ = [
    "Architecture",
    "CNNArchitecture",
    "MLPArchitecture",
    "build_model",
    "cross_entropies",
    "initial_weights",
]
__getattr__, __dir__ = room_names(__name__, __all__)
