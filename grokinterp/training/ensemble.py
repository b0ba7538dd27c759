"""Several runs trained as one batched model, each of them an ordinary run in the end."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tqdm.auto import tqdm

from grokinterp.arguments import listed, truth, word
from grokinterp.errors import InputError, Interrupted
from grokinterp.memory import kept_memory
from grokinterp.paths import as_path
from grokinterp.recipe.builtin import as_recipe
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.environment import current_environment
from grokinterp.runs.lock import hold
from grokinterp.runs.manifest import RESUME, RUN_JSON, Manifest
from grokinterp.runs.metrics import COLUMNS, Metrics
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter
from grokinterp.training.ensemble_learner import EnsembleLearner
from grokinterp.training.ensemble_state import read_together, save_together
from grokinterp.training.ensemble_timing import faster_as_ensemble
from grokinterp.training.grouping import differing, why_not_together
from grokinterp.training.loop import (
    RESUME_SECONDS,
    find_device,
    is_finished,
    stop_requests,
    train,
    using_threads,
)
from grokinterp.training.sweep import value_text

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
