"""The training loop, and sweeps of many runs."""

from grokinterp.training.loop import train
from grokinterp.training.sweep import Sweep
from grokinterp.training.sweep_driver import run_sweep

__all__ = ["Sweep", "run_sweep", "train"]
