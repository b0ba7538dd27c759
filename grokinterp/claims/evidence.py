"""The runs that a verdict rests on, by regime, and whether they are enough for one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grokinterp.runs.run import Run
from grokinterp.sweeps.statistics import median_interval

FEWEST = 3  # seeds for a verdict where seeds matter
# What makes the evidence of claims that need it out of runs, by their `needs`: a later room knows.
GATHERED: dict[str, Callable[[Sequence[Run]], Any]] = {}


@dataclass(frozen=True)
class Evidence:
    """The profiles of the runs that count, by regime, and the settings of all runs, by name.

    A profile is what `gi.compare` measured of one run: it has a `seed`, and `values` by measure.

    >>> import grokinterp as gi
    >>> from types import SimpleNamespace as Profile
    >>> grokked = [Profile(seed=seed, values={"c": c}) for seed, c in enumerate([2.0, 2.5, 3.0])]
    >>> evidence = gi.claims.Evidence(grokked, [Profile(seed=0, values={})], settings={})
    >>> evidence.values("c"), evidence.medians("c"), evidence.seeds("c")
    (([2.0, 2.5, 3.0], []), (2.5, nan), {'grokked': 3, 'steady': 0})
    >>> len(evidence.profiles), list(evidence.regimes)
    (4, ['grokked', 'steady'])
    """

    grokked: Sequence[Any]
    steady: Sequence[Any]
    settings: Mapping[str, str]

    @property
    def regimes(self) -> dict[str, Sequence[Any]]:
        """The profiles under the names of their regimes."""
        return {"grokked": self.grokked, "steady": self.steady}

    @property
    def profiles(self) -> list[Any]:
        """All of them."""
        return [*self.grokked, *self.steady]

    def values(self, measure: str) -> tuple[list[float], list[float]]:
        """The values of the grokked and of the steady runs that have the measure."""
        return known(self.grokked, measure), known(self.steady, measure)

    def medians(self, measure: str) -> tuple[float, float]:
        """Medians of the grokked and of the steady runs."""
        grokked, steady = (median_interval(values).median for values in self.values(measure))
        return grokked, steady

    def seeds(self, *measures: str) -> dict[str, int]:
        """How many different seeds each regime has among the runs with all of these measures."""
        return {
            regime: len({p.seed for p in profiles if all(known([p], m) for m in measures)})
            for regime, profiles in self.regimes.items()
        }


def known(profiles: Sequence[Any], measure: str) -> list[float]:
    """The values of a measure where it is defined."""
    values = [profile.values.get(measure, math.nan) for profile in profiles]
    return [value for value in values if not math.isnan(value)]


def span(values: Sequence[float], form: str) -> str:
    """The smallest and the largest of these values in words, or one if they look the same.

    >>> span([0.5, 0.21, 0.3], ".0%"), span([0.5, 0.5], ".2g")
    ('21% to 50%', '0.5')
    """
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
