"""How far a run has come: progress measures over its checkpoints, its label and its phases.

`MEASURES` has every measure by name, in the order of the columns of a table.

>>> import grokinterp as gi
>>> list(gi.progress.MEASURES)[:3]
['train_loss', 'test_loss', 'train_acc']
>>> gi.progress.MEASURES["sum_sq_weights"].meaning
'Sum of squares of all parameters, biases included.'
"""

from grokinterp.base.names import room_names
from grokinterp.fourier._key_frequencies import of_any_with_keys
from grokinterp.progress import losses, measures
from grokinterp.progress._abruptness import Abruptness, abruptness, abruptness_of_margins
from grokinterp.progress._descents import Descent, Descents, Extreme, descents
from grokinterp.progress._detect_phases import detect_phases
from grokinterp.progress._phase_shares import PhaseShare, PhaseShares, phase_shares
from grokinterp.progress._slingshots import Slingshot, Slingshots, slingshots
from grokinterp.progress.levels import Thresholds
from grokinterp.progress.measures import MEASURES, measure, progress_measures
from grokinterp.progress.phases import Phase, Phases, PhasesOfRuns
from grokinterp.progress.rises import Rise
from grokinterp.progress.training_curves import ResultsOfRuns
from grokinterp.progress.watching import Watch

excluded_loss = of_any_with_keys(losses.excluded_loss)
excluded_loss_demo = of_any_with_keys(losses.excluded_loss_demo)
measure_snapshot = of_any_with_keys(measures.measure_snapshot, needed=False)
restricted_loss = of_any_with_keys(losses.restricted_loss)
restricted_loss_demo = of_any_with_keys(losses.restricted_loss_demo)
trig_loss = of_any_with_keys(losses.trig_loss)

__all__ = [
    "MEASURES",
    "Abruptness",
    "Descent",
    "Descents",
    "Extreme",
    "Phase",
    "PhaseShare",
    "PhaseShares",
    "Phases",
    "PhasesOfRuns",
    "ResultsOfRuns",
    "Rise",
    "Slingshot",
    "Slingshots",
    "Thresholds",
    "Watch",
    "abruptness",
    "abruptness_of_margins",
    "descents",
    "detect_phases",
    "excluded_loss",
    "excluded_loss_demo",
    "measure",
    "measure_snapshot",
    "phase_shares",
    "progress_measures",
    "restricted_loss",
    "restricted_loss_demo",
    "slingshots",
    "trig_loss",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
