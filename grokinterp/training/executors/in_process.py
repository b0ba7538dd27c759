"""Job after job in this process."""

from collections.abc import Generator, Sequence

from grokinterp.training.executors.job import Job, Made, Stopped, make_runs


def run_in_process(jobs: Sequence[Job]) -> Generator[Made, None, None]:
    """Make the runs one after another."""
    for job in jobs:
        left = list(job.names)
        try:
            for made in make_runs(job):
                left.remove(made.name)
                yield made
        except KeyboardInterrupt:
            raise Stopped(tuple(left)) from None
