"""The command line: one screen per command, no logic of its own.

Exit status: 0 done, 2 bad input (one line on standard error), 3 `--expect` did not hold, 130
interrupted (nothing lost). Everything heavy is imported inside the commands.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from grokinterp.errors import InputError, Interrupted, nearest
from grokinterp.terminal import close_output, say, show, show_measures, show_phases

NO_MEMORY = "this needs more memory than there is; nothing was written."
BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 3, 130

app = typer.Typer(
    name="grokinterp",
    help="Mechanistic interpretability of grokking: when a network memorised, formed its circuit "
    "and cleaned up, and with which frequencies it computes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run, or checkpoints of others.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Say what the files do not; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def main() -> None:
    """Run the command line; every failure that is the input's becomes one line and a status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing half-written stays
    try:
        status = app(standalone_mode=False)
    except InputError as error:
        status = _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:
        status = 0
    except MemoryError:
        status = _fail(NO_MEMORY)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status = _fail(
            f"{where}{error.strerror or error}; what was saved before is whole (a training goes "
            "on with --resume), put this right and try again."
        )
    except SystemExit as stopped:  # typer's own answer to a reader that has seen enough (head)
        status = 0 if isinstance(stopped.__context__, BrokenPipeError) else stopped.code
    except Exception as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
            return _end(_fail(NO_MEMORY))
        # Usage errors are click's, which newer versions of typer carry under a private name.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()  # empty when the help was shown for want of a command
        status = _fail(f"{message} Try 'grokinterp --help'.") if message else BAD_INPUT
    _end(status)


def _end(status: int | None) -> None:
    close_output()
    sys.exit(status or 0)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"grokinterp {version('grokinterp')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Options that come before a command."""


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this one as TOML.")] = None,
) -> None:
    """List the built-in recipes, or print one as TOML to start from."""
    from grokinterp.recipe import BUILTIN, find_recipe

    if name is not None:
        typer.echo(find_recipe(name).to_toml(), nl=False)
        return
    for entry in BUILTIN.values():
        typer.echo(f"{entry.name:<18}{entry.recipe.steps:>7} steps  {entry.about}")


@app.command()
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
    show(
        f"{out}: {len(run.steps)} checkpoints up to step {run.steps[-1]}, "
        f"train loss {last.train_loss:.3g}, test loss {last.test_loss:.3g}, "
        f"test accuracy {last.test_acc:.4f}\n"
        f"See when it learned: grokinterp phases {out}"
    )


@app.command()
def info(path: RunFolder, as_json: Json = False) -> None:
    """Say what a run, or checkpoints of others, hold, and check every file."""
    from dataclasses import asdict

    from grokinterp.runs import load

    run = load(path)
    run.verify()
    rows = run.metrics.to_dict("records")
    facts = {
        "path": str(run.path),
        "finished": run.finished,
        "task": run.task.to_dict(),
        "architecture": asdict(run.architecture),
        "recipe": run.recipe and run.recipe.to_dict(),
        "source": run.manifest.source,
        "split": run.manifest.split,
        "steps": list(run.steps),
        "last": rows and {key: _number(value) for key, value in rows[-1].items()},
        "versions": run.manifest.versions,
    }
    if as_json:
        show(json.dumps(facts))
        return
    show(run)
    shown = ("recipe", "split", "last", "versions")
    for title in shown if run.recipe else ("architecture", *shown):
        values = facts[title]
        if isinstance(values, dict):
            show(f"\n{title}\n" + "\n".join(f"  {k:<18}{v}" for k, v in values.items()))
    if run.notes:
        show("\nsource\n" + "\n".join(f"  - {note}" for note in run.notes))
    show(f"\ncheckpoints\n  {', '.join(map(str, run.steps))}\n\nall files are whole")


@app.command()
def measure(
    path: RunFolder,
    out: Annotated[Path | None, typer.Option(help="CSV file to write.")] = None,
) -> None:
    """Compute every progress measure at every checkpoint.

    Without --out the CSV goes to standard output, or the main columns to a terminal.
    """
    from grokinterp.progress import progress_measures
    from grokinterp.runs import load

    table = progress_measures(load(path), progress=True)
    if reason := table.attrs["reason"]:
        say(f"restricted, excluded and trig loss are null: {reason}")
    if out is not None:
        from grokinterp.runs.files import write_whole

        write_whole(out, table.to_csv(index=False).encode())
        show(f"{out}: {len(table)} checkpoints, {len(table.columns)} columns")
    elif sys.stdout.isatty():
        show_measures(table)
    else:
        show(table.to_csv(index=False), nl=False)


@app.command()
def phases(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CSV", help="A run, checkpoints of others, or a CSV of curves."
        ),
    ],
    as_json: Json = False,
    expect: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Exit with 3 if the label is another.")
    ] = None,
) -> None:
    """Label a run and date its phases: memorization, circuit formation, cleanup."""
    from grokinterp.progress import detect_phases, progress_measures
    from grokinterp.progress.curves import read_csv_curves
    from grokinterp.progress.labels import LABELS
    from grokinterp.runs import load
    from grokinterp.runs.foreign.sources import is_foreign

    if expect is not None and expect not in LABELS:
        raise InputError(f"--expect {expect!r} is not a label; {nearest(expect, LABELS)}")
    measures = None
    if path.is_file() and not is_foreign(path):
        found = detect_phases(read_csv_curves(path))
    else:
        run = load(path)
        measures = progress_measures(run, progress=True)
        found = detect_phases(run, measures=measures)
    if as_json:
        show(json.dumps(found.to_dict()))
    else:
        show_phases(path, found)
        if measures is not None:
            show("")
            show_measures(measures)
    if expect is not None and found.label != expect:
        say(f"the label is {found.label!r}, expected {expect!r}")
        raise typer.Exit(UNEXPECTED)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A checkpoint file, or a folder of them.")],
    out: Annotated[Path, typer.Option(help="Folder to write the run into.")],
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
        f"See when it learned: grokinterp phases {out}"
    )


@app.command()
def export(
    path: RunFolder,
    out: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[str, typer.Option(help="demo (Grokking_Demo) or paper.")] = "demo",
) -> None:
    """Write a run as one file that notebooks made for others can read."""
    from grokinterp.runs import export as export_run
    from grokinterp.runs import load

    run = load(path)
    written = export_run(run, out, format=format)
    show(f"{written}: {len(run.steps)} checkpoints, {written.stat().st_size / 1e6:.1f} MB")


def _number(value: float) -> float | None:
    return None if value != value else value


def _fail(line: str) -> int:
    say(" ".join(line.split()))
    return BAD_INPUT


if __name__ == "__main__":
    main()
