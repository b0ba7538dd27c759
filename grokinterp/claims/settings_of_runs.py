"""Which runs were trained alike, which of them are the baseline, and what are the others called?

Runs are told apart by their recipes, never by the names of their folders.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from grokinterp.base.checks import instance
from grokinterp.base.errors import InputError
from grokinterp.claims.acceleration_methods import BASELINE, METHODS
from grokinterp.recipe.keys import SAME_SETTING
from grokinterp.recipe.recipe import Recipe

NO_RECIPE = "no recipe"  # what runs are called of which nobody knows how they were trained

Setting = tuple[tuple[str, Any], ...]
Recipes = Mapping[Setting | None, Recipe | None]  # one of each setting; None: no recipe is known


def setting_of(recipe: Recipe | None) -> Setting | None:
    """What runs of one setting share: every key that changes an update, but for the seeds.

    >>> one, other, faster = Recipe(seed=1), Recipe(seed=2, steps=10), Recipe(lr=0.1)
    >>> setting_of(one) == setting_of(other), setting_of(one) == setting_of(faster)
    (True, False)
    """
    if recipe is None:
        return None
    kept = {key: x for key, x in recipe.to_dict().items() if key not in SAME_SETTING}
    return tuple((key, tuple(x) if isinstance(x, list) else x) for key, x in kept.items())


def baseline_of(recipes: Recipes, given: Recipe | None) -> Setting | None:
    """The setting from which most others follow by a method of `METHODS`, or that of a recipe.

    InputError where two are as good, and for a recipe of none of them.
    """
    if given is not None:
        key = setting_of(instance(given, Recipe, "recipe", give="baseline=run.recipe"))
        if key not in recipes:
            raise InputError("baseline is the recipe of none of these runs; give that of one.")
        return key
    reached = {
        key: len((recipes.keys() - {key}) & _by_method(recipe).keys())
        for key, recipe in recipes.items()
        if recipe is not None or len(recipes) == 1
    }
    best = [key for key, n in reached.items() if n == max(reached.values())]
    if len(best) != 1:
        raise InputError(
            f"{len(recipes)} settings are there, and their recipes do not say which is the "
            "baseline; give its recipe, baseline=run.recipe."
        )
    return best[0]


def names_of(recipes: Recipes, base: Setting | None) -> dict[Setting | None, str]:
    """The name of every setting: of a method, or else the keys that differ from the baseline."""
    of_base = recipes[base]
    methods = _by_method(of_base)
    found = {}
    for key, recipe in recipes.items():
        if key == base:
            found[key] = BASELINE
        elif recipe is None:
            found[key] = NO_RECIPE
        else:
            found[key] = methods.get(key) or in_words(changed(of_base, recipe))
    return found


def changed(base: Recipe | None, recipe: Recipe | None) -> dict[str, Any]:
    """The keys of a setting that are not those of the baseline; none where one is not known."""
    return {} if base is None or recipe is None else recipe.changes_from(base)


def in_words(changes: Mapping[str, Any]) -> str:
    """Changed keys as a text.

    >>> in_words({"lr": 0.1, "betas": None})
    'lr=0.1, no betas'
    """
    return ", ".join(f"no {key}" if x is None else f"{key}={x}" for key, x in changes.items())


@lru_cache(maxsize=64)
def _by_method(base: Recipe | None) -> dict[Setting | None, str]:
    """The settings that methods make of a recipe, and their names: nobody changes what is kept."""
    found: dict[Setting | None, str] = {}
    if base is None:
        return found
    for name, method in METHODS.items():
        try:
            found.setdefault(setting_of(method.of(base)), name)
        except InputError:  # this recipe cannot be trained so
            continue
    return found
