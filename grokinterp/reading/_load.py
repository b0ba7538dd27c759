"""Opening a run, whoever wrote it."""

from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.errors import InputError, named, shown
from grokinterp.base.paths import as_path, reaching
from grokinterp.models.user_models import AnyModel, hooked_model
from grokinterp.reading.foreign_runs import open_foreign
from grokinterp.reading.sources import holds_foreign
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.models_on_tasks import snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

# MERGED runs.resolve: One argument, several kinds: a run, a snapshot, or a model with its task.


def load(path: str | Path, *, format: str = "auto", **settings: Any) -> Run:
    """Open a run folder, or checkpoints that somebody else wrote.

    Foreign checkpoints (see `grokinterp.reading.sources` for the formats) are read where they
    are, never executed; `run.notes` says what was inferred or assumed. What the files do not say
    can be given as settings: `gi.load("model.pt", split="torch", data_seed=0, train_fraction=0.3)`;
    see `grokinterp.reading.settings`.

    Raises an InputError in one line for what is missing, no run, damaged, or written by a newer
    version.
    """
    path = as_path("path", path, such_as="runs/mine")
    with reaching(path):
        return _opened(path, format, settings)


def _opened(path: Path, format: str, settings: dict[str, Any]) -> Run:
    foreign = holds_foreign(path)
    if format == "auto" and not foreign:
        if settings:
            raise InputError(
                f"{path} is a run of grokinterp: it knows its {next(iter(settings))!r}; settings "
                "are for checkpoints of others."
            )
        return Run(path)
    return Run(path, open_foreign(path, format=format, settings=settings))


def snapshot_at(
    x: Run | Snapshot | AnyModel,
    *,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Snapshot:
    """The snapshot of a run's step, -1 for the last; of what has one step only, `snapshot_of`."""
    if step == -1:
        return snapshot_of(x, task=task, train_mask=train_mask)
    if not isinstance(x, Run):
        raise InputError(f"step={shown(step)} is for runs; a {type(x).__name__} has one step only.")
    return x.snapshot(step)


def snapshot_of(
    x: Run | Snapshot | AnyModel,
    *,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Snapshot:
    """The snapshot an analysis is about: of a run's last step, as given, or of a user's model."""
    if isinstance(x, Run | Snapshot):
        if train_mask is not None or (task is not None and task != x.task):
            raise InputError(
                f"task= and train_mask= are for models, this {type(x).__name__.lower()} has its "
                "own; give gi.snapshot(run.model(), task, train_mask=mask) to use others."
            )
        return x.snapshot() if isinstance(x, Run) else x
    model = hooked_model(
        x,
        otherwise="is not something to analyse; give a run (gi.load(path)), a snapshot, or a "
        "hooked model with task=",
    )
    if task is None:
        raise InputError("a model needs its task; give task=gi.ModularTask('add', p=113).")
    return snapshot(model, task, train_mask=train_mask)


def check_run(x: object) -> None:
    """Refuse what has no checkpoints."""
    if not isinstance(x, Run):
        raise InputError(f"{named(x)} has no checkpoints; give a run (gi.load(path)).")


def check_snapshot(x: object) -> None:
    """Refuse what is no snapshot."""
    if not isinstance(x, Snapshot):
        raise InputError(
            f"{named(x)} is no snapshot; give run.snapshot() or gi.snapshot(model, task)."
        )
