"""Who makes the runs of a sweep: this process, worker processes, or a Ray cluster.

Every executor takes jobs and gives back what came of them, as they end. On Ctrl-C it has what is
running saved, gives back what was finished, and raises `Stopped`.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from grokinterp.arguments import word
from grokinterp.errors import InputError, shown, whole_number
from grokinterp.recipe.keys import AT_MOST
from grokinterp.training.executors.in_process import run_in_process
from grokinterp.training.executors.job import NOTE, Job, Made, Measure, Stopped
from grokinterp.training.executors.on_ray import run_on_ray
from grokinterp.training.executors.processes import run_in_processes

__all__ = ["NOTE", "Executor", "Job", "Made", "Measure", "Stopped", "executor_of"]

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Executor:
    """What makes jobs, with how many torch threads each, and whether in processes of their own."""

    make: Callable[[Sequence[Job]], Generator[Made, None, None]]
    threads: int
    elsewhere: bool


def executor_of(
    name: str, *, workers: int | None, threads: int | None, address: str | None
) -> Executor:
    """The executor that is asked for; InputError for an unknown one and for impossible numbers.

    Without `threads` a run has torch's number in this process divided by the workers, at least 1;
    on a running cluster, whose machines may be others, it has 1.
    """
    word("executor", name, EXECUTORS)
    for key, value in (("workers", workers), ("threads", threads)):
        if value is not None and not 1 <= (whole_number(value) or 0) <= AT_MOST["threads"]:
            raise InputError(
                f"{key}={shown(value)} is no whole number from 1 to {AT_MOST['threads']}."
            )
    if address is not None and name != "ray":
        raise InputError(
            f"address={shown(address)} is of a Ray cluster; give executor='ray' with it."
        )
    if threads is None:
        threads = 1 if address else max(1, torch.get_num_threads() // (workers or 1))
    if name == "ray":
        make = partial(run_on_ray, workers=workers or (None if address else 1), address=address)
        return Executor(make, threads, elsewhere=True)
    if workers is None or workers == 1:
        return Executor(run_in_process, threads, elsewhere=False)
    return Executor(partial(run_in_processes, workers=workers), threads, elsewhere=True)
