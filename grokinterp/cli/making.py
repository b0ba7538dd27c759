"""Commands that make runs: the recipes, training, and sweeps of many runs."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from grokinterp.cli.app import INTERRUPTED
from grokinterp.errors import InputError, Interrupted
from grokinterp.terminal import say, show


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML.")] = None,
) -> None:
    """List the built-in recipes, or print one as TOML to start from."""
    from grokinterp.recipe import BUILTIN, find_recipe

    if name is not None:
        typer.echo(find_recipe(name).to_toml(), nl=False)
        return
    for entry in BUILTIN.values():
        typer.echo(f"{entry.name:<21}{entry.recipe.steps:>7} steps  {entry.about}")


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a built-in recipe, or a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder to write the run into.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it was saved.")] = False,
) -> None:
    """Train a recipe into a run folder."""
    from grokinterp.recipe import find_recipe, parse_setting
    from grokinterp.training import train as train_run

    changes = dict(parse_setting(setting) for setting in settings or [])
    try:
        run = train_run(find_recipe(recipe).replace(**changes), out, resume=resume)
    except Interrupted as stopped:  # here, because typer would end it without a word
        say(str(stopped))
        raise typer.Exit(INTERRUPTED) from None
    last = run.metrics.iloc[-1]
    unmirrored = last.get("test_acc_unmirrored", math.nan)  # NaN too where there are no such pairs
    of_which = "" if math.isnan(unmirrored) else f" ({unmirrored:.4f} on unmirrored pairs)"
    show(
        f"{out}: {len(run.steps)} checkpoints up to step {run.steps[-1]}, "
        f"train loss {last.train_loss:.3g}, test loss {last.test_loss:.3g}, "
        f"test accuracy {last.test_acc:.4f}{of_which}\n"
        f"See when it learned: grokinterp phases {out}"
    )


def sweep(
    file: Annotated[
        Path, typer.Argument(metavar="SWEEP.toml", help="What varies, and what to measure.")
    ],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder of runs and tables, or s3://.")],
    executor: Annotated[
        str, typer.Option(metavar="local|ray", help="Who makes the runs.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option(help="Runs at a time; 1 unless a cluster says.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads a run, if its recipe has 0.")] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Ray cluster that is running.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Page of figures to write at the end.")
    ] = None,
) -> None:
    """Train and measure every run of a sweep, into one table.

    Finished runs are not trained again and measured ones not measured again:
    the same command goes on where it was stopped, or adds what the file adds.
    A run that failed has a note in the table; the status is 2 if none came out whole.
    """
    from grokinterp.encodings import measuring
    from grokinterp.training import Sweep, run_sweep

    if figure is not None and figure.is_dir():  # before anything is trained
        raise InputError(f"--figure {figure} is a folder; give a file such as sweep.html.")

    asked = Sweep.from_toml(file)
    if out.startswith("memory://"):
        raise InputError(f"--out {out} would end with this command; give a folder, or s3://...")
    try:
        table = run_sweep(
            asked,
            out,
            measure=measuring(asked.measures),
            executor=executor,
            workers=workers,
            threads=threads,
            address=address,
            on_row=partial(_show_run, out),
        )
    except Interrupted as stopped:  # here, because typer would end it without a word
        say(str(stopped))
        raise typer.Exit(INTERRUPTED) from None
    failed = table[table.note != ""]
    for row in failed.itertuples():
        say(f"{row.run}: {row.note}")
    if len(failed) == len(table):
        raise InputError("no run of the sweep could be trained and measured whole; see above.")
    show(f"{out.rstrip('/')}/results.csv: {len(table)} runs, {len(table.columns)} columns")
    if figure is not None:
        from grokinterp.runs.files import write_whole
        from grokinterp.viz import sweep_page

        write_whole(figure, sweep_page(table, title=file.stem).encode())
        show(f"{figure}: figures and the table")


def _show_run(out: str, row: Mapping[str, str]) -> None:
    """A line about a run that was measured just now."""
    if row.get("label"):
        train, test, accuracy = (
            float(row[key] or "nan") for key in ("train_loss", "test_loss", "test_acc")
        )
        show(
            f"{out.rstrip('/')}/{row['run']}: {row['label']}, train loss {train:.3g}, "
            f"test loss {test:.3g}, test accuracy {accuracy:.4f}"
        )
