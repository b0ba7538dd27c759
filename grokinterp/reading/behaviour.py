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
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.models._recognise import Recognised
from grokinterp.models.cross_entropy import (
    AnswerScores,
    answer_scores,
    cross_entropies,
    right_answers,
)
from grokinterp.reading.checkpoint_file import Source, StateDict
from grokinterp.reading.stored_numbers import Stored, told, uncertainty
from grokinterp.reading.training_rows import Evidence, Split, log_ratio
from grokinterp.runs._snapshot import from_weights
from grokinterp.runs.forwards import forward_of
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.splits import mask_of

# MERGED runs.foreign.losses: The losses and accuracies that somebody else's files keep, on our step axis.
# MERGED runs.foreign.by_losses: What weights and their answers cannot say, asked of the losses and accuracies beside them.


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


def logged_metrics(source: Source) -> pd.DataFrame:
    """A row per logged step: step and the columns of metrics.csv, NaN where nothing was logged."""
    frame = source.log
    if frame is None:
        frame = pd.DataFrame({"step": pd.Series(dtype="int64")})
    for column, curve in source.losses.items():
        part = pd.DataFrame({"step": curve.steps, column: curve.values})
        if source.logged_steps is not None:
            part = part[part["step"].isin(source.logged_steps)]
        if column not in frame:
            frame = frame.merge(part[np.isfinite(part[column])], on="step", how="outer")
    return frame.reindex(columns=["step", *COLUMNS, *UNMIRRORED]).sort_values(
        "step", ignore_index=True
    )


def stored_at(logged: pd.DataFrame, column: str, steps: Iterable[int]) -> dict[int, float]:
    """What was logged for these steps, where it was."""
    known = logged[["step", column]].dropna()
    known = known[known["step"].isin(list(steps)) & np.isfinite(known[column])]
    return dict(zip(known["step"].tolist(), known[column].tolist(), strict=True))


def aligned(source: Source, evidence: Evidence, split: Split) -> tuple[Source, tuple[str, ...]]:
    """The demo's test losses on the step that they agree with: after the update, or before."""
    curve = source.losses.get("test_loss")
    if source.format != "demo" or curve is None or split.rows is None:
        return source, ()
    test = ~mask_of(split.rows, evidence.task.n_inputs)
    if not test.any():
        return source, ()

    def moved(by: int) -> Source:
        shifted = {
            column: replace(each, steps=each.steps + by)
            for column, each in source.losses.items()
            if column.startswith("test")
        }
        return replace(source, losses={**source.losses, **shifted})

    def mismatch(by: int) -> float:
        stored = stored_at(logged_metrics(moved(by)), "test_loss", evidence.looked_at())
        found = {step: float(evidence.losses_of(step)[test].mean()) for step in stored}
        ratios = [abs(log_ratio(found[step], stored[step])) for step in stored]
        return float(np.mean(ratios)) if ratios else np.inf

    if mismatch(-1) < mismatch(0) / 10:
        return moved(-1), ("test losses are those before the update, as they agree so",)
    return source, ()


MOST_STEPS = 6  # of which the losses are compared
DIRECTIONS = CHOICES["attention_dir"]
_IN_CONFIG = {
    f"{prefix}{side}_{word}": f"{side}_{kind}"
    for prefix in ("", "final_")
    for side in ("train", "test")
    for word, kind in (("loss", "loss"), ("acc", "acc"), ("accuracy", "acc"))
}


def direction_told(
    recognised: Recognised,
    task: ModularTask,
    source: Source,
    *,
    train: Bool[Tensor, " n_inputs"] | None,
    train_fraction: float | None,
) -> tuple[str, str] | None:
    """The direction of attention under which weights have the stored losses, and a note; or None.

    Losses of training and test rows are compared where these are known, those of all rows where
    the fraction is known of which both are means.
    """
    numbers = list(_numbers(recognised, task, source, train, train_fraction))
    # Test losses may be those of the step before: they are not yet aligned.
    found = told(n for n in numbers if n.what.startswith("train_loss")) or told(numbers)
    if found is None:
        return None
    direction, number = found
    note = (
        f"attention_dir={direction}: so read, {number.what} is {number.found[direction]:.6g}, "
        f"otherwise {number.other(direction):.6g}, and the files say {number.value:.6g}"
    )
    return direction, note


def _numbers(
    recognised: Recognised,
    task: ModularTask,
    source: Source,
    train: Bool[Tensor, " n_inputs"] | None,
    train_fraction: float | None,
) -> Iterator[Stored[str]]:
    stored = _stored(source)
    for step in stored.index[:: max(1, -(-len(stored) // MOST_STEPS))]:
        state, scores = source.states[step](), {}
        for direction in DIRECTIONS:
            reading = recognised.replace(attention_dir=direction)
            weights = reading.weights(state, f"{source.path}, step {step}")
            logits = from_weights(weights, reading.architecture, task).all_logits
            scores[direction] = answer_scores(logits, task.labels)
        row = stored.loc[step].to_dict()
        if train is not None:
            yield from _by_side(row, scores, train, step)
        elif train_fraction is not None:
            yield from _of_all(row, scores, train_fraction, step)


def _by_side(
    row: Mapping[str, float],
    scores: Mapping[str, AnswerScores],
    train: Bool[Tensor, " n_inputs"],
    step: int,
) -> Iterator[Stored[str]]:
    for column, value in row.items():
        rows = train if column.startswith("train") else ~train
        if math.isfinite(value) and rows.any():
            found = {key: float(_each(each, column)[rows].mean()) for key, each in scores.items()}
            yield Stored(f"{column} of step {step}", value, found)


def _of_all(
    row: Mapping[str, float],
    scores: Mapping[str, AnswerScores],
    train_fraction: float,
    step: int,
) -> Iterator[Stored[str]]:
    for kind in ("loss", "acc"):
        train, test = row[f"train_{kind}"], row[f"test_{kind}"]
        if math.isfinite(train) and math.isfinite(test):
            found = {key: float(_each(each, kind).mean()) for key, each in scores.items()}
            mean = train_fraction * train + (1 - train_fraction) * test
            # The fraction may be rounded by a row, and the mean has the digits of its parts.
            a_row = abs(train - test) / len(next(iter(scores.values())).losses)
            digits = max(uncertainty(train), uncertainty(test))
            what = f"the {kind} of all rows at step {step}"
            yield Stored(what, mean, found, unknown=a_row + digits)


def _each(scores: AnswerScores, column: str) -> Tensor:
    return scores.right.to(torch.float64) if column.endswith("acc") else scores.losses


def _stored(source: Source) -> pd.DataFrame:
    """By step, what the files keep of checkpoints; of a single one, also what its config does."""
    logged = logged_metrics(source).set_index("step")
    if len(source.states) == 1:
        (step,) = source.states
        said = {_IN_CONFIG[k]: x for k, x in source.config.items() if k in _IN_CONFIG and _real(x)}
        config = pd.DataFrame(said, index=pd.Index([step], name="step"), columns=[*COLUMNS])
        logged = logged.combine_first(config.astype(float))
    there = logged[list(COLUMNS)].dropna(how="all")
    return there[there.index.isin(list(source.states))]


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
