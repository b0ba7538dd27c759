"""Which network: its shape and weights, TransformerLens, any module, and the fast forward."""

from grokinterp.base.names import room_names
from grokinterp.models.architecture import MODELS, BaseArchitecture, register_model
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.models.module import GivenModule, ModuleArchitecture
from grokinterp.models.transformer import TransformerArchitecture

__all__ = [
    "MODELS", "BaseArchitecture", "CNNArchitecture", "GivenModule", "MLPArchitecture",
    "ModuleArchitecture", "TransformerArchitecture", "cross_entropies", "register_model",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
