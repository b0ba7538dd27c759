"""The losses that files keep: of which steps are they, and which reading of the files fits them?

A list of losses belongs to the steps that are given for it, if there are as many. Otherwise it is
taken to be regular, from step 0 on, where its length says so: one entry a step, or one every so
many steps up to the step of the weights or up to the number of epochs that a configuration plans.
The codes of Nanda et al. 2023 and of the Grokking_Demo keep one loss an epoch and save the planned
number of epochs as the epoch of the last weights; lists with weights of which nobody knows the step
are read so. What fits nothing is left out, and a note says so. Others take losses before the update
or after it, which no list tells: entry i of one entry a step is the loss of step i, as in those two
codes.

Where files can be read in two ways (another training set, another mask of attention), the reading
is taken under which the weights have the stored losses.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.reading.file_contents import LossCurve, NumberList
from grokinterp.reading.words import counts_epochs, words_of
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.tasks.modular import ModularTask

FEWEST_ENTRIES = 4  # entries of a list whose number says how far apart they are
USUAL_INTERVALS = [digit * 10**zeros for zeros in range(12) for digit in (1, 2, 5)]
MANY = 1000  # entries that nobody logs but regularly
COUNTS = (  # of epochs or steps that were planned, in a configuration
    "num_epochs", "n_epochs", "epochs", "max_epochs", "num_epoch", "n_epoch", "total_epochs",
    "epoch", "num_steps", "n_steps", "steps", "max_steps", "total_steps", "training_steps",
    "train_steps", "num_training_steps", "iterations", "num_iterations", "n_iterations", "n_iters",
    "num_iters", "max_iters", "iters", "max_iterations", "optimization_steps",
)  # fmt: skip
EVERY = {"every", "interval", "freq", "frequency"}  # a word of "log_every", and the others:
EVERY_WHAT = {
    "log", "logging", "print", "eval", "evaluation", "test", "val", "metrics", "record", "steps",
    "epochs", "n",
}  # fmt: skip
CLOSE = 0.25  # of the difference between two readings, within which a stored number tells
ROUNDING_OF_MEANS = 1e-6  # of a mean that others took in float32
SMALLEST_LOSS = 1e-30
AGREES = 0.05  # largest difference of log losses that counts as the same loss,
AGREES_WHEN_TINY = 1.0  # and below 1e-5, where losses that others took in float32 are coarse
TINY = 1e-5
TELLS = 2.0  # times that, the difference that a wrong split would make
NEAR = 0.25  # of the log ratio to all rows' loss, by which that of the update before may differ
MOST_COMPARED = 6  # checkpoints

Guess = TypeVar("Guess")


def place_lists(
    lists: Mapping[str, NumberList],
    *,
    step: int | None,
    word: str | None,
    config: Mapping[str, Any],
    fixed: bool,
) -> tuple[dict[str, LossCurve], int | None, list[str]]:
    """The lists of a file by steps, the step of its weights, and notes.

    Its weights are of a `step` that it calls by some `word`; either may be unknown. A step without
    a word is only in a name; one that is `fixed` was set, or is one of several.
    """
    curves = {column: x for column, x in lists.items() if isinstance(x, LossCurve)}
    words = {x.word for x in curves.values() if x.word}
    notes = [f"its lists are by its own steps ({', '.join(sorted(words))})"] if words else []
    loose = {column: x for column, x in lists.items() if not isinstance(x, LossCurve)}
    if step is None and curves:
        step = max(int(curve.steps[-1]) for curve in curves.values())
        notes.append(f"its weights are taken to be of step {step}, the last of its lists")
    if not loose:
        return curves, step, notes
    longest = max(map(len, loose.values()))
    intervals = intervals_in(config)

    def strides_up_to(last: int | None) -> dict[str, int | None]:
        return {x: stride_of(len(values), last, intervals) for x, values in loose.items()}

    strides = strides_up_to(step)
    fits = any(x is not None for x in strides.values())
    if step is None or (not (fits or fixed) and _counts_otherwise(step, word, longest)):
        step, why = _counted(longest, step, word, config)
        strides = strides_up_to(step)
        notes.append(why)
    for column, values in loose.items():
        n, stride = len(values), strides[column]
        if not stride and 1 in strides.values():  # a list of every step may be the longest one
            guess = round(longest / n)
            stride = guess if n in (-(-longest // guess), longest // guess) else None
        if not stride:
            notes.append(
                f"{column}: a list of {n} does not say of which steps up to {step} it is; it is "
                "left out (a list of its steps would say it)"
            )
            continue
        curves[column] = LossCurve.every(values, stride=stride)
        every = "one a step" if stride == 1 else f"one every {stride} steps"
        notes.append(f"{column}: a list of {n}, taken to be {every} from 0 on")
    return curves, step, notes


def stride_of(n: int, last: int | None, intervals: Iterable[int] = ()) -> int | None:
    """The regular distance of n steps from 0 on to the last one, or to the last before it.

    >>> stride_of(401, 400), stride_of(400, 400), stride_of(41, 400), stride_of(40, 400)
    (1, 1, 10, 10)
    >>> stride_of(40, 399), stride_of(37, 400), stride_of(5, 400)
    (10, None, 100)
    """
    if last is None or n < 1 or n > last + 1:
        return None
    if n >= max(last, 1):
        return 1
    for every in intervals:
        if n in (last // every + 1, -(-last // every)):
            return every
    if n < FEWEST_ENTRIES:
        return None
    exact = {last // k for k in (n - 1, n) if last % k == 0}
    usual = {x for x in USUAL_INTERVALS if n in (last // x + 1, -(-last // x))}
    found = usual if len(usual) == 1 and (not exact or usual <= exact) else exact
    return found.pop() if len(found) == 1 else None


def intervals_in(config: Mapping[str, Any]) -> list[int]:
    """Numbers of steps between entries of a log, such as `log_every`."""
    return [
        value for words, value in _numbers_in(config)
        if len(EVERY.intersection(words)) == 1 and set(words) <= EVERY | EVERY_WHAT
    ]  # fmt: skip


def _numbers_in(config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The words and values of what may be numbers of steps."""
    for key, value in config.items():
        if isinstance(key, str) and type(value) is int and 0 < value < LARGEST_STEP:
            yield words_of(key), value


