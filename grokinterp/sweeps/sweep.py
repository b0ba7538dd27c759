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
`seeds = [0, 4]`, among the first lines stands for a last axis of `seed`. Without `ensemble` each
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from grokinterp.base.checks import real, refused, whole
from grokinterp.base.errors import InputError, nearest, shown, whole_number
from grokinterp.recipe.builtin import find_recipe
from grokinterp.recipe.recipe import Recipe, parse_toml, read_toml, value_text

MOST_RUNS = 10_000
LONGEST_NAME = 200  # of a folder; file systems allow 255
TOP_LEVEL = ("recipe", "measures", "ensemble", "seeds", "set", "axes")
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


@dataclass(frozen=True)
class Sweep:
    """A base recipe, axes of keys that vary together, and the names of what to measure.

    >>> sweep = Sweep(Recipe(p=7), ({"lr": (0.1, 0.01)}, {"seed": (0, 1), "data_seed": (5, 6)}))
    >>> list(sweep.recipes())
    ['lr=0.1,seed=0', 'lr=0.1,seed=1', 'lr=0.01,seed=0', 'lr=0.01,seed=1']

    Axes are crossed, and the last one varies fastest. At most `ensemble` runs are trained together.
    Every recipe is made, and so checked, with the sweep: InputError for axes that are empty or of
    unequal length, a key in two axes, more than 10,000 runs, runs that would share a folder, and
    whatever a recipe refuses.
    """

    base: Recipe
    axes: tuple[Mapping[str, tuple[Any, ...]], ...]
    measures: tuple[str, ...] = ()
    ensemble: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.base, Recipe):
            raise refused("base", self.base, "a recipe", "gi.Recipe(...) or gi.recipes()[...]")
        if not isinstance(self.axes, tuple) or not all(isinstance(a, Mapping) for a in self.axes):
            raise InputError("axes are a tuple of dicts; give such as ({'seed': (0, 1)},).")
        whole("ensemble", self.ensemble, least=1, such_as="8")
        names = self.measures
        if not isinstance(names, tuple) or not all(isinstance(name, str) for name in names):
            raise refused("measures", names, "a tuple of names", "such as ('sizes',)")
        if not self.axes:
            raise InputError("nothing varies; give [[axes]] such as seed = [0, 1, 2].")
        for axis in self.axes:
            _check_axis(axis)
        if len(set(self.keys)) < len(self.keys):
            twice = next(key for key in self.keys if self.keys.count(key) > 1)
            raise InputError(f"{shown(twice)} stands in two axes; a key varies in one.")
        if (n := math.prod(map(_length, self.axes))) > MOST_RUNS:
            raise InputError(f"the axes make {n} runs; at most {MOST_RUNS} are one sweep.")
        self.recipes()

    @property
    def keys(self) -> tuple[str, ...]:
        """The recipe keys that vary, axis after axis."""
        return tuple(itertools.chain.from_iterable(self.axes))

    def recipes(self) -> dict[str, Recipe]:
        """The recipe of every run under the name of its folder, in order."""
        settings = (
            [dict(zip(axis, values, strict=True)) for values in zip(*axis.values(), strict=True)]
            for axis in self.axes
        )
        points = itertools.product(*settings)
        made = [self.base.replace(**functools.reduce(operator.or_, point)) for point in points]
        named_by: list[str] = []
        for axis in self.axes:
            first, *others = axis
            texts = {value_text(first, recipe) for recipe in made}  # 1 and 1.0 are one scale
            named_by += [first] if len(texts) == _length(axis) else [first, *others]
        found: dict[str, Recipe] = {}
        for recipe in made:
            name = ",".join(f"{key}={value_text(key, recipe)}" for key in named_by)
            if name in found:
                raise InputError(f"two runs are both {name}; give values whose names differ.")
            if len(name) > LONGEST_NAME:
                raise InputError(
                    f"the run {name[:40]}... has a name of {len(name)} characters, more than "
                    f"{LONGEST_NAME}; name a key with shorter values first in its axis."
                )
            found[name] = recipe
        return found

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
        lists = {key: tuple(x) if isinstance(x, list) else x for key, x in axis.items()}
        made.append(
            {
                key: range_values(key, x, base=base) if isinstance(x, dict) else x
                for key, x in lists.items()
            }
        )
    return Sweep(base, tuple(made), tuple(measures), content.get("ensemble", 1))


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
