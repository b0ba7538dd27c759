"""Runs side by side by regime, with verdicts on published claims about regimes.

>>> import grokinterp as gi
>>> gi.comparison.PROFILED["c"]
'compressibility, magnitude pruning within each matrix'
"""

from grokinterp.base.names import room_names
from grokinterp.comparison._compare import Comparison, compare
from grokinterp.comparison.lineup import RunProfile
from grokinterp.comparison.profile import PROFILED

__all__ = ["PROFILED", "Comparison", "RunProfile", "compare"]
__getattr__, __dir__ = room_names(__name__, __all__)
