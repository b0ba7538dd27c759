"""The keys of a recipe: types, choices and limits, and defaults that depend on task and model."""

import math
import re
from collections.abc import Sequence
from typing import Any, get_args

from grokinterp.base.checks import listed, number, real, whole, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.models.architecture import ACTIVATIONS, RULES_OF, InitRule
from grokinterp.tasks.modular import LARGEST_P
from grokinterp.tasks.splits import SplitRule

Schedule = str | tuple[int, ...]
MOST_STEPS = 2**53
MOST_CHECKPOINTS = 1_000_000  # more are no schedule, and eat the memory of one
_EXPECTED = "give 'every:100', 'log:40' or a list of steps such as [0, 100, 1000]."


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


# Keys in which runs of one setting may differ: chance, and how training was watched.
CHANCE = ("seed", "data_seed", "pool_seed")
WATCHING = ("checkpoints", "log_every", "device", "threads")
MODELS = {"modular": ("transformer", "mlp"), "ising": ("cnn",)}  # the first is the default
BY_MODEL: dict[str, dict[str, Any]] = {
    "transformer": {"d_mlp": 512, "biases": "none", "equals_token": True, "init": "gpt2"},
    "mlp": {"d_mlp": 512, "biases": "all", "equals_token": False, "init": "xavier"},
    "cnn": {"d_mlp": 100, "biases": "all", "equals_token": False, "init": "torch"},
}
CHOICES: dict[str, tuple[str, ...]] = {
    "task": tuple(MODELS),
    "split": get_args(SplitRule),
    "model": tuple(BY_MODEL),
    "embedding": ("two_hot", "learned"),
    "act_fn": tuple(ACTIVATIONS),
    "biases": ("none", "mlp", "all"),
    "init": get_args(InitRule),
    "optimizer": ("adamw", "adam", "sgd"),
}
SYNONYMS = {  # what other code calls our keys, for the hint at an unknown one
    "learning_rate": "lr", "wd": "weight_decay", "w0": "init_scale", "epochs": "steps",
    "num_epochs": "steps", "frac_train": "train_fraction", "fn_name": "operation", "modulus": "p",
    "num_layers": "n_layers", "num_heads": "n_heads", "act_type": "act_fn",
    "save_every": "checkpoints",
}  # fmt: skip
LEAST = {
    **dict.fromkeys(("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "log_every"), 1),
    **dict.fromkeys(
        ("steps", "warmup", "batch_size", "threads", "weight_decay", "seed", "data_seed"), 0
    ),
}
AT_MOST = {  # beyond these a table or a schedule does not fit into any memory
    "p": LARGEST_P, "steps": 100_000_000, "seed": 2**40, "data_seed": 2**40, "threads": 1024,
    "n_layers": 1000, "n_heads": 10_000, "d_model": 100_000, "d_head": 100_000, "d_mlp": 1_000_000,
}  # fmt: skip
MOST_BITS = 63  # of whole numbers, as in TOML
SIZES = ("widths", "channels")
ISING_KEYS = (
    "lattice", "n_train", "n_test", "n_temperatures", "half_width", "n_repeats", "sweeps",
    "pool_seed",
)  # fmt: skip
USED_BY: dict[str, tuple[str, ...]] = {  # the tasks or models that a key is for; others: all
    **dict.fromkeys(("operation", "p", "train_fraction", "split"), ("modular",)),
    **dict.fromkeys(ISING_KEYS, ("ising",)),
    **dict.fromkeys(("n_heads", "d_head", "equals_class"), ("transformer",)),
    **dict.fromkeys(("n_layers", "d_model"), ("transformer", "mlp")),
    **dict.fromkeys(("widths", "embedding"), ("mlp",)),
    "channels": ("cnn",),
}  # fmt: skip


def defaults_of(task: str, model: str | None) -> dict[str, Any]:
    """The defaults that depend on the task and the model; a word that is not known is refused.

    >>> defaults_of("ising", None)["model"]
    'cnn'
    """
    word("task", typed("task", task, "modular"), CHOICES["task"])
    model = MODELS[task][0] if model is None else typed("model", model, "transformer")
    word("model", model, CHOICES["model"])
    return {"model": model, **BY_MODEL[model]}


def is_used(key: str, task: str, model: str) -> bool:
    """Whether a key means something for this task and model.

    >>> is_used("channels", "ising", "cnn"), is_used("p", "ising", "cnn"), is_used("lr", "", "")
    (True, False, True)
    """
    return key not in USED_BY or task in USED_BY[key] or model in USED_BY[key]


def typed(key: str, value: Any, default: Any) -> Any:
    """The value in the type of its key, refused when it has another."""
    several = isinstance(value, list | tuple)
    for part in value if several else [value]:
        if isinstance(part, int) and part.bit_length() > MOST_BITS:
            raise InputError(f"{key}={shown(part)} is too large; whole numbers are below 2^63.")
    found: Any = None
    if key == "checkpoints":
        found = tuple(value) if several else value if isinstance(value, str) else None
        expected = "a schedule such as 'every:100' or a list of steps"
    elif key == "betas":
        both = tuple(map(real, value)) if several else ()
        found = both if len(both) == 2 and None not in both else None
        expected = "two numbers such as [0.9, 0.98]"
    elif key in SIZES:
        sizes = tuple(value) if several else (value,)
        found = sizes if all(type(size) is int and size > 0 for size in sizes) else None
        expected = "a list of sizes from 1 on such as [256, 64]"
    elif key == "biases" and isinstance(value, bool):
        return "all" if value else "none"
    elif isinstance(default, bool):
        found, expected = value if isinstance(value, bool) else None, "true or false"
    elif isinstance(default, int):
        as_float = isinstance(value, float) and value.is_integer()  # 1e4, as people write steps
        found, expected = int(value) if as_float else whole_number(value), "a whole number"
    elif isinstance(default, float):
        found, expected = real(value), "a number"
    else:
        found, expected = value if isinstance(value, str) else None, "text"
    if found is None:
        advice = "" if " such as " in expected or default is None else f"; give such as {default!r}"
        raise InputError(f"{key}={shown(value)} is not {expected}{advice}.")
    return found


def check_choices(values: dict[str, Any]) -> None:
    """Refuse words that their keys, their task or their model do not have."""
    for key, known in CHOICES.items():
        word(key, values[key], known)
    for key, of, valid in (("model", "task", MODELS), ("init", "model", RULES_OF)):
        if values[key] not in (words := valid[values[of]]):
            give = f"give {key}={' or '.join(map(repr, words))}"
            raise InputError(f"{key}={values[key]!r} is not for {of}={values[of]!r}; {give}.")


def check_limits(values: dict[str, Any]) -> None:
    """Refuse numbers that are out of range."""
    for key, least in LEAST.items():
        if values[key] < least:
            less = f"{key}={shown(values[key])} is less than {least}"
            raise InputError(f"{less}; give at least {least}.")
    for key, most in AT_MOST.items():
        if values[key] > most:
            raise InputError(f"{key}={shown(values[key])} is too large; give at most {most}.")
    for key in ("lr", "init_scale"):
        number(key, values[key], such_as="0.001")
    betas = values["betas"]
    if any(not 0 <= beta < 1 for beta in betas):
        raise InputError(f"betas={betas} are not both in [0, 1); give such as [0.9, 0.98].")
