"""Commands that test explanations: claims on runs, their controls, accelerations."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from grokinterp.base.errors import Interrupted
from grokinterp.cli._app import INTERRUPTED, Json, a_file, a_folder
from grokinterp.cli.terminal import say, show, show_json


def accelerate(
    recipe: Annotated[
        str, Argument(metavar="RUN|RECIPE", help="A run, a built-in recipe, or a TOML file.")
    ],
    out: Annotated[Path, Option(metavar="DIR", help="Folder of the runs.", callback=a_folder)],
    only: Annotated[
        str | None, Option(metavar="NAME,...", help="These methods alone, and the baseline.")
    ] = None,
    seeds: Annotated[int, Option(help="Runs of each method, from the recipe's seeds on.")] = 3,
    workers: Annotated[int | None, Option(help="Runs at a time.")] = None,
    threads: Annotated[int | None, Option(help="Threads per run, if the recipe has 0.")] = None,
    as_json: Json = False,
    figure: Annotated[
        Path | None,
        Option(metavar="FILE.html", help="Figure to write at the end.", callback=a_file),
    ] = None,
) -> None:
    """Train a recipe in every way that is said to grok sooner, and compare them by seeds.

    A baseline, eight published or plain methods, and five settings of learning rate
    and weight decay for a tuned baseline. Finished runs are not trained again: the
    same command goes on where it was stopped, or adds methods and seeds. At the end
    updates of all methods are timed in turn, and the dates, ratios and ends are shown.
    """
    from grokinterp.claims.acceleration_methods import accelerations, base_recipe, left_out
    from grokinterp.claims.speed_ups import speed_ups
    from grokinterp.claims.update_times import seconds_per_update
    from grokinterp.sweeps.driver import run_sweep
    from grokinterp.sweeps.table import measuring

    base = base_recipe(recipe)
    names = None if only is None else [name.strip() for name in only.split(",")]
    sweep = accelerations(base, only=names, seeds=seeds)
    for name, why in left_out(base).items() if only is None else ():
        say(f"left out: {name}, {why}")
    from grokinterp.cli.run_commands import _show_run

    try:
        run_sweep(
            sweep,
            out,
            measure=measuring(()),
            workers=workers,
            threads=threads,
            on_row=None if as_json else partial(_show_run, str(out)),
        )
    except Interrupted as stopped:  # here, because typer would end it without a word
        say(str(stopped))
        raise Exit(INTERRUPTED) from None
    times = seconds_per_update(sweep, threads=threads, progress=True)
    found = speed_ups(out, baseline=sweep.base, seconds=times.seconds, progress=True)
    if figure is not None:
        found.plot().save(figure)
    if as_json:
        show_json({**found.to_dict(), "update_times": times.to_dict()})
        return
    show(found)
    show(times)
