"""Where do runs go in the plane that holds most of their weights' motion?

Checkpoints are points in the space of all weights. Their principal components, and where each
checkpoint lies along them, follow from inner products alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.geometry.inputs import exact_weights
from grokinterp.geometry.weight_path import centred, gram_in_blocks, shares_of_variance
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import Phase, phases_of_metrics
from grokinterp.reading._load import Subject, named_runs, rising_steps
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

ROUNDING = 1e-12  # of the largest variance: a component with less has no direction


@dataclass(frozen=True, kw_only=True)
class WeightPlane(Result):
    """The checkpoints of one run or several in the plane of their first two principal components.

    `coordinates` are in units of weight, around the mean of all checkpoints, in the order of `runs`
    and `steps`; `phases` says in which phase of training each checkpoint is, None where nobody
    knows. `shares` of variance are of all components, `walk_shares` those of random walks that
    start where the runs start and whose steps are as long as theirs, in very many dimensions.

    >>> import grokinterp as gi
    >>> found = gi.geometry.weight_plane(gi.load("mod31-small"))
    >>> found.table().round(2).iloc[[0, 10, 20]]
                run  step         phase     x1     x2
    0   mod31-small     0  memorization -13.58 -10.49
    10  mod31-small  1250  memorization   0.18   7.98
    20  mod31-small  4500       cleanup   7.38  -3.46
    """

    runs: tuple[str, ...]
    steps: tuple[int, ...]
    phases: tuple[str | None, ...]
    coordinates: Float[Tensor, "k 2"] = field(repr=False)
    shares: tuple[float, ...] = field(repr=False)
    participation: float
    walk_shares: tuple[float, ...] = field(repr=False)
    walk_participation: float
    n_weights: int

    @property
    def share(self) -> float:
        """The share of all variance that lies in the plane."""
        return sum(self.shares[:2]) if self.shares else math.nan

    def table(self) -> pd.DataFrame:
        """One row per checkpoint: its run, step and phase, and where it is in the plane."""
        x1, x2 = self.coordinates.T.tolist()
        columns = {"run": self.runs, "step": self.steps, "phase": self.phases, "x1": x1, "x2": x2}
        return pd.DataFrame(columns)

    def components(self, most: int = 5) -> pd.DataFrame:
        """The first principal components: their shares of variance, and those of random walks.

        >>> import grokinterp as gi
        >>> gi.geometry.weight_plane(gi.load("mod31-small")).components(2).round(2)
           component  share  share_of_random_walk
        0          1   0.58                  0.66
        1          2   0.34                  0.14
        """
        n = min(most, len(self.shares))
        return pd.DataFrame(
            {
                "component": range(1, n + 1),
                "share": self.shares[:n],
                "share_of_random_walk": self.walk_shares[:n],
            }
        )

    def _lines(self) -> list[str]:
        if not self.shares:
            return []
        walks = sum(self.walk_shares[:2])
        return [f"{self.share:.1%} of the variance is in the plane (random walks {walks:.1%})"]


def weight_plane(
    runs: Subject | Sequence[Subject] | Mapping[str, Subject],
    step: int | Sequence[int] | str = "all",
    *,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> WeightPlane:
    r"""Where do runs go in the plane of the two directions in which their weights vary most?

    With theta_i the weights of checkpoint i of any of the runs, all as one vector in float64, and
    theta their mean, x_i = sqrt(v_j) u_ij along component j, where v_j and u_j are the eigenvalues
    and eigenvectors of the inner products (theta_i - theta).(theta_k - theta). Every checkpoint
    counts the same, so a part of training with many of them counts more. Of each component the last
    checkpoint of the first run is on the side of larger coordinates than its first.

    `runs` is a run, several, or a dict of names and runs; of several, all must have weights of the
    same names and shapes. `step` picks checkpoints, the same of every run. A quarter of a GB of
    weights is held at once; of more, checkpoints are read again.

    Large shares alone show nothing: the first component of a random walk has 61 % of its variance
    (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805), and its path bends in the plane like a
    parabola. So the shares of random walks with the same lengths of steps are beside. Runs of
    different seeds differ at the start already, and by permutations of neurons that change nothing
    (`mode_connectivity` aligns them): their distance here is not one of what they compute.
    Coordinates say nothing about the loss. InputError for a single checkpoint, for runs of
    different weights, and for weights that are not finite. Paths in such planes: Li et al. 2018
    (arXiv 1712.09913, section 7).

    >>> import grokinterp as gi
    >>> found = gi.geometry.weight_plane(gi.load("mod31-small"))
    >>> found.coordinates.shape, round(found.share, 2), found.n_weights
    (torch.Size([26, 2]), 0.92, 16799)
    """
    named = named_runs(runs, task=task, train_mask=train_mask)
    points = [(name, run, at) for name, run in named.items() for at in rising_steps(run, step)]
    if len(points) < 2:
        raise InputError("one checkpoint is no path; give a run with several, or several runs.")
    _, first, begin = points[0]
    origin = _flat(first, begin)  # near all others, so that little is lost to rounding
    n_weights = len(origin)
    if not n_weights:
        raise InputError("the model has no parameters; there is nothing that could move.")
    shapes = _shapes(first)
    for name, run in named.items():
        if _shapes(run) != shapes:
            raise InputError(
                f"the weights of {name} have other names or shapes than those of {points[0][0]}; "
                "give runs of one architecture."
            )

    def away(block: Int[Tensor, " n"]) -> Float[Tensor, "n n_weights"]:
        return torch.stack([_flat(*points[int(i)][1:]) for i in block]) - origin

    gram = gram_in_blocks(len(points), n_weights, away, progress=progress)
    shares, participation = shares_of_variance(gram)
    walk_shares, walk_participation = shares_of_variance(_of_walks(gram, [x[0] for x in points]))
    notes = []
    if not shares:
        notes.append("no components: the weights do not move")
    if len(named) > 1:
        notes.append("runs are taken as they are: neurons are not matched between them")
    phases = {name: _phases(run) for name, run in named.items()}
    notes += [f"phases of {name}: {why}" for name, (_, why) in phases.items() if why]
    return WeightPlane(
        runs=tuple(name for name, _, _ in points),
        steps=tuple(at for _, _, at in points),
        phases=tuple(phase_at(phases[name][0], at) for name, _, at in points),
        coordinates=_coordinates(gram, last=sum(name == points[0][0] for name, _, _ in points) - 1),
        shares=shares,
        participation=participation,
        walk_shares=walk_shares,
        walk_participation=walk_participation,
        n_weights=n_weights,
        notes=tuple(notes),
    )


def phase_at(phases: Sequence[Phase], step: float) -> str | None:
    """The name of the phase that a step is in, the later one at a border.

    >>> phase_at([Phase("memorization", 0, 100, None), Phase("cleanup", 100, None, None)], 100)
    'cleanup'
    """
    for phase in reversed(phases):
        if phase.start is not None and phase.start <= step:
            return phase.name if phase.end is None or step <= phase.end else None
    return None


def _phases(run: Run) -> tuple[Sequence[Phase], str]:
    """The phases of a run's metrics, or why it has none."""
    if not run.steps_known or len(run.steps) < 2:
        return (), "" if run.steps_known else "nobody knows the steps of the checkpoints"
    try:
        found = phases_of_metrics(run)
    except InputError as error:
        return (), str(error)
    return found.phases or (), "" if found.phases else f"none, the run is {found.label}"


