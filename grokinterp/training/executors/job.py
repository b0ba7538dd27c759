"""One run of a sweep, the same wherever it is made: trained, or gone on with, and measured."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grokinterp.errors import InputError
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.lock import LOCK, hold
from grokinterp.runs.manifest import RUN_JSON
from grokinterp.runs.run import Run
from grokinterp.training.loop import train, using_threads
from grokinterp.training.places import Place

NOTE = "note"
RETRIES = 3  # of a run whose worker was killed
RELEASE_SECONDS = 60.0  # in which the worker of a killed sweep saves its run and lets it go

Measure = Callable[[Run], Mapping[str, object]]


@dataclass(frozen=True)
class Job:
    """A run to be made; it goes to other processes and machines."""

    name: str
    recipe: Recipe
    place: Place
    measure: Measure | None
    threads: int  # of torch, at least 1


@dataclass(frozen=True)
class Made:
    """What came of it: columns of its row, and the run.json that they rest on."""

    name: str
    found: Mapping[str, object]
    run_json: bytes  # b"" where it could not be trained or measured; `found` has a note then


class Stopped(KeyboardInterrupt):
    """A sweep was asked to stop, while these runs were being made."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        super().__init__(", ".join(names))
        self.names = names


def make_run(job: Job) -> Made:
    """Train the run, or the rest of it, and measure it; what cannot be done is noted."""
    with using_threads(job.threads), job.place.run_folder(job.name) as folder:
        try:
            _wait_for(folder)
            run = train(job.recipe, folder, resume=True, progress=False)
            found = {} if job.measure is None else dict(job.measure(run))
            return Made(job.name, found, (folder / RUN_JSON).read_bytes())
        except InputError as error:
            return failed(job, str(error))


def failed(job: Job, note: str) -> Made:
    """A run that came to nothing, and why."""
    return Made(job.name, {NOTE: note}, b"")


def _wait_for(folder: Path) -> None:
    """Give a worker that outlived its sweep the time to save this run and end."""
    until = time.monotonic() + RELEASE_SECONDS
    while (folder / LOCK).exists() and time.monotonic() < until:
        with suppress(InputError):
            hold(folder).release()
            return
        time.sleep(0.1)
