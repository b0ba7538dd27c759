"""Several recipes trained as one batched model: which can be, whether it is faster, and the runs.

Each member is an ordinary run in the end. Members may differ in the keys `FREE`, which change their
numbers, but no shape and no schedule.
"""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from grokinterp.base.checks import instance, listed, number, truth, whole, word
from grokinterp.base.errors import InputError, shown
from grokinterp.base.memory import kept_memory
from grokinterp.base.paths import as_path
from grokinterp.base.result import Result
from grokinterp.recipe.builtin import as_recipe
from grokinterp.recipe.recipe import Recipe, value_text
from grokinterp.runs.manifest import RESUME, RUN_JSON, Manifest
from grokinterp.runs.run import Run
from grokinterp.training.learner import Learner
from grokinterp.training.loop import find_device, train, train_members, unfinished, using_threads

FREE = (
    *("seed", "data_seed", "split", "init", "init_scale"),
    *("lr", "betas", "weight_decay", "warmup", "reshuffle"),
)
LEAST, MOST = 3, 200  # timed steps each way


def groups(recipes: Mapping[str, Recipe], size: int) -> list[list[str]]:
    """Split named recipes into groups of at most `size` that can be trained together.

    Every name is in one group, in the order given; a recipe that nothing goes with, or that cannot
    be trained in an ensemble at all, is a group of its own.

    >>> made = {str(seed): Recipe(p=7, seed=seed) for seed in range(3)}
    >>> groups(made | {"other": Recipe(p=7, d_mlp=32)}, 2)
    [['0', '1'], ['2'], ['other']]
    """
    for one in instance(
        recipes, Mapping, "dict of recipes", give="such as sweep.recipes()"
    ).values():
        instance(one, Recipe, "recipe", give="gi.Recipe(...)")
    size = whole("size", size, least=1, such_as="8")
    made: list[list[str]] = []
    open_group: dict[str, list[str]] = {}  # of the same keys, the one that takes more
    for name, recipe in recipes.items():
        key = repr(_shared(recipe))
        group = open_group.get(key)
        if group is None or len(group) >= size or _why_not_batched(recipe):
            group = open_group[key] = []
            made.append(group)
        group.append(name)
    return made


def _shared(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in recipe.to_dict().items() if key not in FREE}


def _why_not_batched(recipe: Recipe) -> str | None:
    return recipe.architecture().why_not_stacked(recipe.build_task().model_inputs)


@dataclass(frozen=True, kw_only=True)
class EnsembleTiming(Result):
    """Median seconds per step and member, of updates alone: logging and saving are not timed.

    `singly` is the time of a step of the first recipe, `together` that of a step of the ensemble
    divided by its `members`.

    >>> import grokinterp as gi
    >>> timing = gi.training.EnsembleTiming(members=4, singly=0.020, together=0.008)
    >>> timing.faster, timing.singly / timing.together
    (True, 2.5)
    >>> timing.table()
        trained  seconds
    0    singly    0.020
    1  together    0.008
    """

    members: int
    singly: float
    together: float

    @property
    def faster(self) -> bool:
        """Whether the ensemble is the faster way."""
        return self.together < self.singly

    def table(self) -> pd.DataFrame:
        """One row per way to train."""
        seconds = {"singly": self.singly, "together": self.together}
        return pd.DataFrame(seconds.items(), columns=["trained", "seconds"])


def faster_as_ensemble(recipes: Sequence[Recipe], *, seconds: float = 0.5) -> EnsembleTiming:
    """Time steps of these recipes both ways, in turn, for about this long (3 steps each at least).

    Nothing is written, and nothing of the steps is kept. The result holds for this machine while it
    is as busy as now.

    >>> import grokinterp as gi
    >>> small = gi.Recipe(p=5, model="mlp", widths=[8])
    >>> timing = gi.training.faster_as_ensemble([small, small.replace(seed=1)], seconds=0.01)
    >>> timing.members, timing.faster == (timing.together < timing.singly)
    (2, True)
    """
    made = _members(recipes)
    seconds = number("seconds", seconds, least=0, most=3600, such_as="0.5")
    device = find_device(made[0].device)
    with using_threads(made[0].threads), kept_memory():
        learners = (Learner(made[:1], device), Learner(made, device))
        times: tuple[list[float], list[float]] = ([], [])
        until = time.perf_counter() + seconds
        for step in range(MOST + 1):
            if step > LEAST and time.perf_counter() >= until:
                break
            for learner, record in zip(learners, times, strict=True):
                start = time.perf_counter()
                learner.update(step)
                if torch.device(device).type != "cpu":
                    torch.accelerator.synchronize()
                record.append(time.perf_counter() - start)
    # The first step makes what the others find made: it is not counted.
    singly, together = (statistics.median(record[1:]) for record in times)
    return EnsembleTiming(members=len(made), singly=singly, together=together / len(made))


