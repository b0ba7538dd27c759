"""Run: the recipe, the split, the metrics and the weights of one training at many steps.

Of a run folder every file is checked against its sha256 when it is read.
"""

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import refused
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.files import read_checked, tensors_from_bytes
from grokinterp.base.paths import as_path
from grokinterp.base.result import card
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.user_models import HookedModel
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.runs.manifest import (
    DYNAMICS,
    MEASURED,
    METRICS,
    SPLIT,
    Manifest,
    weights_file,
)
from grokinterp.runs.metrics import COLUMNS, read_csv
from grokinterp.tasks.splits import are_rows, mask_of
from grokinterp.tasks.task import Task

MANY = ("checkpoints",)  # which can be many, and are listed elsewhere


@runtime_checkable
class Store(Protocol):
    """Where the parts of a run are kept: a run folder, or checkpoints of somebody else."""

    @property
    def manifest(self) -> Manifest: ...  # noqa: D102
    def metrics(self) -> pd.DataFrame: ...  # noqa: D102
    def train_indices(self) -> Int[Tensor, " n_train"] | None: ...  # noqa: D102
    def weights(self, step: int) -> Weights: ...  # noqa: D102
    def verify(self) -> None: ...  # noqa: D102


class RunFolder:
    """The folder of a run: run.json and the files it names."""

    def __init__(self, folder: Path, *, module: torch.nn.Module | None = None) -> None:
        self._folder = folder
        self.manifest = Manifest.read(folder)
        if module is not None:
            self.manifest.architecture = self.manifest.architecture.with_module(module)

    def metrics(self) -> pd.DataFrame:
        """metrics.csv, as far as run.json says that it belongs to the run."""
        return self._table(METRICS, self.manifest.metrics["bytes"], "metrics", COLUMNS)

    def measures(self) -> pd.DataFrame | None:
        """measures.csv in the same way; None where nobody watched with measures."""
        known = self.manifest.measures
        return None if known is None else self._table(MEASURED, known["bytes"], "measures", ())

    def dynamics(self) -> pd.DataFrame | None:
        """dynamics.csv in the same way; None where another loop trained, or an earlier version."""
        known = self.manifest.dynamics
        return None if known is None else self._table(DYNAMICS, known["bytes"], "dynamics", ())

    def train_indices(self) -> Int[Tensor, " n_train"] | None:
        """Rows of the training set in drawing order; None when not recorded."""
        if self.manifest.split is None:
            return None
        rows = self._tensors(SPLIT).get("train_indices")
        n = self.manifest.task.n_inputs
        if rows is None or rows.dtype != torch.int64 or not are_rows(rows, n):
            raise InputError(
                f"{self._folder / SPLIT} is damaged: it has no rows from 0 to {n - 1}, each once."
            )
        return rows

    def weights(self, step: int) -> Weights:
        """The weights of a saved step under canonical names."""
        weights = self._tensors(weights_file(step))
        self.manifest.architecture.check(weights)
        if {weight.dtype for weight in weights.values()} not in ({torch.float32}, {torch.float64}):
            raise InputError(f"{self._folder / weights_file(step)} is not all of one precision.")
        return {name: weights[name] for name in self.manifest.architecture.parameter_shapes()}

    def verify(self) -> None:
        """Check every file against its sha256; the first damaged one is named in the error."""
        self.metrics()
        self.measures()
        self.dynamics()
        self.train_indices()
        for step in self.manifest.steps:
            self.weights(step)

    def _table(self, name: str, n_bytes: int, what: str, columns: tuple[str, ...]) -> pd.DataFrame:
        path = self._folder / name
        end = None if self.manifest.finished else n_bytes
        content = read_checked(path, self.manifest.sha256[name], n_bytes=end)
        try:
            return read_csv(content, columns)
        except (LookupError, OverflowError, TypeError, ValueError):
            raise InputError(f"{path} is damaged: it is no table of {what}.") from None

    def _tensors(self, name: str) -> Weights:
        path = self._folder / name
        return tensors_from_bytes(read_checked(path, self.manifest.sha256[name]), path)


