"""The training loop: from a recipe to a run folder, resumable to the same bits."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
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
from grokinterp.runs.metrics import Metrics, evaluate_blocks, logged_unmirrored
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter
from grokinterp.tasks.splits import mask_of
from grokinterp.training.learner import Learner
from grokinterp.updates.optimizers import Batches, build_optimizer, learning_rate

RESUME_SECONDS = 30.0  # at most this much work is lost to a kill


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
    """
    recipe = as_recipe(recipe)
    folder = as_path("out", out, such_as="runs/mine")
    resume = truth("resume", resume)
    if resume and is_finished(folder, recipe):
        _tidy(folder)
        return Run(folder)
    with (
        hold(folder),
        using_threads(recipe.threads),
        kept_memory(),
        stop_requests() as stop,
    ):
        if resume and is_finished(folder, recipe):  # by another process, just now
            return Run(folder)
        session = Session(recipe, folder, resume=resume)
        with tqdm(
            total=recipe.steps,
            initial=session.step,
            desc=folder.name,
            unit="step",
            mininterval=0.5,
            disable=None if progress else True,
        ) as bar:
            while session.step < recipe.steps:
                session.update()
                bar.update()
                if session.logged(session.step):
                    bar.set_postfix_str(
                        "train {train_loss:.2e} test {test_loss:.2e}".format(**session.latest),
                        refresh=False,
                    )
                if stop.is_set() and session.step < recipe.steps:
                    session.save_state()
                    raise Interrupted(
                        f"stopped at step {session.step} of {recipe.steps}; nothing is lost, "
                        f"continue {folder} with --resume (resume=True)."
                    )
        session.writer.finish()
    return Run(folder)


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether a folder holds all of the run; InputError if it is of another recipe."""
    if not (folder / RUN_JSON).is_file():
        return False
    manifest = Manifest.read(folder)
    refuse_another_recipe(folder, manifest.recipe, recipe)
    return manifest.finished


def _tidy(folder: Path) -> None:
    """Remove what a kill right after the last save may have left; nothing heeds it."""
    if any((folder / name).exists() for name in (RESUME, LOCK)):
        with contextlib.suppress(OSError, InputError), hold(folder):  # read-only, or held
            (folder / RESUME).unlink(missing_ok=True)


class Session:
    """A run being trained: weights after `step` updates, the optimiser, and the open folder."""

    def __init__(self, recipe: Recipe, folder: Path, *, resume: bool) -> None:
        self.recipe = recipe
        device = find_device(recipe.device)
        task = recipe.build_task()
        rows = recipe.train_indices()
        self.labels = task.labels.to(device)
        self.batches = Batches(recipe, rows.to(device))
        self.train_mask = mask_of(rows.to(device), task.n_inputs)
        self.unmirrored = logged_unmirrored(task, self.train_mask)
        self.saves = set(recipe.checkpoint_steps())
        self.learner = Learner(recipe, task.model_inputs, task.labels, device)
        self.optimizer = build_optimizer(recipe, self.learner.trained.values())
        self.latest: Metrics = {}
        self.step = 0
        environment = current_environment(device=device)
        if resume and (saved := RunWriter.read_resume(folder)) is not None:
            self.step, state = saved
            self._load_state(state)
            self.writer = RunWriter.reopen(folder, step=self.step, environment=environment)
        else:
            self.writer = RunWriter.create(
                folder,
                task=task,
                architecture=recipe.architecture(),
                train_indices=rows,
                recipe=recipe,
                split={
                    "rule": recipe.split if recipe.task == "modular" else "shuffled pool",
                    "seed": recipe.data_seed,
                },
                environment=environment,
                restart=resume,
            )
            self.record()
        self.saved_at = time.monotonic()

    def update(self) -> None:
        """One optimiser update, then whatever is due at the step it leads to."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, self.step)
        self.learner.backward(self.batches.rows(self.step))
        self.optimizer.step()
        self.step += 1
        self.record()
        if self.step < self.recipe.steps and (
            self.step in self.saves or time.monotonic() - self.saved_at > RESUME_SECONDS
        ):
            self.save_state()

    def logged(self, step: int) -> bool:
        """Whether metrics are logged at a step."""
        return step % self.recipe.log_every == 0 or step in self.saves

    def evaluate(self) -> Metrics:
        """The metrics of the weights as they are."""
        with torch.no_grad():
            blocks = self.learner.logit_blocks()
            return evaluate_blocks(blocks, self.labels, self.train_mask, self.unmirrored)

    def record(self) -> None:
        """Log and save what is due at this step."""
        if self.logged(self.step):
            self.latest = self.evaluate()
            self.writer.log(self.step, self.latest)
        if self.step in self.saves:
            self.writer.save(self.step, self.learner.weights)

    def save_state(self) -> None:
        """Write what a resumed run needs to continue from this step."""
        names = list(self.learner.trained)
        state = {f"weights/{name}": weight for name, weight in self.learner.weights.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    state[f"optimizer/{names[index]}/{key}"] = value
        self.writer.save_resume(self.step, state)
        self.saved_at = time.monotonic()

    def _load_state(self, state: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.learner.weights.items():
                weight.copy_(state[f"weights/{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        index = {name: i for i, name in enumerate(self.learner.trained)}
        for key, value in state.items():
            kind, name, *rest = key.split("/")
            if kind == "optimizer" and name in index:  # older states have untrained biases too
                moments.setdefault(index[name], {})[rest[0]] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


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
def stop_requests() -> Iterator[threading.Event]:
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
