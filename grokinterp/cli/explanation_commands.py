"""Commands that test explanations: claims on runs, their controls, accelerations."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from typer import Argument, Exit, Option

from grokinterp.base.errors import InputError, nearest, shown
from grokinterp.cli._app import UNEXPECTED, Json, a_file, a_folder, write_text
from grokinterp.cli.sweeping import (
    Address,
    Executor,
    Out,
    Threads,
    Workers,
    end_sweep,
    made_in,
    swept,
)
from grokinterp.cli.terminal import say, show, show_json, show_table

if TYPE_CHECKING:
    import pandas as pd

    from grokinterp.recipe.recipe import Recipe

TOLD = {  # columns of a table of runs: what stands above them, and how they are written
    "memorization_step": ("memorised at", ".0f"),
    "grok_step": ("grokked at", ".0f"),
    "test_acc": ("test accuracy", ".3f"),
    "test_acc_unmirrored": ("of unmirrored pairs", ".3f"),
}

RunOrRecipe = Annotated[
    str,
    Argument(metavar="RUN_OR_RECIPE", help="Folder of a run, built-in recipe, or TOML file."),
]
Only = Annotated[
    str | None, Option(metavar="NAME,...", help="These alone; held_norm is all of its values.")
]
Seeds = Annotated[int, Option(help="Seeds of each, from the recipe's own on.")]


def explain(
    paths: Annotated[
        list[str], Argument(metavar="RUN...", help="A run, or several seeds of one setting.")
    ],
    controls: Annotated[
        str | None, Option(metavar="DIR", help="Folder of controls, as `controls` fills it.")
    ] = None,
    claims: Annotated[
        str | None, Option(metavar="ID,...", help="These alone, such as A1,E2.")
    ] = None,
    slow: Annotated[
        bool, Option("--slow", help="Decide those that take over 20 s a run, too.")
    ] = False,
    as_json: Json = False,
    out: Annotated[Path | None, Option(help="HTML file to write.", callback=a_file)] = None,
    expect: Annotated[
        list[str] | None,
        Option(metavar="CLAIM=VERDICT", help="Exit with 3 if it is another; may be repeated."),
    ] = None,
) -> None:
    """Test every published claim on a run: a verdict each, with its numbers.

    Why so late: weight decay, circuits, the norm, double descent, how abrupt,
    lazy and rich. What takes a control is undetermined, and says which one,
    until --controls has it. The terminal gets verdicts and reasons; --json
    and --out have rules and every number.
    """
    from grokinterp.claims import explain as find

    wanted = [_expected(each) for each in expect or ()]
    ids = None if claims is None else [name.strip() for name in claims.split(",") if name.strip()]
    if ids is not None:
        ids += [name for name, _ in wanted]
    found = find(paths, controls, claims=ids, slow=slow, progress=True)
    if out is not None:
        from grokinterp.claims._figures.verdicts import explain_page

        write_text(out, explain_page(found))
    if as_json:
        show_json(found.to_dict())
    else:
        show(found)
        if out is not None:
            show(f"\n{out}: figure, verdicts and rules")
    wrong = [
        f"{name} is {shown(found[name].verdict)}, expected {shown(verdict)}"
        for name, verdict in wanted
        if found[name].verdict != verdict
    ]
    for line in wrong:
        say(line)
    if wrong:
        raise Exit(UNEXPECTED)


def _expected(text: str) -> tuple[str, str]:
    """A claim and a verdict, as "A1=contradicted" says them."""
    from grokinterp.claims.registry import CLAIMS, Verdict

    name, _, verdict = text.partition("=")
    verdicts = get_args(Verdict)
    if verdict not in verdicts:
        raise InputError(
            f"--expect {shown(text)} is no CLAIM=VERDICT; {nearest(verdict, verdicts)}"
        )
    return CLAIMS.canonical(name), verdict


def controls(
    recipe: RunOrRecipe,
    out: Out,
    only: Only = None,
    seeds: Seeds = 3,
    executor: Executor = "local",
    workers: Workers = None,
    threads: Threads = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Train the control experiments of a recipe, which decide between explanations.

    Each changes one thing: no weight decay, a held norm, random answers, ...
    The same command goes on where it was stopped. Then `grokinterp explain
    RUN --controls DIR` says what they decide.
    """
    from grokinterp.claims import control_experiments as experiments
    from grokinterp.sweeps.driver import with_variants_there

    folder = out.rstrip("/")
    names = _names(only)
    asked = experiments.controls(recipe, only=names, seeds=seeds)
    wanted = experiments.every_control(recipe, only=names)
    left_out = {x.name: x.why_not for x in wanted if x.why_not}
    asked = with_variants_there(asked, out)
    every = experiments.every_control(recipe)
    decides = dict.fromkeys(asked.variants, "no control of this recipe, but in that folder already")
    decides |= {control.name: control.decides for control in every}
    if not as_json:
        for name in asked.variants:
            show(f"{name:<23} {decides[name]}")
        for name, reason in left_out.items():
            show(f"{name:<23} is left out: {reason}")
        show(_size(list(asked.recipes().values()), executor, workers, threads))
    start = time.perf_counter()
    table = swept(
        asked, out, executor=executor, workers=workers, threads=threads, address=address,
        quiet=as_json,
    )  # fmt: skip
    outcomes = _outcomes(table)
    if as_json:
        found = [{"control": x, "decides": decides[x], **of} for x, of in outcomes.items()]
        show_json({"folder": folder, "controls": found, "left_out": left_out})
    else:
        known = {x: told for x, told in TOLD.items() if x in table}
        texts = [
            (name, *(_of_seeds(of[column], form) for column, (_, form) in known.items()))
            for name, of in outcomes.items()
        ]
        headings = ["control", *(heading for heading, _ in known.values())]
        show_table(headings, texts, words=("control",))
        show(f"{folder}: {len(table)} runs, {_duration(time.perf_counter() - start)} just now")
        show(f"Next: grokinterp explain {_explained(recipe, table, folder)} --controls {folder}")
    end_sweep(table, out)


