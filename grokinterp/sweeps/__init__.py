"""Sweeps of many runs: their file, who makes the runs, their table, statistics over seeds.

>>> import grokinterp as gi
>>> "sizes" in gi.sweeps.RUN_MEASURES
True
>>> columns = gi.sweeps.RUN_MEASURES["sizes"](gi.load("mod31-small"))
>>> list(columns), round(columns["effective_rank"], 1)
(['gini_weights', 'effective_rank', 'bytes'], 8.9)
"""

from grokinterp.base.names import room_names
from grokinterp.sweeps.driver import run_sweep
from grokinterp.sweeps.statistics import Contrast, MedianInterval, contrast, median_interval
from grokinterp.sweeps.sweep import Sweep
from grokinterp.sweeps.table import RUN_MEASURES, measured, measuring

__all__ = [
    "RUN_MEASURES", "Contrast", "MedianInterval", "Sweep", "contrast", "measured", "measuring",
    "median_interval", "run_sweep",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
