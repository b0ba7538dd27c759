"""The Fisher metric at a model's weights, and the steps of a run in it: how long, and which way.

With J = d logits / d theta for one input, F = E_x J^T A J. J u comes from transposing the linear
map c -> J^T c; F v is J v followed by one vector-Jacobian product: no matrix of weights by weights
is built, whatever their number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import finite, member, real, refused, tensors, word
from grokinterp.base.errors import InputError
from grokinterp.geometry.fisher import VARIANTS, fisher_diagonal
from grokinterp.geometry.inputs import (
    Logits,
    Sampled,
    check_finite,
    draw_inputs,
    exact_weights,
    logits_on_batches,
)
from grokinterp.models.architecture import Weights
from grokinterp.reading._load import Subject, rising_steps, run_of, snapshot_of
from grokinterp.tasks.task import Task

FORMS = ("exact", "diagonal")
METRIC_INPUTS_AT_ONCE = 256  # what they hold stays within some tens of MB
STIFF = 0.1  # of the final diagonal: the published threshold


@dataclass(frozen=True, kw_only=True)
class FisherMetric(Sampled):
    """Inner products u^T F v of weight vectors at one model, and the inputs F was averaged over.

    A weight vector is a tensor of the weight's shape for every weight's name. All sums are float64.
    Norms are in logits ("logits") or nats^(1/2) ("softmax": for a small step, its norm is the
    `fisher_rao_distance` between the predictions before and after it). "exact" has the whole F,
    "diagonal" its diagonal alone, which leaves out how weights act together: a step that changes no
    output can have a large diagonal norm.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> metric = gi.geometry.fisher_metric(run, step=2000, n_samples=64)
    >>> step = {name: w - run.weights(2000)[name] for name, w in run.weights(2250).items()}
    >>> home = {name: -w for name, w in run.weights(2000).items()}
    >>> round(metric.norm(step), 2), round(metric.cosine(step, home), 2)
    (0.26, 0.78)
    >>> round(metric.inner(step, home), 2), metric.gram([step, home]).shape
    (1.56, torch.Size([2, 2]))
    >>> metric.product(step)["unembed.W_U"].shape
    torch.Size([32, 31])
    """

    form: str
    variant: str
    step: int | None
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    _gram: Callable[[Sequence[Weights]], Tensor] = field(repr=False)
    _product: Callable[[Weights], dict[str, Tensor]] = field(repr=False)

    def gram(self, vectors: Sequence[Mapping[str, Tensor]]) -> Float[Tensor, "m m"]:
        """Inner products of all pairs of m weight vectors, at about the cost of m of them."""
        return self._gram([self._checked(vector) for vector in vectors])

    def inner(self, u: Mapping[str, Tensor], v: Mapping[str, Tensor]) -> float:
        """u^T F v."""
        return float(self.gram([u, v])[0, 1])

    def norm(self, u: Mapping[str, Tensor]) -> float:
        """sqrt(u^T F u)."""
        return float(self.gram([u]).sqrt())

    def cosine(self, u: Mapping[str, Tensor], v: Mapping[str, Tensor]) -> float:
        """u^T F v / (|u| |v|), -1 to 1; NaN where a norm is 0."""
        return cosine_of(self.gram([u, v]), 0, 1)

    def product(self, v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """F v, float64 in the weights' shapes."""
        return self._product(self._checked(v))

    def table(self) -> pd.DataFrame:
        """One row per tensor of a weight vector: its name, shape and number of weights."""
        rows = [
            {"tensor": name, "shape": "x".join(map(str, shape)), "n_weights": math.prod(shape)}
            for name, shape in self.shapes.items()
        ]
        return self._frame(rows, form=self.form, variant=self.variant, step=self.step)

    def to_dict(self) -> dict[str, Any]:
        """The settings and the shapes of the weights, as plain values; not the metric itself."""
        return {key: x for key, x in super().to_dict().items() if not key.startswith("_")}

    def _checked(self, vector: Mapping[str, Tensor]) -> Weights:
        """A weight vector in float64; refused where it is not one of this model."""
        for name in tensors("vector", vector):
            member(name, self.shapes, "weight")
        for name, shape in self.shapes.items():
            if name not in vector:
                raise InputError(f"the weight vector lacks {name!r}; give zeros of shape {shape}.")
            if (given := tuple(vector[name].shape)) != shape:
                raise InputError(
                    f"{name!r} is {given}; give a tensor of the weight's shape {shape}."
                )
            finite(f"entries of {name!r}", vector[name], give="give finite ones")
        return {name: vector[name].detach().double() for name in self.shapes}


