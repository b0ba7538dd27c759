"""Lists in somebody else's data as arrays: losses by epoch, epochs, training pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.runs.foreign.said import said_in

TEXT = (str, bytes)  # which float() reads, a million digits as well


@dataclass(frozen=True)
class LossCurve:
    """Losses and the steps whose weights had them."""

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def every(cls, values: np.ndarray, *, stride: int = 1, first: int = 0) -> "LossCurve":
        """Entry i belongs to step `first + i * stride`."""
        return cls(first + stride * np.arange(len(values)), values)


def losses_by_epoch(data: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """The lists `train_losses` and `test_losses`, and accuracies as long as these, if any."""
    found = {}
    for column, key in (("train_loss", "train_losses"), ("test_loss", "test_losses")):
        if data.get(key) is not None:
            found[column] = _numbers(data[key], f"{path}: {key}")
    for column, listed in said_in(data).lists.items():
        beside = found.get(column.replace("_acc", "_loss"))
        if column.endswith("_acc") and beside is not None and len(beside) == len(listed.values):
            found[column] = listed.values
    return {column: values for column, values in found.items() if len(values)}


def logged_steps(data: Mapping[str, Any], path: Path) -> np.ndarray | None:
    """The steps whose losses were logged, where a file says that others are repetitions."""
    steps = data.get("logged_steps")
    return None if steps is None else np.asarray(whole_numbers(steps, path))


def whole_numbers(values: Any, path: Path) -> list[int]:
    """A list of epochs, steps or rows; empty where there is none."""
    if values is None:
        return []
    numbers = _numbers(values, f"{path}: its list of epochs")
    if not (np.isfinite(numbers) & (numbers % 1 == 0) & (abs(numbers) < 2**53)).all():
        raise InputError(f"{path}: the epochs of its checkpoints are not whole numbers.")
    return [int(x) for x in numbers]


def training_pairs(data: Any, path: Path) -> Tensor | None:
    """Training pairs (a, b) of a list of tuples (a, b, p)."""
    if data is None:
        return None
    rows = data.tolist() if isinstance(data, (Tensor, np.ndarray)) else data
    try:
        pairs = [row[:2] for row in rows]
        if not all(len(pair) == 2 and all(type(x) is int for x in pair) for pair in pairs):
            raise TypeError
        return torch.tensor(pairs)
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{path}: its train_data is not a list of (a, b, p).") from None


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        if isinstance(values, Tensor) and not values.is_complex() and values.ndim == 1:
            return values.double().numpy()  # at once: an object for every element takes gigabytes
        if isinstance(values, (Tensor, str, bytes)) or any(isinstance(x, TEXT) for x in values):
            raise TypeError
        return np.asarray([float(x) for x in values])
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{what} is not a list of numbers.") from None
