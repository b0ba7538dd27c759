"""What does a file say besides weights, and in which words: step, configuration, losses, rows?

The same is asked of a checkpoint and of a JSON next to it. Only what is named in known words is
taken (`grokinterp.reading.words`), at the top or in groups such as "metrics"; an optimizer's state
says nothing.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.base.checks import real
from grokinterp.reading.words import (
    SPLIT_GROUPS,
    STEPS,
    CurveOf,
    axis_word,
    curve_of,
    is_about_losses,
    says_training_rows,
    step_word,
    words_of,
)
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.runs.metrics import ROUNDING

MOST_KEYS = 10_000  # of a group
DEEPEST = 3  # group within a group
LARGEST_TEXT = 1_000_000  # characters of a configuration that is kept as text
PLAIN = (bool, int, float, str)

GROUPS = {  # that hold such values, and say nothing themselves
    "metric", "metrics", "stat", "stats", "statistics", "log", "logs", "logger", "history", "hist",
    "result", "results", "meta", "metadata", "info", "extra", "extras", "curve", "curves",
    "record", "records", "progress", "trainer_state", "training_state", "train_state",
    "log_history", "metrics_history", "training_history", "train_history", "loss_history",
    "training_log", "train_log", "rows", "loss_curves", "measurements",
}  # fmt: skip
CONFIGS = (
    "config", "cfg", "conf", "args", "arguments", "hparams", "hyper_parameters", "hyperparameters",
    "hyperparams", "model_config", "model_args", "model_cfg", "model_hparams", "model_kwargs",
    "train_config", "training_config", "training_args", "train_args", "data_config", "data_args",
    "task_config", "task", "data", "dataset", "settings", "options", "opt", "recipe", "setup",
    "params", "meta", "metadata", "info", "extra", "experiment", "exp_config", "run_config",
)  # fmt: skip
_OF_HOOKED_TRANSFORMER = {"n_ctx", "d_vocab", "d_model", "act_fn"}
_OF_DATA = {  # which a configuration of everything has besides, and one of a model alone has not
    "p", "modulus", "prime", "mod", "lr", "learning_rate", "weight_decay", "train_fraction",
    "train_frac", "frac_train", "frac", "n_train", "num_epochs", "epochs", "steps", "fn_name",
}  # fmt: skip

Configs = Sequence[tuple[str, Mapping[str, Any]]]  # by the path of the file that says it
Leaf = tuple[tuple[str, ...], tuple[str, ...], Any]  # words, groups it is in, value


@dataclass(frozen=True)
class LossCurve:
    """Losses or accuracies, the steps whose weights had them, and a file's word for these."""

    steps: np.ndarray
    values: np.ndarray
    word: str | None = None

    @classmethod
    def by_step(cls, numbers: Mapping[int, float], word: str | None = None) -> "LossCurve":
        """Numbers in the order of their steps."""
        steps = sorted(numbers)
        return cls(np.array(steps), np.array([numbers[step] for step in steps]), word)

    @classmethod
    def every(cls, values: np.ndarray, *, stride: int = 1, first: int = 0) -> "LossCurve":
        """Entry i belongs to step `first + i * stride`."""
        return cls(first + stride * np.arange(len(values)), values)

    def over(self, other: "LossCurve") -> "LossCurve":
        """Both curves in one; where they have the same steps, this one."""
        steps = np.concatenate([self.steps, other.steps])
        kept, first = np.unique(steps, return_index=True)
        return LossCurve(kept, np.concatenate([self.values, other.values])[first])


NumberList = LossCurve | np.ndarray  # with the steps that a file gives, or without any


