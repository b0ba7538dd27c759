"""The training loop: from recipes to run folders, resumable to the same bits.

What a killed training needs to go on lies in `resume.safetensors`, a file in each run's folder. The
states of several runs are of one step, however they were killed: each is first written to
`resume-next.safetensors`, and then all are renamed. A kill before the renaming leaves the old step
with all runs, one in the middle of it the new step.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import truth
from grokinterp.base.errors import InputError, Interrupted
from grokinterp.base.files import LOCK, hold
from grokinterp.base.memory import kept_memory
from grokinterp.base.paths import as_path
from grokinterp.recipe.builtin import as_recipe
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import RESUME, RUN_JSON, Manifest, current_environment
from grokinterp.runs.metrics import COLUMNS, Metrics
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter
from grokinterp.training.learner import Learner

RESUME_SECONDS = 30.0  # at most this much work is lost to a kill
RESUME_NEXT = "resume-next.safetensors"

Member = tuple[Recipe, Path]  # a run, and its folder


def train(
    recipe: Recipe | str, out: str | Path, *, resume: bool = False, progress: bool = True
) -> Run:
    """Train a recipe (or a built-in one by name) into the folder `out`; returns the run.

    With `resume`, an unfinished run of the same recipe goes on where it was saved last and ends
    with the bits of an unbroken run on the same machine; a finished one is returned as it is, and
    a missing or empty folder starts the run. Without it, a folder that holds a run is refused.

    One process trains a folder at a time; a second one is refused, and reading is free to all.
    Ctrl-C (or SIGTERM) finishes the step, saves, and raises `Interrupted`. A training that diverges
    stops with an InputError at the first save at which a weight is NaN or infinite; checkpoints and
    metrics up to there stay, and empty losses show when it happened. `progress` shows a bar
    on standard error where that is a terminal.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> small = gi.Recipe(p=5, d_mlp=16, steps=20, checkpoints="every:10")
    >>> with tempfile.TemporaryDirectory() as out:
    ...     run = gi.train(small, out)
    ...     run.steps, run.finished, gi.load(out).recipe == small
    ((0, 10, 20), True, True)
    """
    recipe = as_recipe(recipe)
    folder = as_path("out", out, such_as="runs/mine")
    resume = truth("resume", resume)
    if not resume or not is_finished(folder, recipe):
        train_members([(recipe, folder)], resume=resume, progress=progress)
    elif any((folder / name).exists() for name in (RESUME, LOCK)):  # left by a kill at the end
        with contextlib.suppress(OSError, InputError), hold(folder):  # read-only, or held
            (folder / RESUME).unlink(missing_ok=True)
    return Run(folder)


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder holds all of the run; InputError if it is of another recipe."""
    if not (folder / RUN_JSON).is_file():
        return False
    manifest = Manifest.read(folder)
    refuse_another_recipe(folder, manifest.recipe, recipe)
    return manifest.finished


def unfinished(members: Sequence[Member]) -> list[Member]:
    """The runs that are not finished yet; InputError for a folder of another recipe."""
    return [(recipe, folder) for recipe, folder in members if not is_finished(folder, recipe)]


def train_members(
    members: Sequence[Member], *, resume: bool, progress: bool, ensemble: bool = False
) -> None:
    """Train runs to their end in one session; with `resume`, whatever is left of them."""
    with contextlib.ExitStack() as stack:
        for _, folder in members:
            stack.enter_context(hold(folder))
        stack.enter_context(using_threads(members[0][0].threads))
        stack.enter_context(kept_memory())
        stop = stack.enter_context(_stop_requests())
        if resume:
            members = unfinished(members)  # another process may have finished some just now
        if not members:
            return
        session = Session(members, resume=resume, ensemble=ensemble)
        steps, folder, n = session.recipe.steps, members[0][1], len(members)
        label = f"{n} runs" if ensemble else folder.name
        bar = stack.enter_context(tqdm(
            total=steps, initial=session.step, desc=label, unit="step", mininterval=0.5,
            disable=None if progress else True,
        ))  # fmt: skip
        while session.step < steps:
            session.update()
            bar.update()
            if session.logged(session.step):
                train, test = (sum(each[x] for each in session.latest) / n for x in COLUMNS[:2])
                bar.set_postfix_str(f"train {train:.2e} test {test:.2e}", refresh=False)
            if stop.is_set() and session.step < steps:
                session.save_state()
                one = f"{folder} with --resume (resume=True)"
                again = f"the {n} runs together with resume=True" if ensemble else one
                raise Interrupted(
                    f"stopped at step {session.step} of {steps}; nothing is lost, continue {again}."
                )
        session.finish()


