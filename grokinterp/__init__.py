"""grokinterp: mechanistic interpretability of grokking.

Names and rooms are resolved when first used, so that importing the package is cheap. The rooms, in
the order in which data flows through them, are in `gi.ROOMS`; what looks at circuits is in
`gi.circuits`, how models encode what they learned in `gi.encodings`, shapes in `gi.geometry`.

>>> import grokinterp as gi
>>> run = gi.load("mod31-small")
>>> gi.detect_phases(run).label, gi.key_frequencies(run).frequencies
('grokked', (1, 8, 14))
"""

import importlib
from typing import TYPE_CHECKING, Any

from grokinterp.base.names import MOVED, unknown_name
from grokinterp.base.registry import LATER

if TYPE_CHECKING:
    from grokinterp import _register as register
    from grokinterp.base import InputError, Interrupted
    from grokinterp.circuits import Ablation, ablate, hooks, paper_table
    from grokinterp.claims import Claims, accelerations, controls, explain
    from grokinterp.comparison import Comparison, compare
    from grokinterp.fourier import KeyFrequencies, key_frequencies
    from grokinterp.progress import Phases, Watch, detect_phases, progress_measures
    from grokinterp.reading import export, import_run, load, read_log
    from grokinterp.recipe import Recipe, recipes
    from grokinterp.reporting import report
    from grokinterp.runs import Recorder, Run, Snapshot, snapshot
    from grokinterp.sweeps import Sweep, run_sweep
    from grokinterp.tasks import IsingTask, ModularTask
    from grokinterp.training import train, verify

ROOMS = (
    "base", "figures", "tasks", "models", "updates", "recipe", "runs", "reading", "training",
    "fourier", "progress", "circuits", "geometry", "encodings", "sweeps", "claims", "comparison",
    "reporting", "bench", "cli",
)  # fmt: skip

_HOME = {
    "Ablation": "circuits", "Claims": "claims", "Comparison": "comparison", "InputError": "base",
    "Interrupted": "base", "IsingTask": "tasks", "KeyFrequencies": "fourier",
    "ModularTask": "tasks", "Phases": "progress", "Recipe": "recipe", "Recorder": "runs",
    "Run": "runs", "Snapshot": "runs", "Sweep": "sweeps", "Watch": "progress", "ablate": "circuits",
    "accelerations": "claims", "compare": "comparison", "controls": "claims",
    "detect_phases": "progress", "explain": "claims", "export": "reading", "hooks": "circuits",
    "import_run": "reading", "key_frequencies": "fourier", "load": "reading",
    "paper_table": "circuits", "progress_measures": "progress", "read_log": "reading",
    "recipes": "recipe", "report": "reporting", "run_sweep": "sweeps", "snapshot": "runs",
    "train": "training", "verify": "training",
}  # fmt: skip

__all__ = sorted(_HOME)  # each name is listed once

# Names of 0.2.0 whose room is another now: they work for one release, with a DeprecationWarning.
_OF_ROOM: dict[str, dict[str, tuple[str, ...]]] = {
    "runs": {"reading": ("export", "import_run", "load")},
    "training": {"sweeps": ("Sweep", "run_sweep")},
    "encodings": {
        "claims": ("Claim",),
        "comparison": ("Comparison", "RunProfile", "compare"),
        "fourier": ("NeuronIPR", "fourier_heat_map", "neuron_ipr"),
        "geometry": (
            "FisherDiagonal", "FisherMetric", "InformationPath", "Limit", "TrajectoryEmbedding",
            "fisher_diagonal", "fisher_metric", "fisher_rao_distance", "geodesic_point",
            "information_path", "pairwise_distances", "path_of", "root_probabilities", "stages_of",
            "step_geometry", "trajectory_embedding",
        ),
        "sweeps": ("RUN_MEASURES", "measured", "measuring"),
    },
}  # fmt: skip
MOVED.update(
    {
        room: {name: home for home, names in homes.items() for name in names}
        for room, homes in _OF_ROOM.items()
    }
)
MOVED["circuits"] = {"spread": "circuits.ablation_ratios"}
MOVED["progress"] = {"read_csv_curves": "reading.read_log"}
LATER.update(
    {
        "measure": (
            "grokinterp.progress.run_measures",
            "grokinterp.circuits.norms_of_clusters",
            "grokinterp.geometry.weight_path",
            "grokinterp.geometry.tangent_kernel",
            "grokinterp.geometry.loss_curvature",
            "grokinterp.geometry.noise_in_weights",
            "grokinterp.geometry.known_but_not_used",
            "grokinterp.geometry.plane_of_paths",
            "grokinterp.geometry.line_between",
            "grokinterp.geometry.learning_coefficient",
            "grokinterp.geometry._representations",
            "grokinterp.encodings.run_measures",
        ),
        "claim": (
            "grokinterp.claims.four_explanations",
            "grokinterp.claims.four_explanations_by_controls",
            "grokinterp.claims.geometry_of_grokking",
            "grokinterp.claims.flat_or_narrow",
            "grokinterp.comparison",
        ),
        "log_format": ("grokinterp.reading.logs.table",),
    }
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("grokinterp")
    if name in ROOMS or name == "viz":
        return importlib.import_module(f"grokinterp.{name}")
    if name == "register":
        return importlib.import_module("grokinterp._register")
    if name not in _HOME:
        raise unknown_name("grokinterp", name, __dir__())
    return getattr(importlib.import_module(f"grokinterp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOME, *ROOMS, "ROOMS", "register", "viz", "__version__"])
