"""What is a sweep doing? Its runs in training and its counts, on standard error in a terminal.

The table looks at the run folders from time to time, whoever writes them. So it shows what was last
saved of a run: the step, and loss and accuracy on train and test. Runs on machines whose folders
are not seen from here have no lines.

What is printed meanwhile stands above the table, whole. No line is wider than `WIDEST`: many
terminals wrap the lines that are there when they are made narrower, and then it is not known how
many rows to erase.
"""

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from grokinterp.runs.manifest import METRICS, RUN_JSON
from grokinterp.sweeps.executors import Job

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 39  # letters of a line
COUNTS_WIDEST = 36  # of the last lines, after which a terminal writes ^C
PER_SECOND = 2.0
TAIL = 1000  # bytes at the end of metrics.csv, more than its last row has


class LiveTable:
    """Counts, and the state of every run that has been written to since the table was made."""

    def __init__(self, jobs: Sequence[Job], *, n_runs: int) -> None:
        self._left = {
            name: (recipe, job.place.folder / name)
            for job in jobs
            for name, recipe in job.members.items()
        }
        self._before = {name: _written_at(folder) for name, (_, folder) in self._left.items()}
        self._n_runs, self._n_failed = n_runs, 0

    def done(self, name: str, *, failed: bool) -> None:
        """Count a run as done, or as failed."""
        self._left.pop(name, None)
        self._n_failed += failed

    def lines(self) -> list[tuple[str, str, str]]:
        """For every run in training: name, step of how many, and what was logged there."""
        found = []
        for name, (recipe, folder) in list(self._left.items()):
            if _written_at(folder) not in (None, self._before[name]):
                step, logged = _last_logged(folder)
                found.append((name, f"{step} of {recipe.steps}", logged))
        return found

    def counts(self, n_active: int) -> str:
        """How many runs are done, in training, waiting and failed."""
        waiting = len(self._left) - n_active
        done = self._n_runs - len(self._left) - self._n_failed
        counts = f"{done} of {self._n_runs} runs done, {n_active} in training, {waiting} waiting"
        return counts + (f", {self._n_failed} failed" if self._n_failed else "")

    def text(self, *, columns: int, rows: int) -> str:
        """Two lines per run and the counts, for the columns and half of the rows of a terminal."""
        width = max(1, min(WIDEST, columns - 1))
        found = self.lines()
        counts = textwrap.wrap(self.counts(len(found)), min(COUNTS_WIDEST, width))
        n_shown = max(1, (rows // 2 - len(counts)) // 2)
        drawn = []
        for name, step, logged in found[:n_shown]:
            drawn += [f"{_ending(name, max(1, width - len(step) - 2))}  {step}", f"  {logged}"]
        if len(found) > n_shown:
            drawn.append(f"and {len(found) - n_shown} more")
        lines = [*drawn, *counts][: max(1, rows - 1)]
        return "\n".join(line[:width] for line in lines)


@contextmanager
def live_table(jobs: Sequence[Job], *, n_runs: int, shown: bool) -> Iterator[LiveTable]:
    """The table, drawn while the block lasts if it is to be `shown` and there is a terminal."""
    table = LiveTable(jobs, n_runs=n_runs)
    with ExitStack() as stack:
        if shown and jobs and sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            console = Console(file=sys.stderr, highlight=False)
            if console.is_interactive:  # not with TERM=dumb: what is written there stays
                live = Live(
                    get_renderable=lambda: Text(
                        table.text(columns=console.width, rows=console.height),
                        no_wrap=True, overflow="crop",
                    ),
                    console=console, transient=True, refresh_per_second=PER_SECOND,
                    redirect_stdout=False, redirect_stderr=False,
                )  # fmt: skip
                stack.enter_context(live)
                for stream, redirected in (
                    (sys.stderr, redirect_stderr),
                    (sys.stdout, redirect_stdout),
                ):
                    if stream is not None and stream.isatty():  # else it would land here
                        above = _Above(console, stream)
                        stack.callback(above.end)
                        stack.enter_context(redirected(above))
        yield table


class _Above:
    """A stream whose lines are printed above the table, each when it is whole.

    Rich's own way breaks lines at the width of the terminal, so that paths cannot be copied.
    """

    def __init__(self, console: "Console", stream: TextIO) -> None:
        self._console, self._stream, self._begun = console, stream, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._console.out(line.rpartition("\r")[2], highlight=False)  # of a bar, its last state
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def end(self) -> None:
        if self._begun:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _ending(name: str, width: int) -> str:
    """A name, or the end of a long one, where the names of runs differ first."""
    return name.ljust(width) if len(name) <= width else f"…{name[len(name) - width + 1 :]}"


def _written_at(run: Path) -> int | None:
    try:
        return (run / RUN_JSON).stat().st_mtime_ns
    except OSError:
        return None


def _last_logged(run: Path) -> tuple[int, str]:
    """The step of the last row, and its loss and accuracy on train and test; 0 before there is one.

    Two digits each, so that the line is never wider than `WIDEST`.
    """
    try:
        with (run / METRICS).open("rb") as file:
            header = file.readline().decode().strip().split(",")
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            cells = file.read().decode().splitlines()[-1].split(",")
        row = dict(zip(header, cells, strict=True))
        sides = []
        for side in ("train", "test"):
            logged = ((row[f"{side}_loss"], ".2g"), (row[f"{side}_acc"], ".0%"))
            numbers = [format(float(cell), style) for cell, style in logged if cell]
            sides += [" ".join([side, *numbers])] if numbers else []
        return int(row["step"]), ", ".join(sides)
    except (OSError, ValueError, LookupError):
        return 0, ""
