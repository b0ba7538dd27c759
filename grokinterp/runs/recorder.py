"""Recorder: the same run folder from a training loop of the user's own."""

import operator
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import SupportsFloat, SupportsIndex

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.errors import InputError, shown
from grokinterp.models.adapter import HookedModel
from grokinterp.models.kinds import Shape, architecture_of, build_model
from grokinterp.models.model_locks import alone_with
from grokinterp.paths import as_path
from grokinterp.runs.environment import current_environment
from grokinterp.runs.forward import agree
from grokinterp.runs.lock import Hold, hold
from grokinterp.runs.metrics import Metrics, as_metrics, evaluate, logged_unmirrored
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.runs.taking import check_task, checked_mask, snapshot
from grokinterp.runs.writer import RunWriter, refuse_diverged
from grokinterp.tasks.splits import mask_of
from grokinterp.tasks.task import Task

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
    this package. Give the split as
    `train_mask` (a boolean per row `a*p + b`) or `train_indices`; without one, everything that
    needs it is null. Use it in a `with` block to close it whatever happens. Until it is closed,
    no other process writes that folder.
    """

    def __init__(
        self,
        out: str | Path,
        *,
        task: Task,
        train_mask: Bool[Tensor, " n_inputs"] | None = None,
        train_indices: Int[Tensor, " n_train"] | None = None,
    ) -> None:
        check_task(task)
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
        self._last = -1

    def save(
        self, step: SupportsIndex, model: HookedModel, *, metrics: Logged | None = None
    ) -> Metrics:
        """Save the weights of a step and log its metrics, which are returned."""
        logged = self._log(step, model, metrics)
        assert self._writer is not None
        # float32 holds every value of half precision, and everything here computes in it.
        weights = {
            name: w if w.dtype.itemsize > 2 else w.float() for name, w in self._seen.weights.items()
        }
        self._writer.save(self._last, weights)
        return logged

    def log(
        self, step: SupportsIndex, model: HookedModel, *, metrics: Logged | None = None
    ) -> Metrics:
        """Log the metrics of a step; they reach the disk with the next `save` or `close`.

        `metrics` (train_loss, test_loss, train_acc, test_acc) spares the evaluation over the table.
        Of a commutative operation with a split it may hold test_loss_unmirrored and
        test_acc_unmirrored too, over the test pairs whose mirror (b, a) is not trained on. What it
        does not hold is NaN, an empty cell; what the run has no column for is left out.
        """
        return self._log(step, model, metrics)

    def close(self) -> Run:
        """Mark the run as finished and open it."""
        if self._writer is None or not self._writer.manifest.steps:
            raise InputError(f"nothing was saved into {self.path}; call save(step, model) first.")
        self._writer.finish()
        self._let_go()
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
            if self._writer is not None:
                self._writer.flush() if kind else self._writer.finish()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _log(self, step: SupportsIndex, model: HookedModel, given: Logged | None) -> Metrics:
        number = _checked_step(step, self._last)
        self._seen: Snapshot = snapshot(model, self._task, train_mask=self._train_mask, step=number)
        saved = () if self._writer is None else self._writer.manifest.steps
        refuse_diverged(self.path, number, self._seen.weights, saved=saved)
        if self._writer is None:
            self._writer = self._open(model)
        elif self._hold is None:  # closed, and used again
            self._hold = hold(self.path)
        if given is None:
            metrics = evaluate(
                self._seen.all_logits, self._task.labels, self._train_mask, self._unmirrored
            )
        else:
            metrics = as_metrics(given, self._writer.columns)
        self._writer.log(number, metrics)
        self._last = number
        return metrics

    def _open(self, model: HookedModel) -> RunWriter:
        with alone_with(model):
            architecture = architecture_of(model)
            plain = architecture is not None and self._can_be_rebuilt(model, architecture)
        if architecture is None or not plain:
            raise InputError(
                "the model is not a plain transformer, MLP or CNN (LNPre or RMS norms, other "
                "positions, attention or MLP, hooks): a run rebuilds its models from weights, so "
                "only plain ones can be recorded; gi.snapshot(model, task) analyses any."
            )
        self._hold = hold(self.path)
        try:
            return RunWriter.create(
                self.path,
                task=self._task,
                architecture=architecture,
                train_indices=self._train_indices,
                environment=current_environment(device=str(next(iter(model.parameters())).device)),
            )
        except BaseException:
            self._let_go()
            raise

    def _can_be_rebuilt(self, model: HookedModel, architecture: Shape) -> bool:
        """Whether the weights alone give the model back, at every position."""
        device = next(iter(model.parameters())).device
        twin = build_model(architecture, self._seen.weights)
        return agree(twin, lambda inputs: model(inputs.to(device)).cpu(), self._task)


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
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if number < 0:
        raise InputError(f"step={step!r} is not a whole number from 0 on.")
    if number <= last:
        raise InputError(f"step={number} does not come after step {last}, the last one recorded.")
    return number
