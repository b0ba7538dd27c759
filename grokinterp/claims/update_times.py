"""How long does an update take, of recipes that are timed side by side?"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from tqdm.auto import tqdm

from grokinterp.base.checks import instance, whole
from grokinterp.base.errors import InputError
from grokinterp.base.memory import kept_memory
from grokinterp.base.result import Result, text_card
from grokinterp.recipe.keys import MOST_THREADS
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import current_environment
from grokinterp.sweeps.sweep import Sweep
from grokinterp.training.learner import Learner
from grokinterp.training.loop import find_device, using_threads

WARM = 3  # updates that are not timed, and as many as fill the window of a filter


@dataclass(frozen=True, kw_only=True)
class UpdateTimes(Result):
    """Median seconds of an update by name, on one machine, with so many threads each.

    Updates alone: what a run also logs and saves is not timed. They hold for this machine while it
    is as busy as it was; ratios depend on that less.

    >>> import grokinterp as gi
    >>> times = gi.claims.UpdateTimes(
    ...     seconds={"baseline": 0.004, "mse": 0.003}, machine="a laptop", threads=1, updates=100)
    >>> times.table()
         method  seconds  ratio
    0  baseline    0.004   1.00
    1       mse    0.003   0.75
    """

    seconds: Mapping[str, float]
    machine: str
    threads: int
    updates: int

    def table(self) -> pd.DataFrame:
        """One row per recipe; `ratio` is to the first of them."""
        first = next(iter(self.seconds.values()))
        rows = [{"method": x, "seconds": s, "ratio": s / first} for x, s in self.seconds.items()]
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        most = len(self.seconds)
        return text_card(self._title(), self._lines(), self.table(), notes=self.notes, most=most)

    def _lines(self) -> list[str]:
        threads = f"{self.threads} thread{'s' * (self.threads != 1)}"
        return [f"medians of {self.updates} updates, in turn; {self.machine}, {threads}"]


def seconds_per_update(
    recipes: Sweep | Mapping[str, Recipe],
    *,
    updates: int = 10,
    rounds: int = 5,
    threads: int | None = None,
    progress: bool = False,
) -> UpdateTimes:
    """How many seconds does an update of each recipe take on this machine?

    `recipes` are recipes by name, or a sweep, of which the first run of each variant is timed. In
    each of the `rounds` every recipe is trained for so many `updates`, one after the other, in this
    process, so that a machine that slows down slows all of them; the median of all updates is
    taken. The first three are not timed, nor are those before the window of `grokfast_ma` is full.
    With `threads` of the recipe, or those that are given, or torch's. Nothing is written.

    >>> import grokinterp as gi
    >>> tiny = gi.Recipe(p=5, model="mlp", widths=[8])
    >>> times = gi.claims.seconds_per_update(gi.accelerations(tiny, only=["mse"]), rounds=2)
    >>> list(times.seconds), times.updates
    (['baseline', 'mse'], 20)
    """
    named = _recipes(recipes)
    updates = whole("updates", updates, least=1, most=10_000, such_as="10")
    rounds = whole("rounds", rounds, least=1, most=1000, such_as="5")
    if threads is not None:
        threads = whole("threads", threads, least=1, most=MOST_THREADS, such_as="1")
    first = next(iter(named.values()))
    number, device = first.threads or threads or torch.get_num_threads(), find_device(first.device)
    times: dict[str, list[float]] = {name: [] for name in named}
    with using_threads(number), kept_memory():
        environment = current_environment(device=device)
        learners = {name: Learner([recipe], device) for name, recipe in named.items()}
        done = dict.fromkeys(named, 0)
        shown = None if progress else True  # None: where standard error is a terminal
        for i in tqdm(range(rounds + 1), desc="timing", unit="round", disable=shown):
            for name, learner in learners.items():
                warm = max(WARM, named[name].to_dict().get("filter_window", 0))
                for _ in range(updates if i else warm):
                    start = time.perf_counter()
                    learner.update(done[name])
                    if torch.device(device).type != "cpu":
                        torch.accelerator.synchronize()
                    done[name] += 1
                    if i:
                        times[name].append(time.perf_counter() - start)
    return UpdateTimes(
        seconds={name: statistics.median(each) for name, each in times.items()},
        machine=str(environment["cpu" if device == "cpu" else "device"]),
        threads=number,
        updates=updates * rounds,
    )


def _recipes(given: Sweep | Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Recipes by name: of a sweep the first run of each variant."""
    if isinstance(given, Sweep):
        found: dict[str, Recipe] = {}
        for name, (variant, recipe) in given.members().items():
            found.setdefault(variant or name, recipe)
        return found
    give = "gi.accelerations(recipe), or recipes by name"
    found = dict(instance(given, Mapping, "sweep and no dict of recipes", give=give))
    if not found:
        raise InputError(f"no recipes are given; give {give}.")
    for recipe in found.values():
        instance(recipe, Recipe, "recipe", give="gi.Recipe(...)")
    return found