def fisher_metric(
    x: Subject,
    *,
    step: int = -1,
    form: str = "exact",
    variant: str = "softmax",
    rows: str = "test",
    n_samples: int | None = 256,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> FisherMetric:
    """The Fisher metric at a model's weights: inner products of weight vectors.

    `x` is a run (at `step`), a snapshot, or a model with `task`; `variant`, `rows`, `n_samples` and
    `seed` are those of `fisher_diagonal`, and so are the inputs that are drawn.

    "exact": F = E_x J^T A J with J = d logits / d theta; A = diag(p) - p p^T is the Fisher
    information of the predicted distribution ("softmax"), A = 1 the Gauss-Newton matrix of the raw
    logits ("logits"). u^T F v = E_x sum_c p_c a_c(u) a_c(v), where a(u) is J u less its mean under
    p: nothing is subtracted after squaring, and differences to the likeliest class are taken first,
    so that a certain model's tiny information is no rounding. Everything is evaluated in float64,
    whatever the precision of the weights. "diagonal": F_ii alone, as `fisher_diagonal` has it
    (whose forward is in the precision of the weights); the geometry of Manning-Coe et al. 2025
    (arXiv 2502.01739, section 6.3, eqs. 8-9) is this one, in their code with variant="logits".

    F depends on the weights, so it measures small steps: the length of a long step is not how far
    the predictions moved (`fisher_rao_distance`). F of n inputs has rank n (classes - 1) at most,
    so many weight vectors have length 0. InputError for unknown names, for weights that are
    not finite, and for the models that `fisher_diagonal` refuses.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> weights = run.weights(0)
    >>> for form in ("exact", "diagonal"):
    ...     metric = gi.geometry.fisher_metric(run, step=0, form=form, n_samples=32)
    ...     print(form, round(metric.norm(weights), 2))
    exact 1.14
    diagonal 0.52
    """
    word("form", form, FORMS)
    word("variant", variant, VARIANTS)
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    check_finite(snapshot.weights)
    chosen, record = draw_inputs(snapshot.task, snapshot.train_mask, rows, n_samples, seed)
    if form == "exact":
        weights = {name: weight.detach().double() for name, weight in snapshot.weights.items()}
        at = logits_on_batches(snapshot), weights, snapshot.task.model_inputs[chosen]
        gram = partial(exact_gram, *at, variant=variant)
        product = partial(exact_product, *at, variant=variant)
    else:
        values = fisher_diagonal(
            snapshot, variant=variant, rows=rows, n_samples=n_samples, seed=seed
        ).values
        gram, product = partial(diagonal_gram, values), partial(_scaled, values)
    return FisherMetric(
        form=form,
        variant=variant,
        step=snapshot.step,
        shapes={name: tuple(weight.shape) for name, weight in snapshot.weights.items()},
        _gram=gram,
        _product=product,
        **record,
    )


def exact_gram(
    logits_fn: Logits, weights: Weights, inputs: Tensor, vectors: Sequence[Weights], *, variant: str
) -> Float[Tensor, "m m"]:
    """E_x (J u_i)^T A (J u_j) for all pairs of weight vectors, in the precision of the weights.

    `logits_fn(weights, inputs)` maps inputs [n, ...] to logits [n, classes].

    >>> linear = lambda weights, x: x @ weights["W"]
    >>> at, x = {"W": torch.zeros(1, 2).double()}, torch.ones(1, 1).double()
    >>> u = {"W": torch.tensor([[4.0, 0.0]]).double()}
    >>> exact_gram(linear, at, x, [u], variant="softmax").tolist()
    [[4.0]]
    """
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for block in inputs.split(METRIC_INPUTS_AT_ONCE):
        share, _, push = _linear(logits_fn, weights, block, variant)
        moved = torch.stack([push(vector) for vector in vectors])
        total += (share * moved).flatten(1) @ moved.flatten(1).T
    return (total + total.T) / (2 * len(inputs))  # a matrix product need not be symmetric


def exact_product(
    logits_fn: Logits, weights: Weights, inputs: Tensor, vector: Weights, *, variant: str
) -> dict[str, Tensor]:
    """E_x J^T A J v, one tensor per weight."""
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for block in inputs.split(METRIC_INPUTS_AT_ONCE):
        share, pull, push = _linear(logits_fn, weights, block, variant)
        for name, part in pull(share * push(vector))[0].items():
            total[name] += part / len(inputs)
    return total


def diagonal_gram(
    diagonal: Mapping[str, Tensor], vectors: Sequence[Weights]
) -> Float[Tensor, "m m"]:
    """sum_i F_ii u_i v_i for all pairs of weight vectors."""
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for name, values in diagonal.items():
        flat = torch.stack([vector[name].flatten() for vector in vectors])
        total += (values.flatten() * flat) @ flat.T
    return (total + total.T) / 2


def cosine_of(gram: Float[Tensor, "m m"], i: int, j: int) -> float:
    """The cosine of the angle between vectors i and j; NaN where one has length 0."""
    lengths = gram.diagonal().sqrt()
    if not (lengths[i] > 0 and lengths[j] > 0):
        return float("nan")
    return float((gram[i, j] / lengths[i] / lengths[j]).clamp(-1, 1))


def _linear(
    logits_fn: Logits, weights: Weights, block: Tensor, variant: str
) -> tuple[Tensor, Callable[..., Any], Callable[[Weights], Tensor]]:
    """How much each class counts [n, classes], c -> J^T c, and u -> J u.

    Classes count p, and J u is less its mean under p; for raw logits they count 1, and it is not.
    """
    logits, pull = torch.func.vjp(lambda w: logits_fn(w, block), weights)[:2]
    # J u is the transpose of c -> J^T c. Forward-mode derivatives give it as well, but torch warns
    # when it loads them.
    push = torch.func.vjp(pull, torch.zeros_like(logits))[1]
    if variant == "logits":
        return torch.ones_like(logits), pull, lambda u: push((u,))[0]
    p, likeliest = logits.softmax(dim=1), logits.argmax(dim=1, keepdim=True)

    def centred(u: Weights) -> Tensor:
        change = push((u,))[0]
        # Differences to the likeliest class first: its own is as small as the others' p make it.
        change = change - change.gather(1, likeliest)
        return change - (p * change).sum(dim=1, keepdim=True)

    return p, pull, centred


def _scaled(diagonal: Mapping[str, Tensor], vector: Weights) -> dict[str, Tensor]:
    return {name: values * vector[name] for name, values in diagonal.items()}


def step_geometry(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    form: str = "diagonal",
    variant: str = "softmax",
    rows: str = "test",
    n_samples: int | None = 256,
    seed: int = 0,
    stiff_above: float | None = STIFF,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Lengths and directions of the steps between neighbouring checkpoints, one row per step.

    s_i = theta_(i+1) - theta_i, from checkpoint `step` to checkpoint `to`; g is the Fisher metric
    at its start (`fisher_metric` with these `form`, `variant`, `rows`, `n_samples` and `seed`).
    `fisher_norm` is sqrt(s_i^T g s_i). `cos_consecutive` is the cosine with the step before,
    s_i^T g s_(i-1) / (|s_i| |s_(i-1)|), NaN for the first. `cos_origin` is that with -theta_i: +1
    where all weights shrink alike, -1 where they grow. Columns named euclidean_ have g = 1. Cosines
    are NaN where a length is 0. With `stiff_above`, columns that end in _stiff are about the
    weights whose diagonal Fisher value at the run's last checkpoint (same variant and inputs) is at
    least that, columns that end in _sloppy about the others; all other entries of the vectors are
    then 0. None leaves both out. All settings and `n_stiff` stand in `.attrs`.

    Manning-Coe et al. 2025 (arXiv 2502.01739, section 6.3, eqs. 8-9) take steps of f = 200 updates
    (Ising) or one epoch (modular addition) and g over training inputs, "softmax"; their code has
    form="diagonal", variant="logits", rows="test", n_samples=16 for modular addition and all 1000
    test inputs for Ising, and the threshold 0.1 on the last diagonal. They once call a positive
    `cos_origin` growth; by their definition, which is the one here, it is decay.

    A cosine depends on the spacing: between long steps it says little about the path between them,
    mini-batch noise turns short steps against each other, and uneven checkpoints mix both. It also
    depends on the parametrisation, with the diagonal form more than with the exact one.
    InputError for weights that are not finite, naming the step, and for fewer than 2 checkpoints.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.geometry.step_geometry(run, steps=[1500, 2000, 3000], n_samples=32)
    >>> found[["step", "to", "fisher_norm", "cos_consecutive", "cos_origin"]].round(2)
       step    to  fisher_norm  cos_consecutive  cos_origin
    0  1500  2000         0.80              NaN       -0.15
    1  2000  3000         1.06             0.89        0.06
    >>> found.attrs["form"], found.attrs["n_weights"]
    ('diagonal', 16799)
    """
    run = run_of(x, task=task, train_mask=train_mask)
    chosen = rising_steps(run, steps)
    if len(chosen) < 2:
        raise InputError(f"steps={steps!r} is one checkpoint; a step takes two.")
    if stiff_above is not None and real(stiff_above) is None:
        raise refused("stiff_above", stiff_above, "a number", "such as 0.1, or None")
    sample: dict[str, Any] = {
        "variant": variant, "rows": rows, "n_samples": n_samples, "seed": seed,
    }  # fmt: skip
    here = exact_weights(run, chosen[0])
    parts: dict[str, Weights] = {"": {name: torch.ones_like(w) for name, w in here.items()}}
    if stiff_above is not None:
        exact_weights(run, run.steps[-1])  # its error says which step
        last = fisher_diagonal(run, **sample).values
        stiff = {name: (value >= stiff_above).double() for name, value in last.items()}
        parts |= {"_stiff": stiff, "_sloppy": {name: 1 - mask for name, mask in stiff.items()}}
    table: list[dict[str, float]] = []
    before: list[Weights] = []
    for step, to in tqdm(
        list(pairwise(chosen)), desc="steps", unit="step", disable=None if progress else True
    ):
        metric = fisher_metric(run, step=step, form=form, **sample)
        there = exact_weights(run, to)
        moved = {name: there[name] - here[name] for name in here}
        vectors = [moved, {name: -weight for name, weight in here.items()}, *before]
        row = {"step": step, "to": to}
        row |= _columns(diagonal_gram(parts[""], vectors), "euclidean_norm", "euclidean_cos_")
        for part, mask in parts.items():
            gram = metric.gram([{name: mask[name] * v[name] for name in v} for v in vectors])
            row |= _columns(gram, "fisher_norm", "cos_", part)
        table.append(row)
        here, before = there, [moved]
    frame = pd.DataFrame(table)
    frame.attrs |= {
        "form": form,
        "variant": variant,
        **draw_inputs(run.task, run.train_mask, rows, n_samples, seed)[1],
        "stiff_above": stiff_above,
        "n_stiff": None if stiff_above is None else sum(int(x.sum()) for x in stiff.values()),
        "n_weights": sum(weight.numel() for weight in here.values()),
    }
    return frame


def _columns(
    gram: Float[Tensor, "m m"], norm: str, cosine: str, part: str = ""
) -> dict[str, float]:
    """Of a step (0), -theta (1) and the step before (2), which the first step lacks."""
    return {
        f"{norm}{part}": float(gram[0, 0].sqrt()),
        f"{cosine}consecutive{part}": cosine_of(gram, 0, 2) if len(gram) > 2 else math.nan,
        f"{cosine}origin{part}": cosine_of(gram, 0, 1),
    }
