"""What is the loss along a line or on a plane through a model's weights?

Random directions are scaled to the weights filter by filter, so that a step of 1 is as long as what
it is added to; or the line goes from one checkpoint to another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, listed, real, refused, whole, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.geometry.inputs import other_end
from grokinterp.geometry.loss_surface import LossSurface, loss_surface
from grokinterp.geometry.tangent_kernel import ROWS, rows_of
from grokinterp.models.architecture import Weights, is_bias
from grokinterp.models.cross_entropy import answer_scores
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

NORMALISE = ("filter", "tensor", "all")
ONE, BETWEEN, TWO = 41, 61, 15  # points of an axis
PER_HEAD = (".W_Q", ".W_K", ".W_V")  # [n_heads, d_model, d_head]
TABLES = (".W_E", ".W_pos")  # [tokens, d_model]


@dataclass(frozen=True, kw_only=True)
class LossSlice(Result):
    """The loss, in nats, and the accuracy at points of a line or of a plane through the weights.

    `alphas` are the coordinates, the same on both axes of a plane; `losses` and `accuracies` have
    an entry of shape [n_points] or [n_points, n_points] per name in `rows`, on a plane the first
    axis along the first direction. `directions` are the steps of 1, as tensors by their names.
    `to` and `other` are the other end of a line between checkpoints, None of a random one.
    `n_samples` says how many inputs of each of the `rows` were looked at.

    >>> import grokinterp as gi
    >>> found = gi.geometry.loss_slice(gi.load("mod31-small"), n_points=5)
    >>> found.table()[["alpha", "train_loss", "train_accuracy"]].round(2)
       alpha  train_loss  train_accuracy
    0   -1.0       40.22            0.11
    1   -0.5        5.27            0.53
    2    0.0        0.00            1.00
    3    0.5        3.97            0.54
    4    1.0       37.22            0.09
    """

    step: int | None
    to: int | None
    other: str | None
    alphas: tuple[float, ...]
    rows: tuple[str, ...]
    losses: dict[str, Tensor] = field(repr=False)
    accuracies: dict[str, Tensor] = field(repr=False)
    directions: tuple[Weights, ...] = field(repr=False)
    normalise: str | None
    n_samples: dict[str, int]
    seed: int

    @property
    def lengths(self) -> tuple[float, ...]:
        """The length of a step of 1 along each direction, in units of weight."""
        return tuple(
            math.sqrt(sum(float(part.square().sum()) for part in direction.values()))
            for direction in self.directions
        )

    def table(self) -> pd.DataFrame:
        """One row per point: alpha, on a plane beta too, and the loss and accuracy of each rows."""
        places = np.array(list(product(self.alphas, repeat=len(self.directions)))).T
        columns = dict(zip(("alpha", "beta"), places, strict=False))
        for name in self.rows:
            columns[f"{name}_loss"] = self.losses[name].flatten().numpy()
            columns[f"{name}_accuracy"] = self.accuracies[name].flatten().numpy()
        return pd.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain values of all fields but the directions, which are as long as the weights."""
        return {key: x for key, x in super().to_dict().items() if key != "directions"}

    def _lines(self) -> list[str]:
        lengths = " and ".join(f"{length:.4g}" for length in self.lengths)
        if self.normalise is None:
            one, other = ("the weights" if x is None else f"step {x}" for x in (self.step, self.to))
            other = other if self.other is None else f"{other} of {self.other}"
            return [f"from {one} (0) to {other} (1), {lengths} away"]
        what = "direction" if len(self.directions) == 1 else "directions"
        return [f"random {what} of length {lengths}, scaled by {self.normalise}"]


