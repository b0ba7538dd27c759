"""One argument, several kinds: a run, a snapshot, or a model with its task."""

from jaxtyping import Bool
from torch import Tensor

from grokinterp.errors import InputError, named, shown
from grokinterp.models.unwrapping import AnyModel, hooked_model
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.runs.taking import snapshot
from grokinterp.tasks.task import Task


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
