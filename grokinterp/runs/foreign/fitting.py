"""What weights cannot say, asked of their behaviour: which operation, head count, attention rate?

A trained network answers its task well under the right reading of its weights and badly under a
wrong one. Readings are compared by the mean log cross-entropy over a sample of the table; one is
taken where it beats every other by far, or assumed where it beats the usual one by far; otherwise
the usual one is assumed, and said so: the causal mask, but none where a family of models is known
to have none (`Recognised.usual`). So every usual head count has to be among the readings. The
activation function is never chosen so: networks that were trained with ReLU give lower losses with
GELU.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
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


@dataclass(frozen=True)
class Settled:
    """An answer to every open question, and a note for each."""

    recognised: Recognised
    task: ModularTask
    readings: tuple[Reading, ...]
    chosen: Mapping[str, Any]
    notes: Mapping[str, str]
    unsure: tuple[str, ...]  # what was assumed all the same

    @property
    def _reading(self) -> Reading:
        return next(
            reading
            for reading in self.readings
            if all(reading.get(key) == value for key, value in self.chosen.items())
        )

    @property
    def above_chance(self) -> bool:
        """Whether the weights so read answer more than chance."""
        n, chance = len(self._reading.log_losses), 1 / self.task.p
        return self._reading.accuracy > chance + 4 * (chance * (1 - chance) / n) ** 0.5

    @property
    def so_read(self) -> str:
        """How well the weights answer in this reading: a wrong one shows here."""
        accuracy, task = self._reading.accuracy, self.task
        note = f"so read, its last checkpoint answers {accuracy:.1%} of the table right"
        if self.above_chance:
            return note
        equals = '"="' if task.equals_token else "no further token"
        return (
            f"{note}, no more than chance: it has not learned, or it is not {task.operation} mod "
            f"{task.p} of a, b and {equals}, or its code uses the weights in another way"
        )

    def answered(self, key: str, value: Any, note: str) -> "Settled":
        """The same with another answer to a question about the architecture, and why."""
        return replace(
            self,
            recognised=self.recognised.replace(**{key: value}),
            chosen={**self.chosen, key: value},
            notes={**self.notes, key: note},
            unsure=tuple(each for each in self.unsure if each != key),
        )


def settle(
    recognised: Recognised,
    state: StateDict,
    task: ModularTask,
    *,
    operation_known: bool,
    where: str,
) -> Settled:
    """The reading of weights that their answers speak for, or what is usual."""
    open_parts = recognised.assumed
    readings = list(_readings(recognised, state, task, operation_known, where))
    best = min(readings, key=lambda reading: float(reading.log_losses.mean()))
    notes: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    unsure = []
    for key in (*open_parts, *(() if operation_known else ("operation",))):
        rivals = [reading for reading in readings if reading.get(key) != best.get(key)]
        usual, why = (USUAL, "") if key == "operation" else recognised.usual(key, chosen)
        if rivals and all(_by_far(best, rival) for rival in rivals):
            chosen[key] = best.get(key)
            notes[key] = f"{key}={best.get(key)}: it answers far better so than otherwise"
            continue
        unsure.append(key)
        if best.get(key) != usual and all(
            _by_far(best, rival) for rival in rivals if rival.get(key) == usual
        ):
            chosen[key] = best.get(key)
            notes[key] = f"{key}={best.get(key)} is assumed: it answers best so (or set {key}=)"
        else:
            chosen[key] = usual
            reason = f", {why}" if why else ""
            notes[key] = f"{key}={usual} is assumed{reason} (set {key}= if it is another)"
    chosen.setdefault("operation", task.operation)
    parts = {key: value for key, value in chosen.items() if key != "operation"}
    return Settled(
        recognised.replace(**parts) if parts else recognised,
        replace(task, operation=chosen["operation"]),
        tuple(readings), chosen, notes, tuple(unsure),
    )  # fmt: skip


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


def _by_far(best: Reading, rival: Reading) -> bool:
    difference = rival.log_losses - best.log_losses
    error = difference.std() / len(difference) ** 0.5
    return bool(difference.mean() > max(SMALLEST_GAP, STANDARD_ERRORS * float(error)))
