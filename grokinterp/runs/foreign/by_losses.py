"""What weights and their answers cannot say, asked of the losses and accuracies beside them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.models.cross_entropy import AnswerScores, answer_scores
from grokinterp.models.recognise import Recognised
from grokinterp.runs.foreign.fitting import CHOICES
from grokinterp.runs.foreign.losses import logged_metrics
from grokinterp.runs.foreign.source import Source
from grokinterp.runs.foreign.telling import Stored, told, uncertainty
from grokinterp.runs.metrics import COLUMNS
from grokinterp.runs.taking import from_weights
from grokinterp.tasks.modular import ModularTask

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
