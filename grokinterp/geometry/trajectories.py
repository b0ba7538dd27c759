"""Runs as curves in one picture: their predictions, embedded by geodesic distances."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.errors import InputError, whole_number
from grokinterp.base.result import Result
from grokinterp.geometry.predictions import (
    evenly,
    pairwise_distances,
    rising_steps,
    roots_along,
    row_numbers,
    sample,
)
from grokinterp.reading._load import RunOrPath, runs_of
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True, kw_only=True)
class TrajectoryEmbedding(Result):
    """Coordinates [points, dimensions] of the checkpoints of several runs, and what they keep.

    Squared distances are sum_i sign(lambda_i) (x_i - y_i)^2: an axis whose eigenvalue is negative
    counts backwards, as no flat picture of a curved space is exact. `explained` is each axis' share
    of sum |lambda|; `stress` is sqrt(sum (d - d')^2 / sum d^2) over pairs, d the geodesic distances
    and d' those of the picture (0 where their square is negative), 0 where it is exact.
    `eigenvalues` are all, by falling size.
    """

    runs: tuple[str, ...]
    steps: tuple[int, ...]
    coordinates: Float[Tensor, "points dimensions"] = field(repr=False)
    eigenvalues: Float[Tensor, " points"] = field(repr=False)
    explained: tuple[float, ...]
    stress: float
    rows: str
    n_samples: int
    n_rows: int
    seed: int

    def table(self) -> pd.DataFrame:
        """A row a checkpoint: run, step, x1, x2, ...; what is kept stands in `.attrs`."""
        frame = pd.DataFrame({"run": self.runs, "step": self.steps})
        for axis, values in enumerate(self.coordinates.T, start=1):
            frame[f"x{axis}"] = values.numpy()
        frame.attrs |= {
            "explained": list(self.explained),
            "eigenvalues": self.eigenvalues[: len(self.explained)].tolist(),
            "stress": self.stress,
            "rows": self.rows,
            "n_samples": self.n_samples,
            "n_rows": self.n_rows,
            "seed": self.seed,
        }
        return frame

    def plot(self, *, dimensions: Literal[2, 3] = 2) -> "go.Figure":
        """A line a run through its checkpoints, in two or three dimensions."""
        return self._drawn(dimensions=dimensions)


def trajectory_embedding(
    runs: Sequence[RunOrPath] | Mapping[str, RunOrPath],
    *,
    steps: Sequence[int] | str = "all",
    rows: str = "all",
    n_samples: int | None = 512,
    seed: int = 0,
    dimensions: int = 3,
    most: int = 64,
    progress: bool = False,
) -> TrajectoryEmbedding:
    """All checkpoints of all runs as points, by the geodesic distances of their predictions.

    Classical multidimensional scaling: with D the `fisher_rao_distance` of all pairs and J the
    centring matrix, the eigenvectors of -J D^2 J / 2 with the largest |lambda|, times
    sqrt(|lambda|). The sign of an axis is free: its largest coordinate is positive. Of a run with
    more than `most` checkpoints among `steps`, so many are taken, evenly by number, both ends among
    them. Names are those of the mapping, or of the runs' folders.

    Runs have to answer the same questions: the same pairs with the same answers (models that read
    "=" and that do not compare), or the same Ising configurations; for rows "test" and "train" the
    same split as well. InputError otherwise.

    Mao et al. 2024 (PNAS, arXiv 2305.01604) and InPCA (Quinn et al. 2019, PNAS, arXiv 1810.02877)
    draw the like from Bhattacharyya distances -log sum_c sqrt(p_c q_c), which have no bound; here
    they are geodesic. Points that fall together in the picture need not have equal predictions:
    look at `explained` and `stress`. Axes have no meaning by themselves.
    """
    named = _named(runs)
    first = next(iter(named.values()))
    numbers, split = row_numbers(first.task, first.train_mask, rows), first.train_mask
    for name, run in named.items():
        if not _same_questions(run.task, first.task):
            raise InputError(
                f"{name!r} learned {run.task.title} on other inputs or answers than the first run; "
                "give runs of one task (of Ising, with one seed)."
            )
        mask = run.train_mask
        if rows != "all" and (mask is None or split is None or not torch.equal(mask, split)):
            raise InputError(
                f"{name!r} has another split than the first run, or none; give rows='all', or "
                "runs of one split."
            )
    kept = whole_number(most)
    if kept is None or kept < 2:
        raise InputError(f"most={most!r} is not a number of checkpoints; give such as 64.")
    inputs = numbers[sample(len(numbers), n_samples, seed)]
    chosen = {name: evenly(rising_steps(run, steps), kept) for name, run in named.items()}
    n_points = sum(len(some) for some in chosen.values())
    wanted = whole_number(dimensions)
    if wanted is None or not 1 <= wanted <= n_points:
        raise InputError(
            f"dimensions={dimensions!r} is not a number from 1 to {n_points}, the checkpoints."
        )
    roots = [
        roots_along(run, chosen[name], row_numbers=inputs, progress=progress)
        for name, run in named.items()
    ]
    distances = pairwise_distances(torch.cat(roots))
    coordinates, eigenvalues = classical_scaling(distances, dimensions=wanted)
    total = float(eigenvalues.abs().sum())
    return TrajectoryEmbedding(
        runs=tuple(name for name, some in chosen.items() for _ in some),
        steps=tuple(step for some in chosen.values() for step in some),
        coordinates=coordinates,
        eigenvalues=eigenvalues,
        explained=tuple(float(v.abs()) / total if total else 0.0 for v in eigenvalues[:wanted]),
        stress=stress_of(distances, coordinates, eigenvalues[:wanted].sign()),
        rows=rows,
        n_samples=len(inputs),
        n_rows=len(numbers),
        seed=seed,
    )


def classical_scaling(
    distances: Float[Tensor, "n n"], *, dimensions: int
) -> tuple[Float[Tensor, "n dimensions"], Float[Tensor, " n"]]:
    """Coordinates of n points by their distances, and all eigenvalues by falling |lambda|.

    >>> line = torch.tensor([0.0, 1.0, 3.0])
    >>> classical_scaling((line[:, None] - line).abs(), dimensions=1)[0].flatten().tolist()
    [-1.333..., -0.333..., 1.666...]
    """
    squares = distances.double().square()
    rows = squares.mean(dim=1, keepdim=True)
    centred = (rows + rows.T - squares - squares.mean()) / 2
    values, vectors = torch.linalg.eigh(centred)
    order = values.abs().argsort(descending=True, stable=True)
    values, vectors = values[order], vectors[:, order[:dimensions]]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    return vectors * largest.sign() * values[:dimensions].abs().sqrt(), values


def stress_of(
    distances: Float[Tensor, "n n"],
    coordinates: Float[Tensor, "n dimensions"],
    signs: Float[Tensor, " dimensions"],
) -> float:
    """sqrt(sum (d - d')^2 / sum d^2) over pairs, with d'^2 = sum_i signs_i (x_i - y_i)^2."""
    drawn = torch.zeros_like(distances)
    for sign, axis in zip(signs, coordinates.T, strict=True):
        drawn += sign * (axis[:, None] - axis).square()
    missed = (distances - drawn.clamp(min=0).sqrt()).norm()
    return float(missed / distances.norm()) if bool(distances.any()) else 0.0


def _named(runs: Sequence[RunOrPath] | Mapping[str, RunOrPath]) -> dict[str, Run]:
    if isinstance(runs, Mapping):
        return dict(zip(runs, runs_of(list(runs.values())), strict=True))
    several = runs_of(runs)
    named = {run.path.name: run for run in several}
    if len(named) < len(several):
        raise InputError("two of the runs' folders have one name; give a dict of names and runs.")
    return named


def _same_questions(one: Task, other: Task) -> bool:
    if isinstance(one, ModularTask) and isinstance(other, ModularTask):
        return one.p == other.p and torch.equal(one.labels, other.labels)
    return one == other
