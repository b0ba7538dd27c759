"""The runs that a verdict rests on, by regime, and whether they are enough for one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from grokinterp.sweeps.statistics import spread

FEWEST = 3  # seeds per regime for a verdict


class Profile(Protocol):
    """What was measured of one run, as far as claims look at it."""

    @property
    def seed(self) -> str: ...  # noqa: D102
    @property
    def values(self) -> Mapping[str, float]: ...  # noqa: D102


AnyProfile = TypeVar("AnyProfile", bound=Profile)


@dataclass(frozen=True)
class Evidence(Generic[AnyProfile]):
    """The profiles that count, by regime."""

    grokked: Sequence[AnyProfile]
    steady: Sequence[AnyProfile]
    settings: Mapping[str, str]  # of every profile, by name

    @property
    def regimes(self) -> dict[str, Sequence[AnyProfile]]:
        """The profiles under the names of their regimes."""
        return {"grokked": self.grokked, "steady": self.steady}

    @property
    def profiles(self) -> list[AnyProfile]:
        """All of them."""
        return [*self.grokked, *self.steady]

    def values(self, measure: str) -> tuple[list[float], list[float]]:
        """The values of the grokked and of the steady runs that have the measure."""
        return known(self.grokked, measure), known(self.steady, measure)

    def medians(self, measure: str) -> tuple[float, float]:
        """Medians of the grokked and of the steady runs."""
        grokked, steady = (spread(values).median for values in self.values(measure))
        return grokked, steady

    def seeds(self, *measures: str) -> dict[str, int]:
        """How many different seeds each regime has among the runs with all of these measures."""
        return {
            regime: len({p.seed for p in profiles if all(known([p], m) for m in measures)})
            for regime, profiles in self.regimes.items()
        }


def known(profiles: Sequence[Profile], measure: str) -> list[float]:
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
