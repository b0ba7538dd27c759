"""grokinterp: mechanistic interpretability of grokking.

    import grokinterp as gi
    run = gi.load("checkpoints/mod113-grokked")
    gi.detect_phases(run)

Names are resolved when first used, so that importing the package is cheap. What looks at circuits
is in `gi.circuits`, what compares how models encode what they learned in `gi.encodings`,
figures that belong to no result in `gi.viz`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokinterp.circuits import Ablation, ablate, paper_table
    from grokinterp.encodings import Comparison, compare
    from grokinterp.errors import InputError, Interrupted
    from grokinterp.fourier import KeyFrequencies, key_frequencies
    from grokinterp.progress import Phases, detect_phases, progress_measures
    from grokinterp.recipe import Recipe, recipes
    from grokinterp.runs import Recorder, Run, Snapshot, export, import_run, load, snapshot
    from grokinterp.tasks import IsingTask, ModularTask
    from grokinterp.training import train
    from grokinterp.viz.report import report

_HOME = {
    "Ablation": "circuits",
    "Comparison": "encodings",
    "InputError": "errors",
    "Interrupted": "errors",
    "IsingTask": "tasks",
    "KeyFrequencies": "fourier",
    "ModularTask": "tasks",
    "Phases": "progress",
    "Recipe": "recipe",
    "Recorder": "runs",
    "Run": "runs",
    "Snapshot": "runs",
    "ablate": "circuits",
    "compare": "encodings",
    "detect_phases": "progress",
    "export": "runs",
    "import_run": "runs",
    "key_frequencies": "fourier",
    "load": "runs",
    "paper_table": "circuits",
    "progress_measures": "progress",
    "recipes": "recipe",
    "report": "viz.report",
    "snapshot": "runs",
    "train": "training",
}

__all__ = [
    "Ablation",
    "Comparison",
    "InputError",
    "Interrupted",
    "IsingTask",
    "KeyFrequencies",
    "ModularTask",
    "Phases",
    "Recipe",
    "Recorder",
    "Run",
    "Snapshot",
    "ablate",
    "compare",
    "detect_phases",
    "export",
    "import_run",
    "key_frequencies",
    "load",
    "paper_table",
    "progress_measures",
    "recipes",
    "report",
    "snapshot",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("grokinterp")
    if name in ("circuits", "encodings", "viz"):
        return importlib.import_module(f"grokinterp.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'grokinterp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"grokinterp.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