def _counted(
    longest: int, step: int | None, word: str | None, config: Mapping[str, Any]
) -> tuple[int, str]:
    """The step of weights that only lists tell, and why it is."""
    if step is not None:
        source = f"its {word!r} is {step}" if word else f"its name says {step}"
        return longest, (
            f"its weights are taken to be of step {longest}, one after each loss of its lists "
            f"({source}, which these are not counted in)"
        )
    planned = {"_".join(words): value for words, value in _numbers_in(config)}
    for name, count in planned.items():
        if name in COUNTS and stride_of(longest, count) is not None:
            return count, f"its weights are taken to be of step {count}, its {name!r}"
    return longest, (
        f"no step in the file or its name: its weights are taken to be of step {longest}, one "
        "after each loss of its lists"
    )


def _counts_otherwise(step: int, word: str | None, longest: int) -> bool:
    """Whether the losses count something else than a step that none of their lists fits."""
    if word is None:  # a name has many numbers
        return True
    batches = longest > step + 1  # one loss per update
    cut_short = longest >= MANY and step < 10 * longest  # the paper's code saves the planned epoch
    return counts_epochs(word) and (batches or cut_short)


def stored_at(logged: pd.DataFrame, column: str, steps: Collection[int]) -> dict[int, float]:
    """What was logged for these steps, where it was."""
    known = logged[["step", column]].dropna()
    known = known[known["step"].isin(list(steps)) & np.isfinite(known[column])]
    return dict(zip(known["step"].tolist(), known[column].tolist(), strict=True))


@dataclass(frozen=True)
class StoredNumber(Generic[Guess]):
    """A number that the files keep, and what it would be in each of two readings."""

    what: str
    value: float
    found: Mapping[Guess, float]
    unknown: float = 0.0  # by how much it may differ from what was computed, beyond its digits

    def other(self, choice: Guess) -> float:
        """What it would be in the other reading."""
        (found,) = (value for key, value in self.found.items() if key != choice)
        return found


