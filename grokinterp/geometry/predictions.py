"""Fisher-Rao geometry of predictions: how far apart two models answer, whatever their weights.

A model predicts a distribution p(.|x) for every input. The roots psi_x = sqrt(p(.|x)) lie on a unit
sphere for every input, where the Fisher metric is four times the usual one; over inputs it is the
mean, as in the Fisher information of the weights (`fisher_metric`, "exact", "softmax"). Distances
depend on outputs alone: models that compute the same are at distance 0, however their neurons are
numbered or scaled.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import number, tensor
from grokinterp.base.errors import InputError, nearest, shown, whole_number
from grokinterp.models.architecture import Weights, all_finite
from grokinterp.models.kinds import QuickForward
from grokinterp.reading._load import steps_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

# MERGED encodings.geometry.inputs: What measures of outputs share: the inputs they average over, and the logits on them.


ROWS = ("test", "train", "all")

Logits = Callable[[Weights, Tensor], Tensor]


def row_numbers(
    task: Task, train_mask: Bool[Tensor, " n_inputs"] | None, rows: str
) -> Int[Tensor, " n_rows"]:
    """Numbers of the rows of a task's table that "test", "train" or "all" name, in order."""
    if rows not in ROWS:
        raise InputError(f"rows={shown(rows)} is not known; {nearest(str(rows), ROWS)}")
    if rows == "all":
        return torch.arange(task.n_inputs)
    if train_mask is None:
        raise InputError(f"rows={rows!r} needs the split; give train_mask= or rows='all'.")
    found = (train_mask if rows == "train" else ~train_mask).nonzero().flatten()
    if not len(found):
        raise InputError(f"rows={rows!r} are none in this split; give rows='all'.")
    return found


def sample(n: int, n_samples: int | None, seed: int) -> Int[Tensor, " n_chosen"]:
    """Which of n inputs are looked at: all of them (None, or no more than that), or a sample.

    It is drawn without replacement, the first of a permutation that `seed` fixes, so that a smaller
    sample is part of a larger one.
    """
    number = whole_number(seed)
    if number is None or not 0 <= number < 2**63:
        raise InputError(f"seed={shown(seed)} is not a whole number from 0 on; give such as 0.")
    if n_samples is None:
        return torch.arange(n)
    wanted = whole_number(n_samples)
    if wanted is None or wanted < 1:
        raise InputError(
            f"n_samples={shown(n_samples)} is not a number of inputs; give such as 256."
        )
    if wanted >= n:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(number))[:wanted]


def logits_on_batches(snapshot: Snapshot) -> Logits:
    """The answer logits [n, n_classes] of n inputs, as a function of weights and inputs.

    It is differentiable in the weights, by autograd and by torch.func. InputError for a model whose
    weights alone do not say what it computes, and for a transformer other than of one layer without
    LayerNorm.
    """
    architecture, n_classes = snapshot.architecture, snapshot.task.n_classes
    if architecture is None:
        raise InputError("the weights alone do not say what this model computes; give a run.")
    if QuickForward(architecture, snapshot.weights)(snapshot.task.model_inputs[:1]) is None:
        raise InputError(
            "Fisher information needs a forward that is a function of the weights, which "
            "transformers of one layer without LayerNorm have; this one is another."
        )

    def logits_fn(weights: Weights, inputs: Tensor) -> Tensor:
        logits = QuickForward(architecture, weights)(inputs)
        assert logits is not None
        return logits[:, :n_classes]

    return logits_fn


def check_finite(weights: Weights, step: int | None = None) -> None:
    """Refuse weights that are not all finite numbers."""
    if not all_finite(weights):
        at = "" if step is None else f" at step {step}"
        raise InputError(f"the weights{at} are not all finite; look at an earlier step.")


