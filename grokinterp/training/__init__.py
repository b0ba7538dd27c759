"""The training loop, sweeps of many runs, ensembles, and training a run's beginning again."""

from grokinterp.training.ensemble import train_ensemble
from grokinterp.training.ensemble_timing import EnsembleTiming, faster_as_ensemble
from grokinterp.training.grouping import groups
from grokinterp.training.loop import train
from grokinterp.training.sweep import Sweep
from grokinterp.training.sweep_driver import run_sweep
from grokinterp.training.verifying import Verification, verify

__all__ = [
    "EnsembleTiming",
    "Sweep",
    "Verification",
    "faster_as_ensemble",
    "groups",
    "run_sweep",
    "train",
    "train_ensemble",
    "verify",
]
