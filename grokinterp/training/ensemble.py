"""Several runs trained as one batched model, each of them an ordinary run in the end."""

import logging
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import listed, number, truth, whole, word
from grokinterp.base.errors import InputError, Interrupted, shown
from grokinterp.base.files import hold
from grokinterp.base.memory import kept_memory
from grokinterp.base.paths import as_path
from grokinterp.models.stacked import why_not_stacked
from grokinterp.recipe.builtin import as_recipe
from grokinterp.recipe.recipe import Recipe, value_text
from grokinterp.runs.manifest import RESUME, RUN_JSON, Manifest, current_environment
from grokinterp.runs.metrics import COLUMNS, Metrics
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter
from grokinterp.training.learner import EnsembleLearner, Learner
from grokinterp.training.loop import (
    RESUME_SECONDS,
    find_device,
    is_finished,
    stop_requests,
    train,
    using_threads,
)
from grokinterp.updates.optimizers import Batches, build_optimizer

# MERGED training.grouping: Which recipes can be trained together as one batched model, and why others cannot.
# MERGED training.ensemble_state: What an ensemble needs to go on: a state a member, all of one step, however it was killed.
#
# Every member's state is first written aside as `resume-next.safetensors`, then each is renamed to
# the `resume.safetensors` of a single run. A kill before the renaming leaves the old step with all
# members, one in the middle of it the new step.
# MERGED training.ensemble_timing: How long a step takes, by itself and in an ensemble: measured here and now.


# What may differ between members: it changes their numbers, but no shape and no schedule.
FREE = (
    *("seed", "data_seed", "split", "init", "init_scale"),
    *("lr", "betas", "weight_decay", "warmup", "reshuffle"),
)


def why_not_together(recipes: Sequence[Recipe]) -> str | None:
    """Why these recipes cannot be trained together, as a line with what to do; None if they can."""
    for recipe in recipes:
        if reason := _why_not_batched(recipe):
            return f"{reason}; train these runs singly (gi.train)."
    first, *others = (_shared(recipe) for recipe in recipes)
    for place, other in enumerate(others, start=1):
        for key in first:
            if first[key] != other[key]:
                return (
                    f"recipes 0 and {place} have {key}={first[key]!r} and {other[key]!r}; those of "
                    f"one ensemble may differ in {', '.join(FREE)}."
                )
    return None


def groups(recipes: Mapping[str, Recipe], size: int) -> list[list[str]]:
    """Split named recipes into groups of at most `size` that can be trained together.

    Every name is in one group, in the order given; a recipe that nothing goes with, or that cannot
    be trained in an ensemble at all, is a group of its own.

    >>> made = {str(seed): Recipe(p=7, seed=seed) for seed in range(3)}
    >>> groups(made | {"other": Recipe(p=7, d_mlp=32)}, 2)
    [['0', '1'], ['2'], ['other']]
    """
    if not isinstance(recipes, Mapping) or not all(isinstance(x, Recipe) for x in recipes.values()):
        raise InputError(f"{shown(recipes)} are no recipes by name; give such as sweep.recipes().")
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