def evenly(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of these steps, evenly by their number, both ends among them.

    >>> evenly([0, 1, 2, 10, 100], 3)
    [0, 2, 100]
    """
    if len(steps) <= most:
        return list(steps)
    places = torch.linspace(0, len(steps) - 1, most, dtype=torch.float64).round().long()
    return [steps[place] for place in places.tolist()]


def rising_steps(run: Run, steps: Sequence[int] | str) -> list[int]:
    """The checkpoints that `steps` asks for, which have to rise; -1 is the last."""
    found = []
    for step in steps_of(run, steps):
        number = whole_number(step)
        if number is None:
            raise InputError(f"step={step!r} is not a step; give a whole number, -1 for the last.")
        found.append(run.steps[-1] if number == -1 else number)
    if any(later <= earlier for earlier, later in pairwise(found)):
        raise InputError(f"steps={steps!r} do not rise; give checkpoints in order, each once.")
    return found


BLOCK_NUMBERS = 1 << 22  # angles held at once, 34 MB


def root_probabilities(
    logits: Float[Tensor, "n classes"],
) -> Float[Tensor, "n classes"]:
    """sqrt(softmax(logits)) in float64: a point on the unit sphere for every input.

    Small probabilities keep their digits. InputError for logits that are not finite.

    >>> root_probabilities(torch.tensor([[0.0, 0.0]])).tolist()
    [[0.70710..., 0.70710...]]
    """
    tensor("logits", logits, ndim=2)
    if not bool(logits.isfinite().all()):
        raise InputError("the logits are not all finite; look at an earlier step.")
    return (logits.double().log_softmax(dim=1) / 2).exp()


def fisher_rao_distance(
    p_logits: Float[Tensor, "n classes"], q_logits: Float[Tensor, "m same_classes"]
) -> float:
    r"""Geodesic distance of two models' predictions on the same inputs, from 0 to pi.

    d(P, Q) = sqrt(mean_x (2 arccos sum_c sqrt(p_c q_c))^2), from logits [n, classes]: the length of
    the shortest path between them on the product of spheres, in nats^(1/2). Between theta and
    theta + v it tends to the exact softmax Fisher norm of v over these inputs, as v -> 0.
    The angle is taken from the chord, so that near points are told apart as well: about 1e-16 in
    absolute terms, where arccos has 1e-8. pi is reached only where no answer is possible for both.

    It is of these inputs alone, says nothing about which answer is right, and is no distance of the
    weights: the shortest path between two predictions need not be one that a model can take. Rao
    1945; Amari 2016, section 2.

    >>> fisher_rao_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[1000.0, 0.0]]))
    1.5707963...
    """
    tensor("p_logits", p_logits, ndim=2)
    if tensor("q_logits", q_logits, ndim=2).shape != p_logits.shape:
        raise InputError(
            f"logits of shapes {tuple(p_logits.shape)} and {tuple(q_logits.shape)} do not compare; "
            "give those of two models on the same inputs."
        )
    roots = torch.stack([root_probabilities(p_logits), root_probabilities(q_logits)])
    return float(pairwise_distances(roots)[0, 1])


def pairwise_distances(
    roots: Float[Tensor, "models n classes"],
) -> Float[Tensor, "models models"]:
    """`fisher_rao_distance` of all pairs of models, from their `root_probabilities`, float64.

    Symmetric with an exact 0 on the diagonal. Differences are taken number by number: a matrix
    product would be faster and lose half of the digits of near pairs.
    """
    n_models, n_inputs, _ = tensor("roots", roots, ndim=3).shape
    if not n_inputs:
        raise InputError("there is no input to average over; give at least one.")
    total = torch.zeros(n_models, n_models, dtype=torch.float64)
    for block in roots.double().split(max(1, BLOCK_NUMBERS // n_models**2), dim=1):
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
    tensor("root_p", root_p, ndim=2)
    if tensor("root_q", root_q, ndim=2).shape != root_p.shape:
        raise InputError(
            f"roots of shapes {tuple(root_p.shape)} and {tuple(root_q.shape)} are not of the same "
            "inputs; give those of two models on the same inputs."
        )
    root_p, root_q = root_p.double(), root_q.double()
    angle = angle_of_chord((root_p - root_q).norm(dim=1, keepdim=True))

    def share(part: float) -> Tensor:
        # sin(part w) / sin w; sinc(x) = sin(pi x) / (pi x) is 1 at 0, so w = 0 needs no exception.
        return part * (part * angle / torch.pi).sinc() / (angle / torch.pi).sinc()

    return share(1 - t) * root_p + share(t) * root_q


def angle_of_chord(chord: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The angle between two unit vectors at this distance, 2 arcsin(chord / 2)."""
    return 2 * (chord / 2).clamp(max=1).asin()


def roots_along(
    run: Run,
    steps: Sequence[int],
    *,
    row_numbers: Int[Tensor, " n"],
    progress: bool = False,
) -> Float[Tensor, "k n classes"]:
    """`root_probabilities` of a run's checkpoints on these rows of its task, over answer classes.

    The forward is in float64 whatever the precision of the weights: late in training checkpoints
    differ by less than the rounding of float32 logits.
    """
    found = torch.empty(len(steps), len(row_numbers), run.task.n_classes, dtype=torch.float64)
    for place, step in enumerate(
        tqdm(steps, desc="predict", unit="checkpoint", disable=None if progress else True)
    ):
        snapshot = run.snapshot(step)
        check_finite(snapshot.weights, step)
        exact = {name: weight.double() for name, weight in snapshot.weights.items()}
        found[place] = root_probabilities(snapshot.logits_with(exact, rows=row_numbers))
    return found
