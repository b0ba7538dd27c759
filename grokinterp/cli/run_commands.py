"""Commands that make and check runs: recipes, training, sweeps, verification, others' files."""

import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from grokinterp.base.errors import Interrupted
from grokinterp.cli._app import INTERRUPTED, UNEXPECTED, Json, RunPath, a_file, a_folder, write_text
from grokinterp.cli.sweeping import (
    Address,
    Executor,
    Out,
    Threads,
    Workers,
    end_sweep,
    made_in,
    swept,
)  # fmt: skip
from grokinterp.cli.terminal import outcome_line, say, show, show_json


def recipes(
    name: Annotated[str | None, Argument(help="Print this one as TOML.")] = None,
    keys: Annotated[bool, Option("--keys", help="List every key of every kind.")] = False,
) -> None:
    """List the built-in recipes, or print one as TOML to start from."""
    from grokinterp.recipe.builtin import BUILTIN, find_recipe
    from grokinterp.recipe.keys import every_key

    if keys:
        for kind, those in every_key().items():
            show(f"{kind}")
            for key in those.values():
                show(f"  {key.name:<21} {key.shown_default:<15} {key.help}")
        return
    if name is not None:
        show(find_recipe(name).to_toml(), nl=False)
        return
    for entry in BUILTIN.values():
        show(f"{entry.name:<21}{entry.recipe.steps:>7} steps  {entry.about}")


def train(
    recipe: Annotated[str, Argument(help="Name of a built-in recipe, or a TOML file.")],
    out: Annotated[Path, Option(help="Folder to write the run into.", callback=a_folder)],
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe.")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Go on where it was saved.")] = False,
) -> None:
    """Train a recipe into a run folder."""
    from grokinterp.recipe.builtin import find_recipe
    from grokinterp.recipe.recipe import parse_setting
    from grokinterp.training.loop import train as train_run

    changes = dict(parse_setting(setting) for setting in settings or [])
    try:
        run = train_run(find_recipe(recipe).replace(**changes), out, resume=resume)
    except Interrupted as stopped:  # here, because typer would end it without a word
        say(str(stopped))
        raise Exit(INTERRUPTED) from None
    last = outcome_line(run.metrics.iloc[-1].to_dict())
    show(
        f"{out}: {len(run.steps)} checkpoints up to step {run.steps[-1]}, {last}\n"
        f"See when it learned: grokinterp phases {shlex.quote(str(out))}"
    )


def sweep(
    file: Annotated[Path, Argument(metavar="SWEEP.toml", help="What varies, and what to measure.")],
    out: Out,
    executor: Executor = "local",
    workers: Workers = None,
    threads: Threads = None,
    address: Address = None,
    figure: Annotated[
        Path | None,
        Option(metavar="FILE.html", help="Page of figures to write at the end.", callback=a_file),
    ] = None,
) -> None:
    """Train and measure every run of a sweep, into one table.

    Finished runs are not trained again and measured ones not measured again:
    the same command goes on where it was stopped, or adds what the file adds.
    A run that failed has a note in the table that says why, and the status is then 2.
    """
    from grokinterp.sweeps.sweep import Sweep

    asked = Sweep.from_toml(file)
    table = swept(asked, out, executor=executor, workers=workers, threads=threads, address=address)
    if len(made_in(table)):
        show(f"{out.rstrip('/')}/results.csv: {len(table)} runs, {len(table.columns)} columns")
        if figure is not None:
            from grokinterp.sweeps._figures.page import sweep_page

            write_text(figure, sweep_page(table, title=file.stem))
            show(f"{figure}: figures and the table")
    end_sweep(table, out)


def verify(
    path: Annotated[str, Argument(metavar="RUN", help="Folder of a run that a recipe trained.")],
    steps: Annotated[
        int | None,
        Option(
            help="How many updates to train again.", show_default="the checkpoint nearest to 100"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the beginning of a run again from its recipe, and compare bit by bit.

    Exit status 0: the same bits, or within rounding on another machine than
    the run was trained on; 3: it is not the same, and nothing explains it.
    The folder is only read.
    """
    from grokinterp.reading._load import load
    from grokinterp.training.verification import verify as verify_run

    found = verify_run(load(path), steps=steps, progress=True)
    if as_json:
        show_json(found.to_dict())
    else:
        show(f"{path}: {found}")
    if not found.holds:
        raise Exit(UNEXPECTED)


def bench(
    threads: Annotated[
        int, Option(help="How many threads torch computes with; 0: its own choice.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Measure training and measuring at p = 113 against the usual way, on this machine.

    A training step beside TransformerLens' model, all progress measures beside
    the Grokking_Demo's, both in this process and in turn, and the rate of matrix
    products beside the machine's peak. About a minute; leave the machine alone.
    """
    from grokinterp.bench import bench as measure

    found = measure(threads=threads)
    if as_json:
        show_json(found.to_dict())
    else:
        show(found)


def import_(
    source: Annotated[
        str, Argument(metavar="SOURCE", help="A checkpoint file, a folder of them, or an address.")
    ],
    out: Annotated[Path, Option(help="Folder to write the run into.", callback=a_folder)],
    format: Annotated[
        str, Option(help="auto, paper, trainer, demo, state_dict, folder or steps.")
    ] = "auto",
    settings: Annotated[
        list[str] | None,
        Option("--set", metavar="KEY=VALUE", help="Say what the files do not; may be repeated."),
    ] = None,
) -> None:
    """Write checkpoints that somebody else trained as a run folder.

    Layout, sizes and task are recognised from the weights. What they cannot
    say is set: split=torch|python|search, data_seed, train_fraction,
    train_indices=FILE, metrics=FILE.csv, step, act_fn, n_heads, operation,
    attention_rate, ... Nothing in the files is executed.
    """
    from grokinterp.reading import settings as known
    from grokinterp.reading.import_and_export import import_run
    from grokinterp.recipe.recipe import parse_setting

    said = dict(parse_setting(setting) for setting in settings or [])
    known.Settings.from_dict(said)  # before import_run takes one for an argument of its own
    run = import_run(source, out, format=format, progress=True, **said)
    for note in run.notes:
        show(f"- {note}")
    axis = "steps" if run.steps_known else "positions"
    show(
        f"{out}: {len(run.steps)} checkpoints, {axis} {run.steps[0]} to {run.steps[-1]}\n"
        f"See when it learned: grokinterp phases {shlex.quote(str(out))}"
    )


def export(
    path: RunPath,
    out: Annotated[Path, Option(help="File to write.", callback=a_file)],
    format: Annotated[str, Option(help="demo (Grokking_Demo) or paper.")] = "demo",
) -> None:
    """Write a run as one file that notebooks made for others can read."""
    from grokinterp.reading._load import load
    from grokinterp.reading.import_and_export import export as export_run

    run = load(path)
    written = export_run(run, out, format=format)
    show(f"{written}: {len(run.steps)} checkpoints, {written.stat().st_size / 1e6:.1f} MB")