def differing(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    """The free keys in which recipes differ."""
    return tuple(key for key in FREE if len({getattr(each, key) for each in recipes}) > 1)


def _shared(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in asdict(recipe).items() if key not in FREE}


def _why_not_batched(recipe: Recipe) -> str | None:
    architecture = recipe.architecture()
    return why_not_stacked(architecture, 2 + recipe.equals_token)


NEXT = "resume-next.safetensors"

State = dict[str, Tensor]


def save_together(writers: Sequence[RunWriter], step: int, states: Sequence[State]) -> None:
    """Write the states of all members at a step, those of an earlier one until then."""
    for writer, state in zip(writers, states, strict=True):
        writer.save_resume(step, state, file=NEXT)
    for writer in writers:
        os.replace(writer.folder / NEXT, writer.folder / RESUME)


def read_together(folders: Sequence[Path]) -> tuple[int, list[State]] | None:
    """The latest step at which all members are saved, and their states; None if none is saved.

    InputError if some are, but at no common step.
    """
    found = []
    for folder in folders:
        saved = {file: RunWriter.read_resume(folder, file=file) for file in (NEXT, RESUME)}
        found.append({x[0]: (file, x[1]) for file, x in saved.items() if x is not None})
    common = set[int].intersection(*map(set, found))
    if not common and any((folder / RESUME).exists() for folder in folders):
        _refuse(folders, [max(steps, default=0) for steps in found])
    step = max(common) if common else None
    for folder, steps in zip(folders, found, strict=True):
        if step is not None and steps[step][0] == NEXT:
            os.replace(folder / NEXT, folder / RESUME)
        else:
            (folder / NEXT).unlink(missing_ok=True)
    return None if step is None else (step, [steps[step][1] for steps in found])


def _refuse(folders: Sequence[Path], steps: Sequence[int]) -> None:
    first, last = steps.index(min(steps)), steps.index(max(steps))
    raise InputError(
        f"{folders[first]} is saved at step {steps[first]}, {folders[last]} at {steps[last]}; "
        "finish those that have begun singly (gi.train with resume=True), the others together."
    )


LEAST, MOST = 3, 200  # rounds, of one step each way


@dataclass(frozen=True)
class EnsembleTiming:
    """Median seconds a step and member, of updates alone: logging and saving come on top.

    `singly` is the time of the first recipe's step, `together` that of all members by their number.
    """

    members: int
    singly: float
    together: float

    @property
    def faster(self) -> bool:
        """Whether the ensemble is."""
        return self.together < self.singly


def faster_as_ensemble(recipes: Sequence[Recipe], *, seconds: float = 0.5) -> EnsembleTiming:
    """Time steps of these recipes both ways, in turn, for about so long (at least 3 steps each).

    Nothing is written, and nothing is kept of the steps. What it finds is true for this machine
    while it is as busy as now.
    """
    recipes = [as_recipe(x) for x in listed("recipes", recipes, such_as="['mod31-grokked']")]
    seconds = number("seconds", seconds, least=0, most=3600, such_as="0.5")
    if not recipes:
        raise InputError("no recipes are given; give those of the members.")
    if reason := why_not_together(recipes):
        raise InputError(reason)
    first = recipes[0]
    device = find_device(first.device)
    with using_threads(first.threads), kept_memory():
        ways = (_single_step(first, device), _ensemble_step(recipes, device))
        for step in ways:
            step()  # the first one makes what the others find made
        times: tuple[list[float], list[float]] = ([], [])
        until = time.perf_counter() + seconds
        while len(times[0]) < LEAST or (len(times[0]) < MOST and time.perf_counter() < until):
            for step, record in zip(ways, times, strict=True):
                start = time.perf_counter()
                step()
                record.append(time.perf_counter() - start)
    singly, together = map(statistics.median, times)
    return EnsembleTiming(len(recipes), singly, together / len(recipes))


def _single_step(recipe: Recipe, device: str) -> Callable[[], None]:
    task = recipe.build_task()
    learner = Learner(recipe, task.model_inputs, task.labels, device)
    optimizer = build_optimizer(recipe, learner.trained.values())
    batches = Batches(recipe, recipe.train_indices().to(device))
    count = iter(range(10**9))

    def step() -> None:
        learner.backward(batches.rows(next(count)))
        optimizer.step()
        _wait(device)

    return step


def _ensemble_step(recipes: Sequence[Recipe], device: str) -> Callable[[], None]:
    learner = EnsembleLearner(recipes, device)
    count = iter(range(10**9))

    def step() -> None:
        learner.update(next(count))
        _wait(device)

    return step


def _wait(device: str) -> None:
    """Until an accelerator has done what it was told."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()


WHEN = ("always", "faster")


def train_ensemble(
    recipes: Sequence[Recipe | str],
    outs: Sequence[str | Path] | str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    when: str = "always",
) -> list[Run]:
    """Train recipes as one batched model, each into its own folder; returns the runs.

    The recipes differ in `seed`, or in other keys that change no shape and no schedule (`FREE` in
    `training.grouping`). `outs` are their folders; one folder for all holds a run a member, named
    by what differs, such as `seed=0`. Each is a run like any other, whose run.json says in its
    environment how many were trained in the ensemble.

    On a CPU a member has had the bits of its single run in all that was tried. Where it is rounded
    otherwise, as on an accelerator, it departs from that run as a single run on another machine
    does: training makes more of every rounding, 0.25 in a weight of mod11-quick after 200 steps.

    With `resume`, finished runs stay as they are, and the others go on from the last step at which
    all were saved, to the bits of an unbroken ensemble of the same members. With `when="faster"`
    steps are timed both ways (`faster_as_ensemble`), and the runs are trained one after the other
    if that is quicker here; the log says what was chosen, and resuming keeps to it.

    Ctrl-C finishes the step, saves, and raises `Interrupted`. InputError for recipes that cannot be
    trained together, and for unfinished members without a common step.
    """
    if isinstance(recipes, Recipe):
        raise InputError("recipes is one recipe; give a list of them, or of their names.")
    made = [as_recipe(x) for x in listed("recipes", recipes, such_as="['mod31-grokked']")]
    word("when", when, WHEN)
    resume = truth("resume", resume)
    if not made:
        raise InputError("no recipes are given; give those of the members.")
    if reason := why_not_together(made):
        raise InputError(reason)
    folders = _folders(made, outs)
    members = list(zip(made, folders, strict=True))
    if not resume and (taken := [each for each in folders if (each / RUN_JSON).exists()]):
        raise InputError(  # before any of the others has begun
            f"{taken[0]} already holds a run; give another folder, or continue with resume=True."
        )
    pending = _unfinished(members) if resume else members
    if pending and when == "faster" and not _together_is_faster(pending, resume=resume):
        return [train(*member, resume=resume, progress=progress) for member in members]
    if pending:
        _train_together(pending, resume=resume, progress=progress)
    return [Run(folder) for folder in folders]


def _train_together(members: list[tuple[Recipe, Path]], *, resume: bool, progress: bool) -> None:
    first = members[0][0]
    with ExitStack() as stack:
        for _, folder in members:
            stack.enter_context(hold(folder))
        stack.enter_context(using_threads(first.threads))
        stack.enter_context(kept_memory())
        stop = stack.enter_context(stop_requests())
        if resume:
            members = _unfinished(members)  # another process may have finished some just now
        if not members:
            return
        session = _Session(members, resume=resume)
        bar = stack.enter_context(
            tqdm(
                total=first.steps,
                initial=session.step,
                desc=f"{len(members)} runs",
                unit="step",
                mininterval=0.5,
                disable=None if progress else True,
            )
        )
        while session.step < first.steps:
            session.update()
            bar.update()
            if session.logged(session.step):
                means = {
                    column: sum(one[column] for one in session.latest) / len(members)
                    for column in COLUMNS
                }
                bar.set_postfix_str(
                    "train {train_loss:.2e} test {test_loss:.2e}".format(**means), refresh=False
                )
            if stop.is_set() and session.step < first.steps:
                session.save_state()
                raise Interrupted(
                    f"stopped at step {session.step} of {first.steps}; nothing is lost, continue "
                    f"the {len(members)} runs together with resume=True."
                )
        session.finish()


class _Session:
    """Runs in training together: stacked weights after `step` updates, and the open folders."""

    def __init__(self, members: Sequence[tuple[Recipe, Path]], *, resume: bool) -> None:
        self._first = members[0][0]
        self._saves = set(self._first.checkpoint_steps())
        device = find_device(self._first.device)
        self._learner = EnsembleLearner([recipe for recipe, _ in members], device)
        self.latest: list[Metrics] = []
        self.step = 0
        environment = {**current_environment(device=device), "ensemble": len(members)}
        if resume and (saved := read_together([folder for _, folder in members])) is not None:
            self.step, states = saved
            self._learner.load_states(states)
            there = environment if self.step < self._first.steps else None
            self._writers = [
                RunWriter.reopen(folder, step=self.step, environment=there) for _, folder in members
            ]
        else:
            self._writers = [
                RunWriter.create(
                    folder,
                    task=recipe.build_task(),
                    architecture=recipe.architecture(),
                    train_indices=recipe.train_indices(),
                    recipe=recipe,
                    split={"rule": recipe.split, "seed": recipe.data_seed},
                    environment=environment,
                    restart=resume,
                )
                for recipe, folder in members
            ]
            self._record()
        self._saved_at = time.monotonic()

    def update(self) -> None:
        """One update of every member, then whatever is due at the step it leads to."""
        self._learner.update(self.step)
        self.step += 1
        self._record()
        if self.step < self._first.steps and (
            self.step in self._saves or time.monotonic() - self._saved_at > RESUME_SECONDS
        ):
            self.save_state()

    def logged(self, step: int) -> bool:
        """Whether metrics are logged at a step."""
        return step % self._first.log_every == 0 or step in self._saves

    def _record(self) -> None:
        if self.logged(self.step):
            self.latest = self._learner.evaluate()
            for writer, metrics in zip(self._writers, self.latest, strict=True):
                writer.log(self.step, metrics)
        if self.step in self._saves:
            for member, writer in enumerate(self._writers):
                writer.save(self.step, self._learner.member(member))

    def save_state(self) -> None:
        """Write what is needed to go on from this step."""
        states = [self._learner.state(member) for member in range(len(self._writers))]
        save_together(self._writers, self.step, states)
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Mark the runs as finished, after a state that the last ones of them are found by."""
        self.save_state()
        for writer in self._writers:
            writer.finish()


def _folders(recipes: Sequence[Recipe], outs: Sequence[str | Path] | str | Path) -> list[Path]:
    if isinstance(outs, str | Path):
        keys = differing(recipes) or ("seed",)
        names = [",".join(f"{key}={value_text(key, each)}" for key in keys) for each in recipes]
        folder = as_path("outs", outs, such_as="runs/ensemble")
        folders = [folder / name for name in names]
    else:
        given = listed("outs", outs, such_as="['runs/a', 'runs/b']")
        folders = [as_path("outs", out, such_as="runs/a") for out in given]
    if len(folders) != len(recipes):
        raise InputError(
            f"{len(recipes)} recipes and {len(folders)} folders are given; give a folder a recipe."
        )
    places = [folder.absolute() for folder in folders]
    if twice := [folder for folder in folders if places.count(folder.absolute()) > 1]:
        raise InputError(f"{twice[0]} is given for two members; give each its own folder.")
    return folders


def _unfinished(members: Sequence[tuple[Recipe, Path]]) -> list[tuple[Recipe, Path]]:
    return [(recipe, folder) for recipe, folder in members if not is_finished(folder, recipe)]


def _together_is_faster(members: Sequence[tuple[Recipe, Path]], *, resume: bool) -> bool:
    """What was chosen when these runs began; otherwise what is faster here."""
    if resume:
        for _, folder in members:
            if (folder / RUN_JSON).is_file() and (folder / RESUME).is_file():
                return "ensemble" in Manifest.read(folder).environments()[-1][1]
    found = faster_as_ensemble([recipe for recipe, _ in members])
    logging.getLogger(__name__).info(
        "%d runs are trained %s: a step takes %.3g ms a run in an ensemble, %.3g ms singly.",
        found.members,
        "together" if found.faster else "one after the other",
        found.together * 1e3,
        found.singly * 1e3,
    )
    return found.faster
