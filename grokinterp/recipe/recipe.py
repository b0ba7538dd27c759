"""The Recipe: everything that determines a run, as flat keys; and TOML, in which it is written."""

import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.checks import instance, text
from grokinterp.base.errors import InputError, nearest, one_line, shown
from grokinterp.base.keys import MISSING, Key, by_name, fields_from, keys_of
from grokinterp.base.paths import as_path, file_at
from grokinterp.base.plugins import others_of, strangers
from grokinterp.models.architecture import BaseArchitecture
from grokinterp.recipe.keys import (
    REGISTRIES,
    SAME_SETTING,
    USUAL,
    checkpoint_steps,
    every_key,
    keys_of_recipe,
)
from grokinterp.tasks.label_noise import with_label_noise
from grokinterp.tasks.splits import checked_rows, n_training_rows, train_indices
from grokinterp.tasks.task import TASKS, Task
from grokinterp.updates.batches import Schedule
from grokinterp.updates.changes import Gradients

MOST_PARAMETERS = 1e9
PARTS = ("optimizer", "gradient_filter", "constraint")  # of what becomes of a gradient
UPDATED = ("objective", *PARTS)
ONCE_EVERYWHERE = ("betas", "equals_token")  # which 0.2.0 wrote for all models and optimisers
LARGEST_TOML = 1_000_000  # bytes: ten thousand values of an axis take a tenth of it
MOST_PARTS = 1000  # of a dotted key, in whose number the parser's time is quadratic
EXAMPLE = "p = 113"
SIGNS = str.maketrans(  # of formulas and layouts, as words that a file name may have
    {"*": "x", "/": "over", "%": "mod", "=": "eq", "<": "lt", ">": "gt", "!": "not"}
)


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