@dataclass(frozen=True)
class Contents:
    """What one file says."""

    step: tuple[int, str] | None = None  # and in which word
    config: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)  # and accuracies, by column
    lists: Mapping[str, NumberList] = field(default_factory=dict)
    train_rows: Tensor | None = None
    notes: tuple[str, ...] = ()
    configs: Configs = ()  # the configuration by file, each whole

    def over(self, other: "Contents", *, its_own: bool = True) -> "Contents":
        """This, and where it says nothing, what another file says.

        A file that is not of these weights alone (`its_own`) gives neither step nor single losses.
        """
        return Contents(
            self.step or (other.step if its_own else None),
            {**other.config, **self.config},
            {**(other.losses if its_own else {}), **self.losses},
            {**other.lists, **self.lists},
            other.train_rows if self.train_rows is None else self.train_rows,
            tuple(dict.fromkeys((*self.notes, *other.notes))),
            (*self.configs, *other.configs),
        )

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing that is used here."""
        says = self.step or self.config or self.losses or self.lists
        return not says and self.train_rows is None


def contents_of(data: Any, *, all_is_config: bool = False) -> Contents:
    """What a mapping says; nothing, where it is none.

    `all_is_config` is for files without weights, all of whose plain values are configuration.

    >>> found = contents_of({"epoch": 5, "metrics": {"trainLoss": 0.5, "val_acc": [0.1, 0.9]}})
    >>> found.step, found.losses, found.lists["test_acc"].tolist()
    ((5, 'epoch'), {'train_loss': 0.5}, [0.1, 0.9])
    """
    if not isinstance(data, Mapping):
        return Contents()
    leaves = list(_leaves(data))
    steps = {word: n for words, _, x in leaves if (word := step_word(words)) is not None
             if (n := _whole(x)) is not None}  # fmt: skip
    step = next(((steps[word], word) for word in STEPS if word in steps), None)
    numbers: dict[CurveOf, float] = {}
    lists: dict[CurveOf, NumberList] = {}
    for words, _, value in sorted(leaves, key=lambda leaf: len(leaf[0])):  # the plainest name first
        if (measure := curve_of(words)) is None or measure[1] == "err":
            continue  # of errors only logs make accuracies, which tell shares from percent
        if (number := _number(value)) is not None:
            numbers.setdefault(measure, number)
        elif (found := value if isinstance(value, LossCurve) else _list_in(value)) is not None:
            lists.setdefault(measure, found)
    axes = [
        (axis, array) for words, _, value in leaves if (axis := axis_word(words)) is not None
        if not isinstance(value, PLAIN) and (array := _axis(value)) is not None
    ]  # fmt: skip
    losses, notes = by_column(numbers)
    columns, more = by_column({key: _with_steps(key[0], x, axes) for key, x in lists.items()})
    more += _without_percent(losses, columns)
    return Contents(
        step, _config(data, everything=all_is_config), losses, columns, _training_rows(leaves),
        tuple(dict.fromkeys((*notes, *more))),
    )  # fmt: skip


def _leaves(
    data: Mapping[Any, Any], about: tuple[str, ...] = (), groups: tuple[str, ...] = ()
) -> Iterator[Leaf]:
    for key, value in islice(data.items(), MOST_KEYS):
        if not isinstance(key, str) or not (words := words_of(key)):
            continue
        name, full = "_".join(words), (*about, *words)
        about_losses = [is_about_losses(word) for word in words]
        is_group = name in GROUPS | SPLIT_GROUPS or all(about_losses)
        if isinstance(value, Mapping):
            if curve_of(full) and (numbers := _numbers_by_step(value)):
                yield full, groups, LossCurve.by_step(numbers, "step")
            elif is_group and len(groups) < DEEPEST:  # "metrics" adds nothing to the names in it
                yield from _leaves(value, full if any(about_losses) else about, (*groups, name))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            if is_group:
                yield from _columns(value)
        else:
            yield full, groups, value


def _columns(records: Sequence[Any]) -> Iterator[Leaf]:
    """The measures of a list of records, each with the steps of its rows; the later row counts."""
    rows = [{words: x for words, _, x in _leaves(row)}
            for row in records if isinstance(row, Mapping)]  # fmt: skip
    names = dict.fromkeys(words for row in rows for words in row)
    axes = sorted((x for x in names if step_word(x)), key=lambda x: STEPS.index("_".join(x)))
    n_values = {words: sum(_number(row.get(words)) is not None for row in rows) for words in names}
    most = {measure: n_values[words] for words in names if (measure := curve_of(words))}
    for words in filter(curve_of, names):
        side, kind = curve_of(words) or (None, "")
        if side == "train" and 2 * n_values[words] <= most.get((None, kind), 0):
            continue  # one summary at the end, as a Trainer of Hugging Face writes it
        for axis in (*axes, None):
            numbers = {
                _whole(row.get(axis)) if axis else i: number for i, row in enumerate(rows)
                if (number := _number(row.get(words))) is not None
            }  # fmt: skip
            steps = {step: number for step, number in numbers.items() if step is not None}
            if steps and len(steps) == len(numbers):
                curve = LossCurve.by_step(steps, "_".join(axis)) if axis else [*steps.values()]
                yield words, (), curve
                break


def _numbers_by_step(value: Mapping[Any, Any]) -> dict[int, float]:
    """A mapping from steps to numbers, in which JSON has text for the steps; {} if it is none."""
    found = {}
    for key, x in value.items():
        step = int(key) if isinstance(key, str) and key.isdecimal() and len(key) < 17 else key
        number = _number(x)
        if type(step) is not int or step < 0 or number is None:
            return {}
        found[step] = number
    return found


def by_column(found: Mapping[CurveOf, Any]) -> tuple[dict[str, Any], list[str]]:
    """By column of metrics.csv: validation is test where nothing else is, no side the training's.

    An accuracy that does not say of what it is, is taken only together with one of other rows.
    """
    columns: dict[str, Any] = {}
    notes = []
    order = {"train": 0, "test": 0, "validation": 1, None: 2}
    for (side, kind), value in sorted(found.items(), key=lambda each: order[each[0][0]]):
        if side in ("train", "test"):
            columns[f"{side}_{kind}"] = value
        elif side == "validation" and f"test_{kind}" in columns:
            notes.append(f"validation_{kind} is left out, next to test_{kind}")
        elif side == "validation":
            columns[f"test_{kind}"] = value
        elif f"train_{kind}" not in columns and "unmirrored" not in kind:
            if kind == "loss" or f"test_{kind}" in columns:
                columns[f"train_{kind}"] = value
                notes.append(f"its {kind} without a side is taken to be that of training")
            else:
                notes.append(f"its {kind} is left out: it does not say of which rows it is")
    return columns, notes


def _without_percent(losses: dict[str, float], lists: dict[str, NumberList]) -> list[str]:
    """Notes of accuracies that are taken out: no shares of 1. Those a rounding above 1 become 1."""
    notes = []
    both: tuple[dict[str, Any], ...] = (losses, lists)
    for columns in both:
        for column in [name for name in columns if "_acc" in name]:
            found = columns[column]
            numbers = found.values if isinstance(found, LossCurve) else found
            most, below = float(np.nanmax(numbers)), np.minimum(numbers, 1.0)
            columns[column] = below if numbers is found else replace(found, values=below)
            if most > 1 + ROUNDING:
                del columns[column]
                notes.append(f"its {column} goes up to {most:g}, no share of 1: it is left out")
    return notes


def _with_steps(
    side: str | None, found: NumberList, axes: Sequence[tuple[tuple[str, str | None], np.ndarray]]
) -> NumberList:
    """With the list of steps of the same length next to it, one of the same side before others."""
    if isinstance(found, LossCurve):
        return found
    possible = [
        (of_side is None, word == "epoch", word, steps) for (word, of_side), steps in axes
        if len(steps) == len(found) and of_side in (side, None)
    ]  # fmt: skip
    if not possible:
        return found
    *_, word, steps = min(possible, key=lambda each: each[:2])
    return LossCurve(steps, found, word)


def without_seed_of_weights(group: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """A configuration without the seed of a HookedTransformerConfig, from which weights are drawn.

    >>> sizes = {"n_ctx": 3, "d_vocab": 8, "d_model": 16, "act_fn": "relu"}
    >>> "seed" in without_seed_of_weights({**sizes, "seed": 999})
    False
    >>> "seed" in without_seed_of_weights({**sizes, "seed": 0, "p": 7})
    True
    """
    of_model = "seed" in group and group.keys() >= _OF_HOOKED_TRANSFORMER
    if not of_model or any(key in _OF_DATA for key in group):
        return group
    return {key: value for key, value in group.items() if key != "seed"}


def _config(data: Mapping[Any, Any], *, everything: bool) -> dict[str, Any]:
    """Groups that are a configuration, their keys at the top, then plain values next to them."""
    data = without_seed_of_weights(data)
    found: dict[str, Any] = {}
    by_name = {
        "_".join(words_of(key)): x for key, x in islice(data.items(), MOST_KEYS)
        if isinstance(key, str)
    }  # fmt: skip
    for name in CONFIGS:
        group = by_name.get(name)
        if isinstance(group, str) and group.lstrip()[:1] == "{" and len(group) <= LARGEST_TEXT:
            with contextlib.suppress(ValueError, RecursionError):
                group = json.loads(group)
        if isinstance(group, Mapping) and not any(isinstance(x, Tensor) for x in group.values()):
            for key, value in without_seed_of_weights(group).items():
                found.setdefault(key, value)
    for key, value in islice(data.items(), MOST_KEYS):
        if isinstance(value, PLAIN) or (everything and isinstance(value, Mapping)):
            found.setdefault(key, value)
    return found


def _training_rows(leaves: Sequence[Leaf]) -> Tensor | None:
    """Rows, a mask or pairs, under a name that says so; rows before pairs."""
    for kind, n_axes in (("rows", (1, 2)), ("pairs", (2,))):
        for words, groups, value in leaves:
            if says_training_rows(words, groups) == kind:
                tensor = whole_tensor(value)
                if tensor is not None and tensor.ndim in n_axes:
                    return tensor
    return None


def whole_tensor(value: Any) -> Tensor | None:
    """A list or an array of whole numbers or truth values as a tensor; None if it is none."""
    if isinstance(value, (list, tuple)):
        with contextlib.suppress(ValueError, OverflowError):
            value = np.asarray(value)
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and (abs(value) < LARGEST_STEP).all() and not (value % 1).any():
            value = value.astype(np.int64)
        if value.dtype.kind not in "iub" or value.dtype == np.uint64:
            return None
        value = torch.from_numpy(np.ascontiguousarray(value))
    return value if isinstance(value, Tensor) and value.numel() else None


def _number(value: Any) -> float | None:
    if isinstance(value, (Tensor, np.ndarray)) and tuple(value.shape) == (1,):
        value = value[0]
    number = real(value)
    return None if number is None or abs(number) >= 1e300 else number


def _whole(value: Any) -> int | None:
    number = value if type(value) is int else _number(value)
    if number is None or not 0 <= number < LARGEST_STEP or number % 1:
        return None
    return int(number)


def numbers_in(value: Any) -> np.ndarray | None:
    """A list or a tensor of numbers as an array, NaN for None in it; None if it is none."""
    if isinstance(value, Tensor) and not value.is_complex() and value.dtype != torch.bool:
        return value.detach().double().clone().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf":
        return value.astype(float)
    if isinstance(value, (list, tuple)):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            numbers = [math.nan if x is None else x if isinstance(x, float) else _entry(x)
                       for x in value]  # fmt: skip
            return np.asarray(numbers, dtype=float)
    return None


def _list_in(value: Any) -> NumberList | None:
    """A list of numbers, or of pairs of a step and a number; None if it is none."""
    array = numbers_in(value)
    if array is None or not array.size or not np.isfinite(array).any():
        return None
    if array.ndim == 2 and array.shape[1] == 2 and (steps := _axis(array[:, 0])) is not None:
        return LossCurve(steps, array[:, 1].copy(), "step")
    return array if array.ndim == 1 else None


def _entry(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return [_entry(x) for x in value]
    number = _number(value)
    if number is None and not isinstance(value, float):
        raise TypeError
    return math.nan if number is None else number


def _axis(value: Any) -> np.ndarray | None:
    """Steps that rise from 0 on."""
    steps = numbers_in(value)
    if steps is None or steps.ndim != 1 or not len(steps):
        return None
    whole = np.isfinite(steps).all() and not (steps % 1).any()
    rises = steps[0] >= 0 and steps[-1] < LARGEST_STEP and (np.diff(steps) > 0).all()
    return steps.astype(np.int64) if whole and rises else None