class Run:
    """One training run on disk. Weights are read when asked for, and checked.

    Step s is the state after s optimiser updates; -1 stands for the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> run.task.title, len(run.steps), run.steps[-1], int(run.train_mask.sum())
    ('add mod 31', 26, 10000, 624)
    >>> rows = run.metrics.step.isin([300, 5000])
    >>> run.metrics.loc[rows, ["step", "train_acc", "test_acc"]].round(2)
         step  train_acc  test_acc
    30    300        1.0      0.68
    500  5000        1.0      0.99
    >>> run.weights(300)["blocks.0.mlp.W_in"].shape
    torch.Size([32, 160])
    >>> run.snapshot(300), run.recipe.weight_decay
    (Snapshot(add mod 31 at step 300), 0.5)
    """

    def __init__(
        self,
        path: str | Path,
        store: Store | None = None,
        *,
        module: torch.nn.Module | None = None,
    ) -> None:
        self.path = as_path("path", path, such_as="runs/mine")
        self._store: Store = RunFolder(self.path, module=module) if store is None else store
        self.manifest = self._store.manifest
        if not self.manifest.steps:
            raise InputError(f"{path} holds no checkpoint yet; let training go on (--resume).")

    @property
    def recipe(self) -> Recipe | None:
        """The recipe it was trained by; None for a run from somebody else's loop."""
        return self.manifest.recipe

    @property
    def task(self) -> Task:
        """What was learned."""
        return self.manifest.task

    @property
    def architecture(self) -> BaseArchitecture:
        """The shape of the model."""
        return self.manifest.architecture

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps whose weights are saved, in order."""
        return tuple(self.manifest.steps)

    @property
    def steps_known(self) -> bool:
        """Whether `steps` are numbers of updates; otherwise they are positions, 0, 1, 2, ..."""
        return self.manifest.steps_known

    @property
    def finished(self) -> bool:
        """Whether training reached its last step."""
        return self.manifest.finished

    @property
    def notes(self) -> tuple[str, ...]:
        """What was inferred or assumed about checkpoints of others; empty for runs of our own."""
        return tuple((self.manifest.source or {}).get("notes", ()))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """step, train_loss, test_loss, train_acc, test_acc as training logged them.

        Of a commutative operation whose split is known, test_loss_unmirrored and
        test_acc_unmirrored too, over the test pairs whose mirror (b, a) is not trained on; runs
        that 0.2.0 began do not have them.
        """
        metrics = self._store.metrics()
        if not self.steps_known:
            metrics.attrs["steps_known"] = False  # for who is given the table alone
        return metrics

    @cached_property
    def measures(self) -> pd.DataFrame | None:
        """The measures that `gi.Watch` wrote as training went on, a row a checkpoint; else None.

        `gi.progress_measures(run)` takes them from the checkpoints of any run: with the key
        frequencies of the last one, where a watch that was given none took each checkpoint's own.
        """
        return self._store.measures() if isinstance(self._store, RunFolder) else None

    @cached_property
    def dynamics(self) -> pd.DataFrame | None:
        """What updates were made of, a row a logged step but the last; else None.

        `weight_norm` of all trained weights; `grad_norm` of the gradient of the objective there, on
        the rows of the next update, and `cos_gradient_weights`; that update is -lr (u +
        weight_decay w), and `update_loss` = lr |u|, `update_decay` = lr weight_decay |w|, and
        `cos_updates` are of its two parts. Those are null for an optimiser that couples the two.

        >>> import tempfile
        >>> import grokinterp as gi
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = gi.train(gi.Recipe(p=5, d_mlp=16, steps=30), out, progress=False)
        ...     run.dynamics[["step", "weight_norm", "update_loss", "update_decay"]].round(3)
           step  weight_norm  update_loss  update_decay
        0     0       18.878        0.261         0.019
        1    10       18.869        0.225         0.019
        2    20       19.134        0.252         0.019
        """
        return self._store.dynamics() if isinstance(self._store, RunFolder) else None

    @cached_property
    def train_indices(self) -> Int[Tensor, " n_train"] | None:
        """Rows of the table that were trained on, in drawing order; None when not recorded."""
        return self._store.train_indices()

    @cached_property
    def train_mask(self) -> Bool[Tensor, " n_inputs"] | None:
        """Which rows of the table were trained on; None when not recorded."""
        if self.train_indices is None:
            return None
        return mask_of(self.train_indices, self.task.n_inputs)

    def weights(self, step: int = -1) -> Weights:
        """The weights of a step under canonical names."""
        return self._store.weights(self._saved(step))

    def model(self, step: int = -1) -> HookedModel:
        """The model of a step, ready for hooks.

        A HookedTransformer (TransformerLens 3) or TransformerBridge (4); of other kinds this
        package's HookedNetwork, or a HookedModule around a module of one's own.
        """
        return self.architecture.hooked(self.weights(step))

    def snapshot(self, step: int = -1) -> Snapshot:
        """The model of a step seen over its whole task.

        >>> import grokinterp as gi
        >>> seen = gi.load("mod31-small").snapshot(300)
        >>> right = (seen.logits.argmax(dim=1) == seen.task.labels).double()
        >>> for name in ("train_mask", "test_rows", "unmirrored_rows"):
        ...     print(name, round(right[getattr(seen, name)].mean().item(), 2))
        train_mask 1.0
        test_rows 0.68
        unmirrored_rows 0.11
        """
        step = self._saved(step)
        return from_weights(
            self.weights(step), self.architecture, self.task, train_mask=self.train_mask, step=step
        )

    def verify(self) -> None:
        """Check every file; the first damaged one is named in the error."""
        self._store.verify()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self._about()})"

    def _about(self) -> str:
        return (
            f"{self.task.title}, {len(self.steps)} checkpoints, "
            f"{'steps' if self.steps_known else 'positions'} {self.steps[0]} to "
            f"{self.steps[-1]}{'' if self.finished else ', unfinished'}"
        )

    def _repr_html_(self) -> str:
        lines = [self._about()]
        if self.recipe is not None:
            changed = (f"{key}={x}" for key, x in self.recipe.changed().items() if key not in MANY)
            lines.append(f"recipe: {', '.join(changed) or 'the defaults'}")
        last = None
        # The metrics of others are computed at every checkpoint when first asked for.
        if isinstance(self._store, RunFolder) or "metrics" in vars(self):
            try:
                last = self.metrics.tail(1)
            except InputError as error:
                lines.append(str(error))
        return card(f"Run {self.path}", lines, last, notes=self.notes)

    def _saved(self, step: int) -> int:
        number = whole_number(step)
        if number is None:
            raise refused("step", step, "a step", "a whole number, -1 for the last")
        if number == -1:
            return self.steps[-1]
        if number not in self.steps:
            near = nearest_step(self.steps, number, at=int)
            raise InputError(
                f"step {shown(number)} is not saved in {self.path}; the nearest checkpoint is "
                f"{near} (run.steps lists all {len(self.steps)})."
            )
        return number


def nearest_step(steps: Iterable[int], wanted: float, *, at: Callable[[int], float] = float) -> int:
    """The checkpoint nearest to a step, the first of two that are as near.

    `at` says where a checkpoint stands on another axis, that of `wanted`.

    >>> nearest_step([0, 100, 200], 140), nearest_step([0, 100, 200], 3, at=lambda s: s / 50)
    (100, 100)
    """
    return min(steps, key=lambda step: abs(at(step) - wanted))
