"""Recorder: the same run folder from a training loop of the user's own."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat, SupportsIndex

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import truth
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.files import Hold, hold
from grokinterp.base.paths import as_path
from grokinterp.models.architecture import Weights
from grokinterp.models.kinds import Shape, architecture_of, build_model
from grokinterp.models.user_models import AnyModel, HookedModel, alone_with, hooked_model
from grokinterp.runs._snapshot import Snapshot, agree, device_of
from grokinterp.runs.manifest import (
    LARGEST_STEP,
    RUN_JSON,
    Manifest,
    RunFolder,
    current_environment,
)
from grokinterp.runs.metrics import (
    COLUMNS,
    UNMIRRORED,
    Metrics,
    as_metrics,
    evaluate,
    logged_unmirrored,
)
from grokinterp.runs.models_on_tasks import check_task, checked_mask, snapshot
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter, refuse_diverged
from grokinterp.tasks.splits import mask_of
from grokinterp.tasks.task import Task

# MERGED runs.resuming: May a recorder go on in a folder that is there? Only in a run of its own kind, task and split.
#
# Nothing is written here. What belongs to a run its run.json says, so what a kill has left behind
# (half a file, rows of metrics without their checkpoint) is no obstacle and no part of it.


OTHER = "or give another folder"


def recorded(
    folder: Path, task: Task, train_mask: Bool[Tensor, " n_inputs"] | None
) -> Manifest | None:
    """The run that a recorder with this task and split goes on with; None where there is none yet.

    InputError for a damaged run, one that a recorder did not write, and one of another task or
    split, naming what differs.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the folder of a run, {OTHER}.")
    if not (folder / RUN_JSON).exists():
        return None
    store = RunFolder(folder)
    manifest = store.manifest
    if manifest.recipe is not None:
        raise InputError(
            f"{folder} holds a run that gi.train wrote from a recipe, which a loop of your own "
            "cannot go on with; give gi.train(recipe, out, resume=True) that folder, "
            f"{OTHER}."
        )
    if manifest.source is not None:
        raise InputError(
            f"{folder} holds checkpoints that were imported, not recorded; give another folder."
        )
    _refuse_other_task(folder, manifest.task, task)
    rows = store.train_indices()
    _refuse_other_split(folder, None if rows is None else mask_of(rows, task.n_inputs), train_mask)
    return manifest


def how_to_go_on(folder: Path) -> str:
    """What somebody can do whose recorder finds a run in its folder."""
    try:
        manifest = Manifest.read(folder)
    except InputError:
        return ""
    if manifest.recipe is not None:
        return "go on with that run by gi.train(recipe, out, resume=True)"
    return "" if manifest.source is not None else "go on with that run by resume=True"


def refuse_other_model(folder: Path, theirs: Shape, ours: Shape) -> None:
    """InputError, naming what differs, where a run was begun with a model of another shape."""
    if theirs == ours:
        return
    told = f"{theirs.kind} there, {ours.kind} here"
    if theirs.kind == ours.kind:
        told = _differences(asdict(theirs), asdict(ours))
    raise InputError(
        f"the model is not of the shape that the run in {folder} was begun with ({told}); give a "
        f"model of that shape, {OTHER}."
    )


def _refuse_other_task(folder: Path, theirs: Task, ours: Task) -> None:
    there, here = theirs.to_dict(), ours.to_dict()
    if there == here:
        return
    if there.get("task") != here.get("task"):
        told = f"{theirs.title} there, {ours.title} here"
    else:
        told = _differences(there, here)
    raise InputError(
        f"{folder} holds a run of another task ({told}); give the task it was begun with, {OTHER}."
    )


def _refuse_other_split(
    folder: Path,
    theirs: Bool[Tensor, " n_inputs"] | None,
    ours: Bool[Tensor, " n_inputs"] | None,
) -> None:
    if theirs is None and ours is None:
        return
    if theirs is None or ours is None:
        there, here = (
            "no split" if mask is None else f"{int(mask.sum())} training rows"
            for mask in (theirs, ours)
        )
        raise InputError(
            f"{folder} holds a run with another train_mask ({there} there, {here} here); give the "
            f"one it was begun with, {OTHER}."
        )
    if not torch.equal(theirs, ours):
        other = (theirs != ours).nonzero().flatten()
        raise InputError(
            f"{folder} holds a run with another train_mask ({int(theirs.sum())} training rows "
            f"there, {int(ours.sum())} here; {len(other)} rows differ, the first is row "
            f"{int(other[0])}); give the one it was begun with, {OTHER}."
        )


def _differences(there: dict[str, object], here: dict[str, object]) -> str:
    """The values that differ, such as "p=7 there, 11 here"."""
    keys = [key for key in there | here if there.get(key) != here.get(key)]
    return "; ".join(
        f"{key}={shown(there.get(key))} there, {shown(here.get(key))} here" for key in keys[:3]
    ) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")


