"""Which runs can stand side by side, where on one axis, and in which regime each of them is.

What cannot be compared is refused; what is comparable with a reservation is marked in a note.
Nothing is measured here. By phase, a run's position is 0 at the start, 1 where train is learned
(t_train), 2 where test is (t_test, Definition 1 of Manning-Coe et al. 2025) and 3 at its last
checkpoint: linear in the step up to 2, and in the logarithm of the step from there on.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.claims.evidence import FEWEST
from grokinterp.geometry.predictions import evenly
from grokinterp.models.architecture import all_finite
from grokinterp.progress.phases import Phases, phases_of_metrics
from grokinterp.recipe.keys import CHANCE, WATCHING
from grokinterp.runs.run import Run, nearest_step
from grokinterp.sweeps.statistics import MIXED

PLACES = {0: "start", 1: "train learned", 2: "test learned", 3: "end"}
POSITIONS = (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, *(2 + i / 10 for i in range(11)))
NEAR = 0.15  # a checkpoint this far from a position stands for it, no farther
METRICS = ("train_loss", "test_loss", "train_acc", "test_acc")
REGIMES = ("grokked", "steady")


@dataclass(frozen=True)
class Clock:
    """What turns the steps of one run into positions; `t_test` is at least `t_train`."""

    t_train: int | float
    t_test: int | float
    last: int

    def position(self, step: int) -> float:
        """Where a step lies: 0 start, 1 train learned, 2 test learned, 3 end.

        >>> clock = Clock(t_train=100, t_test=300, last=30_000)
        >>> [clock.position(step) for step in (0, 50, 200, 300, 3000, 30_000)]
        [0.0, 0.5, 1.5, 2.0, 2.5, 3.0]
        """
        if step < self.t_train:
            return step / self.t_train
        if step < self.t_test:
            return 1 + (step - self.t_train) / (self.t_test - self.t_train)
        first = max(self.t_test, 1)
        if first >= self.last:
            return 2.0
        return 2 + math.log(max(step, 1) / first) / math.log(self.last / first)

    def nearest(self, steps: Sequence[int]) -> dict[float, int]:
        """The checkpoint nearest each position, where one is near enough."""
        near = {at: nearest_step(steps, at, at=self.position) for at in POSITIONS}
        return {at: step for at, step in near.items() if abs(self.position(step) - at) <= NEAR}


def common_steps(several: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Steps that all runs saved; of more than 17 an even choice, dense where they saved densely."""
    common = sorted(set.intersection(*(set(steps) for steps in several)))
    return tuple(evenly(common, 17))


@dataclass(frozen=True)
class RunProfile:
    """The outcome of a run, its measures at the end, and its course over training.

    `seed` tells runs apart that share one (its name where there is no recipe). `values` has the
    `PROFILED` that are defined for it, `start` its features before training, `course` one row per
    checkpoint looked at, `stages` one per stretch of its path. `left_out` says why it does not
    count, if so.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     short = run.recipe.replace(steps=20, checkpoints=(0, 20))
    ...     found = gi.compare([run, gi.train(short, f"{folder}/short", progress=False)])
    >>> grokked, short = found.profiles
    >>> grokked.label, grokked.seed, grokked.values["t_test"], round(grokked.values["c"], 1)
    ('grokked', 'seed 5, data_seed 5', 4620.0, 2.0)
    >>> short.label, short.left_out
    (None, 'it has no accuracies to align it by')
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
    data_seed = getattr(recipe, "data_seed", None)  # which a task with its own split need not have
    drawn = "" if data_seed is None else f", data_seed {data_seed}"
    seed = name if recipe is None else f"seed {recipe.seed}{drawn}"
    notes = tuple(f"{name}: {note}" for note in run.notes)

    def left_out(reason: str, phases: Phases | None = None) -> RunProfile:
        return RunProfile(name, run, seed, phases, notes=notes, left_out=reason)

    for step in run.steps:
        if not all_finite(run.architecture.parameters(run.weights(step))):
            return left_out(f"its weights of step {step} hold NaN or infinity")
    last = run.steps[-1]
    if not run.finished:
        return left_out(f"unfinished, cut off at step {last}")
    if run.train_mask is None or bool(run.train_mask.all()):
        return left_out("it has no test inputs")
    try:
        phases = phases_of_metrics(run)
    except InputError as error:
        return left_out(f"it has no label: {error}")
    ends = logged(run).reindex([last]).iloc[0]
    if broken := [column for column in METRICS if not math.isfinite(ends[column])]:
        return left_out(f"its {broken[0]} at its last checkpoint ({last}) is not known", phases)
    if not run.steps_known:
        return left_out("nobody knows the steps of its checkpoints", phases)
    if phases.t_train is None or phases.t_test is None:
        return left_out("it has no accuracies to align it by", phases)
    if phases.t_test > last:
        return left_out(f"test is learned at {phases.t_test}, after its last checkpoint", phases)
    clock = Clock(phases.t_train, max(phases.t_train, phases.t_test), last)
    return RunProfile(name, run, seed, phases, clock, notes=notes)


def logged(run: Run) -> pd.DataFrame:
    """The metrics of a run, one row per step."""
    return run.metrics.drop_duplicates("step", keep="last").set_index("step")


def check_lineup(runs: Sequence[Run]) -> None:
    """Refuse what cannot be compared: one run, other tasks or shapes, a run given twice."""
    if len(runs) < 2:
        given = "1 run" if runs else "0 runs"
        raise InputError(f"{given} cannot be compared; give two or more.")
    if len(set(map(id, runs))) < len(runs):
        raise InputError("a run stands twice in the list, and would count as two seeds.")
    for run in runs[1:]:
        for what, values in (("tasks", _lesson), ("models", _shape)):
            one, other = values(runs[0]), values(run)
            for key in {**one, **other}:
                if one.get(key) != other.get(key):
                    raise InputError(
                        f"{runs[0].path} and {run.path} are of different {what} ({key}="
                        f"{one.get(key)!r} and {other.get(key)!r}), whose encodings are not "
                        "comparable; compare runs that share them."
                    )
    seen: dict[str, Run] = {}
    for run in runs:
        weights = hashlib.sha256()
        for name, weight in run.weights(-1).items():
            weights.update(name.encode() + weight.contiguous().numpy().tobytes())
        twin = seen.setdefault(weights.hexdigest(), run)
        if twin is not run:
            raise InputError(
                f"{run.path} ends with the same weights as {twin.path}: the same run twice counts "
                "as two seeds; give each once."
            )


def _lesson(run: Run) -> dict[str, Any]:
    """What its task teaches, without the seeds that only draw its examples."""
    values = run.task.to_dict()
    drawn = {"seed"} if values.get("operation") != "random" else set()
    return {key: value for key, value in values.items() if key not in drawn | {"pool_seed"}}


def _shape(run: Run) -> dict[str, Any]:
    """The kind of its model first, since models of two kinds share no sizes."""
    return {"kind": run.architecture.kind, **run.architecture.to_dict()}


def names_of(runs: Sequence[Run]) -> list[str]:
    """The shortest ends of their paths that tell the runs apart."""
    parts = [Path(run.path).absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    # One folder, changed between loads; or models, which have none.
    return [f"{path[-1]} ({i})" for i, path in enumerate(parts)]


def settings_of(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The recipe keys in which the runs vary, seeds aside; its name for a run without a recipe."""
    varied, found = varied_keys(runs), []
    for run, name in zip(runs, names, strict=True):
        recipe = {} if run.recipe is None else run.recipe.to_dict()
        values = {key: recipe.get(key) for key in varied}
        words = (f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in values.items())
        found.append(name if run.recipe is None else ", ".join(words) or "one setting")
    return found


