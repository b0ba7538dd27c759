"""Ranges as values of an axis: `{log = [0.1, 10], n = 5}`, `{linear = [0.1, 0.9], n = 5}`.

Both ends are among the n values, as they are given; those between are rounded to six significant
digits, so that a run's name says its value exactly, and to whole numbers for keys that take those.
"""

import math
from collections.abc import Mapping
from typing import Any

from grokinterp.arguments import real
from grokinterp.errors import InputError, shown, whole_number
from grokinterp.recipe.recipe import Recipe

DIGITS = 6
MOST_VALUES = 10_000
ADVICE = "give such as {log = [0.1, 10], n = 5} or {linear = [0.1, 0.9], n = 5}."


def range_values(key: str, given: Mapping[str, Any], *, base: Recipe) -> tuple[float, ...]:
    """The values of a range for a key of the recipe; InputError, one line, for a bad one.

    >>> range_values("weight_decay", {"log": [0.1, 10], "n": 5}, base=Recipe())
    (0.1, 0.316228, 1.0, 3.16228, 10.0)
    >>> range_values("steps", {"linear": [100, 201], "n": 3}, base=Recipe())
    (100, 150, 201)
    """
    told = f"{key}={shown(dict(given))}"
    kinds = [kind for kind in ("log", "linear") if kind in given]
    if len(kinds) != 1 or given.keys() != {kinds[0], "n"}:
        raise InputError(f"{told} is no range; {ADVICE}")
    ends, n = given[kinds[0]], whole_number(given["n"])
    if n is None or not 2 <= n <= MOST_VALUES:
        raise InputError(
            f"{told}: n={shown(given['n'])} is no whole number from 2 to {MOST_VALUES}."
        )
    if not isinstance(ends, list | tuple) or len(ends) != 2 or None in map(real, ends):
        raise InputError(f"{told}: {shown(ends)} are not the two ends of a range; {ADVICE}")
    first, last = ends
    logarithmic = kinds[0] == "log"
    if logarithmic and min(ends) <= 0:
        raise InputError(
            f"{told}: an end of a log range is not above 0; give linear, or other ends."
        )
    value = getattr(base.replace(**{key: first}), key)  # refuses a key that is not known
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{told}: {key} is no number; give a list of values.")
    whole = isinstance(value, int)
    inner = (_between(first, last, i / (n - 1), logarithmic) for i in range(1, n - 1))
    values = (first, *(round(x) if whole else float(f"{x:.{DIGITS}g}") for x in inner), last)
    if len(set(values)) < n:
        raise InputError(f"{told} has fewer than {n} different values; give a smaller n.")
    return values if whole else tuple(map(float, values))


def _between(first: float, last: float, part: float, logarithmic: bool) -> float:
    if logarithmic:
        return math.exp((1 - part) * math.log(first) + part * math.log(last))
    return (1 - part) * first + part * last
