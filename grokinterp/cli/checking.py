"""Commands that check: whether a run can be trained again, and how fast this machine is."""

from pathlib import Path
from typing import Annotated

import typer

from grokinterp.cli.app import UNEXPECTED, Json
from grokinterp.terminal import show_bench, show_json, show_verification


def verify(
    path: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run that a recipe trained.")
    ],
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
        show_json(found.to_dict())
    else:
        show_verification(path, found)
    if not found.holds:
        raise typer.Exit(UNEXPECTED)


def bench(
    threads: Annotated[
        int, typer.Option(help="How many threads torch computes with; 0: its own choice.")
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
        show_bench(found)
