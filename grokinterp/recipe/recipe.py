"""The Recipe: everything that determines a run, as flat keys; and TOML, in which it is written."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomli_w
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.checks import instance, text
from grokinterp.base.errors import InputError, nearest, one_line, shown
from grokinterp.base.paths import as_path, file_at
from grokinterp.models.architecture import Architecture
from grokinterp.models.cnn import CNNArchitecture
from grokinterp.models.kinds import Shape
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.recipe.keys import (
    ISING_KEYS,
    SYNONYMS,
    Schedule,
    check_choices,
    check_limits,
    checkpoint_steps,
    defaults_of,
    is_used,
    typed,
)
from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.operations import get_operation
from grokinterp.tasks.splits import n_training_rows, train_indices
from grokinterp.tasks.task import Task

LARGEST_TOML = 1_000_000  # bytes: ten thousand values of an axis take a tenth of it
MOST_PARTS = 1000  # of a dotted key, in whose number the parser's time is quadratic
EXAMPLE = "p = 113"
DEPENDS: Any = None  # on the task or the model, see `keys.defaults_of`


def read_toml(path: str | Path, *, example: str = EXAMPLE) -> dict[str, Any]:
    """The content of a TOML file; InputError, one line with the file's name, for another file."""
    file = as_path("path", path, such_as="recipe.toml")
    wanted = f"give the path of a TOML file, with lines such as {example}"
    content = file_at(file, wanted=wanted, largest=LARGEST_TOML).read_bytes()
    return parse_toml(content, file=file, example=example)


