"""How long a step takes, by itself and in an ensemble: measured here and now."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from grokinterp.arguments import listed, number
from grokinterp.errors import InputError
from grokinterp.memory import kept_memory
from grokinterp.recipe.builtin import as_recipe
from grokinterp.recipe.recipe import Recipe
from grokinterp.training.ensemble_learner import EnsembleLearner
from grokinterp.training.grouping import why_not_together
from grokinterp.training.learner import Learner
from grokinterp.training.loop import find_device, using_threads
from grokinterp.training.optimizers import Batches, build_optimizer

LEAST, MOST = 3, 200  # rounds, of one step each way


@dataclass(frozen=True)
class EnsembleTiming:
    """Median seconds a step and member, of updates alone: logging and saving come on top.

    `singly` is the time of the first recipe's step, `together` that of all members by their number.
    """

    members: int
    singly: float
    together: float

    @property
    def faster(self) -> bool:
        """Whether the ensemble is."""
        return self.together < self.singly


def faster_as_ensemble(recipes: Sequence[Recipe], *, seconds: float = 0.5) -> EnsembleTiming:
    """Time steps of these recipes both ways, in turn, for about so long (at least 3 steps each).

    Nothing is written, and nothing is kept of the steps. What it finds is true for this machine
    while it is as busy as now.
    """
    recipes = [as_recipe(x) for x in listed("recipes", recipes, such_as="['mod31-grokked']")]
    seconds = number("seconds", seconds, least=0, most=3600, such_as="0.5")
    if not recipes:
        raise InputError("no recipes are given; give those of the members.")
    if reason := why_not_together(recipes):
        raise InputError(reason)
    first = recipes[0]
    device = find_device(first.device)
    with using_threads(first.threads), kept_memory():
        ways = (_single_step(first, device), _ensemble_step(recipes, device))
        for step in ways:
            step()  # the first one makes what the others find made
        times: tuple[list[float], list[float]] = ([], [])
        until = time.perf_counter() + seconds
        while len(times[0]) < LEAST or (len(times[0]) < MOST and time.perf_counter() < until):
            for step, record in zip(ways, times, strict=True):
                start = time.perf_counter()
                step()
                record.append(time.perf_counter() - start)
    singly, together = map(statistics.median, times)
    return EnsembleTiming(len(recipes), singly, together / len(recipes))


def _single_step(recipe: Recipe, device: str) -> Callable[[], None]:
    task = recipe.build_task()
    learner = Learner(recipe, task.model_inputs, task.labels, device)
    optimizer = build_optimizer(recipe, learner.trained.values())
    batches = Batches(recipe, recipe.train_indices().to(device))
    count = iter(range(10**9))

    def step() -> None:
        learner.backward(batches.rows(next(count)))
        optimizer.step()
        _wait(device)

    return step


def _ensemble_step(recipes: Sequence[Recipe], device: str) -> Callable[[], None]:
    learner = EnsembleLearner(recipes, device)
    count = iter(range(10**9))

    def step() -> None:
        learner.update(next(count))
        _wait(device)

    return step


def _wait(device: str) -> None:
    """Until an accelerator has done what it was told."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()
