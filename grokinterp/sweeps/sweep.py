"""A sweep: one base recipe and the keys that vary, as a TOML file that expands to many recipes.

    recipe = "mlp113-grokked"     # built in, or a TOML file beside this one, or a table of keys
    measures = ["compressibility"]  # what to measure of every run, by name
    ensemble = 8                    # train so many runs as one batched model where that is faster
    [set]                           # keys changed in the base
    steps = 1000
    [[axes]]                        # keys of one axis vary together, axes are crossed
    init_scale = [10, 1]
    [[axes]]                        # the last one varies fastest
    seed = [0, 1, 2]
    data_seed = [0, 1, 2]

These are six runs, `init_scale=10,seed=0` to `init_scale=1,seed=2`. `seeds = 3`, or
`seeds = [0, 4]`, among the first lines stands for a last axis of `seed`. Settings that are no
product, such as an experiment and its controls, have names instead:

    [variants.baseline]
    [variants.no_decay]
    weight_decay = 0

and cross the axes as a first one would: `no_decay,seed=0`. Without `ensemble` each
run is trained by itself; with it, runs go together whose recipes differ only in the keys `FREE` of
`training.ensemble`. It changes no run that is there.

A range such as `lr = {log = [1e-4, 1e-2], n = 5}` (or `linear`) stands for n values. Both ends are
among them as they are given; those between are rounded to six significant digits, so that the name
of a run is exactly its value, and to whole numbers for keys that take those.
"""

import functools
import itertools
import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from grokinterp.base.checks import real, refused, whole
from grokinterp.base.errors import InputError, nearest, shown, whole_number
from grokinterp.recipe.builtin import find_recipe
from grokinterp.recipe.recipe import Recipe, parse_toml, read_toml, value_text

MOST_RUNS = 10_000
LONGEST_NAME = 200  # of a folder; file systems allow 255
VARIANT = "variant"
TOP_LEVEL = ("recipe", "measures", "ensemble", "seeds", "set", "variants", "axes")
EXAMPLE = "seeds = 3, and keys of the recipe below [set]"
ADVICE = "give such as {log = [0.1, 10], n = 5} or {linear = [0.1, 0.9], n = 5}."


def range_values(key: str, given: Mapping[str, Any], *, base: Recipe) -> tuple[float, ...]:
    """The values of a range for a key of the recipe; InputError, one line, for a bad one.

    >>> range_values("weight_decay", {"log": [0.1, 10], "n": 5}, base=Recipe())
    (0.1, 0.316228, 1.0, 3.16228, 10.0)
    >>> range_values("steps", {"linear": [100, 201], "n": 3}, base=Recipe())
    (100, 150, 201)
    """
    name = f"{key}={shown(dict(given))}"
    kind = "log" if "log" in given else "linear"
    if given.keys() != {kind, "n"}:
        raise InputError(f"{name} is not a range; {ADVICE}")
    ends, n = given[kind], whole(f"{name}: n", given["n"], least=2, most=MOST_RUNS, such_as="5")
    if not isinstance(ends, list | tuple) or len(ends) != 2 or None in map(real, ends):
        raise InputError(f"{name}: {shown(ends)} are not the two ends of a range; {ADVICE}")
    first, last = ends
    if kind == "log" and min(ends) <= 0:
        raise InputError(
            f"{name}: an end of a log range is not above 0; give linear, or other ends."
        )
    value = getattr(base.replace(**{key: first}), key)  # refuses a key that is not known
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{name}: {key} is no number; give a list of values.")
    scale, back = (math.log, math.exp) if kind == "log" else (float, float)
    parts = (i / (n - 1) for i in range(1, n - 1))
    inner = [back((1 - part) * scale(first) + part * scale(last)) for part in parts]
    if isinstance(value, int):
        values = (first, *map(round, inner), last)
    else:
        values = tuple(float(x) for x in (first, *(f"{x:.6g}" for x in inner), last))
    if len(set(values)) < n:
        raise InputError(f"{name} has fewer than {n} different values; give a smaller n.")
    return values


def paired_seeds(recipe: Recipe, seeds: int) -> dict[str, tuple[int, ...]]:
    """An axis of so many seeds, of the weights and of the split together, from the recipe's own on.

    Runs of other settings at the same seeds begin with the same weights and rows.

    >>> paired_seeds(Recipe(seed=1, data_seed=598), 2)
    {'seed': (1, 2), 'data_seed': (598, 599)}
    """
    n = whole("seeds", seeds, least=1, most=MOST_RUNS, such_as="3")
    own = recipe.to_dict()
    keys = [key for key in ("seed", "data_seed") if key in own]
    return {key: tuple(own[key] + i for i in range(n)) for key in keys}