def _shapes(run: Run) -> dict[str, tuple[int, ...]]:
    return {x: tuple(weight.shape) for x, weight in exact_weights(run, run.steps[0]).items()}


def _flat(run: Run, step: int) -> Float[Tensor, " n_weights"]:
    """All weights of a checkpoint, one after the other."""
    weights = list(exact_weights(run, step).values())
    return torch.cat([w.flatten() for w in weights]) if weights else torch.empty(0)


def _of_walks(gram: Float[Tensor, "k k"], names: Sequence[str]) -> Float[Tensor, "k k"]:
    """The gram of random walks with these starts and lengths of steps: every step is orthogonal."""
    start = [names.index(name) for name in names]
    found = gram[start][:, start].clone()
    squares = gram.diagonal()
    steps = squares[1:] + squares[:-1] - 2 * gram.diagonal(1)
    for name in dict.fromkeys(names):
        mine = [i for i, each in enumerate(names) if each == name]
        if len(mine) < 2:
            continue
        so_far = torch.cat([gram.new_zeros(1), steps[mine[0] : mine[-1]].clamp(min=0).cumsum(0)])
        own = torch.tensor(mine)
        found[own[:, None], own] += torch.minimum(so_far[:, None], so_far)
    return found


def _coordinates(gram: Float[Tensor, "k k"], last: int) -> Float[Tensor, "k 2"]:
    """Along the first two components, in which point `last` is not below the first one."""
    variances, vectors = torch.linalg.eigh(centred(gram))
    variances = variances.where(variances > ROUNDING * variances[-1].abs(), 0.0)
    found = (vectors * variances.clamp(min=0).sqrt()).flip(1)[:, :2]
    sign = torch.where(found[last] < found[0], -1.0, 1.0)
    return found * sign


@measure("weight_plane", scope="run", default=False, prefix="plane_")
def _weight_plane(run: Run) -> Columns:
    """How much of the variance of all weights lies in the plane, and of random walks in theirs."""
    found = weight_plane(run)
    if not found.shares:
        raise InputError(f"{found.notes[0]}.")
    return {"share": found.share, "share_of_walk": sum(found.walk_shares[:2])}
