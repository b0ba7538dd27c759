"""What became of a run, and whether it can stand beside others; nothing is measured yet."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from grokinterp.encodings.comparison.alignment import Clock
from grokinterp.errors import InputError
from grokinterp.models.architecture import all_finite
from grokinterp.progress.detection import detect_phases
from grokinterp.progress.phases import Phases
from grokinterp.runs.run import Run

METRICS = ("train_loss", "test_loss", "train_acc", "test_acc")


@dataclass(frozen=True)
class RunProfile:
    """The outcome of a run, its measures at the end, and its course over training.

    `seed` tells runs apart that share one (its name where there is no recipe). `values` has the
    `MEASURES` that are defined for it, `start` its features before training, `course` a row per
    checkpoint looked at, `stages` one per stretch of its path. `left_out` says why it does not
    count, if so.
    """

    name: str
    run: Run = field(repr=False)
    seed: str
    phases: Phases | None = field(default=None, repr=False)
    clock: Clock | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    course: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    stages: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    notes: tuple[str, ...] = ()
    left_out: str | None = None

    @property
    def label(self) -> str | None:
        """The label of its curves, None for a run that does not count."""
        return None if self.phases is None or self.left_out else self.phases.label


def outcome(run: Run, name: str) -> RunProfile:
    """The label of a run; `left_out` where it has none, or cannot be measured at its end."""
    recipe = run.recipe
    seed = name if recipe is None else f"seed {recipe.seed}, data_seed {recipe.data_seed}"
    notes = tuple(f"{name}: {note}" for note in run.notes)

    def left_out(reason: str, phases: Phases | None = None) -> RunProfile:
        return RunProfile(name, run, seed, phases, notes=notes, left_out=reason)

    for step in run.steps:
        if not all_finite(run.weights(step)):
            return left_out(f"its weights of step {step} hold NaN or infinity")
    last = run.steps[-1]
    if not run.finished:
        return left_out(f"unfinished, cut off at step {last}")
    if run.train_mask is None or bool(run.train_mask.all()):
        return left_out("it has no test inputs")
    try:
        phases = detect_phases(run.metrics, ceiling=run.task.ceiling)
    except InputError as error:
        return left_out(f"it has no label: {error}")
    ends = logged(run).reindex([last]).iloc[0]
    if broken := [column for column in METRICS if not math.isfinite(ends[column])]:
        return left_out(f"its {broken[0]} at its last checkpoint ({last}) is not known", phases)
    if phases.t_train is None or phases.t_test is None:
        return left_out("it has no accuracies to align it by", phases)
    if phases.t_test > last:
        return left_out(f"test is learned at {phases.t_test}, after its last checkpoint", phases)
    clock = Clock(phases.t_train, max(phases.t_train, phases.t_test), last)
    return RunProfile(name, run, seed, phases, clock, notes=notes)


def logged(run: Run) -> pd.DataFrame:
    """The metrics of a run by step, a row a step."""
    return run.metrics.drop_duplicates("step", keep="last").set_index("step")