@dataclass(frozen=True)
class Sweep:
    """A base recipe, named variants of it, axes of keys that vary together, and what to measure.

    >>> sweep = Sweep(Recipe(p=7), ({"lr": (0.1, 0.01)}, {"seed": (0, 1), "data_seed": (5, 6)}))
    >>> list(sweep.recipes())
    ['lr=0.1,seed=0', 'lr=0.1,seed=1', 'lr=0.01,seed=0', 'lr=0.01,seed=1']

    Axes are crossed, and the last one varies fastest. At most `ensemble` runs are trained together.
    `variants` are changes of the base by name, crossed with the axes before the first of them:

    >>> variants = {"baseline": {}, "no_decay": {"weight_decay": 0}}
    >>> list(Sweep(Recipe(p=7), ({"seed": (0, 1)},), variants=variants).recipes())
    ['baseline,seed=0', 'baseline,seed=1', 'no_decay,seed=0', 'no_decay,seed=1']

    Every recipe is made, and so checked, with the sweep: InputError for axes that are empty or of
    unequal length, a key in two axes or in a variant and an axis, more than 10,000 runs, runs that
    would share a folder, and whatever a recipe refuses.
    """

    base: Recipe
    axes: tuple[Mapping[str, tuple[Any, ...]], ...]
    measures: tuple[str, ...] = ()
    ensemble: int = 1
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.base, Recipe):
            raise refused("base", self.base, "a recipe", "gi.Recipe(...) or gi.recipes()[...]")
        if not isinstance(self.axes, tuple) or not all(isinstance(a, Mapping) for a in self.axes):
            raise InputError("axes are a tuple of dicts; give such as ({'seed': (0, 1)},).")
        whole("ensemble", self.ensemble, least=1, such_as="8")
        names = self.measures
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise refused("measures", names, "a tuple of names", "such as ('sizes',)")
        _check_variants(self.variants)
        if not self.axes and not self.variants:
            raise InputError("nothing varies; give [[axes]] such as seed = [0, 1, 2].")
        for axis in self.axes:
            _check_axis(axis)
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key in self.keys if self.keys.count(key) > 1)
            raise InputError(f"{shown(twice)} stands in two axes; a key varies in one.")
        for name, changes in self.variants.items():
            if both := [key for key in changes if key in self.keys]:
                raise InputError(
                    f"{shown(both[0])} stands in the variant {name} and in an axis; leave one out."
                )
        if (n := math.prod(map(_length, self.axes)) * max(1, len(self.variants))) > MOST_RUNS:
            raise InputError(f"the axes make {n} runs; at most {MOST_RUNS} are one sweep.")
        self.recipes()

    @property
    def keys(self) -> tuple[str, ...]:
        """The recipe keys that vary, axis after axis."""
        return tuple(itertools.chain.from_iterable(self.axes))

    def recipes(self) -> dict[str, Recipe]:
        """The recipe of every run under the name of its folder, in order."""
        return {name: recipe for name, (_, recipe) in self.members().items()}

    def members(self) -> dict[str, tuple[str, Recipe]]:
        """The variant ("" without variants) and the recipe of every run, by its name."""
        settings = (
            [dict(zip(axis, values, strict=True)) for values in zip(*axis.values(), strict=True)]
            for axis in self.axes
        )
        points: list[dict[str, Any]] = [
            functools.reduce(operator.or_, point, {}) for point in itertools.product(*settings)
        ]
        variants = self.variants or {"": {}}
        bases = {name: self._variant(name) for name in variants}
        made = [(name, bases[name].replace(**point)) for name in variants for point in points]
        named_by: list[str] = []
        for axis in self.axes:
            first, *others = axis
            texts = {value_text(first, recipe) for _, recipe in made}  # 1 and 1.0 are one scale
            named_by += [first] if len(texts) == _length(axis) else [first, *others]
        found: dict[str, tuple[str, Recipe]] = {}
        for variant, recipe in made:
            values = [f"{key}={value_text(key, recipe)}" for key in named_by]
            name = ",".join([variant, *values] if variant else values)
            if name in found:
                raise InputError(f"two runs are both {name}; give values whose names differ.")
            if len(name) > LONGEST_NAME:
                raise InputError(
                    f"the run {name[:40]}... has a name of {len(name)} characters, more than "
                    f"{LONGEST_NAME}; name a key with shorter values first in its axis."
                )
            found[name] = variant, recipe
        return found

    def _variant(self, name: str) -> Recipe:
        try:
            return self.base.replace(**self.variants.get(name, {}))
        except InputError as error:
            raise InputError(f"variant {name}: {error}") from None

    @classmethod
    def from_toml(cls, path: str | Path) -> "Sweep":
        """The sweep that a TOML file describes; else an InputError of one line with its name."""
        return _of_file(read_toml(path, example=EXAMPLE), path)

    @classmethod
    def from_text(cls, text: bytes, *, file: str | Path) -> "Sweep":
        """The same of the text of a file; recipes that it names are looked for beside it."""
        return _of_file(parse_toml(text, file=file, example=EXAMPLE), file)

    def to_toml(self) -> str:
        """The sweep as a TOML document of its own, all keys of the base in it."""
        return tomli_w.dumps(
            {
                "measures": list(self.measures),
                **({} if self.ensemble == 1 else {"ensemble": self.ensemble}),
                "recipe": self.base.to_dict(),
                **({"variants": _plain(self.variants)} if self.variants else {}),
                "axes": [
                    {key: ["" if x is None else x for x in values] for key, values in axis.items()}
                    for axis in self.axes
                ],
            }
        )


