"""What an ensemble needs to go on: a state a member, all of one step, however it was killed.

Every member's state is first written aside as `resume-next.safetensors`, then each is renamed to
the `resume.safetensors` of a single run. A kill before the renaming leaves the old step with all
members, one in the middle of it the new step.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.runs.manifest import RESUME
from grokinterp.runs.writer import RunWriter

NEXT = "resume-next.safetensors"

State = dict[str, Tensor]


def save_together(writers: Sequence[RunWriter], step: int, states: Sequence[State]) -> None:
    """Write the states of all members at a step, those of an earlier one until then."""
    for writer, state in zip(writers, states, strict=True):
        writer.save_resume(step, state, file=NEXT)
    for writer in writers:
        os.replace(writer.folder / NEXT, writer.folder / RESUME)


def read_together(folders: Sequence[Path]) -> tuple[int, list[State]] | None:
    """The latest step at which all members are saved, and their states; None if none is saved.

    InputError if some are, but at no common step.
    """
    found = []
    for folder in folders:
        saved = {file: RunWriter.read_resume(folder, file=file) for file in (NEXT, RESUME)}
        found.append({x[0]: (file, x[1]) for file, x in saved.items() if x is not None})
    common = set[int].intersection(*map(set, found))
    if not common and any((folder / RESUME).exists() for folder in folders):
        _refuse(folders, [max(steps, default=0) for steps in found])
    step = max(common) if common else None
    for folder, steps in zip(folders, found, strict=True):
        if step is not None and steps[step][0] == NEXT:
            os.replace(folder / NEXT, folder / RESUME)
        else:
            (folder / NEXT).unlink(missing_ok=True)
    return None if step is None else (step, [steps[step][1] for steps in found])


def _refuse(folders: Sequence[Path], steps: Sequence[int]) -> None:
    first, last = steps.index(min(steps)), steps.index(max(steps))
    raise InputError(
        f"{folders[first]} is saved at step {steps[first]}, {folders[last]} at {steps[last]}; "
        "finish those that have begun singly (gi.train with resume=True), the others together."
    )
