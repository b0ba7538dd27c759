"""Commands for checkpoints of others: reading theirs, writing for their notebooks."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from grokinterp.cli import outputs
from grokinterp.cli.app import RunFolder, Settings
from grokinterp.terminal import show


def import_(
    source: Annotated[Path, typer.Argument(help="A checkpoint file, or a folder of them.")],
    out: Annotated[
        Path, typer.Option(help="Folder to write the run into.", callback=outputs.a_folder)
    ],
    format: Annotated[
        str, typer.Option(help="auto, paper, trainer, demo, state_dict or folder.")
    ] = "auto",
    settings: Settings = None,
) -> None:
    """Write checkpoints that somebody else trained as a run folder.

    Layout, sizes and task are recognised from the weights. What they cannot
    say is set: split=torch|python|search, data_seed, train_fraction,
    train_indices=FILE, metrics=FILE.csv, step, act_fn, n_heads, operation,
    attention_rate, ... Nothing in the files is executed.
    """
    from grokinterp.recipe import parse_setting
    from grokinterp.runs import import_run
    from grokinterp.runs.foreign import settings as known

    said = dict(parse_setting(setting) for setting in settings or [])
    known.Settings.from_dict(said)  # before import_run takes one for an argument of its own
    run = import_run(source, out, format=format, progress=True, **said)
    for note in run.notes:
        show(f"- {note}")
    show(
        f"{out}: {len(run.steps)} checkpoints, steps {run.steps[0]} to {run.steps[-1]}\n"
        f"See when it learned: grokinterp phases {shlex.quote(str(out))}"
    )


def export(
    path: RunFolder,
    out: Annotated[Path, typer.Option(help="File to write.", callback=outputs.a_file)],
    format: Annotated[str, typer.Option(help="demo (Grokking_Demo) or paper.")] = "demo",
) -> None:
    """Write a run as one file that notebooks made for others can read."""
    from grokinterp.runs import export as export_run
    from grokinterp.runs import load

    run = load(path)
    written = export_run(run, out, format=format)
    show(f"{written}: {len(run.steps)} checkpoints, {written.stat().st_size / 1e6:.1f} MB")
