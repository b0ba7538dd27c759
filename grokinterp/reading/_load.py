"""`gi.load`, and what `x` may be in every analysis: a path, a run, a snapshot, or a model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import listed
from grokinterp.base.errors import InputError, named, shown, whole_number
from grokinterp.base.paths import as_path, reaching
from grokinterp.models.user_models import AnyModel, hooked_model
from grokinterp.reading.foreign_runs import open_foreign
from grokinterp.reading.sources import holds_foreign
from grokinterp.runs._snapshot import Snapshot, snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

RunOrPath = Run | str | Path
Subject = RunOrPath | Snapshot | AnyModel


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


def loaded(x: Subject) -> Run | Snapshot | AnyModel:
    """What an analysis looks at: the run that lies at a path; everything else as it is."""
    return load(x) if isinstance(x, str | Path) else x


def run_of(x: RunOrPath) -> Run:
    """The run, or the one at a path; what has no checkpoints is refused."""
    found = loaded(x)
    if not isinstance(found, Run):
        raise InputError(f"{named(x)} has no checkpoints; give a run (gi.load(path)).")
    return found


def runs_of(given: RunOrPath | Sequence[RunOrPath]) -> list[Run]:
    """The runs of a list, or the one that is given by itself."""
    if isinstance(given, Run | str | Path):
        return [run_of(given)]
    if not isinstance(given, Sequence) or not given:
        raise InputError(f"{named(given)} is no run; give gi.load(path), or a list of them.")
    return [run_of(one) for one in given]


def snapshot_of(
    x: Subject,
    *,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Snapshot:
    """The snapshot that an analysis is about: of a run's step (-1: the last), or of a model."""
    x = loaded(x)
    if step != -1 and not isinstance(x, Run):
        raise InputError(f"step={shown(step)} is for runs; a {type(x).__name__} has one step only.")
    if isinstance(x, Run | Snapshot):
        if train_mask is not None or (task is not None and task != x.task):
            raise InputError(
                f"task= and train_mask= are for models, this {type(x).__name__.lower()} has its "
                "own; give gi.snapshot(run.model(), task, train_mask=mask) to use others."
            )
        return x.snapshot(step) if isinstance(x, Run) else x
    model = hooked_model(
        x,
        otherwise="is not something to analyse; give a run (gi.load(path)), a snapshot, or a "
        "hooked model with task=",
    )
    if task is None:
        raise InputError("a model needs its task; give task=gi.ModularTask('add', p=113).")
    return snapshot(model, task, train_mask=train_mask)


def check_snapshot(x: object) -> None:
    """Refuse what is no snapshot."""
    if not isinstance(x, Snapshot):
        raise InputError(
            f"{named(x)} is no snapshot; give run.snapshot() or gi.snapshot(model, task)."
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