Logged = Mapping[str, SupportsFloat | None]


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

    The model is a HookedTransformer or TransformerBridge that its weights give back (LayerNorms or
    none, learned positions, softmax attention, a plain MLP, no hooks), or a hooked MLP or CNN of
    this package, as it is or inside a wrapper that `gi.snapshot` looks into; of a pruned or
    parametrized one the weights that it computes with are saved. It has to fit the task. Give the
    split as `train_mask` (a boolean per row `a*p + b`) or `train_indices`; without one, everything
    that needs it is null. Use it in a `with` block to close it whatever happens. Until it is
    closed, no other process writes that folder.

    With `resume=True` it goes on in the folder of an earlier recorder, also one that was killed,
    from its last checkpoint: `last_step` says which that is, and what was logged after it is
    forgotten with the first step that is recorded now. Task, split and the model's shape have to be
    those of then, and the columns of metrics stay. A folder that does not exist or holds no run is
    begun as without it, so a loop can always say `resume=True`:

        recorder = gi.Recorder("runs/mine", task=task, train_mask=mask, resume=True)
        for step in range(recorder.last_step or 0, 10_001):   # from weights of your own, or
            ...                                               # gi.load("runs/mine").weights()

    A refusal (InputError) writes nothing and loses nothing: the recorder can go on.
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
        resuming = truth("resume", resume)
        if train_mask is not None and train_indices is not None:
            raise InputError("both train_mask and train_indices are given; give one of them.")
        if train_mask is not None:
            train_indices = checked_mask(train_mask, task).nonzero().flatten()
        if train_indices is not None:
            train_indices = _checked_rows(train_indices, task)
            train_mask = mask_of(train_indices, task.n_inputs)
        self.path = as_path("out", out, such_as="runs/mine")
        self._task = task
        self._train_indices = train_indices
        self._train_mask = train_mask
        self._unmirrored = logged_unmirrored(task, train_mask)
        self._writer: RunWriter | None = None
        self._hold: Hold | None = None
        self._resume = resuming
        self._last = -1
        if begun := self._begun():
            self._last = begun.steps[-1]

    @property
    def last_step(self) -> int | None:
        """The last step that is recorded, or was when it was resumed; None before there is one."""
        return None if self._last < 0 else self._last

    def save(
        self, step: SupportsIndex, model: AnyModel, *, metrics: Logged | None = None
    ) -> Metrics:
        """Save the weights of a step and log its metrics, which are returned."""
        number, seen, logged, writer = self._look(step, model, metrics)
        writer.record(number, logged, _kept(seen.weights))
        self._last = number
        return logged

    def log(
        self, step: SupportsIndex, model: AnyModel, *, metrics: Logged | None = None
    ) -> Metrics:
        """Log the metrics of a step; they reach the disk with the next `save` or `close`.

        `metrics` (train_loss, test_loss, train_acc, test_acc) spares the evaluation over the table.
        Of a commutative operation with a split it may hold test_loss_unmirrored and
        test_acc_unmirrored too, over the test pairs whose mirror (b, a) is not trained on. Losses
        are finite and at least 0, accuracies from 0 to 1; other names are refused. What it does
        not hold, or as None, is NaN, an empty cell; what the run has no column for is left out.
        """
        number, _, logged, writer = self._look(step, model, metrics)
        writer.log(number, logged)
        self._last = number
        return logged

    def close(self) -> Run:
        """Mark the run as finished and open it."""
        if self._writer is None and not self._begun():
            raise InputError(f"nothing was saved into {self.path}; call save(step, model) first.")
        if self._writer is not None and not self._writer.manifest.steps:
            raise InputError(f"nothing was saved into {self.path}; call save(step, model) first.")
        self._finish()
        return Run(self.path)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
            elif self._writer is not None and self._hold is not None:
                self._writer.flush()
        finally:
            self._let_go()

    def _begun(self) -> Manifest | None:
        """The run to go on with, where there is one that has a checkpoint."""
        if not self._resume:
            return None
        begun = recorded(self.path, self._task, self._train_mask)
        return begun if begun and begun.steps else None

    def _finish(self) -> None:
        if self._writer is not None:
            if self._hold is not None:  # else it is closed already
                self._writer.finish()
        elif self._begun():  # resumed, and there was nothing left to record
            self._hold = hold(self.path)
            try:
                RunWriter.reopen(self.path, step=LARGEST_STEP).finish()
            finally:
                self._let_go()
        self._let_go()

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _look(
        self, step: SupportsIndex, model: AnyModel, given: Logged | None
    ) -> tuple[int, Snapshot, Metrics, RunWriter]:
        """All that can be refused of a step, before anything is written; and the open folder."""
        number = _checked_step(step, self._last)
        hooked = hooked_model(model)
        seen = snapshot(hooked, self._task, train_mask=self._train_mask, step=number)
        saved = () if self._writer is None else self._writer.manifest.steps
        refuse_diverged(self.path, number, seen.weights, saved=saved)
        logged = None
        if given is not None:
            logged = as_metrics(given, COLUMNS + UNMIRRORED, without_rows=self._without_rows())
        architecture = self._checked_shape(hooked, seen)
        writer = self._open(number, architecture, str(device_of(hooked)))
        if logged is None:
            logged = evaluate(
                seen.all_logits, self._task.labels, self._train_mask, self._unmirrored
            )
        return number, seen, {x: logged.get(x, math.nan) for x in writer.columns}, writer

    def _without_rows(self) -> list[str]:
        """Columns of metrics that are means over no row of the table."""
        if self._train_mask is None:
            return []
        empty = ["test_loss", "test_acc"] if bool(self._train_mask.all()) else []
        if self._unmirrored is not None and not bool(self._unmirrored.any()):
            empty += UNMIRRORED
        return empty

    def _checked_shape(self, model: HookedModel, seen: Snapshot) -> Shape:
        """The shape of the model, which has to be one that a run can rebuild, and the run's own."""
        with alone_with(model):
            architecture = architecture_of(model)
            # Tried once: it takes as long as a look at the model.
            if architecture is not None and self._writer is None:
                device = device_of(model)
                twin = build_model(architecture, seen.weights)
                if not agree(twin, lambda x: model(x.to(device)).cpu(), self._task):
                    architecture = None
        if architecture is None:
            raise InputError(
                "the model is not a plain transformer, MLP or CNN (LNPre or RMS norms, other "
                "positions, attention or MLP, hooks): a run rebuilds its models from weights, so "
                "only plain ones can be recorded; gi.snapshot(model, task) analyses any."
            )
        if self._writer is not None:
            refuse_other_model(self.path, self._writer.manifest.architecture, architecture)
        return architecture

    def _open(self, number: int, architecture: Shape, device: str) -> RunWriter:
        """The writer of the folder, which is held from now on."""
        if self._writer is not None and self._hold is not None:
            return self._writer
        self._hold = hold(self.path)
        try:
            if self._writer is not None:  # closed, and used again
                self._writer.begin_again()
            elif begun := self._begun():
                refuse_other_model(self.path, begun.architecture, architecture)
                _checked_step(number, begun.steps[-1])  # another may have gone on with it since
                self._writer = RunWriter.reopen(
                    self.path,
                    step=begun.steps[-1],
                    environment=current_environment(device=device),
                )
            else:
                self._writer = RunWriter.create(
                    self.path,
                    task=self._task,
                    architecture=architecture,
                    train_indices=self._train_indices,
                    environment=current_environment(device=device),
                    restart=self._resume,
                    advice=how_to_go_on(self.path),
                )
        except BaseException:
            self._let_go()
            raise
        return self._writer


