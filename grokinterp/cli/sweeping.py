"""How do commands train the runs of a sweep? Their options, the lines as it goes, how it ends."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from grokinterp.base.errors import InputError, Interrupted, one_line
from grokinterp.cli._app import INTERRUPTED
from grokinterp.cli.terminal import outcome_line, say, show

if TYPE_CHECKING:
    import pandas as pd

    from grokinterp.sweeps.sweep import Sweep

Out = Annotated[str, Option(metavar="DIR", help="Folder of runs and tables, or s3://.")]
Executor = Annotated[str, Option(metavar="local|ray", help="Who makes the runs.")]
Workers = Annotated[int | None, Option(help="Runs at a time; 1 unless a cluster says.")]
Threads = Annotated[int | None, Option(help="Threads per run, if its recipe has 0.")]
Address = Annotated[str | None, Option(metavar="HOST:PORT", help="A Ray cluster that is running.")]


def swept(
    asked: "Sweep",
    out: str,
    *,
    executor: str,
    workers: int | None,
    threads: int | None,
    address: str | None,
    quiet: bool = False,
) -> "pd.DataFrame":
    """The table of a sweep, trained and measured; a line for every run that is made, unless quiet.

    When it is interrupted, it says so and ends with that status.
    """
    from grokinterp.sweeps.driver import run_sweep
    from grokinterp.sweeps.table import measuring

    if out.startswith("memory://"):
        raise InputError(f"--out {out} would end with this command; give a folder, or s3://...")
    try:
        return run_sweep(
            asked,
            out,
            measure=measuring(asked.measures),
            executor=executor,
            workers=workers,
            threads=threads,
            address=address,
            on_row=None if quiet else partial(_show_run, out.rstrip("/")),
        )
    except Interrupted as stopped:  # here, because typer would end it without a word
        say(str(stopped))
        raise Exit(INTERRUPTED) from None


def made_in(table: "pd.DataFrame") -> "pd.DataFrame":
    """The rows of the runs that did not fail."""
    from grokinterp.sweeps.table import has_failed

    return table[[not has_failed(row) for row in table.to_dict("records")]]


def end_sweep(table: "pd.DataFrame", out: str) -> None:
    """Say which runs have notes; InputError where one failed."""
    folder = out.rstrip("/")
    failed = table.drop(made_in(table).index)
    where = f"see the column note of {folder}/results.csv."
    if len(failed):
        reason = failed.note.iloc[0].replace(f"{folder}/", "").rstrip(".")  # the line ends so
        first = one_line(f"{failed.run.iloc[0]}: {reason}", most=200)
        raise InputError(f"{len(failed)} of {len(table)} runs failed, {first}; {where}")
    if (n := (table.note != "").sum()) > 0:
        say(f"{n} of {len(table)} runs {'has' if n == 1 else 'have'} a note: {where}")


def _show_run(folder: str, row: Mapping[str, str]) -> None:
    """A line about a run that was made just now."""
    from grokinterp.sweeps.table import has_failed

    if has_failed(row):
        show(f"{folder}/{row['run']}: failed, {row['note']}")
    elif row.get("label"):
        known = {key: float(row[key] or "nan") for key in ("train_loss", "test_loss", "test_acc")}
        show(f"{folder}/{row['run']}: {row['label']}, {outcome_line(known)}")
