"""At which steps the weights are saved."""

import math
from collections.abc import Sequence

from grokinterp.errors import InputError, shown

Schedule = str | tuple[int, ...]
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
    if not isinstance(schedule, str):
        named = list(schedule)
        for step in named:
            if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                raise InputError(f"checkpoints names {shown(step)}, which is no step; {_EXPECTED}")
        return tuple(sorted({0, *(step for step in named if step < steps), steps}))
    kind, _, number = schedule.partition(":")
    if (
        kind not in ("every", "log")
        or not (number.isascii() and number.isdigit())
        or int(number) == 0
    ):
        raise InputError(f"checkpoints={shown(schedule)} is not a schedule; {_EXPECTED}")
    if kind == "every":
        return tuple(sorted({*range(0, steps, int(number)), steps}))
    last = math.log(max(steps, 1))
    spaced = [round(math.exp(last * i / max(int(number) - 1, 1))) for i in range(int(number))]
    return tuple(sorted({0, *(min(step, steps) for step in spaced), steps}))
