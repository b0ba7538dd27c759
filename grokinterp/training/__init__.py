"""The training loop, ensembles, and training a run's beginning again."""

from grokinterp.base.names import room_names
from grokinterp.training.ensemble import EnsembleTiming, faster_as_ensemble, groups, train_ensemble
from grokinterp.training.loop import train
from grokinterp.training.verification import Verification, verify

__all__ = [
    "EnsembleTiming", "Verification", "faster_as_ensemble", "groups", "train", "train_ensemble",
    "verify",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
