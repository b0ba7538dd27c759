"""How the runs of a sweep are made: trained or trained on, and measured, here or in workers.

Worker processes are started once and used again. One that is killed takes no run with it: what is
left of its job is given to a new one, which goes on from the last save. Workers have a session of
their own, so that Ctrl-C in a terminal reaches only the process that started them; it asks each of
them, once, to save and end. When that process is killed itself, they notice it and do the same.
"""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from grokinterp.base.errors import InputError
from grokinterp.base.files import LOCK, hold
from grokinterp.base.plugins import look_in, name_plugins
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import RUN_JSON
from grokinterp.runs.run import Run
from grokinterp.sweeps.storage import Place
from grokinterp.training.ensemble import begun_together, train_ensemble
from grokinterp.training.loop import Member, is_finished, train, using_threads

NOTE = "note"
RETRIES = 3  # of a job whose worker was killed
RELEASE_SECONDS = 60.0  # in which the worker of a killed sweep saves its runs and lets them go
STOP_SECONDS = 30.0  # to save a run in; then a worker is killed
MOST_FALSE_STARTS = 10  # workers in a row that were killed before they began
READY = "ready"
POSIX = os.name == "posix"

MeasureRun = Callable[[Run], Mapping[str, object]]


@dataclass(frozen=True)
class Job:
    """Runs that one worker makes, together if there are several; it is sent to other processes."""

    members: Mapping[str, Recipe]  # by the names of the runs
    place: Place
    measure: MeasureRun | None
    threads: int  # of torch, at least 1
    plugins: Mapping[str, str] = field(default_factory=dict)  # modules, and where they are found

    @property
    def label(self) -> str:
        """What messages call it."""
        first, *others = self.members
        return f"{first} and {len(others)} more" if others else first

    def without(self, name: str) -> "Job | None":
        """The job that is left when a run is made; None if there is none."""
        members = {each: recipe for each, recipe in self.members.items() if each != name}
        return replace(self, members=members) if members else None

    def give_up(self, note: str, waiting: "deque[Job]") -> "Iterator[Made]":
        """Have every run of a group tried by itself first; the one run of a job gets the note."""
        name, *others = self.members
        if not others:
            yield failed(name, note)
            return
        # Too large together, or one of them kills the worker.
        for name, recipe in reversed(list(self.members.items())):
            waiting.appendleft(replace(self, members={name: recipe}))


@dataclass(frozen=True)
class Made:
    """What came of a run: columns of its row, and the run.json that they rest on."""

    name: str
    found: Mapping[str, object]
    run_json: bytes  # b"" where it could not be trained or measured; `found` has a note then


class Stopped(KeyboardInterrupt):
    """A sweep was asked to stop, while the runs named in `args` were being made."""


def make_runs(job: Job) -> Iterator[Made]:
    """Train the runs, or the rest of them, and measure them one by one, each given as it ends.

    What cannot be done is noted. When a run is given, its place has it.
    """
    for folder in job.plugins.values():
        look_in(folder)
    name_plugins(job.plugins)
    with using_threads(job.threads), ExitStack() as all_places:
        places = {name: all_places.enter_context(ExitStack()) for name in job.members}
        folders = {
            name: place.enter_context(job.place.run_folder(name)) for name, place in places.items()
        }
        _wait_for(folders.values())
        _train_together([(recipe, folders[name]) for name, recipe in job.members.items()])
        for name, recipe in job.members.items():
            try:
                run = train(recipe, folders[name], resume=True, progress=False)
                found = {} if job.measure is None else dict(job.measure(run))
                made = Made(name, found, (folders[name] / RUN_JSON).read_bytes())
            except InputError as error:
                made = failed(name, str(error))
            places[name].close()
            yield made


def failed(name: str, note: str) -> Made:
    """A run that could not be made, and why."""
    return Made(name, {NOTE: note}, b"")


def _train_together(members: Sequence[Member]) -> None:
    """Train those that can be as an ensemble, if that is faster; the others are left as they are.

    If what was saved of them has no common step, only those that have not begun are.
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
            logging.getLogger(__name__).info(
                "%d runs cannot be trained together: %s", len(some), error
            )
        else:
            return


def _can_be_a_member(recipe: Recipe, folder: Path) -> bool:
    """Whether a run is unfinished, of this recipe, and was not begun singly."""
    try:
        return not is_finished(folder, recipe) and begun_together(folder) is not False
    except InputError:
        return False


def _wait_for(folders: Iterable[Path]) -> None:
    """Give a worker that outlived its sweep the time to save these runs and end."""
    until = time.monotonic() + RELEASE_SECONDS
    for folder in folders:
        while (folder / LOCK).exists() and time.monotonic() < until:
            with suppress(InputError):
                hold(folder).release()
                break
            time.sleep(0.1)


@contextmanager
def sigterm_kept(handler: Callable[..., object] | None = None) -> Iterator[None]:
    """Put back what SIGTERM did before; meanwhile use a handler, unless the caller has one."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    if handler is not None and before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_in_process(jobs: Sequence[Job]) -> Generator[Made, None, None]:
    """Make the runs one after another."""
    for job in jobs:
        left = list(job.members)
        try:
            for made in make_runs(job):
                left.remove(made.name)
                yield made
        except KeyboardInterrupt:
            raise Stopped(*left) from None