def train_ensemble(
    recipes: Sequence[Recipe | str],
    outs: Sequence[str | Path] | str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    when: str = "always",
) -> list[Run]:
    """Train recipes as one batched model, each into its own folder; returns the runs.

    The recipes differ in `seed`, or in other keys that change no shape and no schedule: those of
    the split, the initial weights and the optimiser's rates (`FREE` in `training.ensemble`). `outs`
    are their folders; a single folder gets one run per member, named after what differs, such as
    `seed=0`. Each is a run like any other, whose run.json says in its environment how many were
    trained in the ensemble.

    A member is its single run within rounding: within 1e-5 over the first 50 updates
    (`tests/test_ensemble.py`). Later it departs from it as a run on another machine does, since
    training amplifies every rounding.

    With `resume`, finished runs stay as they are, and the others go on from the last step at which
    all were saved, to the bits of an unbroken ensemble of the same members. With `when="faster"`
    steps are timed both ways (`faster_as_ensemble`), and the runs are trained one after the other
    if that is quicker here; the log says what was chosen, and resuming keeps to it.

    Ctrl-C finishes the step, saves, and raises `Interrupted`. InputError for recipes that cannot be
    trained together, and for unfinished members without a common step.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> small = gi.Recipe(p=5, model="mlp", widths=[8], steps=20, checkpoints="every:10")
    >>> with tempfile.TemporaryDirectory() as out:
    ...     seeds = [small.replace(seed=seed) for seed in range(3)]
    ...     runs = gi.training.train_ensemble(seeds, out)
    ...     [(run.path.name, run.steps) for run in runs]
    [('seed=0', (0, 10, 20)), ('seed=1', (0, 10, 20)), ('seed=2', (0, 10, 20))]
    """
    made = _members(recipes)
    word("when", when, ("always", "faster"))
    resume = truth("resume", resume)
    folders = _folders(made, outs)
    members = list(zip(made, folders, strict=True))
    if not resume and (taken := [each for each in folders if (each / RUN_JSON).exists()]):
        raise InputError(  # before any of the others has begun
            f"{taken[0]} already holds a run; give another folder, or continue with resume=True."
        )
    pending = unfinished(members) if resume else members
    if pending and when == "faster" and not _together_is_faster(pending, resume=resume):
        return [train(*member, resume=resume, progress=progress) for member in members]
    if pending:
        train_members(pending, resume=resume, progress=progress, ensemble=True)
    return [Run(folder) for folder in folders]


def _members(recipes: object) -> list[Recipe]:
    """The recipes of an ensemble; InputError where they cannot be trained together."""
    made = [as_recipe(x) for x in listed("recipes", recipes, such_as="['mod31-grokked']")]
    if not made:
        raise InputError("no recipes are given; give those of the members.")
    for recipe in made:
        if reason := _why_not_batched(recipe):
            raise InputError(f"{reason}; train these runs singly (gi.train).")
    first, *others = map(_shared, made)
    for place, other in enumerate(others, start=1):
        # A key without a value, such as a layout, stands in no dictionary of a recipe.
        if key := next((x for x in {**first, **other} if first.get(x) != other.get(x)), None):
            raise InputError(
                f"recipes 0 and {place} have {key}={shown(first.get(key))} and "
                f"{shown(other.get(key))}; those of one ensemble may differ in {', '.join(FREE)}."
            )
    return made


def _folders(recipes: Sequence[Recipe], outs: Sequence[str | Path] | str | Path) -> list[Path]:
    if isinstance(outs, str | Path):
        differing = [key for key in FREE if len({getattr(x, key, None) for x in recipes}) > 1]
        keys = differing or ["seed"]
        names = [",".join(f"{key}={value_text(key, each)}" for key in keys) for each in recipes]
        folder = as_path("outs", outs, such_as="runs/ensemble")
        folders = [folder / name for name in names]
    else:
        given = listed("outs", outs, such_as="['runs/a', 'runs/b']")
        folders = [as_path("outs", out, such_as="runs/a") for out in given]
    if len(folders) != len(recipes):
        raise InputError(
            f"{len(recipes)} recipes and {len(folders)} folders are given; give each its own."
        )
    places = [folder.absolute() for folder in folders]
    if twice := [folder for folder in folders if places.count(folder.absolute()) > 1]:
        raise InputError(f"{twice[0]} is given for two members; give each its own folder.")
    return folders


def begun_together(folder: Path) -> bool | None:
    """Whether an unfinished run was begun in an ensemble; None where none was begun."""
    if not (folder / RUN_JSON).is_file() or not (folder / RESUME).is_file():
        return None
    return "ensemble" in Manifest.read(folder).environments()[-1][1]


def _together_is_faster(members: Sequence[tuple[Recipe, Path]], *, resume: bool) -> bool:
    """What was chosen when these runs began; otherwise what is faster here."""
    for _, folder in members if resume else ():
        if (chosen := begun_together(folder)) is not None:
            return chosen
    found = faster_as_ensemble([recipe for recipe, _ in members])
    logging.getLogger(__name__).info(
        "%d runs are trained %s: a step takes %.3g ms a run in an ensemble, %.3g ms singly.",
        found.members,
        "together" if found.faster else "one after the other",
        found.together * 1e3,
        found.singly * 1e3,
    )
    return found.faster