def _of_file(content: Mapping[str, Any], file: str | Path) -> Sweep:
    try:
        return _from_dict(content, beside=Path(file).parent)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _from_dict(content: Mapping[str, Any], *, beside: Path) -> Sweep:
    for key in content:
        if key not in TOP_LEVEL:
            raise InputError(
                f"{shown(key)} is no part of a sweep; {nearest(key, TOP_LEVEL)} "
                "Keys of the recipe stand below [set] or [[axes]]."
            )
    changes = content.get("set", {})
    if not isinstance(changes, dict):
        raise InputError(f"set={shown(changes)} is no table; write [set] and keys below it.")
    measures = content.get("measures", [])
    if not isinstance(measures, list) or not all(isinstance(one, str) for one in measures):
        raise InputError(f"measures={shown(measures)} is no list of names.")
    variants = content.get("variants", {})
    if not isinstance(variants, dict) or not all(isinstance(x, dict) for x in variants.values()):
        raise InputError(
            f"variants={shown(variants)} are no tables; write [variants.NAME] and keys below it."
        )
    axes = content.get("axes", [])
    if not isinstance(axes, list) or not all(isinstance(axis, dict) for axis in axes):
        raise InputError(f"axes={shown(axes)} are no tables; write [[axes]] and keys below it.")
    if "seeds" in content:
        axes = [*axes, {"seed": _seeds(content["seeds"])}]
    base = _base(content.get("recipe", {}), beside=beside).replace(**changes)
    made = []
    for axis in axes:
        for key in axis:
            if key in changes:
                raise InputError(f"{shown(key)} stands in [set] and in an axis; leave one out.")
        made.append(
            {
                key: range_values(key, x, base=base) if isinstance(x, dict) else x
                for key, x in _tuples(axis).items()
            }
        )
    return Sweep(
        base,
        tuple(made),
        tuple(measures),
        content.get("ensemble", 1),
        {name: _tuples(changes) for name, changes in variants.items()},
    )


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of a TOML file as tuples, which recipes and axes have."""
    return {key: tuple(x) if isinstance(x, list) else x for key, x in values.items()}


def _plain(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same as a TOML file has them; "" stands for a key that is left out."""
    return {
        name: {key: "" if x is None else x for key, x in changes.items()}
        for name, changes in variants.items()
    }


def _base(given: object, *, beside: Path) -> Recipe:
    if isinstance(given, dict):
        return Recipe.from_dict(given)
    if not isinstance(given, str):
        raise refused("recipe", given, "a recipe", "the name of one, a file or a table of keys")
    return find_recipe(given, beside=beside)


def _seeds(given: object) -> list[Any]:
    """The seeds of a last axis: a list of them, or so many from 0 on."""
    if isinstance(given, list) and given:
        return given
    if (n := whole_number(given)) is None or not 1 <= n <= MOST_RUNS:
        raise refused("seeds", given, "a number of seeds or a list", "3 or [0, 4]")
    return list(range(n))


def _length(axis: Mapping[str, Sequence[Any]]) -> int:
    return len(next(iter(axis.values())))


def _check_variants(variants: object) -> None:
    changes = list(variants.values()) if isinstance(variants, Mapping) else [None]
    if not isinstance(variants, Mapping) or not all(isinstance(x, Mapping) for x in changes):
        raise refused("variants", variants, "changes by name", "{'no_decay': {'weight_decay': 0}}")
    for name in variants:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
            raise InputError(
                f"variant {shown(name)} cannot name a folder; give letters, digits and . _ + -, "
                "such as no_decay."
            )
    if odd := [key for one in variants.values() for key in one if not isinstance(key, str)]:
        raise refused("variants", odd[0], "a key of the recipe", "such as 'weight_decay'")


def _check_axis(axis: Mapping[str, Any]) -> None:
    for key, values in axis.items():
        if not isinstance(key, str):
            raise InputError(f"axes: {shown(key)} is no key of a recipe; give such as 'seed'.")
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise InputError(f"axes: {key}={shown(values)} is no list; give such as [0, 1].")
    if not axis or not all(axis.values()):
        raise InputError(f"an axis has no values ({dict(axis)}); give such as seed = [0, 1].")
    lengths = {key: len(values) for key, values in axis.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{key} {n}" for key, n in lengths.items())
        raise InputError(f"keys of one axis vary together, but have {counts} values.")
