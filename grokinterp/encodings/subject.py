"""What a measure of an encoding is of: one model, at one step."""

from jaxtyping import Bool
from torch import Tensor

from grokinterp.circuits.subject import Subject
from grokinterp.errors import InputError
from grokinterp.runs.resolve import snapshot_of
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask


def snapshot_at(
    x: Subject,
    *,
    step: int = -1,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Snapshot:
    """The snapshot of a run's step, of a snapshot, or of a model with its task."""
    if step != -1 and not isinstance(x, Run):
        raise InputError(f"step={step!r} is for runs; a {type(x).__name__} has one step only.")
    if isinstance(x, Run) and step != -1:
        x = x.snapshot(step)
    return snapshot_of(x, task=task, train_mask=train_mask)
