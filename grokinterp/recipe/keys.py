"""Which keys does a recipe have? Those of its kinds, and those of every training."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grokinterp.base.checks import listed, whole
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.keys import Key, by_name, key, keys_of
from grokinterp.base.registry import Registry
from grokinterp.models.architecture import MODELS
from grokinterp.tasks.label_noise import LabelNoise
from grokinterp.tasks.splits import DrawnSplit
from grokinterp.tasks.task import TASKS
from grokinterp.updates.batches import Schedule
from grokinterp.updates.changes import CONSTRAINTS, GRADIENT_FILTERS, Gradients
from grokinterp.updates.objectives import OBJECTIVES, Temperature
from grokinterp.updates.optimizers import OPTIMIZERS

CheckpointSchedule = str | tuple[int, ...]
MOST_STEPS = 2**53
MOST_THREADS = 1024
MOST_CHECKPOINTS = 1_000_000  # more are no schedule, and eat the memory of one
_EXPECTED = "give 'every:100', 'log:40' or a list of steps such as [0, 100, 1000]."

REGISTRIES: dict[str, Registry[Any]] = {  # the open kinds of a recipe, by the key that names each
    "task": TASKS, "model": MODELS, "objective": OBJECTIVES, "optimizer": OPTIMIZERS,
    "gradient_filter": GRADIENT_FILTERS, "constraint": CONSTRAINTS,
}  # fmt: skip
USUAL = {  # of the task's usual model, see `Task.usual_model`
    "task": "modular", "objective": "cross_entropy", "optimizer": "adamw",
    "gradient_filter": "none", "constraint": "none",
}  # fmt: skip
ABOUT = {
    "task": "what is learned", "model": "which network", "objective": "what is minimised",
    "optimizer": "how gradients become steps", "gradient_filter": "what is done to gradients",
    "constraint": "what weights are brought back to",
}  # fmt: skip
# Keys in which runs of one setting may differ: chance, and how training was watched.
CHANCE = ("seed", "data_seed", "pool_seed")
WATCHING = ("checkpoints", "log_every", "device", "threads")
SAME_SETTING = (*CHANCE, *WATCHING, "steps")  # and for how long


def checkpoint_steps(schedule: str | Sequence[int], steps: int) -> tuple[int, ...]:
    """The steps whose weights a schedule saves, sorted; the first and the last are among them.

    `"every:N"`: multiples of N. `"log:N"`: N steps evenly spaced in log(step) from 1 to the last
    (fewer where neighbours round to the same step). A list: its steps up to the last one.

    >>> checkpoint_steps("every:40", 100)
    (0, 40, 80, 100)
    >>> checkpoint_steps("log:4", 1000)
    (0, 1, 10, 100, 1000)
    >>> checkpoint_steps([30, 10], 100)
    (0, 10, 30, 100)
    """
    steps = whole("steps", steps, least=0, most=MOST_STEPS, such_as="1000")
    if not isinstance(schedule, str):
        named = []
        for given in listed("checkpoints", schedule, such_as="[0, 100, 1000]"):
            step = whole_number(given)
            if step is None or step < 0:
                raise InputError(f"checkpoints names {shown(given)}, which is no step; {_EXPECTED}")
            named.append(step)
        return tuple(sorted({0, *(step for step in named if step < steps), steps}))
    found = re.fullmatch("(every|log):([0-9]{1,12})", schedule)
    if found is None or int(found[2]) == 0:
        raise InputError(f"checkpoints={shown(schedule)} is not a schedule; {_EXPECTED}")
    kind, count = found[1], int(found[2])
    if (count if kind == "log" else steps // count) > MOST_CHECKPOINTS:
        raise InputError(
            f"checkpoints={schedule!r} makes more than {MOST_CHECKPOINTS:,} of {steps} steps; give "
            "fewer, such as 'log:40'."
        )
    if kind == "every":
        return tuple(sorted({*range(0, steps, count), steps}))
    last = math.log(max(steps, 1))
    spaced = [round(math.exp(last * i / max(count - 1, 1))) for i in range(count)]
    return tuple(sorted({0, *(min(step, steps) for step in spaced), steps}))


@dataclass(frozen=True, kw_only=True)
class Watching:
    """How long training goes on, what is kept of it, and on what it runs."""

    steps: int = key(10_000, help="updates", least=0, most=100_000_000,
                     synonyms=("epochs", "num_epochs"))  # fmt: skip
    checkpoints: CheckpointSchedule = key(  # noqa: RUF009
        "every:100", help="steps whose weights are saved: every:N, log:N or a list",
        synonyms=("save_every",), wanted="a schedule such as 'every:100' or a list of steps",
        read=lambda given: tuple(given) if isinstance(given, list | tuple) else (
            given if isinstance(given, str) else None
        ),
    )  # fmt: skip
    log_every: int = key(10, help="steps from one row of metrics to the next", least=1)
    device: str = key("auto", help="CUDA where there is one, else the CPU; MPS only by its name")
    threads: int = key(0, help="of torch; 0 is its own choice", least=0, most=MOST_THREADS)


@dataclass(frozen=True, kw_only=True)
class Start:
    """From which weights a run starts, if not from random ones."""

    start: str | None = key(
        None, help="a run whose weights to start from: its path or name; moments start anew",
        read=lambda given: str(given) if isinstance(given, str | Path) else None,
        wanted="the path of a run such as runs/mine, or the name of one",
    )  # fmt: skip
    start_step: int = key(-1, least=-1, help="the step of that run; -1 is its last")


def _of_every_recipe() -> list[Key]:
    kinds = (Schedule, Temperature, LabelNoise, Gradients, Start, Watching)
    return [one for kind in kinds for one in keys_of(kind)]


def keys_of_recipe(kinds: Mapping[str, str]) -> dict[str, Key]:
    """The keys of a recipe of these kinds, by name, in the order in which it is written.

    Names that are not known are refused. The model has a say in defaults of its task's keys.

    >>> list(keys_of_recipe({"task": "ising", "model": "cnn", "optimizer": "sgd"}))[:3]
    ['task', 'lattice', 'n_train']
    """
    found: list[Key] = []
    for role, registry in REGISTRIES.items():
        name = kinds.get(role, USUAL.get(role, ""))
        kind = registry.find(name)
        own = kind.keys()
        found.append(Key(role, str, name, ABOUT[role]))
        if role == "task":
            usual = MODELS.find(kinds["model"]).usual
            found += [replace(one, default=usual.get(one.name, one.default)) for one in own]
            found += [] if kind.own_split else keys_of(DrawnSplit)
        else:
            found += own
    return by_name([*found, *_of_every_recipe()])


def every_key() -> dict[str, dict[str, Key]]:
    """All keys that there are: by the kind that has them, such as "optimizer=adamw"."""
    found = {"every recipe": {role: Key(role, str, USUAL.get(role), ABOUT[role]) for role in ABOUT}}
    found["every recipe"] |= by_name(_of_every_recipe())
    found["a task without a split of its own"] = by_name(keys_of(DrawnSplit))
    for role, registry in REGISTRIES.items():
        registry.every()  # plug-ins too
        for name, kind in registry.items():
            found[f"{role}={name}"] = by_name(kind.keys())
    return found
