"""Fisher-Rao geometry of predictions: how far apart two models answer, whatever their weights.

A model predicts a distribution p(.|x) for every input. The roots psi_x = sqrt(p(.|x)) lie on a unit
sphere for every input, where the Fisher metric is four times the usual one; over inputs it is the
mean, as in the Fisher information of the weights (`fisher_metric`, "exact", "softmax"). Distances
depend on outputs alone: models that compute the same are at distance 0, however their neurons are
numbered or scaled. From the distances of the checkpoints of several runs comes a picture of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import finite, number, tensor, whole
from grokinterp.base.errors import InputError
from grokinterp.geometry.inputs import Sampled, check_finite, draw_inputs
from grokinterp.reading._load import Subject, named_runs, progress_bar, rising_steps
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

if TYPE_CHECKING:
    import plotly.graph_objects as go

ANGLES_AT_ONCE = 1 << 22  # held in memory, 34 MB


def root_probabilities(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """sqrt(softmax(logits)) in float64: a point on the unit sphere for every input.

    Small probabilities keep their digits. InputError for logits that are not finite.

    >>> root_probabilities(torch.tensor([[0.0, 0.0]])).tolist()
    [[0.70710..., 0.70710...]]
    """
    finite("the logits", tensor("logits", logits, ndim=2))
    return (logits.double().log_softmax(dim=1) / 2).exp()


def fisher_rao_distance(
    p_logits: Float[Tensor, "n classes"], q_logits: Float[Tensor, "m same_classes"]
) -> float:
    """Geodesic distance of two models' predictions on the same inputs, from 0 to pi.

    d(P, Q) = sqrt(mean_x (2 arccos sum_c sqrt(p_c q_c))^2), from logits [n, classes]: the length of
    the shortest path between them on the product of spheres, in nats^(1/2). Between theta and
    theta + v it tends to the exact softmax Fisher norm of v over these inputs, as v -> 0.
    The angle is taken from the chord, so that near points are told apart as well: about 1e-16 in
    absolute terms, where arccos has 1e-8. pi is reached only where no answer is possible for both.

    It is about these inputs alone, says nothing about which answer is right, and is no distance of
    the weights: the shortest path between two predictions need not be one that a model can take.
    Rao 1945; Amari 2016, section 2.

    >>> fisher_rao_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[1000.0, 0.0]]))
    1.5707963...
    """
    _check_pair("logits", p_logits=p_logits, q_logits=q_logits)
    roots = torch.stack([root_probabilities(p_logits), root_probabilities(q_logits)])
    return float(pairwise_distances(roots)[0, 1])


def pairwise_distances(roots: Float[Tensor, "models n classes"]) -> Float[Tensor, "models models"]:
    """`fisher_rao_distance` of all pairs of models, from their `root_probabilities`, float64.

    Symmetric with an exact 0 on the diagonal. Differences are taken number by number: a matrix
    product would be faster and lose half of the digits of near pairs.

    >>> import grokinterp as gi, torch
    >>> one_input = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]], [[0.0, 2.0]]])
    >>> roots = torch.stack([gi.geometry.root_probabilities(logits) for logits in one_input])
    >>> gi.geometry.pairwise_distances(roots).round(decimals=3).tolist()
    [[0.0, 0.866, 1.732], [0.866, 0.0, 0.866], [1.732, 0.866, 0.0]]
    """
    n_models, n_inputs, _ = tensor("roots", roots, ndim=3).shape
    if not n_inputs:
        raise InputError("there is no input to average over; give at least one.")
    total = torch.zeros(n_models, n_models, dtype=torch.float64)
    for block in roots.double().split(max(1, ANGLES_AT_ONCE // n_models**2), dim=1):
        points = block.transpose(0, 1).contiguous()
        chords = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        total += (2 * angle_of_chord(chords)).square().sum(dim=0)
    distances = (total / n_inputs).sqrt()
    return (distances + distances.T) / 2  # vectorised arcsines may differ in their last digit


def geodesic_point(
    root_p: Float[Tensor, "n classes"], root_q: Float[Tensor, "n classes"], t: float
) -> Float[Tensor, "n classes"]:
    """The roots at fraction t of the shortest path from P to Q, 0 <= t <= 1.

    For every input (sin((1 - t) w) psi + sin(t w) phi) / sin w, with w the angle of psi and phi.
    Distances to P and Q are t and 1 - t of theirs; the square is a distribution.

    >>> half = geodesic_point(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.5)
    >>> half.square().float().tolist()
    [[0.5, 0.5]]
    """
    t = number("t", t, least=0, most=1, such_as="0.5")
    _check_pair("roots", root_p=root_p, root_q=root_q)
    root_p, root_q = root_p.double(), root_q.double()
    angle = angle_of_chord((root_p - root_q).norm(dim=1, keepdim=True))

    def share(part: float) -> Tensor:
        # sin(part w) / sin w; sinc(x) = sin(pi x) / (pi x) is 1 at 0, so w = 0 needs no exception.
        return part * (part * angle / torch.pi).sinc() / (angle / torch.pi).sinc()

    return share(1 - t) * root_p + share(t) * root_q


def _check_pair(what: str, **given: object) -> None:
    """Refuse what two models do not say of the same inputs."""
    p, q = (tuple(tensor(name, value, ndim=2).shape) for name, value in given.items())
    if p != q:
        raise InputError(
            f"{what} of shapes {p} and {q} do not compare; give those of two models on the same "
            "inputs."
        )


def angle_of_chord(chord: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The angle between two unit vectors at this distance, 2 arcsin(chord / 2)."""
    return 2 * (chord / 2).clamp(max=1).asin()


