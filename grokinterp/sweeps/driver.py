"""Train and measure a sweep: who makes its runs, and how they get into its table.

An executor is this process, worker processes or a Ray cluster. It takes jobs and gives back what
came of them, as they end. On Ctrl-C it has what is running saved, gives back what was finished, and
raises `Stopped`.
"""

import pickle
import signal
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from grokinterp.base.checks import instance, refused, whole, word
from grokinterp.base.errors import InputError, Interrupted, shown
from grokinterp.base.paths import as_path
from grokinterp.base.plugins import found_at, named_plugins, others_of
from grokinterp.progress.measures import MEASURES
from grokinterp.recipe.keys import MOST_THREADS
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import RUN_JSON
from grokinterp.sweeps.executors import (
    Job,
    Made,
    MeasureRun,
    Stopped,
    run_in_process,
    run_in_processes,
    sigterm_kept,
)
from grokinterp.sweeps.live_table import live_table
from grokinterp.sweeps.on_ray import run_on_ray
from grokinterp.sweeps.storage import Place, place_of
from grokinterp.sweeps.sweep import Sweep
from grokinterp.sweeps.table import CSVRow, SweepTable, has_failed
from grokinterp.training.ensemble import groups
from grokinterp.training.loop import refuse_another_recipe

SWEEP = "sweep.toml"
NAMED = 3  # runs in the line about a stop