class Recipe:
    """What is trained and how: the name of each open kind, and the keys of these kinds, flat.

    `grokinterp recipes --keys` lists all keys. One that is not given has its default; values are
    attributes, and cannot be changed. InputError for a key that the chosen kinds do not have, for
    impossible values, and for a model that does not fit the task.

    >>> Recipe(p=7, steps=100).replace(lr=0.01).lr
    0.01
    >>> Recipe.from_dict({"learning_rate": 1})
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: recipe key 'learning_rate' is not known; did you mean 'lr'?
    """

    _values: dict[str, Any]  # of all keys, in order: names and plain values alone

    def __init__(self, /, **given: Any) -> None:
        kinds = _kinds_in(given)
        keys = keys_of_recipe(kinds)
        for name, value in given.items():
            if name not in keys:
                raise _unused(name, value, keys, kinds)
        values = dict(kinds)
        for name, key in keys.items():
            if name not in kinds:
                value = given.get(name, key.default)
                if value is MISSING:
                    raise InputError(f"this recipe needs {name!r} ({key.help or 'no default'}).")
                values[name] = key.checked(value)
        vars(self)["_values"] = {name: values[name] for name in keys}
        self._check()

    def _check(self) -> None:
        task, architecture = self.build_task(), self.architecture()
        if bool(task.own_split) == (type(task).train_indices is Task.train_indices):
            raise InputError(
                f"task={self.task!r} has one of train_indices and own_split; give both, or none: a "
                "recipe then draws the training rows."
            )
        if not task.own_split:
            n_training_rows(task.n_inputs, self.train_fraction)
        if reason := architecture.why_not(task):
            raise InputError(f"model={self.model!r} is not for task={self.task!r}: {reason}.")
        n = sum(math.prod(shape) for shape in architecture.parameter_shapes().values())
        if not 0 < n <= MOST_PARAMETERS:
            raise InputError(f"the model has {n} parameters; give sizes that make 1 to 1e9.")
        checkpoint_steps(self.checkpoints, self.steps)
        if self.start_step != -1 and self.start is None:
            raise InputError(
                f"start_step={self.start_step} is given without start; give the run that it is of, "
                "such as start='runs/mine'."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe from flat keys; an unknown one is refused with the nearest valid name."""
        for key in instance(values, Mapping, "recipe", give="a dict such as {'p': 113}"):
            text("key of a recipe", key, such_as="'p'")
        left_out = {*ONCE_EVERYWHERE} - keys_of_recipe(_kinds_in(values)).keys()
        return cls(**{key: value for key, value in values.items() if key not in left_out})

    @classmethod
    def from_toml(cls, path: str | Path) -> "Recipe":
        """A recipe from a TOML file of flat keys."""
        return cls.from_dict(read_toml(path))

    def replace(self, /, **changes: Any) -> "Recipe":
        """The same recipe with some keys changed.

        With another kind, keys that had the old one's default get the new one's, and keys that mean
        nothing for the new one are left out; so are those that a changed key stands in place of.

        >>> Recipe().replace(model="mlp").init
        'xavier'
        """
        kept = self.changed()
        if changes.get("task", self.task) == self.task:
            kept["model"] = self.model
        else:
            kept.pop("model", None)
        known = keys_of_recipe(_kinds_in(kept | changes))
        replaced = {x for name in changes if changes[name] and name in known
                    for x in known[name].replaces}  # fmt: skip
        kept = {name: x for name, x in kept.items() if name in known and name not in replaced}
        made = Recipe(**(kept | changes))
        for name, other in ((x, y) for x in known if made._values[x] for y in known[x].replaces):
            if other in changes and made._values[other] != known[other].default:
                raise InputError(
                    f"{other}={shown(changes[other])} is given beside {name}="
                    f"{shown(made._values[name])}, which stands in its place; give one of them."
                )
        return made

    def changed(self) -> dict[str, Any]:
        """The keys whose values are not the defaults of its kinds, and the kinds that are not."""
        keys = keys_of_recipe(self._values)
        usual = {**USUAL, "model": TASKS.find(self.task).usual_model}
        return {
            name: value
            for name, value in self._values.items()
            if value != usual.get(name, keys[name].default)
        }

    def changes_from(self, base: "Recipe") -> dict[str, Any]:
        """The keys that make it another setting than `base`; None for one that it does not have.

        Seeds, the number of steps, and how training was watched make no other setting.

        >>> Recipe(optimizer="sgd", lr=0.1, seed=3, steps=10).changes_from(Recipe())
        {'optimizer': 'sgd', 'lr': 0.1, 'betas': None}
        """
        own, other = self.to_dict(), base.to_dict()
        keys = [key for key in {**own, **other} if key not in SAME_SETTING]
        return {key: own.get(key) for key in keys if own.get(key) != other.get(key)}

    def to_dict(self) -> dict[str, Any]:
        """All keys of this recipe, with plain values, as JSON and TOML can hold them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self._values.items()
            if value is not None  # which TOML does not have
        }

    def to_toml(self) -> str:
        """The recipe as a TOML document, which `from_toml` reads."""
        return tomli_w.dumps(self.to_dict())

    def build_task(self) -> Task:
        """The task to learn."""
        if "_task" not in vars(self):
            task: Task = self.build("task")
            if self.label_noise:
                seed, rows = self._values.get("data_seed", self.seed), self._rows(task)
                task = with_label_noise(task, rows, self.label_noise, seed=seed)
            vars(self)["_task"] = task
        found: Task = vars(self)["_task"]
        return found

    def train_indices(self) -> Int[Tensor, " n_train"]:
        """The rows of the task that are trained on."""
        return self._rows(self.build_task())

    def _rows(self, task: Task) -> Int[Tensor, " n_train"]:
        if task.own_split:
            with strangers(f"task={self.task!r}", task):
                return checked_rows(task.train_indices, task.n_inputs)
        return train_indices(
            task.n_inputs, self.train_fraction, rule=self.split, seed=self.data_seed
        )

    def architecture(self) -> BaseArchitecture:
        """The shape of the model."""
        if "_architecture" not in vars(self):
            kind = REGISTRIES["model"].find(self.model)
            vars(self)["_architecture"] = kind.of_recipe(self.build_task(), self._values)
        architecture: BaseArchitecture = vars(self)["_architecture"]
        return architecture

    def build(self, role: str) -> Any:
        """The object of an open kind, such as "objective", with the values of its keys."""
        kind = REGISTRIES[role].find(self._values[role])
        with strangers(f"{role}={self._values[role]!r}", kind):
            return kind(**fields_from(keys_of(kind), self._values))

    def update_keys(self) -> dict[str, Any]:
        """The keys that say how gradients become steps."""
        kinds = {role: self._values[role] for role in PARTS}
        keys = [key.name for role in PARTS for key in keys_of(REGISTRIES[role].find(kinds[role]))]
        keys += [key.name for part in (Schedule, Gradients) for key in keys_of(part)]
        chance = ("seed", "batch_size", "reshuffle")  # which say nothing of one update
        return kinds | {name: self._values[name] for name in keys if name not in chance}

    @property
    def elementwise(self) -> bool:
        """Whether what becomes of a number depends on that number's gradients alone."""
        alone = not (self.orthogonal_gradients or self.clip_norm)
        return alone and all(REGISTRIES[x].find(self._values[x]).elementwise for x in PARTS)

    def checkpoint_steps(self) -> tuple[int, ...]:
        """The steps whose weights are saved."""
        return checkpoint_steps(self.checkpoints, self.steps)

    def modules(self) -> set[str]:
        """The modules, of others, whose import registers its kinds."""
        homes = {registry.home(self._values[role]) for role, registry in REGISTRIES.items()}
        return others_of({*homes, *self.build_task().modules()})

    def __getattr__(self, key: str) -> Any:
        values = vars(self).get("_values", {})
        if key not in values:
            raise AttributeError(f"this recipe has no key {key!r}; recipe.to_dict() has all.")
        return values[key]

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(f"a recipe does not change; give recipe.replace({key}=...).")

    def __getstate__(self) -> dict[str, Any]:
        return {"_values": self._values}  # so that another process need not know the kinds yet

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __repr__(self) -> str:
        return f"Recipe({', '.join(f'{key}={x!r}' for key, x in self.changed().items())})"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]


