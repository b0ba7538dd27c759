"""The training loop, ensembles, training a run's beginning again, and what moved the weights."""

from grokinterp.base.names import room_names
from grokinterp.training.decay_balance import Balance, balance
from grokinterp.training.ensemble import EnsembleTiming, faster_as_ensemble, groups, train_ensemble
from grokinterp.training.loop import train
from grokinterp.training.verification import Verification, verify

__all__ = [
    "Balance", "EnsembleTiming", "Verification", "balance", "faster_as_ensemble", "groups", "train",
    "train_ensemble", "verify",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
