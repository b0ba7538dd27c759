"""What a circuit analysis is about: one model over its whole task, and the frequencies asked of."""

from collections.abc import Iterable, Sequence

from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import listed
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.fourier._key_frequencies import Keys, accepted
from grokinterp.fourier.answers import checked_frequencies, no_frequencies_reason, usable_group
from grokinterp.models.user_models import AnyModel
from grokinterp.reading._load import check_run, snapshot_at, snapshot_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

__all__ = ["check_run"]  # for those who look for it here
Subject = Run | Snapshot | AnyModel


def subject_of(
    x: Subject,
    *,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> tuple[Snapshot, Keys]:
    """The snapshot, and its key frequencies ascending; () with the reason where there are none.

    The key frequencies of a run are those of its last checkpoint, whatever the step, so that steps
    can be compared (`gi.key_frequencies`); given ones are taken as they are.
    """
    last = snapshot_of(x, task=task, train_mask=train_mask)
    snapshot = last if step == -1 else snapshot_at(x, step=step)
    group = usable_group(last)
    if group is None:
        return snapshot, Keys(reason=no_frequencies_reason(last))
    if frequencies is None:
        return snapshot, accepted(last).keys
    chosen = checked_frequencies(frequencies, group)
    if isinstance(frequencies, Keys):  # handed on: why there are none is known already
        return snapshot, frequencies
    return snapshot, Keys(chosen, reason=None if chosen else "none were given")


def need_key_frequencies(keys: Sequence[int]) -> None:
    """Refuse to look at a circuit that nobody claims."""
    if not keys:
        reason = keys.reason if isinstance(keys, Keys) else "none were given"
        raise InputError(
            f"the model has no key frequencies, so no circuit is claimed: {reason}. Give such as "
            "frequencies=[1, 5] to look at these all the same."
        )


def need_residual_stream(snapshot: Snapshot) -> None:
    """Refuse a model that has neither attention nor a residual stream."""
    if snapshot.kind != "transformer":
        raise InputError(
            f"this {snapshot.kind} has no attention and no residual stream; give a transformer, or "
            "use gi.ablate, which takes all models."
        )


def steps_of(x: Subject, step: int | Sequence[int] | str) -> list[int]:
    """The steps that `step` asks for: one, several, or "all" of a run."""
    if step == "all":
        return list(x.steps) if isinstance(x, Run) else [-1]
    if isinstance(step, str):
        raise InputError(f"step={shown(step)} is not a step; give a number, several, or 'all'.")
    several = whole_number(step) is None and isinstance(step, Iterable)
    found: list[int]
    found = listed("step", step, such_as="[0, 100]") if several else [step]  # type: ignore[list-item]
    if not found:
        raise InputError(f"step={shown(step)} has no step; give a number, several, or 'all'.")
    return found