def _kinds_in(given: Mapping[str, Any]) -> dict[str, str]:
    """The name of every open kind of a recipe, as it is given or as usual."""
    kinds = {
        role: given[role] if role in given else _named_by_a_key(role, given) for role in REGISTRIES
    }
    task = TASKS.find(kinds["task"])
    if kinds["model"] is None:
        kinds["model"] = task.usual_model
        if not task.usual_model:
            raise InputError(f"no model is usual for task={kinds['task']!r}; give model=NAME.")
    return {role: REGISTRIES[role].canonical(name) for role, name in kinds.items()}


def _named_by_a_key(role: str, given: Mapping[str, Any]) -> str | None:
    """The usual kind, or one that has a key of its own name, which is given: `norm_clamp`."""
    for name, kind in REGISTRIES[role].items():
        if given.get(name) is not None and name in by_name(kind.keys()):
            return name
    return USUAL.get(role)


def _unused(
    name: str, value: object, keys: Mapping[str, Key], kinds: Mapping[str, str]
) -> InputError:
    """The error about a key that these kinds do not have."""
    roles = {kind.partition("=")[0] for kind, those in every_key().items() if name in those}
    if not roles:
        synonyms = {other: key.name for key in keys.values() for other in key.synonyms}
        return InputError(f"recipe key {name!r} is not known; {nearest(name, keys, synonyms)}")
    shown_roles = ("task", "model") if roles - REGISTRIES.keys() or roles & {"task", "model"} else (
        tuple(roles)
    )  # fmt: skip
    of = ", ".join(f"{role}={kinds[role]!r}" for role in shown_roles)
    means = f"{name}={shown(value)} means nothing for {of}"
    usual = [kind for kind, those in every_key().items() if name in those and "=" in kind]
    role, _, kind = usual[0].partition("=") if usual else ("", "", "")
    if role in UPDATED and kinds[role] == USUAL[role]:
        return InputError(f"{means}; leave it out, or give {role}={kind!r}.")
    return InputError(f"{means}; leave it out.")


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
    """The value of a key as a part of a file name; numbers are short where that is exact.

    Signs are words there, so that a*b and a/b have names of their own: `axb`, `aoverb`.
    """
    value = getattr(recipe, key)
    parts = value if isinstance(value, tuple) else (value,)
    texts = (
        f"{part:g}" if isinstance(part, float) and float(f"{part:g}") == part else str(part)
        for part in parts
    )
    return re.sub(r"[^A-Za-z0-9._+()-]", "_", "-".join(texts).translate(SIGNS))
