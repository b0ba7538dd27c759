"""Commands that check: whether a run can be trained again."""

import json
from typing import Annotated

import typer

from grokinterp.cli.app import UNEXPECTED, Json, RunFolder
from grokinterp.terminal import show, show_verification


def verify(
    path: RunFolder,
    steps: Annotated[
        int | None,
        typer.Option(
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
    from grokinterp.runs import load
    from grokinterp.training import verify as verify_run

    found = verify_run(load(path), steps=steps, progress=True)
    if as_json:
        show(json.dumps(found.to_dict()))
    else:
        show_verification(path, found)
    if not found.holds:
        raise typer.Exit(UNEXPECTED)
