"""Losses and accuracies of logits over a whole table, and metrics.csv, which keeps them.

train_loss, test_loss                       mean cross-entropy in nats over the rows trained on, and
                                            over all others
train_acc, test_acc                         the share of them whose largest logit is the right one
test_loss_unmirrored, test_acc_unmirrored   the same over test pairs (a, b) whose mirror (b, a) is
                                            not trained on either: only where a task has mirrors
                                            (a commutative operation) and the split is known

dynamics.csv has of logged steps what the next update is made of: `DYNAMICS_COLUMNS`.

A cell is empty where there are no such rows. The unmirrored columns leave out the test pairs that a
network can answer without a circuit, by looking up the mirror; they do not say how it answers the
others. Runs of 0.2.0 have the first four columns. A reader keeps whatever further ones a file has.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import SupportsFloat

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import instance, member
from grokinterp.base.errors import InputError, shown
from grokinterp.models.cross_entropy import answer_scores
from grokinterp.tasks.task import Task, has_mirrors, unmirrored_rows

COLUMNS = ("train_loss", "test_loss", "train_acc", "test_acc")  # of every run
UNMIRRORED = ("test_loss_unmirrored", "test_acc_unmirrored")
Metrics = dict[str, float]
ROUNDING = 1e-6  # by which few digits move a loss of 0, and an accuracy of 0 or 1


def columns_of(task: Task, *, split_known: bool) -> tuple[str, ...]:
    """The columns that a run logs besides the step.

    >>> from grokinterp.tasks import ModularTask
    >>> columns_of(ModularTask("add", p=5), split_known=True)[4:]
    ('test_loss_unmirrored', 'test_acc_unmirrored')
    >>> columns_of(ModularTask("subtract", p=5), split_known=True)[4:]
    ()
    """
    return COLUMNS + (UNMIRRORED if split_known and has_mirrors(task) else ())


def logged_unmirrored(
    task: Task, train_mask: Bool[Tensor, " n"] | None
) -> Bool[Tensor, " n"] | None:
    """The rows that the unmirrored columns are about; None where a run does not have them."""
    if train_mask is None or not has_mirrors(task):
        return None
    return unmirrored_rows(task, train_mask)


def evaluate(
    logits: Float[Tensor, "n classes"] | Iterable[Float[Tensor, "rows classes"]],
    labels: Int[Tensor, " n"],
    train_mask: Bool[Tensor, " n"] | None,
    unmirrored: Bool[Tensor, " n"] | None = None,
) -> Metrics:
    """Mean cross-entropy (nats) and accuracy on train and test rows; NaN where there are none.

    Logits may come in blocks of rows, in the order of the table. With `unmirrored`, from
    `logged_unmirrored`, on those rows too.
    """
    if train_mask is None:
        return dict.fromkeys(COLUMNS, math.nan)
    scores, first = [], 0
    for block in [logits] if isinstance(logits, Tensor) else logits:
        scores.append(answer_scores(block, labels[first : first + len(block)]))
        first += len(block)
    losses = torch.cat([each.losses for each in scores])
    right = torch.cat([each.right for each in scores]).to(losses.dtype)
    means = [x[rows].mean() for x in (losses, right) for rows in (train_mask, ~train_mask)]
    if unmirrored is not None:
        means += [x[unmirrored].mean() for x in (losses, right)]
    return dict(zip((*COLUMNS, *UNMIRRORED), torch.stack(means).tolist(), strict=False))


def as_metrics(
    values: Mapping[str, SupportsFloat | None],
    columns: Sequence[str] = COLUMNS,
    *,
    without_rows: Sequence[str] = (),
) -> Metrics:
    """Numbers of any kind (tensors of one element, numpy scalars, None) as floats; None is NaN.

    InputError for a name that no run has a column for, and for values that cannot be: losses are
    finite and at least 0, accuracies are shares from 0 to 1 (1 + 1e-6, a rounding, is 1). NaN is
    accepted in the columns `without_rows`, where a mean over no rows is no number.

    >>> as_metrics({"train_loss": 0.5, "test_acc": None}, ("train_loss", "test_acc"))
    {'train_loss': 0.5, 'test_acc': nan}
    """
    for name in instance(values, Mapping, "dict of metrics", give="such as {'train_loss': 0.5}"):
        member(name, (*COLUMNS, *UNMIRRORED), "column of a run")
    found = {name: _as_metric(name, value, without_rows) for name, value in values.items()}
    return {column: found.get(column, math.nan) for column in columns}


def _as_metric(name: str, value: SupportsFloat | None, without_rows: Sequence[str]) -> float:
    if value is None:
        return math.nan
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{name}={shown(value)} is not a number; give a float.") from None
    if math.isnan(number) and name in without_rows:
        return number
    if not math.isfinite(number):
        give = "give a finite number, or leave it out where there is none"
        raise InputError(f"{name}={number} is not finite; {give}.")
    if "_acc" in name and not 0 <= number <= 1 + ROUNDING:
        give = "give such as 0.97 for 97 %"
        raise InputError(f"{name}={number:.6g} is no share from 0 to 1; {give}.")
    if "_loss" in name and number < 0:
        give = "give it in nats, not its logarithm"
        raise InputError(f"{name}={number:.6g} is below 0, which no mean cross-entropy is; {give}.")
    return min(number, 1.0) if "_acc" in name else number


# The norm of the trained weights at a step; of the objective's gradient there (of the rows of the
# next update), and its cosine with the weights; of what the gradients and the decay of weights add
# to the next update, and the cosine of the two. See `grokinterp.training.dynamics`.
DYNAMICS_COLUMNS = (
    "weight_norm", "grad_norm", "cos_gradient_weights", "update_loss", "update_decay",
    "cos_updates",
)  # fmt: skip


def csv_line(step: int, metrics: Mapping[str, float], columns: Sequence[str]) -> str:
    """One row of metrics.csv; the cell of a missing value or NaN is empty."""
    cells = (metrics.get(column, math.nan) for column in columns)
    return f"{step}," + ",".join("" if math.isnan(x) else repr(x) for x in cells) + "\n"


def csv_header(columns: Sequence[str]) -> str:
    """The first line of metrics.csv."""
    return f"step,{','.join(columns)}\n"


def read_csv(content: bytes, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """The content of a table of a run folder as a DataFrame, exact to the last bit.

    It needs the step and these columns; further ones have to hold numbers.
    """
    frame = pd.read_csv(io.BytesIO(content), dtype=str)
    frame["step"] = frame["step"].map(int).astype("int64")
    for column in dict.fromkeys((*columns, *frame.columns.drop("step"))):
        frame[column] = frame[column].map(float).astype("float64")
    steps = frame["step"]
    if (steps < 0).any() or not steps.is_monotonic_increasing or not steps.is_unique:
        raise ValueError("steps that do not rise from 0 on")
    return frame
