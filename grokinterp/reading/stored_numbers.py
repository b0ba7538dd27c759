"""Which of two ways to read files the numbers agree with that the files keep."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Generic, TypeVar

Choice = TypeVar("Choice")

CLOSE = 0.25  # of the difference between the two, within which a stored number tells
ROUNDING = 1e-6  # of a mean that others took in float32


@dataclass(frozen=True)
class Stored(Generic[Choice]):
    """A number that the files keep, and what it would be in each of two readings."""

    what: str
    value: float
    found: Mapping[Choice, float]
    unknown: float = 0.0  # by how much it may differ from what was computed, beyond its digits

    def other(self, choice: Choice) -> float:
        """What it would be in the other reading."""
        (found,) = (value for key, value in self.found.items() if key != choice)
        return found


def told(numbers: Iterable[Stored[Choice]]) -> tuple[Choice, Stored[Choice]] | None:
    """The reading that stored numbers agree with, and the one that shows it best; None if none is.

    A number can tell if it is known, by its digits, to far less than the two readings differ by,
    and it tells if it is that close to one of them. Most of those that can have to tell the same,
    and none the other: numbers that were taken of other weights, or elsewhere, agree with neither.
    """
    n_can, said = 0, []
    for number in numbers:
        one, two = number.found.values()
        gap, unknown = abs(one - two), uncertainty(number.value) + number.unknown
        if not gap * CLOSE >= unknown:  # NaN tells nothing either
            continue
        n_can += 1
        near = min(number.found, key=lambda choice: abs(number.found[choice] - number.value))
        off = max(abs(number.found[near] - number.value), unknown)
        if off <= gap * CLOSE:
            said.append((gap / off, near, number))
    if len({near for _, near, _ in said}) != 1 or 2 * len(said) <= n_can:
        return None
    _, near, number = max(said, key=lambda each: each[0])
    return near, number


def uncertainty(value: float) -> float:
    """By how much a stored number may differ from what it was: its last digit, and float32.

    >>> uncertainty(0.25), uncertainty(4.0), uncertainty(0.1307771354913711) < 1e-6
    (0.005, 0.5, True)
    """
    digits = str(int(value)) if value and value == int(value) else repr(float(value))
    exponent = Decimal(digits).as_tuple().exponent
    assert isinstance(exponent, int)  # stored numbers are finite
    return max(0.5 * 10.0**exponent, ROUNDING * abs(value))
