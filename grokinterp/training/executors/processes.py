"""Several runs at a time on this machine, in processes that are started once and used again.

A worker that is killed takes no run with it: what is left of its job is given to a new one, which
goes on from the last checkpoint. Workers have a session of their own, so that Ctrl-C in a terminal
reaches only the process that started them; this one asks each of them, once, to save and end. When
it is killed itself, they see it and do the same.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from grokinterp.errors import InputError
from grokinterp.training.executors.job import RETRIES, Job, Made, Stopped, failed, make_runs

STOP_SECONDS = 30.0  # to save a run in; then a worker is killed
MOST_FALSE_STARTS = 10  # workers in a row that were killed before they began
READY = "ready"


class _Worker:
    """A process, the connection to it, and what is left of the job it is at."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        with _blocked_interrupts():
            self.process.start()
        theirs.close()
        self.ready = False
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job
        with suppress(OSError):  # it is dead, and the connection will say so
            self.connection.send(job)

    def exit_status(self) -> int:
        """Of a process whose connection has ended."""
        self.process.join(STOP_SECONDS)
        return self.process.exitcode or 0


def run_in_processes(jobs: Sequence[Job], *, workers: int) -> Generator[Made, None, None]:
    """Make the runs in so many processes; they come back in the order in which they end."""
    waiting = deque(jobs)
    deaths: Counter[tuple[str, ...]] = Counter()
    false_starts = 0
    pool: list[_Worker] = []
    try:
        while waiting or any(worker.job for worker in pool):
            busy = sum(worker.job is not None for worker in pool)
            while len(pool) < min(workers, busy + len(waiting)):
                pool.append(_Worker())
            for worker in pool:
                if worker.ready and worker.job is None and waiting:
                    worker.give(waiting.popleft())
            for worker in _heard_of(pool):
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    pool.remove(worker)
                    worker.connection.close()
                    status = worker.exit_status()
                    if not worker.ready:
                        false_starts += 1
                        _check_start(status, false_starts)
                    elif (job := worker.job) is not None:
                        deaths[job.names] += 1
                        if deaths[job.names] <= RETRIES:
                            waiting.appendleft(job)
                        elif len(job.names) > 1:  # too large together, or one of them kills it
                            waiting.extendleft(reversed(job.singly()))
                        else:
                            yield failed(job.names[0], _why_dead(status, deaths[job.names]))
                    continue
                if isinstance(message, Exception):
                    raise message
                worker.ready, false_starts = True, 0
                if message != READY:
                    worker.job = worker.job and worker.job.without(message.name)
                    yield message
    except KeyboardInterrupt:
        names = tuple(name for worker in pool if worker.job for name in worker.job.names)
        yield from _stop(pool)
        raise Stopped(names) from None
    finally:
        _stop(pool)


def _heard_of(pool: Sequence[_Worker], timeout: float | None = None) -> list[_Worker]:
    """The workers that have sent something, or are dead."""
    heard = wait([worker.connection for worker in pool], timeout)
    return [worker for worker in pool if worker.connection in heard]


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


def _why_dead(status: int, times: int) -> str:
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return f"its worker was killed {times} times ({how}); is there memory enough?"


def _stop(pool: list[_Worker]) -> list[Made]:
    """Have every worker save and end; what they finished on the way."""
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
            for worker in _heard_of(left, remaining):
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    left.remove(worker)
                    continue
                if isinstance(message, Made):
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


# In the worker.


def _work(connection: Connection) -> None:
    """Make run after run, until there are no more or it is time to stop."""
    try:
        if os.name == "posix":
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
    """What came of the next job; an error that is not its recipes' goes back whole."""
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
        yield _sendable(error)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def _end_with_parent() -> None:
    """Have this process save and end when the one that started it is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _blocked_interrupts() -> Iterator[Any]:
    """Start a process that Ctrl-C in a terminal cannot end before it is ready for that."""
    if os.name != "posix":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
