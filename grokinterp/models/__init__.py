"""Which network: its shape and weights, TransformerLens, any module, and the fast forward.

`MODELS` has what recipes know by name; a model of one's own is a class more.

>>> from dataclasses import dataclass
>>> import torch
>>> import grokinterp as gi
>>> gi.models.MODELS.find("mlp") is gi.models.MLPArchitecture, "transformer" in gi.models.MODELS
(True, True)
>>> @gi.models.register_model("bag-of-tokens")  # gi.register.model is the same
... @dataclass(frozen=True, kw_only=True)
... class BagOfTokens(gi.models.ModuleArchitecture):
...     width: int = 16
...     def module(self, task):
...         bag = torch.nn.EmbeddingBag(task.d_vocab, self.width)
...         return torch.nn.Sequential(bag, torch.nn.Linear(self.width, task.n_classes))
>>> recipe = gi.Recipe(model="bag-of-tokens", p=5, width=8)
>>> recipe.architecture().parameter_shapes()
{'0.weight': (6, 8), '1.weight': (5, 8), '1.bias': (5,)}
>>> del gi.models.MODELS["bag-of-tokens"]  # take it out again
"""

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
