"""The command line's application, the arguments that commands share, and lines about wrong ones."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from grokinterp.base.errors import shown
from grokinterp.base.paths import new_file, new_folder, refuse_address
from grokinterp.base.plugins import name_plugins
from grokinterp.cli.terminal import show

PROGRAM = "grokinterp"
BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 3, 130  # exit statuses

app = typer.Typer(
    name=PROGRAM,
    help="Mechanistic interpretability of grokking: when a network memorised, formed its circuit "
    "and cleaned up, and with which frequencies it computes.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
RunPath = Annotated[  # as it was typed: a Path would keep one slash of an address
    str, Argument(metavar="RUN", help="Folder of a run, checkpoints of others, or hf://, s3://.")
]
Json = Annotated[bool, Option("--json", help="Print one JSON object and nothing else.")]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        show(f"grokinterp {version('grokinterp')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
    plugins: Annotated[
        list[str] | None,
        Option(
            "--plugin", metavar="MODULE", help="Module with kinds of your own; may be repeated."
        ),
    ] = None,
) -> None:
    """Options that come before a command."""
    name_plugins(plugins or ())


def usage_line(error: Exception) -> str | None:
    """The line of a usage error; None where there is none, since the help was shown.

    Usage errors are click's, which newer versions of typer carry under a private name. Not all of
    them know their command, which is then the first argument that is one.
    """
    line = error.format_message().strip().rstrip(".")  # type: ignore[attr-defined]
    if not line:
        return None
    with contextlib.suppress(AttributeError, LookupError, TypeError):  # typer's line leaves it out
        line += f" (given: {shown(error.__cause__.errors()[0]['input'])})"  # type: ignore[union-attr]
    context = getattr(error, "ctx", None)
    path = context.command_path if context else PROGRAM
    if path == PROGRAM:
        commands = [command.name for command in app.registered_commands]
        path = " ".join([PROGRAM, *[x for x in sys.argv[1:] if x in commands][:1]])
    return f"{line}{'' if line.endswith('?') else '.'} Try '{path} --help'."


def a_file(path: Path | None) -> Path | None:
    """Callback of an option: a file to write, not a folder and not an address."""
    if path is not None:
        refuse_address(path)
        new_file("path", path, such_as=f"{path}/out")
    return path


def a_folder(path: Path) -> Path:
    """Callback of an option: a folder to make or to go on in, not a file and not an address."""
    refuse_address(path)
    return new_folder(path, give="a folder, which is made where it is missing")


def write_text(path: Path, text: str) -> None:
    """Write a file that appears whole or not at all."""
    from grokinterp.base.files import write_whole

    write_whole(path, text.encode())
