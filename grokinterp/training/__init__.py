"""The training loop, sweeps of many runs, and training the beginning of a run again."""

from grokinterp.training.loop import train
from grokinterp.training.sweep import Sweep
from grokinterp.training.sweep_driver import run_sweep
from grokinterp.training.verifying import Verification, verify

__all__ = ["Sweep", "Verification", "run_sweep", "train", "verify"]