def _kept(weights: Weights) -> Weights:
    """Weights as a run keeps them, of one precision that holds every value of all of them.

    Half precision becomes float32, in which everything here computes.
    """
    double = any(weight.dtype == torch.float64 for weight in weights.values())
    return {name: w.to(torch.float64 if double else torch.float32) for name, w in weights.items()}


def _checked_rows(rows: Int[Tensor, " n"], task: Task) -> Int[Tensor, " n"]:
    try:
        rows = torch.as_tensor(rows).cpu()
    except Exception:  # torch knows many ways to say that it is no tensor
        raise InputError(
            f"train_indices={shown(rows)} are no rows; give a tensor or list of numbers from 0 to "
            f"{task.n_inputs - 1}."
        ) from None
    if rows.is_floating_point() or rows.dtype == torch.bool or rows.ndim != 1:
        raise InputError(f"train_indices is {rows.dtype} of shape {tuple(rows.shape)}, not rows.")
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= task.n_inputs:
        raise InputError(f"train_indices must be rows from 0 to {task.n_inputs - 1}, at least one.")
    if len(rows.unique()) != len(rows):
        raise InputError("train_indices names a row twice; give each training row once.")
    return rows.to(torch.int64, copy=True)


def _checked_step(step: SupportsIndex, last: int) -> int:
    number = whole_number(step)
    if number is None or number < 0:
        raise InputError(f"step={shown(step)} is not a whole number from 0 on; give one.")
    if number >= LARGEST_STEP:
        raise InputError(
            f"step={shown(number)} is beyond {LARGEST_STEP - 1}, the largest that a run has; give "
            "the number of updates."
        )
    if number <= last:
        raise InputError(
            f"step={number} does not come after step {last}, the last one recorded; give a later "
            "one."
        )
    return number
