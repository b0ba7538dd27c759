"""At which steps the weights are saved."""

import math
from collections.abc import Sequence

from grokinterp.arguments import listed, whole
from grokinterp.errors import InputError, shown, whole_number

Schedule = str | tuple[int, ...]
MOST_STEPS = 2**53
MOST_CHECKPOINTS = 1_000_000  # more are no schedule, and eat the memory of one
DIGITS = 12  # of a number in a schedule
_EXPECTED = "give 'every:100', 'log:40' or a list of steps such as [0, 100, 1000]."


def checkpoint_steps(schedule: str | Sequence[int], steps: int) -> tuple[int, ...]:
    """The steps a schedule names, sorted; step 0 and the last step are always among them.

    `"every:N"`: multiples of N. `"log:N"`: N steps evenly spaced in log(step) from 1 to the last
    (fewer where neighbours round to the same step). A list: its steps up to the last one.

    >>> checkpoint_steps("every:40", 100)
    (0, 40, 80, 100)
    >>> checkpoint_steps("log:4", 1000)
    (0, 1, 10, 100, 1000)
    >>> checkpoint_steps([30, 10], 100)
    (0, 10, 30, 100)
    """
    steps = whole("steps", steps, least=0, most=MOST_STEPS, such_as="1000")
    if not isinstance(schedule, str):
        named = []
        for given in listed("checkpoints", schedule, such_as="[0, 100, 1000]"):
            step = whole_number(given)
            if step is None or step < 0:
                raise InputError(f"checkpoints names {shown(given)}, which is no step; {_EXPECTED}")
            named.append(step)
        return tuple(sorted({0, *(step for step in named if step < steps), steps}))
    kind, _, number = schedule.partition(":")
    if (
        kind not in ("every", "log")
        or not (number.isascii() and number.isdigit() and len(number) <= DIGITS)
        or int(number) == 0
    ):
        raise InputError(f"checkpoints={shown(schedule)} is not a schedule; {_EXPECTED}")
    count = int(number)
    if (count if kind == "log" else steps // count) > MOST_CHECKPOINTS:
        raise InputError(
            f"checkpoints={schedule!r} makes more than {MOST_CHECKPOINTS:,} of {steps} steps; give "
            "fewer, such as 'log:40'."
        )
    if kind == "every":
        return tuple(sorted({*range(0, steps, count), steps}))
    last = math.log(max(steps, 1))
    spaced = [round(math.exp(last * i / max(count - 1, 1))) for i in range(count)]
    return tuple(sorted({0, *(min(step, steps) for step in spaced), steps}))
