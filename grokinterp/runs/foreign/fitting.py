"""What weights cannot say, asked of their behaviour: which operation, head count, attention rate?

A trained network answers its task well under the right reading of its weights and badly under a
wrong one. Readings are compared by the mean log cross-entropy over a sample of the table; one is
taken where it beats every other by far, or assumed where it beats the usual one by far; otherwise
the usual one is assumed, and said so. So every usual head count has to be among them. The
activation function is never chosen so: networks that were trained with ReLU give lower losses with
GELU.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.models.cross_entropy import cross_entropies, right_answers
from grokinterp.models.recognise import Recognised
from grokinterp.runs.foreign.source import StateDict
from grokinterp.runs.forward import forward_of
from grokinterp.tasks.modular import ModularTask

SAMPLE = 2048  # rows of the table
SMALLEST_GAP = 0.25  # of the mean log losses, by which every rival has to be behind,
STANDARD_ERRORS = 10.0  # and in standard errors of the mean difference
SMALLEST_LOSS = 1e-30
USUAL = "add"
OPERATIONS = (USUAL, "subtract", "multiply", "x2xyy2")
CHOICES: dict[str, tuple[Any, ...]] = {
    "n_heads": (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32),
    "attention_rate": (1.0, 0.0),
    "attention_dir": ("causal", "bidirectional"),
}


@dataclass(frozen=True)
class Reading:
    """One way to read the weights, and the log loss of every sampled row under it."""

    operation: str
    parts: tuple[tuple[str, Any], ...]
    log_losses: Float[Tensor, " rows"]
    accuracy: float

    def get(self, key: str) -> Any:
        """The value of an open question in this reading."""
        return self.operation if key == "operation" else dict(self.parts)[key]


def settle(
    recognised: Recognised,
    state: StateDict,
    task: ModularTask,
    *,
    operation_known: bool,
    where: str,
) -> tuple[Recognised, ModularTask, tuple[str, ...], bool]:
    """The architecture and task with their open questions answered, and a note for each.

    Last, whether the weights so read answer more than chance.
    """
    open_parts = recognised.assumed
    readings = list(_readings(recognised, state, task, operation_known, where))
    best = min(readings, key=lambda reading: float(reading.log_losses.mean()))
    notes, chosen = [], {}
    for key in (*open_parts, *(() if operation_known else ("operation",))):
        rivals = [reading for reading in readings if reading.get(key) != best.get(key)]
        usual = USUAL if key == "operation" else getattr(recognised.architecture, key)
        if rivals and all(_by_far(best, rival) for rival in rivals):
            chosen[key] = best.get(key)
            notes.append(f"{key}={best.get(key)}: it answers far better so than otherwise")
        elif best.get(key) != usual and all(
            _by_far(best, rival) for rival in rivals if rival.get(key) == usual
        ):
            chosen[key] = best.get(key)
            notes.append(f"{key}={best.get(key)} is assumed: it answers best so (or set {key}=)")
        else:
            chosen[key] = usual
            notes.append(f"{key}={usual} is assumed (set {key}= if it is another)")
    taken = {"operation": task.operation, **chosen}
    reading = next(x for x in readings if all(x.get(key) == taken[key] for key in taken))
    task = replace(task, operation=chosen.pop("operation", task.operation))
    above_chance = _is_above_chance(reading, task)
    notes.append(_so_read(reading, task, above_chance))
    recognised = recognised.replace(**chosen) if chosen else recognised
    return recognised, task, tuple(notes), above_chance


def _readings(
    recognised: Recognised, state: StateDict, task: ModularTask, operation_known: bool, where: str
) -> Iterator[Reading]:
    operations = (task.operation,) if operation_known else OPERATIONS
    width = recognised.architecture.n_heads * recognised.architecture.d_head
    parts: list[Sequence[Any]] = []
    for key in recognised.assumed:
        usual = getattr(recognised.architecture, key)
        choices = dict.fromkeys((usual, *CHOICES.get(key, ())))
        parts.append([x for x in choices if key != "n_heads" or width % x == 0])
    rows = torch.arange(task.n_inputs)[:: max(1, task.n_inputs // SAMPLE)]
    labels = {name: replace(task, operation=name).labels[rows] for name in operations}
    for values in itertools.product(*parts):
        chosen = tuple(zip(recognised.assumed, values, strict=True))
        reading = recognised.replace(**dict(chosen)) if chosen else recognised
        weights = reading.weights(state, where)
        with torch.no_grad():
            logits, _ = forward_of(weights, reading.architecture)(task.tokens[rows], ())
        for name in operations:
            losses = cross_entropies(logits[:, : task.n_classes], labels[name])
            right = right_answers(logits[:, : task.n_classes], labels[name])
            log_losses = losses.clamp_min(SMALLEST_LOSS).log()
            yield Reading(name, chosen, log_losses, float(right.double().mean()))


def _is_above_chance(reading: Reading, task: ModularTask) -> bool:
    n, chance = len(reading.log_losses), 1 / task.p
    return reading.accuracy > chance + 4 * (chance * (1 - chance) / n) ** 0.5


def _so_read(reading: Reading, task: ModularTask, above_chance: bool) -> str:
    """How well the weights answer in the reading that was taken: a wrong one shows here."""
    note = f"so read, its last checkpoint answers {reading.accuracy:.1%} of the table right"
    if above_chance:
        return note
    equals = '"="' if task.equals_token else "no further token"
    return (
        f"{note}, no more than chance: it has not learned, or it is not {task.operation} mod "
        f"{task.p} of a, b and {equals}, or its code uses the weights in another way"
    )


def _by_far(best: Reading, rival: Reading) -> bool:
    difference = rival.log_losses - best.log_losses
    error = difference.std() / len(difference) ** 0.5
    return bool(difference.mean() > max(SMALLEST_GAP, STANDARD_ERRORS * float(error)))
