"""Run after run in this process."""

from collections.abc import Generator, Sequence

from grokinterp.training.executors.job import Job, Made, Stopped, make_run


def run_in_process(jobs: Sequence[Job]) -> Generator[Made, None, None]:
    """Make the runs one after another."""
    for job in jobs:
        try:
            made = make_run(job)
        except KeyboardInterrupt:
            raise Stopped((job.name,)) from None
        yield made
