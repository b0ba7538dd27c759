"""What papers say, tested on runs: a claim, its verdict, and the evidence it rests on.

>>> import grokinterp as gi
>>> found = gi.claims.CLAIMS.find("straight_path")
>>> print(found.statement)
a model that groks moves along a straight path in information space
>>> found.needs
'runs'
"""

from grokinterp.base.names import room_names
from grokinterp.claims._critical_size import Bracket, CriticalSize, critical_size
from grokinterp.claims._explain import Claims, explain
from grokinterp.claims.acceleration_methods import METHODS, Method, accelerations
from grokinterp.claims.control_experiments import Control, controls, every_control
from grokinterp.claims.evidence import Evidence
from grokinterp.claims.held_norms import NormLandscape, norm_landscape
from grokinterp.claims.paired_dates import SpeedUp
from grokinterp.claims.registry import CLAIMS, Claim, Finding, Threshold, Undetermined, claim
from grokinterp.claims.run_evidence import ControlEvidence, ControlRun, RunEvidence
from grokinterp.claims.sooner_than_baseline import SpeedUps, speed_ups
from grokinterp.claims.update_times import UpdateTimes, seconds_per_update
from grokinterp.claims.zone_of_norms import Zone

__all__ = [
    "CLAIMS", "METHODS", "Bracket", "Claim", "Claims", "Control", "ControlEvidence", "ControlRun",
    "CriticalSize", "Evidence", "Finding", "Method", "NormLandscape", "RunEvidence", "SpeedUp",
    "SpeedUps", "Threshold", "Undetermined", "UpdateTimes", "Zone", "accelerations", "claim",
    "controls", "critical_size", "every_control", "explain", "norm_landscape", "seconds_per_update",
    "speed_ups",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
