"""Runs of a sweep, the same wherever they are made: trained, or gone on with, and measured."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from grokinterp.errors import InputError
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.lock import LOCK, hold
from grokinterp.runs.manifest import RESUME, RUN_JSON, Manifest
from grokinterp.runs.run import Run
from grokinterp.training.ensemble import train_ensemble
from grokinterp.training.ensemble_state import NEXT
from grokinterp.training.loop import is_finished, train, using_threads
from grokinterp.training.places import Place

NOTE = "note"
RETRIES = 3  # of a job whose worker was killed
RELEASE_SECONDS = 60.0  # in which the worker of a killed sweep saves its runs and lets them go

Measure = Callable[[Run], Mapping[str, object]]


@dataclass(frozen=True)
class Job:
    """Runs to be made by one worker, together if there are several; it goes to other processes."""

    members: Mapping[str, Recipe]  # by the names of the runs
    place: Place
    measure: Measure | None
    threads: int  # of torch, at least 1

    @property
    def names(self) -> tuple[str, ...]:
        """Of the runs, in order."""
        return tuple(self.members)

    @property
    def label(self) -> str:
        """What people call it."""
        first, *others = self.names
        return f"{first} and {len(others)} more" if others else first

    def without(self, name: str) -> "Job | None":
        """The job that is left when a run is made; None if there is none."""
        members = {each: recipe for each, recipe in self.members.items() if each != name}
        return replace(self, members=members) if members else None

    def singly(self) -> "list[Job]":
        """A job for every run."""
        return [replace(self, members={name: recipe}) for name, recipe in self.members.items()]


@dataclass(frozen=True)
class Made:
    """What came of a run: columns of its row, and the run.json that they rest on."""

    name: str
    found: Mapping[str, object]
    run_json: bytes  # b"" where it could not be trained or measured; `found` has a note then


class Stopped(KeyboardInterrupt):
    """A sweep was asked to stop, while these runs were being made."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        super().__init__(", ".join(names))
        self.names = names


def make_runs(job: Job) -> Iterator[Made]:
    """Train the runs, or the rest of them, and measure one after the other, each given as it ends.

    What cannot be done is noted. When a run is given, its place has it.
    """
    with using_threads(job.threads), ExitStack() as all_of_them:
        members = []
        for name, recipe in job.members.items():
            own = all_of_them.enter_context(ExitStack())
            members.append((name, recipe, own.enter_context(job.place.run_folder(name)), own))
        _wait_for([folder for _, _, folder, _ in members])
        if len(members) > 1:
            _train_together([(recipe, folder) for _, recipe, folder, _ in members])
        for name, recipe, folder, own in members:
            made = _make_run(name, recipe, folder, job.measure)
            own.close()
            yield made


def failed(name: str, note: str) -> Made:
    """A run that came to nothing, and why."""
    return Made(name, {NOTE: note}, b"")


def _make_run(name: str, recipe: Recipe, folder: Path, measure: Measure | None) -> Made:
    """Train what is left of a run, and measure it."""
    try:
        run = train(recipe, folder, resume=True, progress=False)
        (folder / NEXT).unlink(missing_ok=True)  # of an ensemble that was killed
        found = {} if measure is None else dict(measure(run))
        return Made(name, found, (folder / RUN_JSON).read_bytes())
    except InputError as error:
        return failed(name, str(error))


def _train_together(members: Sequence[tuple[Recipe, Path]]) -> None:
    """Train those that can be as an ensemble, if that is faster; the others are left as they are.

    If what was saved of them has no common step, only those that have not begun go together.
    """
    left = [member for member in members if _can_be_a_member(*member)]
    new = [member for member in left if not (member[1] / RUN_JSON).exists()]
    for some in [left] if new == left else [left, new]:
        if len(some) < 2:
            continue
        recipes, folders = zip(*some, strict=True)
        try:
            train_ensemble(recipes, folders, resume=True, progress=False, when="faster")
        except InputError as error:  # training them singly says what is wrong with which
            told = "%d runs cannot be trained together: %s"
            logging.getLogger(__name__).info(told, len(some), error)
        else:
            return


def _can_be_a_member(recipe: Recipe, folder: Path) -> bool:
    """Whether a run is unfinished, of this recipe, and was not begun singly."""
    try:
        if is_finished(folder, recipe):
            return False
        if not (folder / RESUME).exists() or not (folder / RUN_JSON).exists():
            return True
        return "ensemble" in Manifest.read(folder).environments()[-1][1]
    except InputError:
        return False


def _wait_for(folders: Sequence[Path]) -> None:
    """Give a worker that outlived its sweep the time to save these runs and end."""
    until = time.monotonic() + RELEASE_SECONDS
    for folder in folders:
        while (folder / LOCK).exists() and time.monotonic() < until:
            with suppress(InputError):
                hold(folder).release()
                break
            time.sleep(0.1)
