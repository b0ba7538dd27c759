"""Opening a run, whoever wrote it."""

from pathlib import Path
from typing import Any

from grokinterp.errors import InputError
from grokinterp.paths import as_path, reaching
from grokinterp.runs.foreign.sources import holds_foreign
from grokinterp.runs.foreign.store import open_foreign
from grokinterp.runs.run import Run


def load(path: str | Path, *, format: str = "auto", **settings: Any) -> Run:
    """Open a run folder, or checkpoints that somebody else wrote.

    Foreign checkpoints (see `grokinterp.runs.foreign.sources` for the formats) are read where they
    are, never executed; `run.notes` says what was inferred or assumed. What the files do not say
    can be given as settings: `gi.load("model.pt", split="torch", data_seed=0, train_fraction=0.3)`;
    see `grokinterp.runs.foreign.settings`.

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
