"""What is the loss of a model around its weights, and how does it curve?

A `LossSurface` is the mean cross-entropy over some inputs as a function of the trained weights
alone, in float64. Products of its Hessian with vectors come from differentiating twice (Pearlmutter
1994); no matrix is built.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor

from grokinterp.base.checks import number
from grokinterp.base.errors import InputError, shown
from grokinterp.geometry.inputs import Logits, check_finite, draw_inputs, logits_on_batches
from grokinterp.models.architecture import Weights
from grokinterp.models.cross_entropy import AnswerScores, answer_scores, cross_entropies
from grokinterp.reading._load import Subject, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task
from grokinterp.training.decay_balance import trained_names

INPUTS_AT_ONCE = 4096  # in float64, with what two derivatives keep: some hundred MB
KEPT_BATCHES = 3  # of inputs, whose derivatives are kept: at p = 113 all there are


@dataclass(frozen=True)
class LossSurface:
    """The mean cross-entropy of logits / temperature, over some inputs, around some weights.

    `theta` holds the trained weights `names` one after the other, and everything here takes and
    gives such vectors; `fixed` are the parameters that training does not move. `record` says which
    inputs these are (`rows`, `n_samples`, `n_rows`, `seed`).
    """

    logits_fn: Logits = field(repr=False)
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    theta: Float[Tensor, " n_weights"] = field(repr=False)
    fixed: Weights = field(repr=False)
    inputs: Tensor = field(repr=False)
    labels: Int[Tensor, " n"] = field(repr=False)
    record: dict[str, Any]
    step: int | None = None
    temperature: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def n_weights(self) -> int:
        """How many weights are trained."""
        return len(self.theta)

    @cached_property
    def parts(self) -> dict[str, slice]:
        """Where in a vector each tensor's weights are."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            found[name] = slice(start, start := start + math.prod(shape))
        return found

    def tensors(self, vector: Float[Tensor, " n_weights"]) -> Weights:
        """A vector in the tensors' names and shapes (views of it)."""
        return {name: vector[self.parts[name]].view(shape) for name, shape in self.shapes.items()}

    def logits(self, theta: Tensor, inputs: Tensor) -> Float[Tensor, "n classes"]:
        """The answer logits of inputs, before they are divided by the temperature."""
        return self.logits_fn(self.fixed | self.tensors(theta), inputs)

    @torch.no_grad()
    def table(self, theta: Tensor | None = None) -> Float[Tensor, "n classes"]:
        """The logits of all inputs, before they are divided by the temperature."""
        at = self.theta if theta is None else theta
        return torch.cat([self.logits(at, some) for some, _ in self.batches()])

    @torch.no_grad()
    def scores(self, theta: Tensor | None = None) -> AnswerScores:
        """How well each input is answered; no table of logits is kept."""
        at = self.theta if theta is None else theta
        blocks = [
            answer_scores(self.logits(at, inputs) / self.temperature, labels)
            for inputs, labels in self.batches()
        ]
        return AnswerScores(
            *(torch.cat([getattr(x, each.name) for x in blocks]) for each in fields(AnswerScores))
        )

    def loss(self, theta: Tensor | None = None) -> float:
        """The mean loss, in nats."""
        return float(self.scores(theta).losses.mean())

    def accuracy(self, theta: Tensor | None = None) -> float:
        """The share of the inputs that are answered rightly."""
        return float(self.scores(theta).right.double().mean())

    def gradient(
        self, theta: Tensor | None = None, rows: Tensor | None = None
    ) -> tuple[float, Float[Tensor, " n_weights"]]:
        """The mean loss and its gradient, over all inputs or those of these positions."""
        total, gradient = 0.0, torch.zeros_like(self.theta)
        batches = list(self.batches(rows))
        n = sum(len(labels) for _, labels in batches)
        for inputs, labels in batches:
            at = (self.theta if theta is None else theta).detach().requires_grad_()
            with torch.enable_grad():
                loss = self._sum(at, inputs, labels)
            gradient += torch.autograd.grad(loss, at)[0]
            total += float(loss.detach())
        return total / n, gradient / n

    def hessian_product(self, vector: Float[Tensor, " n_weights"]) -> Float[Tensor, " n_weights"]:
        """H v, with H the Hessian of the loss at `theta`; of several vectors see `products`."""
        return self.products().hessian(vector)

    def products(self) -> "LossProducts":
        """Products of the Hessian, and of its Gauss-Newton part, with many vectors."""
        return LossProducts(self)

    def batches(self, rows: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and labels, so many at once as memory allows."""
        inputs, labels = self.inputs, self.labels
        if rows is not None:
            inputs, labels = inputs[rows], labels[rows]
        yield from zip(inputs.split(INPUTS_AT_ONCE), labels.split(INPUTS_AT_ONCE), strict=True)

    def _sum(self, theta: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        logits = self.logits(theta, inputs) / self.temperature
        return cross_entropies(logits, labels).sum()

    def matched(self, loss: float) -> "LossSurface":
        """The same at the temperature at which the mean loss of these weights is `loss`.

        The loss is convex in 1 / T, ln C at 0, and falls to its least; T is where it gets there
        first. InputError where no temperature gives that loss: it is above ln C, or below what
        these weights can have, as with an input that they answer wrongly.
        """
        target = number("match_loss", loss, such_as="0.1")
        logits = self.table()
        ceiling = math.log(logits.shape[1])

        def at(log_inverse: float) -> float:
            scaled = logits * math.exp(log_inverse)
            return float(answer_scores(scaled, self.labels).losses.mean()) - target

        scale = float(logits.std())
        low = -math.log(scale) - 12 if scale > 0 else 0.0  # where all classes are alike
        best = minimize_scalar(at, bounds=(low, low + 24), method="bounded").x if scale else low
        high = 0.0 if at(0.0) < 0 and low < 0.0 < best else float(best)
        if not (at(low) > 0 > at(high)):
            raise InputError(
                f"no temperature gives a mean loss of {shown(loss)}: a uniform answer has "
                f"{ceiling:.3g}, and these weights reach {at(high) + target:.3g} at the least; "
                "look at a later step, or give match_loss=None."
            )
        found = brentq(at, low, high, xtol=1e-10)
        return replace(self, temperature=math.exp(-found))


class LossProducts:
    """Products of the Hessian H of a loss, and of its Gauss-Newton part G, with vectors.

    With J = d logits / d theta of an input, p its answer probabilities and r = p - one_hot(label),
    at temperature T,

        G = mean over inputs of J^T (diag p - p p^T) J / T^2
        H = G + mean over inputs of sum_c r_c Hessian(logit_c) / T

    G is the Fisher information of the answers at T, too, and never negative; H - G vanishes with
    the loss. What differentiating once gives is kept for the first `KEPT_BATCHES` batches of
    inputs, so that a product costs a quarter of the first one; beyond them it is made anew.

    >>> import grokinterp as gi
    >>> surface = loss_surface(gi.load("mod31-small"), n_samples=32)
    >>> products, v = surface.products(), surface.theta
    >>> bool(v @ products.gauss_newton(v) > 0)
    True
    """

    def __init__(self, surface: LossSurface) -> None:
        self._surface = surface
        self._batches = list(surface.batches())
        self._kept: dict[int, tuple[Tensor, ...]] = {}
        self._kept_logits: dict[int, tuple[Tensor, ...]] = {}

    def hessian(self, vector: Float[Tensor, " n_weights"]) -> Float[Tensor, " n_weights"]:
        """H v."""
        total = torch.zeros_like(vector)
        for i in range(len(self._batches)):
            theta, gradient = self._once(self._kept, i, self._gradient)
            total += _derivative(gradient, theta, vector)
        return total / len(self._surface.labels)

    def gauss_newton(self, vector: Float[Tensor, " n_weights"]) -> Float[Tensor, " n_weights"]:
        """G v."""
        total = torch.zeros_like(vector)
        for i in range(len(self._batches)):
            theta, logits, p, back, pulled = self._once(self._kept_logits, i, self._pulled)
            # J v is the transpose of c -> J^T c: forward-mode derivatives lack some functions.
            moved = _derivative(pulled, back, vector)
            # Differences to the likeliest class first, so that the tiny information of a certain
            # model is no rounding.
            moved = moved - moved.gather(1, p.argmax(dim=1, keepdim=True))
            moved = p * (moved - (p * moved).sum(dim=1, keepdim=True))
            total += _derivative(logits, theta, moved)
        return total / len(self._surface.labels)

    def _once(
        self, kept: dict[int, tuple[Tensor, ...]], i: int, make: Callable[..., tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        if i in kept:
            return kept[i]
        made = make(self._surface.theta.detach().requires_grad_(), *self._batches[i])
        if len(kept) < KEPT_BATCHES:
            kept[i] = made
        return made

    @torch.enable_grad()
    def _gradient(self, theta: Tensor, inputs: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        loss = self._surface._sum(theta, inputs, labels)
        return theta, *torch.autograd.grad(loss, theta, create_graph=True)

    @torch.enable_grad()
    def _pulled(self, theta: Tensor, inputs: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        logits = self._surface.logits(theta, inputs) / self._surface.temperature
        back = torch.zeros_like(logits).requires_grad_()
        (pulled,) = torch.autograd.grad(logits, theta, back, create_graph=True)
        return theta, logits, logits.detach().softmax(dim=1), back, pulled


def _derivative(of: Tensor, by: Tensor, vector: Tensor) -> Tensor:
    """(d of / d by)^T vector; the graph stays for the next vector."""
    return torch.autograd.grad(of, by, vector, retain_graph=True)[0]


def loss_surface(
    x: Subject,
    *,
    step: int = -1,
    rows: str = "train",
    n_samples: int | None = None,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> LossSurface:
    """The loss of a run at a step, a snapshot, or a model, over the inputs that `rows` names.

    `rows`, `n_samples` and `seed` are those of `fisher_diagonal`.
    """
    run = run_of(x, task=task, train_mask=train_mask)
    snapshot = run.snapshot(step)
    logits_fn = logits_on_batches(snapshot)
    weights = {name: w.detach().double() for name, w in snapshot.weights.items()}
    check_finite(weights, snapshot.step)
    names, notes = _trained(run, weights)
    chosen, record = draw_inputs(snapshot.task, snapshot.train_mask, rows, n_samples, seed)
    return LossSurface(
        logits_fn=logits_fn,
        shapes={name: tuple(weights[name].shape) for name in names},
        theta=torch.cat([weights[name].flatten() for name in names]),
        fixed={name: weight for name, weight in weights.items() if name not in names},
        inputs=snapshot.task.model_inputs[chosen],
        labels=snapshot.task.labels[chosen],
        record=record,
        step=snapshot.step,
        notes=tuple(notes),
    )


def _trained(run: Run, weights: Weights) -> tuple[list[str], list[str]]:
    """The names of the weights that training moves, and what is assumed of them."""
    names = trained_names(run)
    if run.recipe is not None:
        return names, []
    # A layout without biases is read as biases of 0; no training leaves a whole tensor at 0.
    last = weights if len(run.steps) == 1 else run.weights(run.steps[-1])
    zero = [x for x in names if not bool(weights[x].any()) and not bool(last[x].any())]
    moved = [name for name in names if name not in zero]
    if not moved:
        raise InputError("every weight of the model is 0; there is nothing to look at.")
    notes = [f"{', '.join(zero)} are 0, and taken for not trained"] if zero else []
    return moved, notes
