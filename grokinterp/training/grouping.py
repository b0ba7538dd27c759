"""Which recipes can be trained together as one batched model, and why others cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from grokinterp.arguments import whole
from grokinterp.errors import InputError, shown
from grokinterp.models.stacked import why_not_stacked
from grokinterp.recipe.recipe import Recipe

# What may differ between members: it changes their numbers, but no shape and no schedule.
FREE = (
    *("seed", "data_seed", "split", "init", "init_scale"),
    *("lr", "betas", "weight_decay", "warmup", "reshuffle"),
)


def why_not_together(recipes: Sequence[Recipe]) -> str | None:
    """Why these recipes cannot be trained together, as a line with what to do; None if they can."""
    for recipe in recipes:
        if reason := _why_not_batched(recipe):
            return f"{reason}; train these runs singly (gi.train)."
    first, *others = (_shared(recipe) for recipe in recipes)
    for place, other in enumerate(others, start=1):
        for key in first:
            if first[key] != other[key]:
                return (
                    f"recipes 0 and {place} have {key}={first[key]!r} and {other[key]!r}; those of "
                    f"one ensemble may differ in {', '.join(FREE)}."
                )
    return None


def groups(recipes: Mapping[str, Recipe], size: int) -> list[list[str]]:
    """Split named recipes into groups of at most `size` that can be trained together.

    Every name is in one group, in the order given; a recipe that nothing goes with, or that cannot
    be trained in an ensemble at all, is a group of its own.

    >>> made = {str(seed): Recipe(p=7, seed=seed) for seed in range(3)}
    >>> groups(made | {"other": Recipe(p=7, d_mlp=32)}, 2)
    [['0', '1'], ['2'], ['other']]
    """
    if not isinstance(recipes, Mapping) or not all(isinstance(x, Recipe) for x in recipes.values()):
        raise InputError(f"{shown(recipes)} are no recipes by name; give such as sweep.recipes().")
    size = whole("size", size, least=1, such_as="8")
    made: list[list[str]] = []
    open_group: dict[str, list[str]] = {}  # of the same keys, the one that takes more
    for name, recipe in recipes.items():
        key = repr(_shared(recipe))
        group = open_group.get(key)
        if group is None or len(group) >= size or _why_not_batched(recipe):
            group = open_group[key] = []
            made.append(group)
        group.append(name)
    return made


def differing(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    """The free keys in which recipes differ."""
    return tuple(key for key in FREE if len({getattr(each, key) for each in recipes}) > 1)


def _shared(recipe: Recipe) -> dict[str, Any]:
    return {key: value for key, value in asdict(recipe).items() if key not in FREE}


def _why_not_batched(recipe: Recipe) -> str | None:
    architecture = recipe.architecture()
    return why_not_stacked(architecture, 2 + recipe.equals_token)
