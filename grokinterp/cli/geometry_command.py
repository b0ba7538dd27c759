"""The command that looks at shapes: of representations, and of the loss around the weights."""

import sys
from typing import TYPE_CHECKING, Annotated

from typer import Option

from grokinterp.base.errors import InputError
from grokinterp.cli._app import Json, RunPath, write_text
from grokinterp.cli.analysis_commands import OutCSV
from grokinterp.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from grokinterp.base.result import Result


def geometry(
    path: RunPath,
    step: Annotated[
        str, Option(metavar="N|all", help="Checkpoint; -1 is the last, all is every one.")
    ] = "all",
    curvature: Annotated[
        bool,
        Option(
            "--curvature",
            help="The Hessian of the training loss, too, and the noise that weights bear. With "
            "every step: at the end of memorization, and at the last.",
        ),
    ] = False,
    out: OutCSV = None,
    as_json: Json = False,
) -> None:
    """Look at the shapes of a run: clouds that turn into circles, and when.

    Of embedding, unembedding and answers: group symmetry, dimensions, loops,
    each beside what chance gives, and the steps at which they change, beside
    those of the fit. What a decoder reads of the answers to unseen inputs,
    beside what the network says. The CSV has a row per step and cloud; --json
    has all tables.
    """
    from grokinterp.geometry import curvature as curve
    from grokinterp.geometry import noise_radius, representations, routing
    from grokinterp.progress.phases import phases_of_metrics
    from grokinterp.reading._load import load
    from grokinterp.reporting.about import milestones

    run = load(path)
    asked: str | int = "all" if step == "all" else _number(step)
    found = representations(run, asked, progress=True)
    results: dict[str, Result] = {"steps": found}
    left_out = []
    try:
        results["routing"] = routing(run, asked, progress=True)
    except InputError as error:
        left_out.append(str(error))
    if curvature:
        at: str | int | list[int] = asked
        if at == "all":
            try:
                at = list(milestones(run.steps, phases_of_metrics(run)))
            except InputError as error:
                at = -1
                left_out.append(f"curvature is of the last checkpoint alone: {error}")
        for name, look in (("curvature", curve), ("noise_radius", noise_radius)):
            try:
                results[name] = look(run, at, progress=True)
            except InputError as error:
                left_out.append(f"no {name}: {error}")
    if out is not None:
        write_text(out, found.table().to_csv(index=False))
    if as_json:
        tables = {name: each.table().to_dict("records") for name, each in results.items()}
        notes = [note for each in results.values() for note in each.notes] + left_out
        transitions = [vars(each) for each in found.transitions]
        show_json({"run": path, **tables, "transitions": transitions, "notes": notes})
    elif out is None and not curvature and not sys.stdout.isatty():
        show(found.table().to_csv(index=False), nl=False)
    else:
        show("\n\n".join(map(str, results.values())))
        if out is not None:
            show(f"\n{out}: {len(found.table())} rows, {len(found.table().columns)} columns")
    for line in left_out if not as_json else ():
        say(line)


def _number(step: str) -> int:
    try:
        return int(step)
    except ValueError:
        raise InputError(f"--step {step!r} is no checkpoint; give its step, -1 or all.") from None
