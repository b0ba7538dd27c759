"""Source: checkpoints of somebody else, and what their files say besides."""

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.runs.foreign.values import LossCurve

NESTED = ("model", "state_dict", "model_state_dict", "net", "weights", "params")
LONGEST_NAME = 200  # of a weight

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


def state_dict_in(data: Any, path: Path) -> StateDict:
    """The weights in what a file holds: the file itself, or what it keeps under a usual name."""
    for candidate in (data, *(mapping(data).get(name) for name in NESTED)):
        found = mapping(candidate)
        weights = {key: x for key, x in found.items() if isinstance(x, Tensor)}
        if len(weights) >= 4 and len(weights) >= len(found) / 2:
            _check_names(weights, path)
            return weights
    keys = ", ".join(map(reprlib.repr, list(mapping(data))[:6])) or type(data).__name__
    raise InputError(
        f"{path} holds no weights that are known here (found: {keys}); give a state dict, "
        "or a dictionary that has one as 'model' or 'state_dict'."
    )


def _check_names(weights: Mapping[Any, Tensor], path: Path) -> None:
    for name in weights:
        if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(
                f"{path} has a weight of the name {reprlib.repr(name)}; names are text of at most "
                f"{LONGEST_NAME} characters, such as embed.W_E."
            )


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping; otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}