def executor_of(
    name: str, *, workers: int | None, threads: int | None, address: str | None
) -> tuple[Callable[[Sequence[Job]], Generator[Made, None, None]], int]:
    """What makes jobs, and with how many torch threads each.

    InputError for an unknown executor, and for numbers or an address that it cannot take.
    Without `threads` a run has torch's number in this process divided by the workers, at least 1;
    on a running cluster, whose machines may be different, it has 1.
    """
    word("executor", name, ("local", "ray"))
    for key, value in (("workers", workers), ("threads", threads)):
        if value is not None:
            whole(key, value, least=1, most=MOST_THREADS, such_as="2")
    if address is not None and name != "ray":
        raise InputError(f"address={shown(address)} is of a Ray cluster; give executor='ray' too.")
    if threads is None:
        threads = 1 if address else max(1, torch.get_num_threads() // (workers or 1))
    if name == "ray":
        workers = workers or (None if address else 1)
        return partial(run_on_ray, workers=workers, address=address), threads
    if workers is None or workers == 1:
        return run_in_process, threads
    return partial(run_in_processes, workers=workers), threads


def run_sweep(
    sweep: Sweep,
    out: str | Path,
    *,
    measure: MeasureRun | None = None,
    executor: str = "local",
    workers: int | None = None,
    threads: int | None = None,
    address: str | None = None,
    on_row: Callable[[CSVRow], None] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train every recipe of a sweep into `out`/NAME, measure it, and return `out`/results.csv.

    One row per run: run, the keys that vary, what `measure` returns for the run (it may have a
    `note`), note, fingerprint. What is there already is not done again: finished runs are not
    trained, unfinished ones go on, and a row stays while it holds (see `SweepTable`) and its note
    is empty. results.csv, and results.parquet with the same content, are written whole after every
    run. `out`/sweep.toml has the sweep: `out` takes a different one only if it has all of those
    runs under the same names, so more values are fine. `out` may be a path of fsspec (see
    `storage`).

    `executor` is "local", with one worker in this process and with more `workers` in processes of
    their own, or "ray", on the cluster at `address` or a local one of `workers`. When a worker is
    killed, another goes on with its run, at most three times; a group is then tried run by run.

    Runs that can be trained together are, at most `sweep.ensemble` of what is left to do, by one
    worker, where a few timed steps say that it is faster: see `train_ensemble(when="faster")`; the
    log says what was chosen. Members are their single runs but for rounding (see there): run.json
    says which runs were members, and the fingerprint of a row follows it. The others, and those
    begun singly or without a common step, are trained singly.

    A run is trained and measured with the `threads` of its recipe; where that is 0, with `threads`;
    without that either, with torch's number in this process divided by the workers, at least 1 (on
    a running cluster, 1). Its run.json says with how many. The number changes the last bits of
    larger models: fix it to get the same bits with another number of workers.

    A run that cannot be trained or measured keeps its row, and its note says why; it is tried again
    the next time. `measure` is trusted to be the one that measured the rows: delete results.csv to
    use another under the same names. For other processes it must be a function of a module.
    `on_row` is called with every new row. `progress` shows a table on standard error where that is
    a terminal. Ctrl-C or SIGTERM saves what is running and raises `Interrupted`; nothing is lost.
    InputError for an `out` of another sweep or another process, and for a results.csv that is
    damaged or has other columns.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> tiny = gi.Recipe(p=7, d_model=8, d_head=4, d_mlp=16, steps=20, checkpoints=(0, 20))
    >>> sweep = gi.Sweep(tiny, ({"weight_decay": (0.0, 1.0)}, {"seed": (0, 1)}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = gi.run_sweep(sweep, folder, measure=gi.sweeps.measured, progress=False)
    >>> table[["run", "weight_decay", "seed", "label"]]
                         run  weight_decay  seed        label
    0  weight_decay=0,seed=0           0.0     0  not_learned
    1  weight_decay=0,seed=1           0.0     1  not_learned
    2  weight_decay=1,seed=0           1.0     0  not_learned
    3  weight_decay=1,seed=1           1.0     1  not_learned
    """
    instance(sweep, Sweep, "sweep", give="Sweep.from_toml(path)")
    if not isinstance(out, str) or "://" not in out:
        as_path("out", out, such_as="runs/sweep")
    for name, given in (("measure", measure), ("on_row", on_row)):
        if given is not None and not callable(given):
            raise refused(name, given, "a function", "such as sweeps.measuring(['sizes'])")
    make, threads = executor_of(executor, workers=workers, threads=threads, address=address)
    elsewhere = make is not run_in_process
    recipes = sweep.recipes()
    plugins = _check_travels(sweep, recipes, measure) if elsewhere else {}
    place = place_of(out, across_processes=elsewhere)
    with place.held():
        _refuse_another_sweep(place, recipes)
        table = SweepTable(sweep, place, measured=measure is not None)
        place.write(SWEEP, sweep.to_toml().encode())
        left = {name: recipe for name, recipe in recipes.items() if not table.has(name)}
        jobs = [
            Job(
                {name: left[name] for name in names},
                place,
                measure,
                left[names[0]].threads or threads,  # the same for all of a group
                plugins,
            )
            for names in groups(left, sweep.ensemble)
        ]
        try:
            with (
                sigterm_kept(signal.default_int_handler),  # as Ctrl-C
                live_table(jobs, n_runs=len(recipes), shown=progress) as live,
                closing(make(jobs)) as results,
            ):
                for made in results:
                    _check_arrived(place, made)
                    row = table.put(made)
                    live.done(made.name, failed=has_failed(row))
                    if on_row is not None:
                        on_row(row)
        except KeyboardInterrupt as stop:
            names = stop.args if isinstance(stop, Stopped) else ()
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            at = f"at {', '.join(names[:NAMED])}{more}, " if names else ""
            raise Interrupted(
                f"stopped {at}with {len(table)} of {len(recipes)} runs in the table; "
                f"nothing is lost, sweep into {out} again to go on."
            ) from None
        table.write()  # a kill may have come between its two files
    return table.frame()


def with_variants_there(sweep: Sweep, out: str) -> Sweep:
    """The sweep with the variants that `out` holds of it already, which come first.

    So that some variants, or some seeds, can be asked for now and others later. What `out` holds of
    something else is left to `run_sweep`, which refuses it.
    """
    there = place_of(out, across_processes=False).read(SWEEP)
    if there is None or not sweep.variants:
        return sweep
    other = Sweep.from_text(there, file=f"{out}/{SWEEP}")
    try:
        return replace(sweep, variants={**other.variants, **sweep.variants})
    except InputError:  # variants that mean nothing for this recipe
        return sweep


def _refuse_another_sweep(place: Place, recipes: Mapping[str, Recipe]) -> None:
    there = place.read(SWEEP)
    if there is None:
        return
    for name, recipe in Sweep.from_text(there, file=f"{place}/{SWEEP}").recipes().items():
        if name not in recipes:
            raise InputError(
                f"{place} holds another sweep: {name} is not asked for; give another folder, or a "
                "sweep with all of its runs."
            )
        refuse_another_recipe(Path(str(place)) / name, recipe, recipes[name])


def _check_travels(
    sweep: Sweep, recipes: Mapping[str, Recipe], measure: MeasureRun | None
) -> dict[str, str]:
    """The modules that have the kinds of a sweep, and their folders, for other processes.

    Refused: a measure or a kind that they could not load.
    """
    try:
        pickle.dumps(measure)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"measure cannot go to other processes ({error}); give a function of a module, or one "
            "local worker."
        ) from None
    modules = set(named_plugins()).union(*(recipe.modules() for recipe in recipes.values()))
    modules |= others_of(MEASURES.home(MEASURES.canonical(name)) for name in sweep.measures)
    if "__main__" in modules:
        raise InputError(
            "a kind of this sweep is defined in __main__, which other processes cannot import; put "
            "it into a module of its own and import that, or give one local worker."
        )
    return {module: found_at(module) for module in sorted(modules)}


def _check_arrived(place: Place, made: Made) -> None:
    """Refuse a run that another machine has put into a folder of its own."""
    if made.run_json and place.read(f"{made.name}/{RUN_JSON}") != made.run_json:
        raise InputError(
            f"{made.name} was made, but {place} does not have it: on the machine that trained it, "
            "that is another folder; give one that all machines share, or a path of fsspec."
        )
