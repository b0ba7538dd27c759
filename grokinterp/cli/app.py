"""The command line's application, and the arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from grokinterp.terminal import show

BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 3, 130  # exit statuses

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


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        show(f"grokinterp {version('grokinterp')}")
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
