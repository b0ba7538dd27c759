"""The step that a checkpoint's own words or its name give it."""

import re
from collections.abc import Mapping
from typing import Any

STEPS = ("step", "global_step", "iteration", "iter_num", "epoch")
_NAME = "the number in its name"
_SEED = re.compile(r"seed[-_=.]?\d+", re.IGNORECASE)
_WORDS = ("step", "iter(?:ation)?", "epoch", "(?<![a-z])ep")  # "ep" also ends "sweep"


def step_inside(data: Mapping[str, Any]) -> tuple[int, str] | None:
    """The step that a file says besides its weights, and under which word."""
    for key in STEPS:
        if type(data.get(key)) is int and data[key] >= 0:
            return int(data[key]), f"its {key!r}"
    return None


def step_in(stem: str) -> tuple[int, str] | None:
    """The step in a file's name: after "step" or "epoch", else the only whole number in it.

    A seed is none, and of "step_10k" or "1e4" nothing is guessed.

    >>> [step_in(x)[0] for x in ("step_00000100", "epoch=3-step=1200", "17")]
    [100, 1200, 17]
    >>> [step_in(x) for x in ("best", "seed_3", "step_10k", "sweep2_p7")]
    [None, None, None, None]
    """
    stem = _SEED.sub("", stem)
    for word in _WORDS:
        if found := re.search(rf"{word}s?[-_=.]?(\d+)(?![\da-z]|\.\d)", stem, re.IGNORECASE):
            return int(found[1]), _NAME
    numbers = re.findall(r"(?<![\d.a-zA-Z])\d+(?![\d.]|[a-zA-Z])", stem.replace("_", " "))
    return (int(numbers[0]), _NAME) if len(numbers) == 1 else None
