"""To which steps do the entries of a list of losses belong?

To those beside them, if there are as many. Otherwise a list is taken to be regular, from step 0 on,
where its length says so: one entry a step, or one every so many steps up to the step of the weights
or up to the number of epochs that a configuration plans. The codes of Nanda et al. 2023 and of the
Grokking_Demo keep one loss an epoch and save the planned number of epochs as the epoch of the last
weights; lists beside weights of which nobody knows the step are read so. What fits nothing is left
out, and said so.

Others take losses before the update or after it, which no list tells: entry i of one entry a step
is the loss of step i, as in those two codes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from grokinterp.runs.foreign.said import Listed
from grokinterp.runs.foreign.values import LossCurve
from grokinterp.runs.foreign.words import COUNTS, counts_epochs, says_interval, words_of
from grokinterp.runs.manifest import LARGEST_STEP

FEWEST = 4  # entries of a list whose number says how far apart they are
USUAL = [digit * 10**zeros for zeros in range(12) for digit in (1, 2, 5)]  # intervals
MANY = 1000  # entries that nobody logs but regularly


@dataclass(frozen=True)
class Placed:
    """Curves on the axis of the checkpoints, the step of the weights beside them, and notes."""

    curves: dict[str, LossCurve]
    step: int | None
    notes: tuple[str, ...] = ()


def placed(
    lists: Mapping[str, Listed],
    *,
    step: int | None,
    word: str | None,
    config: Mapping[str, Any],
    fixed: bool = False,
) -> Placed:
    """The lists of a file, whose weights are of a step in some word; either may be unknown.

    A step without a word is only in a name; one that is `fixed` was set, or is one of several.
    """
    curves = {
        column: LossCurve(x.steps, x.values) for column, x in lists.items() if x.steps is not None
    }
    words = {x.word for x in lists.values() if x.steps is not None and x.word}
    notes = [f"its lists are by its own steps ({', '.join(sorted(words))})"] if words else []
    loose = {column: x.values for column, x in lists.items() if x.steps is None}
    if step is None and curves:
        step = max(int(curve.steps[-1]) for curve in curves.values())
        notes.append(f"its weights are taken to be of step {step}, the last of its lists")
    if not loose:
        return Placed(curves, step, tuple(notes))
    longest = max(map(len, loose.values()))
    intervals = intervals_in(config)
    strides = {x: stride_of(len(values), step, intervals) for x, values in loose.items()}
    fits = any(x is not None for x in strides.values())
    if step is None or (not (fits or fixed) and _counts_otherwise(step, word, longest)):
        step, why = _counted(longest, step, word, config)
        strides = {x: stride_of(len(values), step, intervals) for x, values in loose.items()}
        notes.append(why)
    for column, values in loose.items():
        stride = strides[column] or _beside_the_longest(len(values), longest, strides)
        if stride is None:
            notes.append(
                f"{column}: a list of {len(values)} does not say of which steps up to {step} it "
                "is; it is left out (a list of steps beside it would)"
            )
            continue
        curves[column] = LossCurve.every(values, stride=stride)
        every = "one a step" if stride == 1 else f"one every {stride} steps"
        notes.append(f"{column}: a list of {len(values)}, taken to be {every} from 0 on")
    return Placed(curves, step, tuple(notes))


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
    if n < FEWEST:
        return None
    exact = {last // k for k in (n - 1, n) if last % k == 0}
    usual = {x for x in USUAL if n in (last // x + 1, -(-last // x))}
    found = usual if len(usual) == 1 and (not exact or usual <= exact) else exact
    return found.pop() if len(found) == 1 else None


def intervals_in(config: Mapping[str, Any]) -> list[int]:
    """Numbers of steps between entries of a log, such as `log_every`."""
    return [
        value for key, value in config.items()
        if isinstance(key, str) and type(value) is int and 0 < value < LARGEST_STEP
        and says_interval(words_of(key))
    ]  # fmt: skip


def _counted(
    longest: int, step: int | None, word: str | None, config: Mapping[str, Any]
) -> tuple[int, str]:
    """The step of weights that only lists tell, and why it is."""
    if step is None:
        planned = {
            name: value for key, value in config.items()
            if isinstance(key, str) and type(value) is int and 0 < value < LARGEST_STEP
            and (name := "_".join(words_of(key))) in COUNTS
        }  # fmt: skip
        for name, count in planned.items():
            if stride_of(longest, count) is not None:
                return count, f"its weights are taken to be of step {count}, its {name!r}"
        return longest, (
            f"no step in the file or its name: its weights are taken to be of step {longest}, one "
            "after each loss of its lists"
        )
    said = f"its {word!r} is {step}" if word else f"its name says {step}"
    return longest, (
        f"its weights are taken to be of step {longest}, one after each loss of its lists "
        f"({said}, which these are not counted in)"
    )


def _counts_otherwise(step: int, word: str | None, longest: int) -> bool:
    """Whether the losses count something else than a step that none of their lists fits.

    A name has many numbers. More losses than epochs are those of batches, one an update. Fewer, but
    thousands, are those of a run that was cut short, of which the paper's code saves the planned
    number of epochs; a short list may have been logged at any steps.
    """
    if word is None:
        return True
    cut_short = longest >= MANY and step < 10 * longest
    return counts_epochs(word) and (longest > step + 1 or cut_short)


def _beside_the_longest(n: int, longest: int, strides: Mapping[str, int | None]) -> int | None:
    """The distance of a list that is shorter than a list of every step by a whole factor."""
    if 1 not in strides.values():
        return None
    stride = round(longest / n)
    return stride if n in (-(-longest // stride), longest // stride) else None