class Session:
    """Runs in training: their weights after `step` updates, and the open folders.

    Whether it is an `ensemble` its run.json says. Recipes of an ensemble have the same steps,
    checkpoints and device.
    """

    def __init__(self, members: Sequence[Member], *, resume: bool, ensemble: bool = False) -> None:
        recipes, folders = zip(*members, strict=True)
        self.recipe: Recipe = recipes[0]
        self.saves = set(self.recipe.checkpoint_steps())
        device = find_device(self.recipe.device)
        environment = current_environment(device=device)
        if ensemble:
            environment = {**environment, "ensemble": len(members)}
        saved = _read_states(folders) if resume else None
        self.learner = Learner(recipes, device, going_on=saved is not None)
        self.latest: list[Metrics] = []
        self.step = 0
        if saved is not None:
            self.step, states = saved
            self.learner.load_states(states)
            there = environment if self.step < self.recipe.steps else None
            self._writers = [
                RunWriter.reopen(folder, step=self.step, environment=there) for folder in folders
            ]
        else:
            self._writers = [
                RunWriter.create(
                    folder,
                    task=task,
                    architecture=recipe.architecture(),
                    train_indices=rows,
                    recipe=recipe,
                    split={
                        "rule": task.own_split or recipe.split,
                        "seed": getattr(recipe, "data_seed", None),
                    },
                    environment=environment,
                    restart=resume,
                )
                for (recipe, folder), task, rows in zip(
                    members, self.learner.tasks, self.learner.train_indices, strict=True
                )
            ]
            self._record()
        self._saved_at = time.monotonic()

    def update(self) -> None:
        """One update of every run, then whatever is due at the step it leads to."""
        watch = self.logged(self.step)
        rows = self.learner.update(self.step, watch=watch)
        if watch:
            for writer, row in zip(self._writers, rows, strict=True):
                writer.log_dynamics(self.step, row)
        self.step += 1
        self._record()
        if self.step < self.recipe.steps and (
            self.step in self.saves or time.monotonic() - self._saved_at > RESUME_SECONDS
        ):
            self.save_state()

    def logged(self, step: int) -> bool:
        """Whether metrics are logged at a step."""
        return step % self.recipe.log_every == 0 or step in self.saves

    def _record(self) -> None:
        """Log and save what is due at this step."""
        if self.logged(self.step):
            self.latest = self.learner.evaluate()
            for writer, metrics in zip(self._writers, self.latest, strict=True):
                writer.log(self.step, metrics)
        if self.step in self.saves:
            for member, writer in enumerate(self._writers):
                writer.save(self.step, self.learner.member(member))

    def save_state(self) -> None:
        """Write what is needed to go on from this step."""
        several = len(self._writers) > 1
        for member, writer in enumerate(self._writers):
            state = self.learner.state(member)
            writer.save_resume(self.step, state, file=RESUME_NEXT if several else RESUME)
        if several:
            for writer in self._writers:
                os.replace(writer.folder / RESUME_NEXT, writer.folder / RESUME)
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Mark the runs as finished; of several, after a state that the last ones are found by."""
        if len(self._writers) > 1:
            self.save_state()
        for writer in self._writers:
            writer.finish()


def _read_states(folders: Sequence[Path]) -> tuple[int, list[dict[str, Tensor]]] | None:
    """The latest step at which all runs are saved, with their states; None if none is saved."""
    files = (RESUME_NEXT, RESUME) if len(folders) > 1 else (RESUME,)
    found = []
    for folder in folders:
        saved = {file: RunWriter.read_resume(folder, file=file) for file in files}
        found.append({x[0]: (file, x[1]) for file, x in saved.items() if x is not None})
    common = set[int].intersection(*map(set, found))
    if not common and any((folder / RESUME).exists() for folder in folders):
        last = [max(steps, default=0) for steps in found]
        (least, behind), (most, ahead) = (f(zip(last, folders, strict=True)) for f in (min, max))
        raise InputError(
            f"{behind} is saved at step {least}, {ahead} at {most}; finish those that have begun "
            "singly (gi.train with resume=True), the others together."
        )
    step = max(common) if common else None
    for folder, steps in zip(folders, found, strict=True):
        if step is not None and steps[step][0] == RESUME_NEXT:
            os.replace(folder / RESUME_NEXT, folder / RESUME)
        else:
            (folder / RESUME_NEXT).unlink(missing_ok=True)
    return None if step is None else (step, [steps[step][1] for steps in found])


def refuse_another_recipe(folder: Path, there: Recipe | None, asked: Recipe) -> None:
    """InputError, naming a key that differs, unless a folder's recipe is the one asked for."""
    if there is None:
        raise InputError(f"{folder} was recorded by another loop; it cannot be trained on here.")
    old, new = there.to_dict(), asked.to_dict()
    for key in old | new:
        this, that = old.get(key), new.get(key)
        if this != that:
            raise InputError(
                f"{folder} holds another run ({key}={this!r} there, {that!r} asked); "
                "resume with that recipe, or give another folder."
            )


def find_device(name: str) -> str:
    """The device that a recipe names; InputError where it cannot be used."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device={name!r} cannot be used here ({reason}).") from None
    return name


@contextlib.contextmanager
def using_threads(number: int) -> Iterator[None]:
    """Run with this many torch threads (0: as it is)."""
    before = torch.get_num_threads()
    if number:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag, so that a step is never cut in half.

    A second one interrupts at once. Signals can only be caught in the main thread.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request(number: int, frame: object) -> None:
        stop.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, request)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
