"""Source: checkpoints of somebody else, and what their files say besides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from grokinterp.errors import InputError, names, shown
from grokinterp.runs.foreign.values import LossCurve

NESTED = ("model", "state_dict", "model_state_dict", "net", "weights", "params")
LONGEST_NAME = 200  # of a weight
MOST_WEIGHTS = 20_000  # of a network of a thousand layers

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Checkpoints of somebody else: state dicts by step, and what their files say besides."""

    path: Path
    format: str
    states: dict[int, Callable[[], StateDict]]
    losses: dict[str, LossCurve] = field(default_factory=dict)  # train_loss, test_loss
    logged_steps: np.ndarray | None = None  # where losses between are only repeated
    config: Mapping[str, Any] = field(default_factory=dict)
    train_data: Tensor | None = None  # rows a*p + b, or pairs (a, b)
    log: pd.DataFrame | None = None  # losses or accuracies against step, of a CSV
    notes: tuple[str, ...] = ()
    configs: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # the same by file, each whole
    near: Mapping[int, float] = field(default_factory=dict)  # training losses of a checkpoint, or
    # of the weights one update before it; where none is known to be its own


def state_dict_in(data: Any, path: Path, *, whole: Any = None) -> StateDict:
    """The weights in what a file holds: the file itself, or what it keeps under a usual name.

    A network of few tensors is one too: what it is, who looks at its names finds out. `whole` is
    all that the file holds, for the message, where `data` is a part.
    """
    nested = [mapping(mapping(data).get(name)) for name in NESTED]
    for candidate, fewest in ((mapping(data), 4), *((each, 1) for each in nested)):
        weights = {key: x for key, x in candidate.items() if isinstance(x, Tensor)}
        if len(weights) >= fewest and len(weights) >= len(candidate) / 2:
            _check_names(weights, path)
            return weights
    if _is_network(mapping(data)):
        return {key: x for key, x in mapping(data).items() if isinstance(x, Tensor)}
    found = _what_it_is(data if whole is None else whole)
    raise InputError(f"{path} holds no weights that are known here: {found}.")


def _is_network(data: Mapping[Any, Any]) -> bool:
    """Whether a dictionary of few tensors has the matrices of a network."""
    matrices = [x for x in data.values() if isinstance(x, Tensor) and x.ndim >= 2]
    return 0 < len(data) <= 2 * len(matrices)


def _what_it_is(data: Any) -> str:
    """What a file holds instead of a state dict, and what to do about it."""
    found = mapping(data)
    give = "give a state dict, such as torch.save(model.state_dict(), path) writes"
    if not isinstance(data, Mapping):
        return f"it is {_kind(data)}; {give}"
    if not found:
        return f"it is an empty dictionary; {give}"
    inside = [key for key, x in found.items() if len(_tensors(x)) >= 4]
    if inside and all(type(key) is int for key in inside):
        return (
            f"it is a dictionary of state dicts by step, {names(inside)}; save each as a file of "
            "its own (step_100.pt) and give their folder"
        )
    if inside:
        return f"it has state dicts under {names(inside)}; save one of them as a file of its own"
    if key := next((key for key in NESTED if key in found), None):
        return f"its {key!r} is {_kind(found[key])}; {give}"
    return f"it is a dictionary of {names(found)}; {give}"


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in mapping(value).values() if isinstance(x, Tensor)]


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = names(value) if value else "nothing"
        return f"a dictionary of {inside}, not of tensors"
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, (str, bytes)):
        return f"text, {shown(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return f"of type {type(value).__name__}"


def _check_names(weights: Mapping[Any, Tensor], path: Path) -> None:
    if len(weights) > MOST_WEIGHTS:
        raise InputError(
            f"{path} has a state dict of {len(weights)} weights; a network of at most "
            f"{MOST_WEIGHTS} is read."
        )
    for name in weights:
        if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(
                f"{path} has a weight of the name {shown(name)}; names are text of at most "
                f"{LONGEST_NAME} characters, such as embed.W_E."
            )


def mapping(value: Any) -> Mapping[Any, Any]:
    """The value where it is a mapping; otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}
