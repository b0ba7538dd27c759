"""How far a run has come: progress measures over its checkpoints, and its phases."""

from grokinterp.progress.detection import detect_phases
from grokinterp.progress.losses import (
    excluded_loss,
    excluded_loss_demo,
    restricted_loss,
    restricted_loss_demo,
    trig_loss,
)
from grokinterp.progress.measures import MEASURES, measure
from grokinterp.progress.phases import Phase, Phases, Thresholds
from grokinterp.progress.table import measure_snapshot, progress_measures

__all__ = [
    "MEASURES",
    "Phase",
    "Phases",
    "Thresholds",
    "detect_phases",
    "excluded_loss",
    "excluded_loss_demo",
    "measure",
    "measure_snapshot",
    "progress_measures",
    "restricted_loss",
    "restricted_loss_demo",
    "trig_loss",
]
