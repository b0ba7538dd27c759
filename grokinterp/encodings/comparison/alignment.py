"""Runs on one axis: by what they had learned, or by step.

By phase, a run's position is 0 at the start, 1 where train is learned (t_train), 2 where test is
(t_test, Definition 1 of Manning-Coe et al. 2025) and 3 at its last checkpoint: linear in the step
up to 2, and in the logarithm of the step from there on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grokinterp.encodings.geometry.inputs import evenly

PLACES = {0: "start", 1: "train learned", 2: "test learned", 3: "end"}
POSITIONS = (0.0, 0.5, 1.0, 1.25, 1.5, 1.75, *(2 + i / 10 for i in range(11)))
NEAR = 0.15  # a checkpoint this far from a position stands for it, no farther
MOST_STEPS = 17  # looked at when runs are aligned by step


@dataclass(frozen=True)
class Clock:
    """What turns the steps of one run into positions; `t_test` is at least `t_train`."""

    t_train: int | float
    t_test: int | float
    last: int

    def position(self, step: int) -> float:
        """Where a step lies: 0 start, 1 train learned, 2 test learned, 3 end.

        >>> clock = Clock(t_train=100, t_test=300, last=30_000)
        >>> [clock.position(step) for step in (0, 50, 200, 300, 3000, 30_000)]
        [0.0, 0.5, 1.5, 2.0, 2.5, 3.0]
        """
        if step < self.t_train:
            return step / self.t_train
        if step < self.t_test:
            return 1 + (step - self.t_train) / (self.t_test - self.t_train)
        first = max(self.t_test, 1)
        if first >= self.last:
            return 2.0
        return 2 + math.log(max(step, 1) / first) / math.log(self.last / first)

    def nearest(self, steps: Sequence[int]) -> dict[float, int]:
        """The checkpoint nearest each position, where one is near enough."""
        places = np.array([self.position(step) for step in steps])
        found = {}
        for position in POSITIONS:
            closest = int(np.abs(places - position).argmin())
            if abs(places[closest] - position) <= NEAR:
                found[position] = steps[closest]
        return found


def common_steps(several: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Steps that all runs saved; of more than 17 an even choice, dense where they saved densely.

    >>> common_steps([(0, 10, 20), (0, 20, 30)])
    (0, 20)
    """
    common = sorted(set.intersection(*(set(steps) for steps in several)))
    return tuple(evenly(common, MOST_STEPS))
