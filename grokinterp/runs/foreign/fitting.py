"""What weights cannot say, asked of their behaviour: which operation, activation, head count?

A trained network answers its task well under the right reading of its weights and badly under a
wrong one. Readings are compared by the mean log cross-entropy over a sample of the table; one is
taken only where it beats every other by far, otherwise the usual one is assumed, and said so.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.recognise import Recognised
from grokinterp.runs.foreign.sources import StateDict
from grokinterp.runs.snapshot import forward_of
from grokinterp.tasks.modular import ModularTask

SAMPLE = 2048  # rows of the table
BY_FAR = 10.0  # standard errors of the mean difference between two readings
USUAL = "add"
OPERATIONS = (USUAL, "subtract", "multiply", "x2xyy2")
SMALLEST_LOG_LOSS = 1e-30
CHOICES: dict[str, tuple[Any, ...]] = {
    "act_fn": ("relu", "gelu", "silu"),
    "n_heads": (1, 2, 4, 8, 16),
    "attention_rate": (1.0, 0.0),
    "attention_dir": ("causal", "bidirectional"),
}


@dataclass(frozen=True)
class Reading:
    """One way to read the weights, and the log loss of every sampled row under it."""

    operation: str
    parts: tuple[tuple[str, Any], ...]
    log_losses: Float[Tensor, " rows"]

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
) -> tuple[Recognised, ModularTask, tuple[str, ...]]:
    """The architecture and task with their open questions answered, and a note for each."""
    open_parts = recognised.assumed
    readings = list(_readings(recognised, state, task, operation_known, where))
    best = min(readings, key=lambda reading: float(reading.log_losses.mean()))
    notes, chosen = [], {}
    for key in (*open_parts, *(() if operation_known else ("operation",))):
        rivals = [reading for reading in readings if reading.get(key) != best.get(key)]
        lead = min((_lead(best, rival) for rival in rivals), default=float("inf"))
        usual = USUAL if key == "operation" else getattr(recognised.architecture, key)
        if rivals and lead >= BY_FAR:
            chosen[key] = best.get(key)
            notes.append(f"{key}={best.get(key)}: it answers far better so than otherwise")
        else:
            chosen[key] = usual
            notes.append(f"{key}={usual} is assumed (set {key}= if it is another)")
    task = replace(task, operation=chosen.pop("operation", task.operation))
    return recognised.replace(**chosen) if chosen else recognised, task, tuple(notes)


def _readings(
    recognised: Recognised, state: StateDict, task: ModularTask, operation_known: bool, where: str
) -> Iterator[Reading]:
    operations = (task.operation,) if operation_known else OPERATIONS
    width = recognised.architecture.n_heads * recognised.architecture.d_head
    parts: list[Sequence[Any]] = []
    for key in recognised.assumed:
        usual = getattr(recognised.architecture, key)
        choices = dict.fromkeys((usual, *CHOICES[key]))
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
            yield Reading(name, chosen, losses.clamp_min(SMALLEST_LOG_LOSS).log())


def _lead(best: Reading, rival: Reading) -> float:
    """How far the rival is behind, in standard errors of the mean difference."""
    difference = rival.log_losses - best.log_losses
    error = difference.std() / len(difference) ** 0.5
    return float(difference.mean() / error.clamp_min(1e-12))
