"""The path of a run's predictions through training: its length, and how straight it is.

A run is known at its checkpoints alone. The sum of the distances between neighbours is then a lower
bound of the path's length (triangle inequality), straightness an upper bound, and how both change
with the spacing of checkpoints is part of the answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import instance, listed, tensor, whole
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.geometry.inputs import Sampled, draw_inputs
from grokinterp.geometry.predictions import pairwise_distances, roots_along
from grokinterp.progress.phases import Phases
from grokinterp.reading._load import Subject, rising_steps, run_of
from grokinterp.runs.run import nearest_step
from grokinterp.tasks.task import Task

LEAST_ORDER = 0.5  # below it the limit lies further off than the last two halvings came
FEWEST_CHECKPOINTS = 9  # for a limit: of every fourth, 3 are left


@dataclass(frozen=True)
class Limit:
    """The length that ever denser checkpoints would tend to, or the reason why there is none.

    `straightness` is the geodesic distance of the ends over that length. `order` is q of
    L(h) = length - C h^q, None where the lengths do not define it: a smooth path has q = 2,
    independent noise at every checkpoint q = -1, a random walk q = -1/2. `reason` is empty where
    there is nothing to explain.

    >>> import grokinterp as gi
    >>> path = gi.geometry.information_path(gi.load("mod31-small"), n_samples=64)
    >>> path.limit.length, path.limit.reason
    (None, 'halving the spacing added 1.7, then 1.44: the limit is far off')
    """

    length: float | None
    straightness: float | None
    order: float | None
    reason: str


def limit_of(one: float, two: float, four: float, *, geodesic: float) -> Limit:
    """Richardson's extrapolation of a length to spacing 0, from spacings 1, 2 and 4.

    With L(h) = L0 - C h^q: q = log2((L2 - L4) / (L1 - L2)) and L0 = L1 + (L1 - L2) / (2^q - 1).
    There is no limit where every halving adds as much as the one before, or more (q <= 0: rough at
    this spacing, as the path of a noisy optimiser is), and none is given for q < 1/2, where it
    would lie further off than both halvings came together.

    >>> limit_of(10 - 0.01, 10 - 0.04, 10 - 0.16, geodesic=5.0)
    Limit(length=10.0..., straightness=0.5..., order=2.0..., reason='')
    >>> limit_of(4.0, 2.0, 1.0, geodesic=0.5).reason
    'halving the spacing added 1, then 2: no sign of a limit'
    """
    last, before = one - two, two - four
    if last <= 1e-12 * one:  # nothing but rounding
        length, order, reason = one, None, "the last halving of the spacing added nothing"
    else:
        order = math.log2(before / last) if before > 0 else None
        if order is None or order < LEAST_ORDER:
            far = "the limit is far off" if order and order > 0 else "no sign of a limit"
            added = f"halving the spacing added {before:.3g}, then {last:.3g}"
            return Limit(None, None, order, f"{added}: {far}")
        length, reason = one + last / (2**order - 1), ""
    return Limit(length, geodesic / length if length > 0 else None, order, reason)


@dataclass(frozen=True, kw_only=True)
class InformationPath(Sampled):
    """Geodesic distances between the predictions of all checkpoints of a run, [k, k] at k steps.

    In nats^(1/2), 0 to pi (`fisher_rao_distance`). Everything else follows from them.

    >>> import grokinterp as gi
    >>> path = gi.geometry.information_path(gi.load("mod31-small"), n_samples=64)
    >>> round(path.length, 2), round(path.geodesic, 2), round(path.straightness, 2)
    (9.6, 2.8, 0.29)
    >>> path.refinement()[["stride", "n_checkpoints", "length", "straightness"]].round(2).head(3)
       stride  n_checkpoints  length  straightness
    0       1             26    9.60          0.29
    1       2             14    8.16          0.34
    2       4              8    6.46          0.43
    >>> late = path.between(1500, 10000)
    >>> round(late.length, 1), round(late.straightness, 2), len(late.thinned(5).steps)
    (2.1, 0.53, 4)
    """

    steps: tuple[int, ...]
    distances: Float[Tensor, "k k"] = field(repr=False)

    @property
    def length(self) -> float:
        """Sum of distances between neighbouring checkpoints: a lower bound of the true length."""
        return float(self.distances.diagonal(1).sum())

    @property
    def geodesic(self) -> float:
        """Distance of the last checkpoint from the first: the shortest way there is."""
        return float(self.distances[0, -1])

    @property
    def straightness(self) -> float:
        """Shortest way over length, 0 to 1, an upper bound of the true one; NaN without motion."""
        return self.geodesic / self.length if self.length > 0 else math.nan

    @property
    def growth(self) -> float:
        """What the last halving of the spacing added: length / length of every second - 1.

        NaN with fewer than 3 checkpoints, and where every second one shows no motion.
        """
        halved = self.thinned(2).length
        return self.length / halved - 1 if len(self.steps) > 2 and halved > 0 else math.nan

    @property
    def limit(self) -> Limit:
        """The length at spacing 0, from every, every second and every fourth checkpoint.

        Richardson's extrapolation (`Limit`), None with fewer than 9 checkpoints. "Spacing" counts
        checkpoints: where they are spaced unevenly in steps, all stretches are thinned alike, which
        leaves the order of a smooth path near 2 (the last stretch may be the shorter one). It does
        not show what happens between checkpoints faster than their spacing.
        """
        n = len(self.steps)
        if n < FEWEST_CHECKPOINTS:
            reason = f"{n} checkpoints; a limit takes {FEWEST_CHECKPOINTS}"
            return Limit(None, None, None, reason)
        one, two, four = (self.thinned(stride).length for stride in (1, 2, 4))
        return limit_of(one, two, four, geodesic=self.geodesic)

    def between(self, start: int, end: int) -> "InformationPath":
        """The part from one checkpoint to another, both steps of this path."""
        first, last = self._place(start), self._place(end)
        if last < first:
            raise InputError(f"the part from step {start} to {end} runs backwards; swap them.")
        return self._of(range(first, last + 1))

    def thinned(self, stride: int) -> "InformationPath":
        """Every stride-th checkpoint from the first on, and the last."""
        stride, last = whole("stride", stride, least=1, such_as="2"), len(self.steps) - 1
        return self._of([*range(0, last, stride), last])

    def refinement(self) -> pd.DataFrame:
        """Length and straightness with every 1st, 2nd, 4th, ... checkpoint, down to both ends."""
        strides = [1]
        while strides[-1] < len(self.steps) - 1:
            strides.append(2 * strides[-1])
        parts = [self.thinned(stride) for stride in strides]
        return self._frame(
            {
                "stride": strides,
                "n_checkpoints": [len(part.steps) for part in parts],
                "length": [part.length for part in parts],
                "straightness": [part.straightness for part in parts],
            }
        )

    def table(self, stages: Mapping[str, tuple[int, int]] | None = None) -> pd.DataFrame:
        """One row for the whole path and one per stage, (start, end) in steps of this path.

        Numbers that are not defined are NaN; `reason` says why there is no limit.
        """
        ends = {"whole": (self.steps[0], self.steps[-1])}
        if stages is not None:
            ends |= instance(stages, Mapping, "dict of stages", give="what stages_of returns")
        rows = []
        for name, stage in ends.items():
            if not isinstance(stage, tuple | list) or len(stage) != 2:
                raise InputError(
                    f"stage {shown(name)} is {shown(stage)}; give (start, end), both steps of the "
                    "path."
                )
            path = self.between(*stage)
            limit = {key: math.nan if x is None else x for key, x in vars(path.limit).items()}
            rows.append(
                {
                    "part": name,
                    "start": path.steps[0],
                    "end": path.steps[-1],
                    "n_checkpoints": len(path.steps),
                    "length": path.length,
                    "geodesic": path.geodesic,
                    "straightness": path.straightness,
                    "limit_length": limit["length"],
                    "limit_straightness": limit["straightness"],
                    "order": limit["order"],
                    "growth": path.growth,
                    "reason": limit["reason"],
                }
            )
        return self._frame(rows)

    def _place(self, step: int) -> int:
        if whole_number(step) is None:
            raise InputError(f"step={shown(step)} is not a step; give one of path.steps.")
        if step not in self.steps:
            raise InputError(
                f"step {shown(step)} is no checkpoint of this path; the nearest is "
                f"{nearest_step(self.steps, step)} (path.steps lists all {len(self.steps)})."
            )
        return self.steps.index(step)

    def _of(self, places: Sequence[int]) -> "InformationPath":
        index = torch.tensor(places)
        return replace(
            self,
            steps=tuple(self.steps[place] for place in places),
            distances=self.distances[index[:, None], index],
        )


def information_path(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    rows: str = "test",
    n_samples: int | None = 512,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> InformationPath:
    """The path of a run's predictions through its checkpoints, in the Fisher-Rao metric.

    A run's predictions at a step are a point on a product of spheres, one for every input; the
    distance of two such points is their geodesic distance d (`fisher_rao_distance`), from the
    logits of the answer classes. `steps` are checkpoints in order, or "all"; the inputs are those
    of `fisher_diagonal` with the same `rows`, `n_samples` and `seed`. All in float64.

    Length and straightness are those of the checkpoints that were saved: `refinement` and `limit`
    say how far to trust them. They are about the function alone. They do not say that the weights
    moved straight, and the shortest path need not be one that the model can take. Manning-Coe et
    al. 2025 (arXiv 2502.01739, section 6.3) call a path straight by the cosines of steps of the
    weights (`step_geometry`) and define no length. InputError for weights that are not finite.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> path = gi.geometry.information_path(run, n_samples=64)
    >>> table = path.table(gi.geometry.stages_of(gi.detect_phases(run), run.steps))
    >>> table[["part", "start", "end", "length", "straightness"]].round(2)
                    part  start    end  length  straightness
    0              whole      0  10000    9.60          0.29
    1       memorization      0   1500    7.50          0.37
    2  circuit_formation   1500   2250    0.64          0.92
    3            cleanup   2250   7000    1.45          0.66
    4           learning      0    200    3.39          0.58
    5              delay    200   4500    6.11          0.41
    6              after   4500  10000    0.10          0.86
    """
    run = run_of(x, task=task, train_mask=train_mask)
    chosen = rising_steps(run, steps)
    inputs, record = draw_inputs(run.task, run.train_mask, rows, n_samples, seed)
    roots = roots_along(run, chosen, row_numbers=inputs, progress=progress)
    return path_of(pairwise_distances(roots), chosen, **record)


def path_of(
    distances: Float[Tensor, "k k"], steps: Sequence[int], **record: Any
) -> InformationPath:
    """The path with these distances [k, k] between its points, at steps that rise.

    `record` may say of which inputs: `rows`, `n_samples`, `n_rows` and `seed`.

    >>> line = torch.tensor([0.0, 1.0, 3.0])
    >>> path_of((line[:, None] - line).abs(), [0, 10, 20]).straightness
    1.0
    """
    distances = tensor("distances", distances, ndim=2).double()
    steps = _whole_steps(steps)
    if tuple(distances.shape) != (len(steps),) * 2 or not steps:
        raise InputError(
            f"distances of shape {tuple(distances.shape)} are not those of {len(steps)} steps; "
            "give one number for every pair of steps."
        )
    if (
        not bool((distances.isfinite() & (distances >= 0)).all())
        or not torch.allclose(distances, distances.T, rtol=1e-9)
        or bool(distances.diagonal().any())
    ):
        raise InputError(
            "these are no distances; give finite numbers from 0 on, symmetric, 0 on the diagonal."
        )
    if any(later <= earlier for earlier, later in pairwise(steps)):
        raise InputError("the steps of a path rise; give each point once, in order.")
    return InformationPath(steps=tuple(steps), distances=distances, **record)


def stages_of(phases: Phases, steps: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Named stretches of a run, from one of its `steps` (its checkpoints) to another.

    Phases with both ends dated, under their names; and, for a run with t_train < t_test, "learning"
    (first step to t_train), "delay" (t_train to t_test) and "after" (t_test to the last step). Each
    end is moved to the nearest step, the earlier of two that are as near; a stretch whose ends then
    coincide is left out.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> stages = gi.geometry.stages_of(gi.detect_phases(run), run.steps)
    >>> stages["delay"], stages["cleanup"]
    ((200, 4500), (2250, 7000))
    """
    instance(phases, Phases, "result of phase detection", give="what gi.detect_phases returns")
    steps = _whole_steps(steps)
    if not steps:
        raise InputError("there are no steps; give those of the run's checkpoints, run.steps.")
    ends = {phase.name: (phase.start, phase.end) for phase in phases.phases or ()}
    t_train, t_test = phases.t_train, phases.t_test
    if t_train is not None and t_test is not None and t_train < t_test:
        ends |= {
            "learning": (steps[0], t_train),
            "delay": (t_train, t_test),
            "after": (t_test, steps[-1]),
        }
    moved = {
        name: (nearest_step(steps, start), nearest_step(steps, end))
        for name, (start, end) in ends.items()
        if start is not None and end is not None
    }
    return {name: (first, last) for name, (first, last) in moved.items() if first < last}


def _whole_steps(given: object) -> list[int]:
    steps = listed("steps", given, such_as="run.steps")
    if bad := [step for step in steps if whole_number(step) is None]:
        raise InputError(f"steps have {shown(bad[0])}, no step; give such as run.steps.")
    return [int(step) for step in steps]