def accelerate(
    recipe: RunOrRecipe,
    out: Annotated[Path, Option(metavar="DIR", help="Folder of the runs.", callback=a_folder)],
    only: Annotated[
        str | None, Option(metavar="NAME,...", help="These methods alone, and the baseline.")
    ] = None,
    seeds: Seeds = 3,
    workers: Workers = None,
    threads: Threads = None,
    as_json: Json = False,
    figure: Annotated[
        Path | None,
        Option(metavar="FILE.html", help="Figure to write at the end.", callback=a_file),
    ] = None,
) -> None:
    """Train a recipe in every way that is said to grok sooner, and compare by seeds.

    A baseline, nine methods, and five settings of learning rate and weight decay, for
    a tuned baseline. The same command goes on where it was stopped, or adds methods
    and seeds. At the end an update of each is timed, all in turn. A method that does
    not fit its training data has failed, and is not slow.
    """
    from grokinterp.claims.acceleration_methods import accelerations, left_out
    from grokinterp.claims.sooner_than_baseline import speed_ups
    from grokinterp.claims.update_times import seconds_per_update
    from grokinterp.sweeps.driver import with_variants_there

    asked = accelerations(recipe, only=_names(only), seeds=seeds)
    asked = with_variants_there(asked, str(out))
    for name, reason in left_out(recipe).items() if only is None else ():
        say(f"{name} is left out: {reason}.")
    table = swept(
        asked, str(out), executor="local", workers=workers, threads=threads, address=None,
        quiet=as_json,
    )  # fmt: skip
    if "baseline" not in set(made_in(table).variant):
        end_sweep(table, str(out))  # it diverged: there is nothing to compare with
    times = seconds_per_update(asked, threads=threads, progress=True)
    found = speed_ups(out, baseline=asked.base, seconds=times.seconds, progress=True)
    if figure is not None:
        found.plot().save(figure)
    if as_json:
        show_json({**found.to_dict(), "update_times": times.to_dict()})
    else:
        show(found)
        show(times)
        if figure is not None:
            show(f"{figure}: the figure")
    end_sweep(table, str(out))


def _names(only: str | None) -> list[str] | None:
    if only is None:
        return None
    names = [name.strip() for name in only.split(",") if name.strip()]
    if not names:
        raise InputError(f"--only {shown(only)} names none; leave it out for all of them.")
    return names


def _size(recipes: "list[Recipe]", executor: str, workers: int | None, threads: int | None) -> str:
    """How many runs and steps these are, and about how long that is on this machine."""
    steps = sum(recipe.steps for recipe in recipes)
    size = f"{len(recipes)} runs, {steps:,} steps"
    if executor != "local":
        return size
    from grokinterp.sweeps.driver import executor_of
    from grokinterp.training.step_time import seconds_per_step

    _, each = executor_of(executor, workers=workers, threads=threads, address=None)
    first = recipes[0].replace(threads=recipes[0].threads or each)
    try:
        seconds = seconds_per_step(first)
    except InputError:  # it diverges, which the sweep tells of the run itself
        return size
    whole = _duration(steps * seconds / (workers or 1))
    return f"{size}: about {whole} here, at {seconds * 1e3:.2g} ms a step; less what is there"


def _outcomes(table: "pd.DataFrame") -> dict[str, dict[str, list[Any]]]:
    """What is told of each control: a value per seed, None where there is none."""
    columns = [column for column in ("seed", *TOLD) if column in table]
    return {
        str(name): {x: [None if cell != cell else cell for cell in rows[x]] for x in columns}
        for name, rows in table.groupby("variant", sort=False)
    }


def _of_seeds(values: list[Any], form: str) -> str:
    """A number of each seed, as in "200, 120, -" where one has none."""
    return ", ".join("-" if x is None else format(x, form) for x in values)


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def _explained(given: str, table: "pd.DataFrame", folder: str) -> str:
    """The run that the controls are of: the one that was given, or the first baseline."""
    from grokinterp.base.paths import kind_at

    if kind_at(given) == "folder":
        return shlex.quote(given)
    own = table.run[table.variant == "baseline"]
    return shlex.quote(f"{folder}/{own.iloc[0]}") if len(own) else "RUN"