def roots_along(
    run: Run, steps: Sequence[int], *, row_numbers: Int[Tensor, " n"], progress: bool = False
) -> Float[Tensor, "k n classes"]:
    """`root_probabilities` of a run's checkpoints on these rows of its task, over answer classes.

    The forward is in float64 whatever the precision of the weights: late in training checkpoints
    differ by less than the rounding of float32 logits.
    """
    found = torch.empty(len(steps), len(row_numbers), run.task.n_classes, dtype=torch.float64)
    for place, step in enumerate(progress_bar(steps, "predict", progress)):
        snapshot = run.snapshot(step)
        check_finite(snapshot.weights, step)
        exact = {name: weight.double() for name, weight in snapshot.weights.items()}
        found[place] = root_probabilities(snapshot.logits_with(exact, rows=row_numbers))
    return found


@dataclass(frozen=True, kw_only=True)
class TrajectoryEmbedding(Sampled):
    """Coordinates [points, dimensions] of the checkpoints of several runs, and what they keep.

    Squared distances are sum_i sign(lambda_i) (x_i - y_i)^2: an axis whose eigenvalue is negative
    counts backwards, as no flat picture of a curved space is exact. `explained` is each axis' share
    of sum |lambda|; `stress` is sqrt(sum (d - d')^2 / sum d^2) over pairs, with d the geodesic
    distances and d' those of the picture (0 where their square is negative), and 0 for an exact
    picture. `eigenvalues` are all of them, largest size first.

    >>> import grokinterp as gi
    >>> found = gi.geometry.trajectory_embedding(gi.load("mod31-small"), n_samples=64)
    >>> [round(share, 2) for share in found.explained], round(found.stress, 2)
    ([0.7, 0.14, 0.06], 0.11)
    >>> found.table()[["run", "step", "x1"]].round(1).iloc[[0, 12, 25]]
                run   step   x1
    0   mod31-small      0  2.2
    12  mod31-small   1750 -0.5
    25  mod31-small  10000 -0.5
    >>> len(found.plot(dimensions=3).data)
    1
    """

    runs: tuple[str, ...]
    steps: tuple[int, ...]
    coordinates: Float[Tensor, "points dimensions"] = field(repr=False)
    eigenvalues: Float[Tensor, " points"] = field(repr=False)
    explained: tuple[float, ...]
    stress: float

    def table(self) -> pd.DataFrame:
        """One row per checkpoint: run, step, x1, x2, ...; what is kept stands in `.attrs`."""
        axes = {f"x{i}": x.numpy() for i, x in enumerate(self.coordinates.T, start=1)}
        return self._frame(
            {"run": self.runs, "step": self.steps, **axes},
            explained=list(self.explained),
            eigenvalues=self.eigenvalues[: len(self.explained)].tolist(),
            stress=self.stress,
        )

    def plot(self, *, dimensions: Literal[2, 3] = 2) -> "go.Figure":
        """One line per run through its checkpoints, in two or three dimensions."""
        return super().plot(dimensions=dimensions)


