"""Losses and accuracies of logits over a whole table, and metrics.csv, which keeps them."""

import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import SupportsFloat

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.models.cross_entropy import answer_scores

COLUMNS = ("train_loss", "test_loss", "train_acc", "test_acc")
Metrics = dict[str, float]
MOST_COLUMNS = 1000  # of a table of another tool
LONGEST_HEADER = 1_000_000


def evaluate(
    logits: Float[Tensor, "n classes"],
    labels: Int[Tensor, " n"],
    train_mask: Bool[Tensor, " n"] | None,
) -> Metrics:
    """Mean cross-entropy (nats) and accuracy on train and test rows; NaN where there are none."""
    return evaluate_blocks((logits,), labels, train_mask)


def evaluate_blocks(
    blocks: Iterable[Float[Tensor, "rows classes"]],
    labels: Int[Tensor, " n"],
    train_mask: Bool[Tensor, " n"] | None,
) -> Metrics:
    """The same of logits that come in blocks of rows, in the order of the table."""
    if train_mask is None:
        return dict.fromkeys(COLUMNS, math.nan)
    scores, first = [], 0
    for logits in blocks:
        scores.append(answer_scores(logits, labels[first : first + len(logits)]))
        first += len(logits)
    losses = torch.cat([each.losses for each in scores])
    right = torch.cat([each.right for each in scores]).to(losses.dtype)
    means = [x[rows].mean() for x in (losses, right) for rows in (train_mask, ~train_mask)]
    return dict(zip(COLUMNS, torch.stack(means).tolist(), strict=True))


def as_metrics(values: Mapping[str, SupportsFloat | None]) -> Metrics:
    """Numbers of any kind (tensors of one element, numpy scalars, None) as floats."""
    found = {}
    for column in COLUMNS:
        value = values.get(column)
        try:
            found[column] = math.nan if value is None else float(value)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"{column}={value!r} is not a number; give a float.") from None
    return found


def csv_line(step: int, metrics: Mapping[str, float]) -> str:
    """One row of metrics.csv; a value that does not exist (NaN) is an empty cell."""
    cells = (metrics[column] for column in COLUMNS)
    return f"{step}," + ",".join("" if math.isnan(x) else repr(x) for x in cells) + "\n"


CSV_HEADER = f"step,{','.join(COLUMNS)}\n"


def read_csv(content: bytes) -> pd.DataFrame:
    """metrics.csv as a DataFrame, to the last bit of what was written."""
    frame = pd.read_csv(io.BytesIO(content), dtype=str)
    frame["step"] = frame["step"].map(int).astype("int64")
    for column in COLUMNS:
        frame[column] = frame[column].map(float).astype("float64")
    steps = frame["step"]
    if (steps < 0).any() or not steps.is_monotonic_increasing or not steps.is_unique:
        raise ValueError("steps that do not rise from 0 on")
    return frame


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV file of another tool, column names stripped; what is none is refused in one line."""
    path = Path(path)  # pandas would fetch a URL
    with path.open("rb") as file:
        if re.split(b"[\r\n]", file.read(LONGEST_HEADER))[0].count(b",") > MOST_COLUMNS:
            raise InputError(f"{path} has more than {MOST_COLUMNS} columns; keep those of the log.")
    try:
        with warnings.catch_warnings(category=pd.errors.ParserWarning, action="error"):
            frame = pd.read_csv(
                path, compression=None, index_col=False, skipinitialspace=True, low_memory=False
            )
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; give a CSV with a header and rows.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is not a CSV that can be read ({reason}).") from None
    frame.columns = frame.columns.str.strip()
    return frame
