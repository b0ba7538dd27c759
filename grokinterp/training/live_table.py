"""What a sweep is doing, on standard error where that is a terminal: a line a run in training.

It looks at the run folders from time to time, whoever writes them, and so knows of a run what was
last saved, of which it shows the four columns that every run has. Runs in training on a machine
whose folders are not seen from here have no line.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from grokinterp.runs.manifest import METRICS, RUN_JSON
from grokinterp.runs.metrics import COLUMNS
from grokinterp.training.executors import Job

if TYPE_CHECKING:
    from rich.table import Table

MOST_LINES = 20
PER_SECOND = 2.0
TAIL = 1000  # bytes at the end of metrics.csv, more than its last row has


class LiveTable:
    """Counts, and the state of every run that has been written to since this was made."""

    def __init__(self, jobs: Sequence[Job], *, n_runs: int) -> None:
        self._left = {
            name: (recipe, job.place.seen_folder(name))
            for job in jobs
            for name, recipe in job.members.items()
        }
        self._before = {name: _written_at(folder) for name, (_, folder) in self._left.items()}
        self._n_runs, self._n_failed = n_runs, 0

    def done(self, name: str, *, failed: bool) -> None:
        """A run has its row."""
        self._left.pop(name, None)
        self._n_failed += failed

    def lines(self) -> list[tuple[str, ...]]:
        """Of every run in training: name, step of how many, and what was logged there."""
        found = []
        for name, (recipe, folder) in list(self._left.items()):
            if _written_at(folder) not in (None, self._before[name]):
                step, *logged = _last_logged(folder)
                found.append((name, f"{step or 0} of {recipe.steps}", *logged))
        return found

    def counts(self, n_active: int) -> str:
        """How many runs are done, in training, waiting and failed."""
        waiting = len(self._left) - n_active
        done = self._n_runs - len(self._left) - self._n_failed
        told = f"{done} of {self._n_runs} runs done, {n_active} in training, {waiting} waiting"
        return told + (f", {self._n_failed} failed" if self._n_failed else "")

    def __rich__(self) -> "Table":
        from rich.table import Table

        lines = self.lines()
        shown = Table(box=None, pad_edge=False, title=self.counts(len(lines)), title_justify="left")
        shown.add_column("run", overflow="ellipsis")
        for column in ("step", *COLUMNS):
            shown.add_column(column, justify="right", no_wrap=True)
        for line in lines[:MOST_LINES]:
            shown.add_row(*line)
        if len(lines) > MOST_LINES:
            shown.add_row(f"and {len(lines) - MOST_LINES} more")
        return shown


@contextmanager
def live_table(jobs: Sequence[Job], *, n_runs: int, shown: bool) -> Iterator[LiveTable]:
    """The table, drawn while the block lasts if it is to be `shown` and there is a terminal."""
    table = LiveTable(jobs, n_runs=n_runs)
    if not (shown and jobs and sys.stderr.isatty()):
        yield table
        return
    from rich.console import Console
    from rich.live import Live

    with Live(
        get_renderable=table.__rich__,
        console=Console(stderr=True),
        refresh_per_second=PER_SECOND,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else what goes into a pipe would land here
    ):
        yield table


def _written_at(run: Path) -> int | None:
    try:
        return (run / RUN_JSON).stat().st_mtime_ns
    except OSError:
        return None


def _last_logged(run: Path) -> list[str]:
    """The step and the four metrics of the last row; empty before there is one."""
    try:
        with (run / METRICS).open("rb") as file:
            header = file.readline().decode().strip().split(",")
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            cells = file.read().decode().splitlines()[-1].split(",")
        row = dict(zip(header, cells, strict=True))
        values = (row[column] for column in COLUMNS)
        return [
            str(int(row["step"])), *(f"{float(value):.3g}" if value else "" for value in values)
        ]  # fmt: skip
    except (OSError, ValueError, LookupError):
        return [""]
