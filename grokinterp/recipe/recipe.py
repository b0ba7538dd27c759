"""The Recipe: everything that determines a run, as flat, validated keys."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import tomli_w

from grokinterp.errors import InputError, nearest
from grokinterp.models.architecture import ACTIVATIONS, Architecture
from grokinterp.models.initialize import InitRule
from grokinterp.recipe.schedule import Schedule, checkpoint_steps
from grokinterp.tasks.modular import LARGEST_P, ModularTask
from grokinterp.tasks.operations import get_operation
from grokinterp.tasks.splits import SplitRule, n_training_rows

CHOICES: dict[str, tuple[str, ...]] = {
    "task": ("modular",),
    "split": get_args(SplitRule),
    "model": ("transformer",),
    "act_fn": tuple(ACTIVATIONS),
    "biases": ("none", "mlp", "all"),
    "init": get_args(InitRule),
    "optimizer": ("adamw", "adam", "sgd"),
}
SYNONYMS = {  # what other code calls our keys, for the hint at an unknown one
    "learning_rate": "lr",
    "wd": "weight_decay",
    "epochs": "steps",
    "num_epochs": "steps",
    "frac_train": "train_fraction",
    "fn_name": "operation",
    "modulus": "p",
    "num_layers": "n_layers",
    "num_heads": "n_heads",
    "act_type": "act_fn",
    "save_every": "checkpoints",
}
POSITIVE = ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "log_every")
NOT_NEGATIVE = (
    "steps", "warmup", "batch_size", "threads", "weight_decay", "seed", "data_seed"
)  # fmt: skip
AT_MOST = {  # beyond these a table or a schedule does not fit into any memory
    "p": LARGEST_P, "steps": 100_000_000, "seed": 2**40, "data_seed": 2**40, "threads": 1024,
    "n_layers": 1000, "n_heads": 10_000, "d_model": 100_000, "d_head": 100_000, "d_mlp": 1_000_000,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained and how. Unknown keys and impossible values are refused with an InputError.

    >>> Recipe(p=7, steps=100).replace(lr=0.01).lr
    0.01
    >>> Recipe.from_dict({"learning_rate": 1})
    Traceback (most recent call last):
    grokinterp.errors.InputError: recipe key 'learning_rate' is not known; did you mean 'lr'?
    """

    task: str = "modular"
    operation: str = "add"  # see grokinterp.tasks.OPERATIONS
    p: int = 113
    train_fraction: float = 0.3
    split: str = "torch"  # rule that draws the training rows: torch.randperm or random.shuffle
    data_seed: int = 0  # of the split, and of the labels of a random operation
    model: str = "transformer"
    n_layers: int = 1
    n_heads: int = 4
    d_model: int = 128
    d_head: int = 32
    d_mlp: int = 512
    act_fn: str = "relu"
    biases: str = "none"  # which are trained: "none", "mlp" (as in the paper) or "all"
    equals_token: bool = True  # inputs are [a, b, "="], otherwise [a, b]
    equals_class: bool = False  # "=" is one of the output classes, and of the training softmax
    init: str = "gpt2"  # rule of the initial weights: see grokinterp.models.initialize
    init_scale: float = 1.0  # multiplies the initial weights (w0)
    seed: int = 0  # of the initial weights and of the order of mini-batches
    optimizer: str = "adamw"  # "adam" couples the weight decay into the gradient (L2)
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 1.0
    warmup: int = 0  # update number s (from 0) has lr * min(s / warmup, 1)
    batch_size: int = 0  # 0 = full batch
    steps: int = 10_000
    checkpoints: Schedule = "every:100"
    log_every: int = 10
    device: str = "auto"  # CUDA where there is one, else the CPU; MPS only by its name
    threads: int = 0  # 0 = torch's own choice

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, getattr(self, field.name)))
        for key, allowed in CHOICES.items():
            value = getattr(self, key)
            if value not in allowed:
                raise InputError(f"{key}={value!r} is not known; {nearest(value, allowed)}")
        object.__setattr__(self, "operation", get_operation(self.operation).name)
        for key in POSITIVE:
            if getattr(self, key) < 1:
                raise InputError(f"{key}={getattr(self, key)} is less than 1; give at least 1.")
        for key in NOT_NEGATIVE:
            if getattr(self, key) < 0:
                raise InputError(f"{key}={getattr(self, key)} is negative; give 0 or more.")
        for key, most in AT_MOST.items():
            if getattr(self, key) > most:
                raise InputError(f"{key}={getattr(self, key)} is too large; give at most {most}.")
        for key in ("lr", "init_scale"):
            if getattr(self, key) <= 0:
                raise InputError(
                    f"{key}={getattr(self, key)} is not above 0; give a positive number."
                )
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise InputError(
                f"betas={self.betas} are not both in [0, 1); give such as [0.9, 0.98]."
            )
        if self.equals_class and not self.equals_token:
            raise InputError(
                'equals_class=true needs equals_token=true: without "=" among the inputs '
                'there is no "=" class.'
            )
        n_training_rows(self.build_task().n_inputs, self.train_fraction)
        checkpoint_steps(self.checkpoints, self.steps)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe from flat keys; an unknown one is refused with the nearest valid name."""
        return cls().replace(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Recipe":
        """A recipe from a TOML file of flat keys."""
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8-sig")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is not TOML ({error}); write lines such as p = 113."
            ) from None

    def replace(self, **changes: Any) -> "Recipe":
        """The same recipe with some keys changed."""
        known = [field.name for field in fields(self)]
        for key in changes:
            if key not in known:
                raise InputError(
                    f"recipe key {key!r} is not known; {nearest(key, known, SYNONYMS)}"
                )
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Flat keys and plain values, as JSON and TOML can hold them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def to_toml(self) -> str:
        """The recipe as a TOML document, which `from_toml` reads."""
        return tomli_w.dumps(self.to_dict())

    def build_task(self) -> ModularTask:
        """The task to learn."""
        return ModularTask(self.operation, self.p, self.equals_token, seed=self.data_seed)

    def architecture(self) -> Architecture:
        """The shape of the model."""
        return Architecture(
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            d_model=self.d_model,
            d_head=self.d_head,
            d_mlp=self.d_mlp,
            d_vocab=self.p + self.equals_token,
            d_vocab_out=self.p + self.equals_class,
            n_ctx=2 + self.equals_token,
            act_fn=self.act_fn,
        )

    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps whose weights are saved."""
        return checkpoint_steps(self.checkpoints, self.steps)