def best_fit(numbers: Iterable[StoredNumber[Guess]]) -> tuple[Guess, StoredNumber[Guess]] | None:
    """The reading that stored numbers agree with, and the one that shows it best; None if none is.

    A number can tell if it is known, by its digits, to far less than the two readings differ by,
    and it tells if it is that close to one of them. Most of those that can have to tell the same,
    and none the other: numbers that were taken of other weights, or elsewhere, agree with neither.
    """
    n_can, telling = 0, []
    for number in numbers:
        one, two = number.found.values()
        gap, unknown = abs(one - two), uncertainty(number.value) + number.unknown
        if not gap * CLOSE >= unknown:  # NaN tells nothing either
            continue
        n_can += 1
        near = min(number.found, key=lambda choice: abs(number.found[choice] - number.value))
        off = max(abs(number.found[near] - number.value), unknown)
        if off <= gap * CLOSE:
            telling.append((gap / off, near, number))
    if len({near for _, near, _ in telling}) != 1 or 2 * len(telling) <= n_can:
        return None
    _, near, number = max(telling, key=lambda each: each[0])
    return near, number


def uncertainty(value: float) -> float:
    """By how much a stored number may differ from what it was: its last digit, and float32.

    >>> uncertainty(0.25), uncertainty(4.0), uncertainty(0.1307771354913711) < 1e-6
    (0.005, 0.5, True)
    """
    digits = str(int(value)) if value and value == int(value) else repr(float(value))
    exponent = Decimal(digits).as_tuple().exponent
    assert isinstance(exponent, int)  # stored numbers are finite
    return max(0.5 * 10.0**exponent, ROUNDING_OF_MEANS * abs(value))


@dataclass(frozen=True)
class LossEvidence:
    """What a split can be compared with."""

    task: ModularTask
    steps: Sequence[int]  # of the checkpoints
    losses_of: Callable[[int], Float[Tensor, " n_inputs"]]  # by step; cross-entropy of every row
    stored: Mapping[int, float]  # training losses of checkpoints, as the files keep them
    near: bool = False  # whether these may be those of the weights an update before

    def some_steps(self) -> list[int]:
        """A few checkpoints, the last among them."""
        return evenly_spread(self.steps[::-1])

    def stored_steps(self) -> list[int]:
        """A few checkpoints whose training loss is stored."""
        return evenly_spread(sorted(self.stored))


def evenly_spread(steps: Sequence[int]) -> list[int]:
    """At most six of these steps, evenly spread, the first among them."""
    return list(steps[:: max(1, -(-len(steps) // MOST_COMPARED))])


@dataclass(frozen=True)
class Compared:
    """A training loss that the files keep, and what some rows have at that step."""

    step: int
    stored: float
    found: float
    agrees: bool


def compared(rows: Int[Tensor, " n_train"], evidence: LossEvidence) -> Compared | None:
    """The stored training loss that tells best whether a split is right; None if none can tell.

    It is that which differs most, for its tolerance, from the loss of all rows. Losses that may be
    of an update before are taken by a majority, as one update can be a jump; the last one is shown.
    """
    each = []
    for step in evidence.stored_steps():
        losses, stored = evidence.losses_of(step), evidence.stored[step]
        gap = _off(float(losses.mean()), stored)
        tolerance = AGREES if stored >= TINY else AGREES_WHEN_TINY
        if evidence.near:
            tolerance = max(tolerance, NEAR * gap)
        if gap >= TELLS * tolerance:
            found = float(losses[rows].mean())
            agrees = _off(found, stored) <= tolerance
            each.append((gap / tolerance, Compared(step, stored, found, agrees)))
    if not each:
        return None
    if not evidence.near:
        return max(each, key=lambda one: one[0])[1]
    agrees = 2 * sum(one.agrees for _, one in each) >= len(each)
    return [one for _, one in each if one.agrees == agrees][-1]


def _off(found: float, stored: float) -> float:
    """How far the log of a loss is from what the stored one may have been before it was rounded."""
    unknown = uncertainty(stored)
    return abs(log_ratio(found, min(max(found, stored - unknown), stored + unknown)))


def log_ratio(x: float, y: float) -> float:
    """log(x / y) of two losses, which may be 0."""
    return math.log(max(x, SMALLEST_LOSS) / max(y, SMALLEST_LOSS))