def parse_toml(text: bytes, *, file: str | Path, example: str = EXAMPLE) -> dict[str, Any]:
    """The content of a TOML document that was read from `file`, which messages name."""
    try:
        document = text.decode("utf-8-sig")
        if max(part.count(".") for part in re.split("[,\n]", document)) > MOST_PARTS:
            raise ValueError(f"a key of more than {MOST_PARTS} parts")
        return tomllib.loads(document)
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:  # TOML's own, wrong UTF-8, or a number of over 4300 digits
        reason = str(error)
    raise InputError(
        f"{file} is not TOML ({one_line(reason, most=120)}); write lines such as {example}."
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained and how. Unknown keys and impossible values are refused with an InputError.

    >>> Recipe(p=7, steps=100).replace(lr=0.01).lr
    0.01
    >>> Recipe.from_dict({"learning_rate": 1})
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: recipe key 'learning_rate' is not known; did you mean 'lr'?
    """

    task: str = "modular"
    operation: str = "add"  # see grokinterp.tasks.OPERATIONS
    p: int = 113
    train_fraction: float = 0.3
    split: str = "torch"  # rule that draws the training rows: torch.randperm or random.shuffle
    data_seed: int = 0  # of the split, and of the labels of a random operation
    lattice: int = 16  # side of the Ising configurations; see grokinterp.tasks.IsingTask
    n_temperatures: int = 50
    half_width: float = 1.0  # temperatures reach so far below and above the critical one
    n_repeats: int = 1000  # configurations in the pool at each temperature
    sweeps: int = 300  # of Glauber dynamics
    n_train: int = 300
    n_test: int = 1000
    pool_seed: int = 0  # of the dynamics
    model: str = DEPENDS  # "transformer" or "mlp", for Ising "cnn"
    n_layers: int = 1
    n_heads: int = 4
    d_model: int = 128
    d_head: int = 32
    d_mlp: int = DEPENDS  # 512, of a CNN 100
    widths: tuple[int, ...] = ()  # hidden layers of an MLP; () is n_layers of d_mlp neurons
    embedding: str = "two_hot"  # what an MLP reads, or "learned": d_model numbers an operand
    channels: tuple[int, ...] = (2, 4)  # of a CNN's convolutions
    act_fn: str = "relu"
    biases: str = DEPENDS  # which are trained: "none", "mlp" (as in the paper) or "all"
    equals_token: bool = DEPENDS  # a transformer's inputs are [a, b, "="], otherwise [a, b]
    equals_class: bool = False  # "=" is one of the output classes, and of the training softmax
    init: str = DEPENDS  # rule of the initial weights: see grokinterp.models.architecture
    init_scale: float = 1.0  # multiplies the initial weights (w0)
    seed: int = 0  # of the initial weights and of the order of mini-batches
    optimizer: str = "adamw"  # "adam" couples the weight decay into the gradient (L2)
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 1.0
    warmup: int = 0  # update number s (from 0) has lr * min(s / warmup, 1)
    batch_size: int = 0  # 0 = full batch
    reshuffle: bool = True  # the mini-batches of every epoch, or once for all
    steps: int = 10_000
    checkpoints: Schedule = "every:100"
    log_every: int = 10
    device: str = "auto"  # CUDA where there is one, else the CPU; MPS only by its name
    threads: int = 0  # 0 = torch's own choice

    def __post_init__(self) -> None:
        by_model = defaults_of(self.task, self.model)
        for field in fields(self):
            value = getattr(self, field.name)
            if value is DEPENDS and field.name in by_model:
                value = by_model[field.name]
            default = by_model.get(field.name, field.default)
            object.__setattr__(self, field.name, typed(field.name, value, default))
        values = vars(self)
        check_choices(values)
        object.__setattr__(self, "operation", get_operation(self.operation).name)
        check_limits(values)
        if self.model == "mlp" and self.equals_token:
            raise InputError("model='mlp' reads the two operands alone; give equals_token=false.")
        if self.widths and (self.n_layers, self.d_mlp) != (1, by_model["d_mlp"]):
            hidden = f"widths={list(self.widths)} are the hidden layers"
            raise InputError(f"{hidden}; leave n_layers and d_mlp out.")
        if self.equals_class and not self.equals_token:
            without = 'without "=" among the inputs there is no "=" class'
            raise InputError(f"equals_class=true needs equals_token=true: {without}.")
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default and not is_used(field.name, self.task, self.model):
                of = f"task={self.task!r}, model={self.model!r}"
                raise InputError(
                    f"{field.name}={shown(value)} means nothing for {of}; leave it out."
                )
        task = self.build_task()
        if isinstance(task, ModularTask):
            n_training_rows(task.n_inputs, self.train_fraction)
        sizes = self.architecture().parameter_shapes().values()
        if (n := sum(math.prod(shape) for shape in sizes)) > 1e9:
            raise InputError(f"the model has {n} parameters; give sizes that make at most 1e9.")
        checkpoint_steps(self.checkpoints, self.steps)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe from flat keys; an unknown one is refused with the nearest valid name."""
        for key in instance(values, Mapping, "recipe", give="a dict such as {'p': 113}"):
            text("key of a recipe", key, such_as="'p'")
        return cls().replace(**values)

    @classmethod
    def from_toml(cls, path: str | Path) -> "Recipe":
        """A recipe from a TOML file of flat keys."""
        return cls.from_dict(read_toml(path))

    def replace(self, /, **changes: Any) -> "Recipe":
        """The same recipe with some keys changed.

        With another task or model, keys that had the old one's default get the new one's. Keys that
        mean nothing for the new one, or with `widths`, go back to their defaults.

        >>> Recipe().replace(model="mlp").init
        'xavier'
        """
        known = [field.name for field in fields(self)]
        for key in changes:
            if key not in known:
                close = nearest(key, known, SYNONYMS)
                raise InputError(f"recipe key {key!r} is not known; {close}")
        old = defaults_of(self.task, self.model)
        task = changes.get("task", self.task)
        new = defaults_of(task, changes.get("model", self.model if task == self.task else None))
        follow = {key: new[key] for key in new if getattr(self, key) == old[key]}
        model = changes.get("model", new["model"])
        for field in fields(self):
            if not is_used(field.name, task, model):
                follow[field.name] = field.default
        if changes.get("widths"):
            follow |= {"n_layers": 1, "d_mlp": new["d_mlp"]}
        return replace(self, **(follow | changes))

    def to_dict(self) -> dict[str, Any]:
        """The keys that this recipe uses, with plain values, as JSON and TOML can hold them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if is_used(key, self.task, self.model)
        }

    def to_toml(self) -> str:
        """The recipe as a TOML document, which `from_toml` reads."""
        return tomli_w.dumps(self.to_dict())

    def build_task(self) -> Task:
        """The task to learn."""
        if self.task == "ising":
            values = {key: getattr(self, key) for key in ISING_KEYS}
            return IsingTask(**values, seed=self.data_seed)
        return ModularTask(self.operation, self.p, self.equals_token, seed=self.data_seed)

    def train_indices(self) -> Int[Tensor, " n_train"]:
        """The rows of the task that are trained on."""
        task = self.build_task()
        if isinstance(task, IsingTask):
            return task.train_indices
        return train_indices(
            task.n_inputs, self.train_fraction, rule=self.split, seed=self.data_seed
        )

    def architecture(self) -> Shape:
        """The shape of the model."""
        if self.model == "mlp":
            return MLPArchitecture(
                p=self.p,
                widths=self.widths or (self.d_mlp,) * self.n_layers,
                n_classes=self.p,
                d_embed=self.d_model if self.embedding == "learned" else 0,
                act_fn=self.act_fn,
            )
        if self.model == "cnn":
            return CNNArchitecture(
                lattice=self.lattice, channels=self.channels, d_mlp=self.d_mlp, act_fn=self.act_fn
            )
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
    instance(text, str, "setting", give="key=value such as p=31")
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {text!r} is not key=value; give such as --set p=31.")
    for candidate in (value, f"[{value}]" if "," in value else value):
        try:
            return key.strip(), parse_toml(f"value = {candidate}".encode(), file="--set")["value"]
        except InputError:
            continue
    return key.strip(), value.strip()


def value_text(key: str, recipe: Recipe) -> str:
    """The value of a key as a part of a file name; numbers are short where that is exact."""
    value = getattr(recipe, key)
    parts = value if isinstance(value, tuple) else (value,)
    texts = (
        f"{part:g}" if isinstance(part, float) and float(f"{part:g}") == part else str(part)
        for part in parts
    )
    return re.sub(r"[^A-Za-z0-9._+-]", "_", "-".join(texts))