def varied_keys(runs: Sequence[Run]) -> list[str]:
    """Recipe keys with more than one value among the runs, but for seeds and what only watches."""
    recipes = [run.recipe.to_dict() for run in runs if run.recipe is not None]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [
        key
        for key in keys
        if key not in CHANCE + WATCHING and len({str(recipe.get(key)) for recipe in recipes}) > 1
    ]


def regimes_of(labels: Sequence[str | None], settings: Sequence[str], *, by: str) -> list[str]:
    """The regime of every run: "grokked", "steady" or "mixed" for those labelled one of the two.

    By "setting", they belong to the regime that more than half of those of their setting have: a
    label near its bound changes from seed to seed, and dealing one setting's seeds to both sides
    would select by outcome. Without a majority they are "mixed". By "label", each counts for
    itself. A run with another label keeps it as its regime and is in no contrast; one without a
    label (None) is "left out".

    >>> regimes_of(["steady", "grokked", "steady", "memorized"], ["w"] * 4, by="setting")
    ['steady', 'steady', 'steady', 'memorized']
    """
    votes = Counter(zip(settings, labels, strict=True))
    found = []
    for label, setting in zip(labels, settings, strict=True):
        if by == "setting" and label in REGIMES:
            n = sum(votes[setting, regime] for regime in REGIMES)
            label = next((x for x in REGIMES if 2 * votes[setting, x] > n), MIXED)
        found.append(label or "left out")
    return found


def lineup_notes(
    profiles: Sequence[RunProfile], settings: Sequence[str], regimes: Sequence[str]
) -> list[str]:
    """What a reader must know of who is compared with whom."""
    runs = [profile.run for profile in profiles]
    notes = []
    # The initial scale is what the regimes of the published experiments differ in.
    if other := [key for key in varied_keys(runs) if key != "init_scale"]:
        notes.append(
            f"the recipes also differ in {', '.join(other)}: a difference of regimes may be one of "
            "these"
        )
    if len({run.steps for run in runs}) > 1:
        notes.append(
            "checkpoints differ between the runs: lengths, straightness, cosines and the peak of c "
            "depend on where they are"
        )
    if len({tuple(run.metrics.step) for run in runs}) > 1:
        notes.append("the runs are logged at different steps: labels and times depend on it")
    for profile, setting, regime in zip(profiles, settings, regimes, strict=True):
        if profile.left_out:
            notes.append(f"{profile.name} is left out: {profile.left_out}")
        elif profile.label not in REGIMES:
            notes.append(f"{profile.name} is labelled {profile.label} and counts in no regime")
        elif regime == MIXED:
            notes.append(f"{profile.name} counts in no regime: seeds of {setting} disagree")
        elif regime != profile.label:
            notes.append(
                f"{profile.name} is labelled {profile.label} and counts as {regime}, like {setting}"
            )
        if profile.run.recipe is None:
            notes.append(f"{profile.name} has no recipe: it is a setting and a seed of its own")
    for regime in REGIMES:
        here = [p for p, its in zip(profiles, regimes, strict=True) if its == regime]
        n_seeds = len({profile.seed for profile in here})
        if n_seeds < FEWEST:
            notes.append(
                f"{regime}: seeds {n_seeds}, runs {len(here)}, so there is no verdict; give at "
                f"least {FEWEST} seeds"
            )
        elif n_seeds < len(here):
            notes.append(
                f"{regime}: {len(here)} runs of {n_seeds} seeds; runs that share a seed are no "
                "independent evidence, which intervals and p-values do not know"
            )
    return notes