class _Worker:
    """A process, the connection to it, and what is left of the job it is at."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        if POSIX:  # until it is ready for Ctrl-C in a terminal, that cannot end it
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            if POSIX:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.ready = False
        self.job: Job | None = None


def run_in_processes(jobs: Sequence[Job], *, workers: int) -> Generator[Made, None, None]:
    """Make the runs in this many processes; they come back in the order in which they end."""
    waiting = deque(jobs)
    deaths: Counter[str] = Counter()  # by the labels of jobs
    false_starts = 0
    pool: list[_Worker] = []
    try:
        while waiting or any(worker.job for worker in pool):
            busy = sum(worker.job is not None for worker in pool)
            while len(pool) < min(workers, busy + len(waiting)):
                pool.append(_Worker())
            for worker in pool:
                if worker.ready and worker.job is None and waiting:
                    worker.job = waiting.popleft()
                    with suppress(OSError):  # it is dead, as its connection will show
                        worker.connection.send(worker.job)
            for worker, message in _heard_from(pool):
                if message is None:
                    pool.remove(worker)
                    worker.connection.close()
                    worker.process.join(STOP_SECONDS)
                    status = worker.process.exitcode or 0
                    if not worker.ready:
                        false_starts += 1
                        _check_start(status, false_starts)
                    elif (job := worker.job) is not None:
                        deaths[job.label] += 1
                        if deaths[job.label] <= RETRIES:
                            waiting.appendleft(job)
                        else:
                            how = f"signal {-status}" if status < 0 else f"status {status}"
                            note = f"its worker was killed {deaths[job.label]} times ({how}); "
                            yield from job.give_up(note + "is there memory enough?", waiting)
                    continue
                if isinstance(message, Exception):
                    raise message
                worker.ready, false_starts = True, 0
                if message != READY:
                    worker.job = worker.job and worker.job.without(message.name)
                    yield message
    except KeyboardInterrupt:
        names = [name for worker in pool if worker.job for name in worker.job.members]
        yield from _stop(pool)
        raise Stopped(*names) from None
    finally:
        _stop(pool)


def _heard_from(
    pool: Sequence[_Worker], timeout: float | None = None
) -> Iterator[tuple[_Worker, Any]]:
    """The workers that have sent something, each with its message; None from one that is dead."""
    heard = wait([worker.connection for worker in pool], timeout)
    for worker in [worker for worker in pool if worker.connection in heard]:
        message = None
        with suppress(EOFError, OSError):
            message = worker.connection.recv()
        yield worker, message


def _check_start(status: int, false_starts: int) -> None:
    """Go on only if a worker that did not come up was killed, and not every time."""
    if status >= 0:
        raise InputError(
            f"a worker ended as it started (status {status}); in a script, call run_sweep below "
            "if __name__ == '__main__':, or give workers=1."
        )
    if false_starts > MOST_FALSE_STARTS:
        raise InputError(
            f"{false_starts} workers in a row were killed as they started (signal {-status}); give "
            "fewer, or more memory."
        )


def _stop(pool: list[_Worker]) -> list[Made]:
    """Have every worker save and end; returns what they finished meanwhile."""
    finished = []
    until = time.monotonic() + STOP_SECONDS
    try:
        for worker in pool:
            if worker.job is not None or not worker.ready:
                worker.process.terminate()
            else:
                worker.connection.close()  # it waits for a job, and ends when none can come
        left = [worker for worker in pool if not worker.connection.closed]
        while left and (remaining := until - time.monotonic()) > 0:
            for worker, message in _heard_from(left, remaining):
                if message is None:
                    left.remove(worker)
                elif isinstance(message, Made):
                    finished.append(message)
        for worker in pool:
            worker.process.join(max(0.0, until - time.monotonic()))
    finally:
        for worker in pool:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
        pool.clear()
    return finished


def _work(connection: Connection) -> None:
    """What a worker does: make run after run, until there are no more or it is time to stop."""
    try:
        if POSIX:
            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        connection.send(READY)
        while True:
            for answer in _answers(connection):
                connection.send(answer)
    except (KeyboardInterrupt, EOFError, OSError):  # asked to stop, or the other end is gone
        sys.exit(130)


def _answers(connection: Connection) -> Iterator[Made | Exception]:
    """What came of the next job; an error that its recipes do not explain is sent back whole."""
    message = connection.recv_bytes()
    try:
        job: Job = pickle.loads(message)
    except Exception as error:
        yield InputError(
            f"a worker cannot load measure ({error}); give a function of a module, or workers=1."
        )
        return
    try:
        yield from make_runs(job)
    except Exception as error:
        error.add_note(f"in a worker, making {job.label}:\n{traceback.format_exc()}")
        sent: Exception = RuntimeError("".join(traceback.format_exception(error)))
        with suppress(Exception):  # some errors cannot be sent
            pickle.loads(pickle.dumps(error))
            sent = error
        yield sent


def _end_with_parent() -> None:
    """Have this process save and end when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
