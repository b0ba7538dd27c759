"""Which runs can stand side by side, and in which regime each of them is.

What cannot be compared is refused; what is comparable with a reservation is marked in a note.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grokinterp.circuits.subject import check_run
from grokinterp.errors import InputError
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

REGIMES = ("grokked", "steady")
MIXED = "mixed"
# Recipe keys that make no setting of their own: chance, and how training was watched.
CHANCE = ("seed", "data_seed", "pool_seed")
WATCHING = ("checkpoints", "log_every", "device", "threads")
INTENDED = "init_scale"  # what the regimes of the published experiments differ in


def check_lineup(runs: Sequence[Run]) -> None:
    """Refuse what cannot be compared: one run, other tasks or shapes, a run given twice."""
    if isinstance(runs, Run | str | Path) or not isinstance(runs, Sequence):
        raise InputError(f"{type(runs).__name__} is no list of runs; give gi.compare([run, run]).")
    for run in runs:
        check_run(run)
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run cannot be compared; give two or more.")
    first = runs[0]
    for run in runs[1:]:
        _refuse_difference(first, run, "task", _lesson(first.task), _lesson(run.task))
        _refuse_difference(first, run, "model", vars(first.architecture), vars(run.architecture))
    seen: dict[str, Run] = {}
    for run in runs:
        weights = hashlib.sha256()
        for name, weight in run.weights(-1).items():
            weights.update(name.encode() + weight.contiguous().numpy().tobytes())
        twin = seen.setdefault(weights.hexdigest(), run)
        if twin is not run or sum(run is other for other in runs) > 1:
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
    kinds = getattr(first.architecture, "kind", ""), getattr(run.architecture, "kind", "")
    if what == "model" and kinds[0] != kinds[1]:
        one, other = {"kind": kinds[0]}, {"kind": kinds[1]}
    for key in {**one, **other}:
        this, that = one.get(key), other.get(key)
        if this != that:
            raise InputError(
                f"{first.path} and {run.path} are of different {what}s ({key}={this!r} and "
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
    """The regime of every run; "mixed" where a setting's seeds disagree without a majority.

    `labels` are None for runs that do not count. By "setting", all seeds of a setting belong to the
    regime that more than half of them have: a label near its bound changes from seed to seed, and
    dealing one setting's seeds to both sides would select by outcome. By "label", each run counts
    for itself.

    >>> regimes_of(["steady", "grokked", "steady"], ["w", "w", "w"], by="setting")
    ['steady', 'steady', 'steady']
    """
    if by == "label":
        return [label or "left out" for label in labels]
    found = {}
    for setting in dict.fromkeys(settings):
        here = [
            label
            for label, its in zip(labels, settings, strict=True)
            if its == setting and label is not None
        ]
        most = Counter(here).most_common(1)
        found[setting] = most[0][0] if most and 2 * most[0][1] > len(here) else MIXED
    return [
        "left out" if label is None else found[setting]
        for label, setting in zip(labels, settings, strict=True)
    ]


def lineup_notes(
    runs: Sequence[Run],
    names: Sequence[str],
    labels: Sequence[str | None],
    settings: Sequence[str],
    regimes: Sequence[str],
) -> list[str]:
    """What a reader must know of who is compared with whom."""
    notes = []
    other = [key for key in varied_keys(runs) if key != INTENDED]
    if other:
        notes.append(
            f"the recipes also differ in {', '.join(other)}: a difference of regimes may be one of "
            "these"
        )
    for name, run in zip(names, runs, strict=True):
        if run.recipe is None:
            notes.append(f"{name} has no recipe: it is a setting of its own")
    for name, label, setting, regime in zip(names, labels, settings, regimes, strict=True):
        if label in REGIMES and regime in REGIMES and label != regime:
            notes.append(f"{name} is labelled {label} and counts as {regime}, like {setting}")
    for setting, regime in dict(zip(settings, regimes, strict=True)).items():
        if regime == MIXED:
            notes.append(f"{setting}: its seeds disagree without a majority; left out of contrasts")
    for regime in REGIMES:
        n = regimes.count(regime)
        if n < 2:
            notes.append(
                f"{regime}: {n or 'no'} run, so there is no interval and no verdict; give at least "
                "three seeds"
            )
    return notes
