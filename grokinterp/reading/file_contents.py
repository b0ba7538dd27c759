"""What a file says besides weights: its step, configuration, losses, lists of them, training rows.

The same is asked of a checkpoint and of a JSON beside it. Only what is named in known words is
taken, at the top or in groups such as "metrics"; an optimizer's state says nothing.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.reading.words import (
    CONFIGS,
    SPLITS,
    STEPS,
    axis_word,
    is_group,
    measured,
    says_nothing_itself,
    says_training_rows,
    step_word,
    words_of,
)
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.runs.metrics import ROUNDING

# MERGED runs.foreign.values: Lists in somebody else's data as arrays: losses by epoch, epochs, training pairs.


MOST_KEYS = 10_000  # of a group
DEEPEST = 3  # group within a group
LARGEST_TEXT = 1_000_000  # characters of a configuration that is kept as text
PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Listed:
    """Numbers of a list, and the steps beside them, if there are any, with their word."""

    values: np.ndarray
    steps: np.ndarray | None = None
    word: str | None = None


@dataclass(frozen=True)
class Said:
    """What one file says."""

    step: tuple[int, str] | None = None  # and in which word
    config: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)  # and accuracies, by column
    lists: Mapping[str, Listed] = field(default_factory=dict)
    train_rows: Tensor | None = None
    notes: tuple[str, ...] = ()

    def over(self, other: "Said", *, its_own: bool = True) -> "Said":
        """This, and where it says nothing, what another file says.

        A file that is not of these weights alone (`its_own`) gives neither step nor single losses.
        """
        return Said(
            self.step or (other.step if its_own else None),
            {**other.config, **self.config},
            {**(other.losses if its_own else {}), **self.losses},
            {**other.lists, **self.lists},
            other.train_rows if self.train_rows is None else self.train_rows,
            tuple(dict.fromkeys((*self.notes, *other.notes))),
        )

    @property
    def what(self) -> tuple[str, ...]:
        """Names of what there is."""
        return (
            *([f"{self.step[1]} {self.step[0]}"] if self.step else []),
            *self.losses,
            *(f"{column} of {len(x.values)} steps" for column, x in self.lists.items()),
            *(["training rows"] if self.train_rows is not None else []),
        )


def said_in(data: Any, *, only_config: bool = False) -> Said:
    """What a mapping says; nothing, where it is none.

    `only_config` is for what weights of somebody else are not in: all of it is configuration.

    >>> said = said_in({"epoch": 5, "metrics": {"trainLoss": 0.5, "val_acc": [0.1, 0.9]}})
    >>> said.step, said.losses, said.lists["test_acc"].values.tolist()
    ((5, 'epoch'), {'train_loss': 0.5}, [0.1, 0.9])
    """
    if isinstance(data, list) and data and isinstance(data[0], Mapping):
        data = {"records": data}
    if not isinstance(data, Mapping):
        return Said()
    leaves = list(_leaves(data))
    steps = {word: n for words, _, x in leaves if (word := step_word(words)) is not None
             if (n := _whole(x)) is not None}  # fmt: skip
    word = next((word for word in STEPS if word in steps), None)
    numbers: dict[tuple[str | None, str], float] = {}
    lists: dict[tuple[str | None, str], Listed] = {}
    for words, _, value in sorted(leaves, key=lambda leaf: len(leaf[0])):  # the plainest name first
        if (what := measured(words)) is None:
            continue
        if isinstance(value, Listed):
            lists.setdefault(what, value)
        elif (number := _number(value)) is not None:
            numbers.setdefault(what, number)
        elif (listed := _listed(value)) is not None:
            lists.setdefault(what, listed)
    axes = [
        (axis, array) for words, _, value in leaves if (axis := axis_word(words)) is not None
        if not isinstance(value, PLAIN) and (array := _axis(value)) is not None
    ]  # fmt: skip
    losses, notes = by_column(numbers)
    found, more = by_column({what: _with_steps(what[0], x, axes) for what, x in lists.items()})
    more += _without_percent(losses, found)
    return Said(
        None if word is None else (steps[word], word), _config(data, everything=only_config),
        losses, found, _training_rows(leaves), tuple(dict.fromkeys((*notes, *more))),
    )  # fmt: skip


def named(data: Any, name: str) -> Any:
    """What a file holds, under its own name where that says what it is: `split.json`."""
    if "_".join(words_of(name)) in SPLITS and isinstance(data, Mapping):
        return {**data, name: data}
    if isinstance(data, Mapping) or (
        isinstance(data, list) and data and isinstance(data[0], Mapping)
    ):
        return data
    return {name: data}


Leaf = tuple[tuple[str, ...], tuple[str, ...], Any]  # words, groups it is in, value


def _leaves(
    data: Mapping[Any, Any], about: tuple[str, ...] = (), groups: tuple[str, ...] = ()
) -> Iterator[Leaf]:
    for key, value in islice(data.items(), MOST_KEYS):
        if not isinstance(key, str) or not (words := words_of(key)):
            continue
        named = (*about, *words)
        if isinstance(value, Mapping):
            if measured(named) and (by_step := _by_step(value)) is not None:
                yield named, groups, by_step
            elif is_group(words) and len(groups) < DEEPEST:
                inner = about if says_nothing_itself(words) else named
                yield from _leaves(value, inner, (*groups, "_".join(words)))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            if is_group(words):
                yield from _columns(value)
        else:
            yield named, groups, value


def _columns(rows: Sequence[Any]) -> Iterator[Leaf]:
    """The measures of a list of records, each with the steps of its rows; the later row counts."""
    flat = [
        {words: x for words, _, x in _leaves(row)} for row in rows if isinstance(row, Mapping)
    ]  # fmt: skip
    names = dict.fromkeys(words for row in flat for words in row)
    stepped = [words for words in names if step_word(words)]
    stepped.sort(key=lambda words: STEPS.index("_".join(words)))
    for words in names:
        if measured(words) is None:
            continue
        for axis in (*stepped, None):
            by_step = _against(words, axis, flat)
            if by_step is None:
                continue
            steps = np.array(sorted(by_step))
            values = np.array([by_step[step] for step in steps.tolist()])
            word = "_".join(axis) if axis else None
            yield words, (), Listed(values, steps if axis else None, word)
            break


def _against(
    words: tuple[str, ...], axis: tuple[str, ...] | None, rows: Sequence[Mapping[Any, Any]]
) -> dict[int, float] | None:
    """The numbers of a column of records by step, by row without an axis; None if one has none."""
    found = {}
    for i, row in enumerate(rows):
        number = _number(row.get(words))
        if number is None:
            continue
        step = _whole(row.get(axis)) if axis else i
        if step is None:
            return None
        found[step] = number
    return found or None


def _by_step(value: Mapping[Any, Any]) -> Listed | None:
    """A mapping from steps to numbers, in which JSON has text for the steps."""
    found = {}
    for key, x in value.items():
        step = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 17 else key
        number = _number(x)
        if type(step) is not int or step < 0 or number is None:
            return None
        found[step] = number
    if not found:
        return None
    steps = sorted(found)
    return Listed(np.array([float(found[x]) for x in steps]), *(np.array(steps), "step"))


def by_column(found: Mapping[tuple[str | None, str], Any]) -> tuple[dict[str, Any], list[str]]:
    """By column of metrics.csv: validation is test where nothing else is, no side the training's.

    An accuracy that does not say of what it is, is taken only beside one of other rows.
    """
    columns: dict[str, Any] = {}
    notes = []
    for (side, kind), value in found.items():
        if side == "train" or side == "test":
            columns[f"{side}_{kind}"] = value
    for (side, kind), value in found.items():
        if side == "validation":
            if f"test_{kind}" in columns:
                notes.append(f"validation_{kind} is left out, beside test_{kind}")
            else:
                columns[f"test_{kind}"] = value
    for (side, kind), value in found.items():
        if side is None and f"train_{kind}" not in columns and "unmirrored" not in kind:
            if kind == "loss" or f"test_{kind}" in columns:
                columns[f"train_{kind}"] = value
                notes.append(f"its {kind} without a side is taken to be that of training")
            else:
                notes.append(f"its {kind} is left out: it does not say of which rows it is")
    return columns, notes


def _without_percent(losses: dict[str, float], lists: dict[str, Listed]) -> list[str]:
    """Take out accuracies that are no shares of 1; those a rounding above 1 are 1. Notes of it."""
    notes = []
    for columns in (losses, lists):
        for column in [name for name in columns if "_acc" in name]:
            value = columns[column]
            most = float(np.nanmax(value.values)) if isinstance(value, Listed) else float(value)
            if most > 1 + ROUNDING:
                del columns[column]
                notes.append(f"its {column} goes up to {most:g}, no share of 1: it is left out")
    for column in [name for name in losses if "_acc" in name]:
        losses[column] = min(losses[column], 1.0)
    for column in [name for name in lists if "_acc" in name]:
        lists[column] = replace(lists[column], values=np.minimum(lists[column].values, 1.0))
    return notes


def _with_steps(
    side: str | None, listed: Listed, axes: Sequence[tuple[tuple[str, str | None], np.ndarray]]
) -> Listed:
    """With the list of steps of the same length beside it, one of the same side before others."""
    if listed.steps is not None:
        return listed
    fitting = [
        (axis, array) for axis, array in axes
        if len(array) == len(listed.values) and axis[1] in (side, None)
    ]  # fmt: skip
    fitting.sort(key=lambda each: (each[0][1] is None, each[0][0] == "epoch"))
    if not fitting:
        return listed
    (word, _), steps = fitting[0]
    return Listed(listed.values, steps, word)


def _config(data: Mapping[Any, Any], *, everything: bool) -> dict[str, Any]:
    """Groups that are a configuration, their keys at the top, then plain values beside them."""
    found: dict[str, Any] = {}
    by_name = {
        "_".join(words_of(key)): x for key, x in islice(data.items(), MOST_KEYS)
        if isinstance(key, str)
    }  # fmt: skip
    for name in CONFIGS:
        group = by_name.get(name)
        if isinstance(group, str) and group.lstrip()[:1] == "{" and len(group) <= LARGEST_TEXT:
            try:
                group = json.loads(group)
            except (ValueError, RecursionError):
                continue
        if isinstance(group, Mapping) and not any(isinstance(x, Tensor) for x in group.values()):
            for key, value in group.items():
                found.setdefault(key, value)
    for key, value in islice(data.items(), MOST_KEYS):
        if isinstance(value, PLAIN) or (everything and isinstance(value, Mapping)):
            found.setdefault(key, value)
    return found


def _training_rows(leaves: Sequence[Leaf]) -> Tensor | None:
    """Rows, a mask or pairs, under a name that says so; rows before pairs."""
    for kind in ("rows", "pairs"):
        for words, groups, value in leaves:
            if says_training_rows(words, groups) == kind:
                tensor = _whole_tensor(value)
                if tensor is not None and tensor.ndim == (1 if kind == "rows" else 2):
                    return tensor
                if kind == "rows" and tensor is not None and tensor.ndim == 2:
                    return tensor
    return None


def _whole_tensor(value: Any) -> Tensor | None:
    if isinstance(value, (list, tuple)):
        try:
            value = np.asarray(value)
        except (ValueError, OverflowError):
            return None
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and (abs(value) < LARGEST_STEP).all() and not (value % 1).any():
            value = value.astype(np.int64)
        if value.dtype.kind not in "iub" or value.dtype == np.uint64:
            return None
        value = torch.from_numpy(np.ascontiguousarray(value))
    return value if isinstance(value, Tensor) and value.numel() else None


def _number(value: Any) -> float | None:
    if isinstance(value, (Tensor, np.ndarray)):
        if math.prod(value.shape) != 1 or value.ndim > 1 or not _is_real(value):
            return None
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < 1e300 else None  # neither NaN nor infinite


def _whole(value: Any) -> int | None:
    number = value if type(value) is int else _number(value)
    if number is None or not 0 <= number < LARGEST_STEP or number % 1:
        return None
    return int(number)


def _listed(value: Any) -> Listed | None:
    """A list of numbers, NaN for None in it; or of pairs of a step and a number."""
    if isinstance(value, Tensor):
        array = value.detach().double().clone().numpy() if _is_real(value) else None
    elif isinstance(value, np.ndarray):
        array = value.astype(float) if _is_real(value) else None
    elif isinstance(value, (list, tuple)) and value:
        try:
            numbers = [math.nan if x is None else x if isinstance(x, float) else _entry(x)
                       for x in value]  # fmt: skip
            array = np.asarray(numbers, dtype=float)
        except (TypeError, ValueError, OverflowError):
            return None
    else:
        return None
    if array is None or not array.size or not np.isfinite(array).any():
        return None
    if array.ndim == 2 and array.shape[1] == 2 and (steps := _axis(array[:, 0])) is not None:
        return Listed(array[:, 1].copy(), steps, "step")
    return Listed(array) if array.ndim == 1 else None


def _entry(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return [_entry(x) for x in value]
    number = _number(value)
    if number is None and not isinstance(value, float):
        raise TypeError
    return math.nan if number is None else number


def _axis(value: Any) -> np.ndarray | None:
    """Steps that rise from 0 on."""
    listed = value if isinstance(value, np.ndarray) else None
    if listed is None:
        found = _listed(value)
        listed = None if found is None else found.values
    if listed is None or listed.ndim != 1 or not len(listed) or not _is_real(listed):
        return None
    listed = listed.astype(float)
    if not np.isfinite(listed).all() or (listed % 1).any():
        return None
    if listed[0] < 0 or listed[-1] >= LARGEST_STEP:
        return None
    return listed.astype(np.int64) if (np.diff(listed) > 0).all() else None


def _is_real(value: Tensor | np.ndarray) -> bool:
    if isinstance(value, Tensor):
        return not value.is_complex() and value.dtype != torch.bool
    return value.dtype.kind in "iuf"


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
