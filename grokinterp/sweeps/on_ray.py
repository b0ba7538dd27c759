"""Runs of a sweep on a Ray cluster, or on one that is started here for as long as it takes.

Each job is a task. Ray gives it as many CPUs as its runs have threads, and starts it again when its
worker or its node dies; it goes on from what the place of the sweep has. Needs the extra `ray`.
"""

import os
import secrets
import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from grokinterp.base.errors import InputError
from grokinterp.sweeps.executors import (
    RETRIES,
    STOP_SECONDS,
    Job,
    Made,
    Stopped,
    failed,
    make_runs,
    sigterm_kept,
)

REACH_SECONDS = 10.0
QUIET = {  # before ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
}
TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")  # where one is, if not in this file:
TOKEN_FILE = Path.home() / ".ray" / "auth_token"


def run_on_ray(
    jobs: Sequence[Job], *, workers: int | None, address: str | None
) -> Generator[Made, None, None]:
    """Make the runs on the cluster at `address`, or on a local one; they come as their jobs end.

    At most `workers` jobs run at a time; None is as many as the cluster takes.
    """
    if not jobs:
        return
    ray = _ray(local=address is None)
    waiting = deque(jobs)
    with _cluster(ray, jobs, workers=workers, address=address or ""):
        task = ray.remote(max_retries=RETRIES)(_make_runs)
        pending: dict[Any, Job] = {}
        try:
            while True:
                while waiting and (workers is None or len(pending) < workers):
                    job = waiting.popleft()
                    pending[task.options(num_cpus=job.threads, name=job.label).remote(job)] = job
                if not pending:
                    return
                for done in ray.wait(list(pending), num_returns=1)[0]:
                    job = pending.pop(done)
                    try:
                        made = {each.name: each for each in ray.get(done)}
                        for name in job.members:
                            yield made.get(name) or failed(name, "its Ray task was cancelled.")
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from error
                    except ray.exceptions.RayError as error:  # its worker died, time after time
                        reason = " ".join(str(error).split())[:300]
                        yield from job.give_up(f"Ray gave it up: {reason}", waiting)
        except KeyboardInterrupt:
            for each in pending:
                ray.cancel(each)
            ended, _ = ray.wait(list(pending), num_returns=len(pending), timeout=STOP_SECONDS)
            for each in ended:
                with suppress(ray.exceptions.RayError):
                    yield from ray.get(each)
            raise Stopped from None


def _make_runs(job: Job) -> list[Made]:
    """What a task does; when it is asked to stop, the rest is saved."""
    made: list[Made] = []
    with suppress(KeyboardInterrupt):
        made.extend(make_runs(job))
    return made


@contextmanager
def _cluster(ray: Any, jobs: Sequence[Job], *, workers: int | None, address: str) -> Iterator[None]:
    """A connection to a cluster, for as long as it is needed; Ray prints nothing."""
    if ray.is_initialized():  # by the caller, and the caller's to end
        yield
        return
    host, colon, port = address.rpartition(":")
    by_port = address not in ("", "auto") and "://" not in address
    if by_port and not (colon and port.isdecimal()):
        raise InputError(f"address={address!r} is no HOST:PORT; give such as 10.0.0.1:6379.")
    most = max(job.threads for job in jobs)
    size = {} if address else {"num_cpus": most * (workers or 1), "include_dashboard": False}
    with sigterm_kept():  # Ray would have it end the process
        try:
            if by_port:  # where nothing listens, Ray would try for long
                socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
            ray.init(
                address or "local", log_to_driver=False, logging_level="ERROR",
                configure_logging=False, **size,
            )  # fmt: skip
        except (OSError, OverflowError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"no Ray cluster at {address or 'this machine'} ({reason[:200]}); start one with "
                "ray start --head."
            ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _ray(*, local: bool) -> Any:
    """Ray, set to be quiet and to ask for a token, unless the environment says otherwise."""
    for key, value in QUIET.items():
        os.environ.setdefault(key, value)
    known = TOKEN_FILE.is_file() or any(key in os.environ for key in TOKENS)
    if local and not known:  # a cluster of our own, which nobody else on this machine may use
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    if local or known:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise InputError(
            "executor='ray' needs Ray; pip install 'grokinterp[ray]', or give executor='local'."
        ) from None
    return ray
