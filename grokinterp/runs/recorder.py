"""Recorder: the same run folder from a training loop of the user's own."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Self, SupportsFloat, SupportsIndex

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import mask, truth, whole
from grokinterp.base.errors import InputError, shown
from grokinterp.base.files import Hold, hold
from grokinterp.base.paths import as_path, new_folder
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.kinds import architecture_of
from grokinterp.models.user_models import AnyModel, HookedModel, alone_with, hooked_model
from grokinterp.runs._snapshot import Snapshot, snapshot
from grokinterp.runs.forwards import agree, device_of
from grokinterp.runs.manifest import LARGEST_STEP, RUN_JSON, Manifest, current_environment
from grokinterp.runs.metrics import (
    COLUMNS,
    UNMIRRORED,
    Metrics,
    as_metrics,
    evaluate,
    logged_unmirrored,
)
from grokinterp.runs.run import Run, RunFolder
from grokinterp.runs.writer import Measured, RunWriter, refuse_diverged
from grokinterp.tasks.splits import checked_rows, mask_of
from grokinterp.tasks.task import Task, check_task

Logged = Mapping[str, SupportsFloat | None]
OTHER = "or give another folder"


def recorded(
    folder: Path, task: Task, train_mask: Bool[Tensor, " n_inputs"] | None
) -> Manifest | None:
    """The run that a recorder with this task and split goes on with; None where there is none yet.

    InputError for a damaged run, one that a recorder did not write, and one of another task or
    split, naming what differs. What a kill has left behind (half a file, metrics without their
    checkpoint) is no part of a run, since run.json does not name it.
    """
    if not (new_folder(folder, give=f"the folder of a run, {OTHER}") / RUN_JSON).exists():
        return None
    store = RunFolder(folder)
    manifest = store.manifest
    if manifest.recipe is not None:
        raise InputError(
            f"{folder} holds a run that gi.train wrote from a recipe, which a loop of your own "
            f"cannot go on with; give gi.train(recipe, out, resume=True) that folder, {OTHER}."
        )
    if manifest.source is not None:
        raise InputError(
            f"{folder} holds checkpoints that were imported, not recorded; give another folder."
        )
    _refuse_other(folder, "task", _differences(manifest.task.to_dict(), task.to_dict()))
    rows = store.train_indices()
    begun_with = None if rows is None else mask_of(rows, task.n_inputs)
    _refuse_other(folder, "train_mask", _other_rows(begun_with, train_mask))
    return manifest


def _refuse_other(folder: Path, what: str, differ: str) -> None:
    """InputError where anything differs from what a run was begun with; `differ` names it."""
    if differ:
        raise InputError(
            f"{folder} holds a run with another {what} ({differ}); give the {what} it was begun "
            f"with, {OTHER}."
        )


def _refuse_other_shape(folder: Path, theirs: BaseArchitecture, ours: BaseArchitecture) -> None:
    there, here = ({"kind": shape.kind, **shape.to_dict()} for shape in (theirs, ours))
    _refuse_other(folder, "architecture", _differences(there, here))


def _other_rows(
    theirs: Bool[Tensor, " n_inputs"] | None, ours: Bool[Tensor, " n_inputs"] | None
) -> str:
    """How two splits differ, or ""."""
    if theirs is ours:
        return ""
    there, here = (
        "no split" if rows is None else f"{int(rows.sum())} training rows"
        for rows in (theirs, ours)
    )
    if theirs is None or ours is None:
        return f"{there} there, {here} here"
    other = (theirs != ours).nonzero().flatten().tolist()
    which = f"{len(other)} rows differ, the first is row {other[0]}" if other else ""
    return which and f"{there} there, {here} here; {which}"


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """The values that differ, such as "p=7 there, 11 here", or ""."""
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    return "; ".join(
        f"{key}={shown(there.get(key))} there, {shown(here.get(key))} here" for key in keys[:3]
    ) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


class Recorder:
    """Writes a run folder step by step; every analysis of this package reads it.

        recorder = gi.Recorder("runs/mine", task=gi.ModularTask("add", p=113), train_mask=mask)
        for step in range(10_001):
            if step % 100 == 0:
                recorder.save(step, model)      # weights and metrics after `step` updates
            elif step % 10 == 0:
                recorder.log(step, model)       # metrics only
            ...                                 # your update
        run = recorder.close()

    The model is a HookedTransformer or TransformerBridge that its weights give back (norms before
    each part or none, learned positions, softmax attention, a plain MLP or none, no hooks), a
    hooked network of this package, as it is or inside a wrapper that `gi.snapshot` looks into; of a
    pruned or parametrized one the weights that it computes with are saved. Or it is any
    torch.nn.Module: its run has parameters and floating-point buffers as they lie in it, but not
    its code, so another process that opens it computes with `gi.load(out, module=Net())`, and has
    metrics alone without. It has to fit the task. Give the split as `train_mask` (a boolean per row
    `a*p + b`) or `train_indices`; without one, everything that needs it is null. Use it in a `with`
    block to close it whatever happens. Until it is closed, no other process writes that folder.

    With `resume=True` it goes on in the folder of an earlier recorder, even of one that was killed,
    from its last checkpoint: `last_step` says which that is. What was logged after it is forgotten
    with the first step that is recorded now. Task, split and the model's shape have to be the same
    as before, and the columns of metrics stay. A folder that does not exist or holds no run is
    begun, so a loop can always say `resume=True`:

        recorder = gi.Recorder("runs/mine", task=task, train_mask=mask, resume=True)
        for step in range(recorder.last_step or 0, 10_001):   # from weights of your own, or
            ...                                               # gi.load("runs/mine").weights()

    A refusal (InputError) writes nothing and loses nothing: the recorder can go on.

    >>> import tempfile
    >>> import torch
    >>> import grokinterp as gi
    >>> task = gi.ModularTask("add", p=5)
    >>> layers = torch.nn.Embedding(6, 4), torch.nn.Flatten(), torch.nn.Linear(12, 5)
    >>> net = torch.nn.Sequential(*layers)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     recorder = gi.Recorder(out, task=task, train_indices=torch.arange(0, 25, 2))
    ...     for step in range(21):
    ...         if step % 10 == 0:
    ...             _ = recorder.save(step, net)
    ...         net[2].weight.data *= 0.9  # where your update stands
    ...     run = recorder.close()
    ...     run.steps, list(run.metrics.step), run.architecture.name
    ((0, 10, 20), [0, 10, 20], 'Sequential')
    """

    def __init__(
        self,
        out: str | Path,
        *,
        task: Task,
        train_mask: Bool[Tensor, " n_inputs"] | None = None,
        train_indices: Int[Tensor, " n_train"] | None = None,
        resume: bool = False,
    ) -> None:
        check_task(task)
        self._resume = truth("resume", resume)
        if train_mask is not None and train_indices is not None:
            raise InputError("both train_mask and train_indices are given; give one of them.")
        if train_mask is not None:
            train_indices = mask("train_mask", train_mask, task.n_inputs).nonzero().flatten()
        if train_indices is not None:
            train_indices = checked_rows(train_indices, task.n_inputs)
            train_mask = mask_of(train_indices, task.n_inputs)
        self.path = as_path("out", out, such_as="runs/mine")
        self._task = task
        self._train_indices = train_indices
        self._train_mask = train_mask
        self._unmirrored = logged_unmirrored(task, train_mask)
        self._architecture: BaseArchitecture | None = None
        self._writer: RunWriter | None = None
        self._hold: Hold | None = None
        begun = self._begun()
        self._last = begun.steps[-1] if begun else -1

    @property
    def last_step(self) -> int | None:
        """The last step that is recorded; None before there is one."""
        return None if self._last < 0 else self._last

    def save(
        self, step: SupportsIndex, model: AnyModel, *, metrics: Logged | None = None
    ) -> Metrics:
        """Save the weights of a step and log its metrics, which are returned."""
        number, state, logged, writer, measured = self._prepared(step, model, metrics, saved=True)
        writer.record(number, logged, state, measured)
        self._last = number
        return logged

    def log(
        self, step: SupportsIndex, model: AnyModel, *, metrics: Logged | None = None
    ) -> Metrics:
        """Log the metrics of a step; they reach the disk with the next `save` or `close`.

        `metrics` (train_loss, test_loss, train_acc, test_acc) spares the evaluation over the table.
        Of a commutative operation with a split it may hold test_loss_unmirrored and
        test_acc_unmirrored too, over the test pairs whose mirror (b, a) is not trained on. Losses
        are finite and at least 0, accuracies from 0 to 1; other names are refused. What is missing
        or None is NaN, an empty cell; what the run has no column for is left out.
        """
        number, _, logged, writer, _ = self._prepared(step, model, metrics, saved=False)
        writer.log(number, logged)
        self._last = number
        return logged

    def close(self) -> Run:
        """Mark the run as finished and open it."""
        if not (self._begun() if self._writer is None else self._writer.manifest.steps):
            raise InputError(f"nothing was saved into {self.path}; call save(step, model) first.")
        self._finish()
        run = Run(self.path)
        if self._architecture is not None:  # which has the module, of one that has no kind
            run.manifest.architecture = self._architecture
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self._finish()
            elif self._writer is not None and self._hold is not None:
                self._writer.flush()
        finally:
            self._release()

    def _begun(self) -> Manifest | None:
        """The run to go on with, where there is one that has a checkpoint."""
        if not self._resume:
            return None
        begun = recorded(self.path, self._task, self._train_mask)
        return begun if begun and begun.steps else None

    def _finish(self) -> None:
        if self._writer is None and self._begun():  # resumed, and there was nothing left to record
            with hold(self.path):
                RunWriter.reopen(self.path, step=LARGEST_STEP).finish()
        elif self._writer is not None and self._hold is not None:  # else it is closed already
            self._writer.finish()
        self._release()

    def _release(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _measured(self, seen: Snapshot) -> Measured | None:
        """What is measured of a checkpoint beside its metrics: nothing here."""
        return None

    def _prepared(
        self, step: SupportsIndex, model: AnyModel, given: Logged | None, *, saved: bool
    ) -> tuple[int, Weights, Metrics, RunWriter, Measured | None]:
        """The step, state and metrics, refused before anything is written; and the open folder."""
        number = _checked_step(step, self._last)
        hooked = hooked_model(model)
        with _without_autocast(device_of(hooked)):
            return self._seen(number, hooked, given, saved=saved)

    def _seen(
        self, number: int, hooked: HookedModel, given: Logged | None, *, saved: bool
    ) -> tuple[int, Weights, Metrics, RunWriter, Measured | None]:
        seen = snapshot(hooked, self._task, train_mask=self._train_mask, step=number)
        steps = () if self._writer is None else self._writer.manifest.steps
        refuse_diverged(self.path, number, seen.weights, saved=steps)
        logged = None
        if given is not None:
            logged = as_metrics(given, COLUMNS + UNMIRRORED, without_rows=self._without_rows())
        architecture = self._checked_shape(hooked, seen)
        state: Weights = {}
        measured = None
        if saved:
            state = _kept(seen.state)
            if logged is None:
                logged = self._evaluated(seen)
            measured = self._measured(seen)  # by code of others, which gets none of our copies
        writer = self._open(number, architecture, str(device_of(hooked)))
        logged = self._evaluated(seen) if logged is None else logged
        row = {x: logged.get(x, math.nan) for x in writer.columns}
        return number, state, row, writer, measured

    def _evaluated(self, seen: Snapshot) -> Metrics:
        return evaluate(seen.all_logits, self._task.targets, self._train_mask, self._unmirrored)

    def _without_rows(self) -> list[str]:
        """Columns of metrics that are means over no rows of the table."""
        if self._train_mask is None:
            return []
        empty = ["test_loss", "test_acc"] if bool(self._train_mask.all()) else []
        if self._unmirrored is not None and not bool(self._unmirrored.any()):
            empty += UNMIRRORED
        return empty

    def _checked_shape(self, model: HookedModel, seen: Snapshot) -> BaseArchitecture:
        """The shape of the model; refused where no run can rebuild it or this one has another."""
        architecture = seen.architecture
        if not seen.weights:
            raise InputError("the model has no parameters; there is nothing to record.")
        if architecture is None:  # also of half precision, which another forward rounds otherwise
            with alone_with(model):
                architecture, device = architecture_of(model), device_of(model)
                twin = architecture and architecture.hooked(seen.state)
                if not (twin and agree(twin, lambda x: model(x.to(device)).cpu(), self._task)):
                    architecture = None
        if architecture is None:
            raise InputError(
                "the model is not a plain transformer, MLP, CNN or module (other positions, "
                "attention or MLP, hooks): a run rebuilds its models from weights, so "
                "only plain ones are recorded; gi.snapshot(model, task) analyses any."
            )
        if self._writer is not None:
            _refuse_other_shape(self.path, self._writer.manifest.architecture, architecture)
        first = self._architecture = self._architecture or architecture
        ours, theirs = (partial(x.forward, seen.state) for x in (first, architecture))
        if first is not architecture and not first.named and not agree(ours, theirs, self._task):
            raise InputError(
                f"{architecture} computes otherwise than when it was first recorded, with the same "
                "weights: what changed is neither a parameter nor a floating-point buffer, and a "
                "run holds nothing else; make it a buffer."
            )
        return architecture

    def _open(self, number: int, architecture: BaseArchitecture, device: str) -> RunWriter:
        """The writer of the folder, which is held from now on."""
        if self._writer is not None and self._hold is not None:
            return self._writer
        environment = current_environment(device=device)
        self._hold = hold(self.path)
        try:
            if self._writer is not None:  # closed, and used again
                self._writer.begin_again()
            elif begun := self._begun():
                _refuse_other_shape(self.path, begun.architecture, architecture)
                last = begun.steps[-1]
                _checked_step(number, last)  # another may have gone on with it since
                self._writer = RunWriter.reopen(self.path, step=last, environment=environment)
            else:
                self._writer = RunWriter.create(
                    self.path,
                    task=self._task,
                    architecture=architecture,
                    train_indices=self._train_indices,
                    environment=environment,
                    restart=self._resume,
                )
        except BaseException:
            self._release()
            raise
        return self._writer


def _kept(weights: Weights) -> Weights:
    """A copy of weights as a run keeps them, of one precision that holds every value of them.

    Half precision becomes float32, in which everything here computes.
    """
    double = any(weight.dtype == torch.float64 for weight in weights.values())
    kind = torch.float64 if double else torch.float32
    return {name: w.to(kind, copy=True) for name, w in weights.items()}


@contextlib.contextmanager
def _without_autocast(device: torch.device) -> Iterator[None]:
    """The precision of the weights, whatever the training loop computes with."""
    with contextlib.ExitStack() as off:
        for kind in {"cpu", device.type}:
            if torch.amp.is_autocast_available(kind):
                off.enter_context(torch.autocast(kind, enabled=False))
        yield


def _checked_step(step: SupportsIndex, last: int) -> int:
    number = whole("step", step, least=0, most=LARGEST_STEP - 1, such_as="100")
    if number <= last:
        raise InputError(
            f"step={number} does not come after step {last}, the last one recorded; give a later "
            "one."
        )
    return number
