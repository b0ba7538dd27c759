"""A task a run on a Ray cluster, or on one that is started here for as long as it takes.

Ray gives a task so many CPUs as its run has threads, and starts it anew when its worker or its node
dies; it goes on from what the place of the sweep has. Needs the extra `ray`.
"""

import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from grokinterp.errors import InputError
from grokinterp.training.executors.job import RETRIES, Job, Made, Stopped, failed, make_run

STOP_SECONDS = 30.0  # to save the runs in
QUIET = {  # before ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
}
OURS_ALONE = {"RAY_AUTH_MODE": "token"}  # Ray's default, but when it is said Ray says nothing


def run_on_ray(
    jobs: Sequence[Job], *, workers: int | None, address: str | None = None
) -> Generator[Made, None, None]:
    """Make the runs on the cluster at `address`, or on a local one; as they end.

    At most `workers` at a time; None is as many as the cluster takes.
    """
    if not jobs:
        return
    ray = _ray(local=address is None)
    waiting = iter(jobs)
    with _cluster(ray, jobs, workers=workers, address=address):
        task = ray.remote(max_retries=RETRIES)(_make_run)
        pending: dict[Any, Job] = {}
        try:
            while True:
                room = None if workers is None else workers - len(pending)
                for job in islice(waiting, room):
                    pending[task.options(num_cpus=job.threads, name=job.name).remote(job)] = job
                if not pending:
                    return
                for done in ray.wait(list(pending), num_returns=1)[0]:
                    yield _result(ray, done, pending.pop(done))
        except KeyboardInterrupt:
            for each in pending:
                ray.cancel(each)
            ended, _ = ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
            for each in ended:
                with suppress(ray.exceptions.RayError):
                    if (made := ray.get(each)) is not None:
                        yield made
            raise Stopped from None


def _make_run(job: Job) -> Made | None:
    """In the task: None when it was asked to stop, and has saved."""
    try:
        return make_run(job)
    except KeyboardInterrupt:
        return None


def _result(ray: Any, done: Any, job: Job) -> Made:
    try:
        made = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:  # its worker or node died, time after time
        return failed(job, f"Ray gave it up: {' '.join(str(error).split())[:300]}")
    return made or failed(job, "its Ray task was cancelled.")


@contextmanager
def _cluster(
    ray: Any, jobs: Sequence[Job], *, workers: int | None, address: str | None
) -> Iterator[None]:
    """A connection to a cluster, for as long as it is needed and without a word."""
    if ray.is_initialized():  # by the caller, and the caller's to end
        yield
        return
    most = max(job.threads for job in jobs)
    size = {} if address else {"num_cpus": most * (workers or 1), "include_dashboard": False}
    with _handler_kept():
        try:
            ray.init(
                address or "local", log_to_driver=False, logging_level="ERROR",
                configure_logging=False, **size,
            )  # fmt: skip
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"no Ray cluster at {address or 'this machine'} ({reason[:200]}); start one with "
                "ray start --head."
            ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _handler_kept() -> Iterator[None]:
    """Keep what SIGTERM does: Ray would have it end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ray(*, local: bool) -> Any:
    for key, value in {**QUIET, **(OURS_ALONE if local else {})}.items():
        os.environ.setdefault(key, value)
    try:
        import ray
    except ImportError:
        raise InputError(
            "executor='ray' needs Ray; pip install 'grokinterp[ray]', or give executor='local'."
        ) from None
    return ray