def trajectory_embedding(
    runs: Subject | Sequence[Subject] | Mapping[str, Subject],
    *,
    steps: Sequence[int] | str = "all",
    rows: str = "all",
    n_samples: int | None = 512,
    seed: int = 0,
    dimensions: int = 3,
    most: int = 64,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> TrajectoryEmbedding:
    """All checkpoints of all runs as points, by the geodesic distances of their predictions.

    Classical multidimensional scaling: with D the `fisher_rao_distance` of all pairs and J the
    centring matrix, the eigenvectors of -J D^2 J / 2 with the largest |lambda|, times
    sqrt(|lambda|). The sign of an axis is free: its largest coordinate is made positive. Of a run
    with more than `most` checkpoints among `steps`, that many are taken, evenly by number, both
    ends among them. Names are those of the mapping, or of the runs' folders.

    Runs have to answer the same questions: the same pairs with the same answers (whether or not
    their models read "="), or the same Ising configurations; for rows "test" and "train" the same
    split as well. InputError otherwise.

    Mao et al. 2024 (PNAS, arXiv 2305.01604) and InPCA (Quinn et al. 2019, PNAS, arXiv 1810.02877)
    draw such pictures from Bhattacharyya distances -log sum_c sqrt(p_c q_c), which have no bound;
    here they are geodesic. Points that coincide in the picture need not have equal predictions: see
    `explained` and `stress`. Axes have no meaning by themselves.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.geometry.trajectory_embedding(run, steps=[0, 1000, 10000], n_samples=64)
    >>> found.table()[["run", "step", "x1"]].round(1)
               run   step   x1
    0  mod31-small      0  1.8
    1  mod31-small   1000 -0.9
    2  mod31-small  10000 -0.9
    """
    named = named_runs(runs, task=task, train_mask=train_mask)
    if len(named) == 1 and len(next(iter(named.values())).steps) < 2:
        raise InputError("one checkpoint is no trajectory; give a run with several, or more runs.")
    first = next(iter(named.values()))
    split = first.train_mask
    inputs, record = draw_inputs(first.task, split, rows, n_samples, seed)
    for name, run in named.items():
        if not run.task.asks_the_same(first.task):
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
    most = whole("most", most, least=2, such_as="64")
    chosen = {name: evenly(rising_steps(run, steps), most) for name, run in named.items()}
    n_points = sum(map(len, chosen.values()))
    dimensions = whole("dimensions", dimensions, least=1, most=n_points, such_as="1 or 2")
    roots = [
        roots_along(run, chosen[name], row_numbers=inputs, progress=progress)
        for name, run in named.items()
    ]
    distances = pairwise_distances(torch.cat(roots))
    coordinates, eigenvalues = classical_scaling(distances, dimensions=dimensions)
    kept, total = eigenvalues[:dimensions], float(eigenvalues.abs().sum())
    return TrajectoryEmbedding(
        runs=tuple(name for name, some in chosen.items() for _ in some),
        steps=tuple(step for some in chosen.values() for step in some),
        coordinates=coordinates,
        eigenvalues=eigenvalues,
        explained=tuple(float(value.abs()) / total if total else 0.0 for value in kept),
        stress=stress_of(distances, coordinates, kept.sign()),
        **record,
    )


def classical_scaling(
    distances: Float[Tensor, "n n"], *, dimensions: int
) -> tuple[Float[Tensor, "n dimensions"], Float[Tensor, " n"]]:
    """Coordinates of n points from their distances, and all eigenvalues, largest |lambda| first.

    >>> line = torch.tensor([0.0, 1.0, 3.0])
    >>> classical_scaling((line[:, None] - line).abs(), dimensions=1)[0].flatten().tolist()
    [-1.333..., -0.333..., 1.666...]
    """
    squares = distances.double().square()
    means = squares.mean(dim=1, keepdim=True)
    centred = (means + means.T - squares - squares.mean()) / 2
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


def evenly(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of these steps, spaced evenly by place, both ends among them.

    >>> evenly([0, 1, 2, 10, 100], 3)
    [0, 2, 100]
    """
    if len(steps) <= most:
        return list(steps)
    places = torch.linspace(0, len(steps) - 1, most, dtype=torch.float64).round().long()
    return [steps[place] for place in places.tolist()]