def parse_setting(text: str) -> tuple[str, Any]:
    """`key=value` from a command line; the value in TOML, or else plain text.

    >>> parse_setting("p=31"), parse_setting("optimizer=adam"), parse_setting("checkpoints=0,50")
    (('p', 31), ('optimizer', 'adam'), ('checkpoints', [0, 50]))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text!r} is not key=value; give such as --set p=31.")
    for candidate in (value, f"[{value}]" if "," in value else value):
        try:
            return key.strip(), tomllib.loads(f"value = {candidate}")["value"]
        except (ValueError, RecursionError):  # TOML's own, or a number of 5000 digits
            continue
    return key.strip(), value.strip()


def _typed(key: str, value: Any) -> Any:
    """The value in the type of its key, refused when it has another."""
    default = Recipe.__dataclass_fields__[key].default
    if key == "checkpoints":
        if isinstance(value, str):
            return value
        if isinstance(value, (list, tuple)):
            return tuple(value)
        expected = "a schedule such as 'every:100' or a list of steps"
    elif key == "betas":
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_real, value)):
            return tuple(float(beta) for beta in value)
        expected = "two numbers such as [0.9, 0.98]"
    elif key == "biases" and isinstance(value, bool):
        return "all" if value else "none"
    elif isinstance(default, bool):
        if isinstance(value, bool):
            return value
        expected = "true or false"
    elif isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():  # 1e4, as people write steps
            return int(value)
        expected = "a whole number"
    elif isinstance(default, float):
        if _is_real(value) and math.isfinite(value):
            return float(value)
        expected = "a number"
    else:
        if isinstance(value, str):
            return value
        expected = "text"
    raise InputError(f"{key}={value!r} is not {expected}.")


def _is_real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