def loss_slice(
    x: Subject,
    step: int = -1,
    *,
    to: int | None = None,
    other: Subject | None = None,
    directions: int = 1,
    span: tuple[float, float] | None = None,
    n_points: int | None = None,
    rows: str | Sequence[str] = ("train", "unmirrored"),
    normalise: str = "filter",
    n_samples: int | None = 512,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> LossSlice:
    r"""How does the loss rise around the weights, along random lines or towards another checkpoint?

        L(theta + alpha d)    L(theta + alpha d_1 + beta d_2)    L(theta + alpha (theta' - theta))

    Mean cross-entropy and accuracy along one random direction (`directions=1`), on the plane of two
    (`directions=2`), or on the straight line to step `to` of the same run, or of the run `other`
    (its last step unless `to` says which), with weights of the same shapes. `alpha` goes over
    `span`, by default (-1, 1), and (-0.5, 1.5) between checkpoints, in `n_points` (41, 61 between
    checkpoints, 15 x 15 on a plane).

    A random direction is normal noise, scaled by Li et al. 2018 (arXiv 1712.09913, section 4) so
    that every filter of it is as long as the same filter of the weights, and 0 in biases and gains.
    A filter is what feeds one unit: a column of W_in, W_out, W_U and W_O (of all heads), a column
    of W_Q, W_K and W_V of each head, a kernel of a convolution with all its inputs, and one token's
    or position's row of an embedding; in a module of one's own, whose weights are [out, in] as in
    torch, everything with one index of the first axis. `normalise="tensor"` scales each tensor as a
    whole, biases and gains too, "all" the whole direction; these are own definitions.

    `rows` are "train", "unmirrored" (test inputs whose mirror is not trained on either, all test
    inputs where there are no mirrors), "test" or "all", one or several; without a split it is all
    inputs, and a note says so. Of each, `n_samples` are drawn by `seed`, None takes all. Everything
    is in float64. p = 113 takes about 10 s.

    One or two directions of some 10^5 say little about flatness elsewhere: most directions of a
    network are flat, and the curved ones are hardly met at random. Heights depend on the scale of
    the logits, which weight decay changes: compare `accuracies`, or a curvature at matched loss. On
    a line between checkpoints a barrier is no proof of two basins, as a bent path may go round it.
    InputError for numbers out of range, another checkpoint with other weights, and a model whose
    weights alone do not say what it computes.

    >>> import grokinterp as gi
    >>> found = gi.geometry.loss_slice(gi.load("mod31-small"), 300, to=10000, n_points=5)
    >>> found.table().round(2)
       alpha  train_loss  train_accuracy  unmirrored_loss  unmirrored_accuracy
    0   -0.5       15.78            0.21            36.68                 0.00
    1    0.0        0.04            1.00             7.35                 0.11
    2    0.5        0.54            0.83             2.53                 0.52
    3    1.0        0.00            1.00             0.04                 0.98
    4    1.5       10.68            0.41            15.88                 0.30
    """
    run = run_of(x, task=task, train_mask=train_mask)
    start = _one(run, step)
    directions = whole("directions", directions, least=1, most=2, such_as="1")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    word("normalise", normalise, NORMALISE)
    surface = loss_surface(run, step=start, rows="all")
    generator = torch.Generator().manual_seed(seed)
    between = to is not None or other is not None
    end = None
    if between:
        if directions != 1:
            raise InputError("a line between checkpoints has one direction; leave directions out.")
        theirs = run if other is None else other_end(run, other)
        end = _one(theirs, -1 if to is None else to)
        steps = [_towards(surface, loss_surface(theirs, step=end, rows="all"))]
    else:
        steps = [
            _random(surface, normalise, run.architecture.named, generator)
            for _ in range(directions)
        ]
    alphas = _alphas(span, n_points, between=between, plane=directions == 2)
    seen, notes = _seen(run, surface, rows, n_samples, seed)
    losses: dict[str, list[float]] = {name: [] for name in seen}
    accuracies: dict[str, list[float]] = {name: [] for name in seen}
    points = list(product(alphas, repeat=directions))
    for i in progress_bar(range(len(points)), "slice", progress):
        at = surface.theta + sum(a * d for a, d in zip(points[i], steps, strict=True))
        for name, part in seen.items():
            scores = answer_scores(part.table(at), part.labels)
            losses[name].append(float(scores.losses.mean()))
            accuracies[name].append(float(scores.right.double().mean()))
    shape = (len(alphas),) * directions
    if not between:
        notes.append(
            f"{directions} random of {surface.n_weights} directions: they say little of the others"
        )
    return LossSlice(
        step=surface.step,
        to=end,
        other=None if other is None else str(getattr(theirs, "path", type(other).__name__)),
        alphas=alphas,
        rows=tuple(seen),
        losses={name: _float64(x).view(shape) for name, x in losses.items()},
        accuracies={name: _float64(x).view(shape) for name, x in accuracies.items()},
        directions=tuple(surface.tensors(each) for each in steps),
        normalise=None if between else normalise,
        n_samples={name: len(part.labels) for name, part in seen.items()},
        seed=seed,
        notes=(*notes, *surface.notes),
    )


def filter_axes(name: str, shape: Sequence[int], *, named: bool) -> tuple[int, ...] | None:
    """The axes of a weight that number its filters; None for biases and gains, which have none.

    `named` says that names are those of this package, [in, out], not those of torch, [out, in].

    >>> filter_axes("blocks.0.attn.W_Q", (4, 128, 32), named=True)
    (0, 2)
    """
    if len(shape) < 2 or is_bias(name):
        return None
    if not named or name.endswith(TABLES) or name.startswith("conv."):
        return (0,)
    return (0, len(shape) - 1) if name.endswith(PER_HEAD) else (len(shape) - 1,)


def _random(
    surface: LossSurface, normalise: str, named: bool, generator: torch.Generator
) -> Float[Tensor, " n_weights"]:
    """A direction of normal noise that is as long as the weights, part by part."""
    noise = torch.randn(surface.n_weights, dtype=torch.float64, generator=generator)
    if normalise == "all":
        return noise * (surface.theta.norm() / noise.norm())
    found = torch.zeros_like(noise)
    weights, drawn, into = map(surface.tensors, (surface.theta, noise, found))
    for name, weight in weights.items():
        kept = () if normalise == "tensor" else filter_axes(name, weight.shape, named=named)
        if kept is None:
            continue
        over = tuple(i for i in range(weight.ndim) if i not in kept)
        norms = [part.square().sum(over, keepdim=True).sqrt() for part in (weight, drawn[name])]
        into[name].copy_(drawn[name] * (norms[0] / norms[1]))
    if not bool(found.any()):
        raise InputError(
            f"no weight of this model has a filter; give normalise='tensor', not {normalise!r}."
        )
    return found


def _towards(surface: LossSurface, end: LossSurface) -> Float[Tensor, " n_weights"]:
    """What leads from one checkpoint's weights to another's, of the same shapes."""
    if surface.shapes != end.shapes:
        differing = {name for name, _ in surface.shapes.items() ^ end.shapes.items()}
        raise InputError(
            f"the two checkpoints differ in the names or shapes of {', '.join(sorted(differing))}; "
            "give two of the same architecture, with the same weights trained."
        )
    for name, weight in surface.fixed.items():
        if not torch.equal(weight, end.fixed[name]):
            raise InputError(
                f"{name} is not trained, and differs between the two checkpoints; give two in "
                "which it is the same."
            )
    return end.theta - surface.theta


def _one(run: Run, step: object) -> int:
    steps = rising_steps(run, step)  # type: ignore[arg-type]
    if len(steps) != 1:
        raise InputError(f"a slice is around one checkpoint, not {len(steps)}; give one step.")
    return steps[0]


def _alphas(span: object, n_points: int | None, *, between: bool, plane: bool) -> tuple[float, ...]:
    if n_points is None:
        n_points = BETWEEN if between else TWO if plane else ONE
    n_points = whole("n_points", n_points, least=2, most=1001, such_as="41")
    if span is None:
        low, high = (-0.5, 1.5) if between else (-1.0, 1.0)
    else:
        ends = [real(each) for each in listed("span", span, such_as="(-1, 1)")]
        if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
            raise refused("span", span, "a pair of rising numbers", "such as (-1, 1)")
        low, high = ends[0], ends[1]
    return tuple(np.linspace(low, high, n_points).round(12).tolist())


def _seen(
    run: Run, surface: LossSurface, rows: str | Sequence[str], n_samples: int | None, seed: int
) -> tuple[dict[str, LossSurface], list[str]]:
    """The surface over each of the rows that are asked for, and what is to be said of them."""
    asked = [rows] if isinstance(rows, str) else listed("rows", rows, such_as="('train', 'test')")
    if not asked:
        raise refused("rows", rows, "one or several names of rows", "such as ('train', 'test')")
    found, notes = {}, []
    for each in asked:
        numbers, name, why = rows_of(run, word("rows", each, ROWS))
        if n_samples is not None and len(numbers) > whole(
            "n_samples", n_samples, least=1, such_as="512"
        ):
            generator = torch.Generator().manual_seed(seed)
            numbers = numbers[torch.randperm(len(numbers), generator=generator)[:n_samples]]
        found[name] = replace(
            surface, inputs=surface.inputs[numbers], labels=surface.labels[numbers]
        )
        notes += [note for note in why if note not in notes]
    return found, notes


def _float64(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
