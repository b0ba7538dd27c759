"""Which runs can stand side by side, and in which regime each of them is.

What cannot be compared is refused; what is comparable with a reservation is marked in a note.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grokinterp.circuits.subject import check_run
from grokinterp.encodings.comparison.outcome import RunProfile
from grokinterp.errors import InputError, named
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

REGIMES = ("grokked", "steady")
MIXED, LEFT_OUT = "mixed", "left out"
FEWEST = 3  # seeds a regime for a verdict
# Recipe keys that make no setting of their own: chance, and how training was watched.
CHANCE = ("seed", "data_seed", "pool_seed")
WATCHING = ("checkpoints", "log_every", "device", "threads")
INTENDED = "init_scale"  # what the regimes of the published experiments differ in


def check_lineup(runs: Sequence[Run]) -> None:
    """Refuse what cannot be compared: one run, other tasks or shapes, a run given twice."""
    if isinstance(runs, Run | str | Path) or not isinstance(runs, Sequence):
        raise InputError(f"{named(runs)} is no list of runs; give gi.compare([run, run]).")
    for run in runs:
        check_run(run)
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run cannot be compared; give two or more.")
    if len(set(map(id, runs))) < len(runs):
        raise InputError("a run stands twice in the list, and would count as two seeds.")
    first = runs[0]
    for run in runs[1:]:
        kinds = [{"kind": one.architecture.kind} for one in (first, run)]
        shapes = kinds if kinds[0] != kinds[1] else [vars(one.architecture) for one in (first, run)]
        _refuse_difference(first, run, "tasks", _lesson(first.task), _lesson(run.task))
        _refuse_difference(first, run, "models", *shapes)
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


def _lesson(task: Task) -> dict[str, Any]:
    """What a task teaches, without the seeds that only draw its examples."""
    values = task.to_dict()
    drawn = {"seed"} if values.get("operation") != "random" else set()
    return {key: value for key, value in values.items() if key not in drawn | {"pool_seed"}}


def _refuse_difference(
    first: Run, run: Run, what: str, one: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    for key in {**one, **other}:
        this, that = one.get(key), other.get(key)
        if this != that:
            raise InputError(
                f"{first.path} and {run.path} are of different {what} ({key}={this!r} and "
                f"{that!r}), whose encodings are not comparable; compare runs that share them."
            )


def names_of(runs: Sequence[Run]) -> list[str]:
    """The shortest ends of their paths that tell the runs apart."""
    parts = [Path(run.path).absolute().parts for run in runs]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(path[-depth:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({i})" for i, name in enumerate(names)]  # one folder, changed between loads


def settings_of(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The recipe keys in which the runs vary, seeds aside; its name for a run without a recipe."""
    varied = varied_keys(runs)
    return [
        name if run.recipe is None else _words(run.recipe.to_dict(), varied)
        for run, name in zip(runs, names, strict=True)
    ]


def varied_keys(runs: Sequence[Run]) -> list[str]:
    """Recipe keys with more than one value among the runs, without seeds and what only watches."""
    recipes = [run.recipe.to_dict() for run in runs if run.recipe is not None]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [
        key
        for key in keys
        if key not in CHANCE + WATCHING and len({str(recipe.get(key)) for recipe in recipes}) > 1
    ]


def _words(recipe: Mapping[str, Any], keys: Sequence[str]) -> str:
    def shown(value: object) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key}={shown(recipe.get(key))}" for key in keys) or "one setting"


def regimes_of(labels: Sequence[str | None], settings: Sequence[str], *, by: str) -> list[str]:
    """The regime of every run: of those labelled grokked or steady one of these, or "mixed".

    By "setting", they belong to the regime that more than half of those of their setting have: a
    label near its bound changes from seed to seed, and dealing one setting's seeds to both sides
    would select by outcome. Without a majority they are "mixed". By "label", each counts for
    itself. A run of another label keeps it as its regime, and is in no contrast; one without a
    label (None) is "left out".

    >>> regimes_of(["steady", "grokked", "steady", "memorized"], ["w"] * 4, by="setting")
    ['steady', 'steady', 'steady', 'memorized']
    """
    found = []
    for label, setting in zip(labels, settings, strict=True):
        if by == "setting" and label in REGIMES:
            here = [
                its
                for its, where in zip(labels, settings, strict=True)
                if where == setting and its in REGIMES
            ]
            most, n = Counter(here).most_common(1)[0]
            label = most if 2 * n > len(here) else MIXED
        found.append(label or LEFT_OUT)
    return found


def lineup_notes(
    profiles: Sequence[RunProfile], settings: Sequence[str], regimes: Sequence[str]
) -> list[str]:
    """What a reader must know of who is compared with whom."""
    runs = [profile.run for profile in profiles]
    notes = []
    other = [key for key in varied_keys(runs) if key != INTENDED]
    if other:
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
