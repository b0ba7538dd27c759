"""The diagonal Fisher information of a model with respect to its weights, in both senses in use.

With J_c = d logit_c / d theta for one input, every sum here is a sum over c of squares of one
vector-Jacobian product: v_c = e_c gives the Jacobian itself ("logits"), v_c = sqrt(p_c) (e_c - p)
gives sqrt(p_c) d log p_c / d theta ("softmax"). Nothing is subtracted after squaring.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.circuits.subject import Subject
from grokinterp.encodings.geometry.cotangents import check_variant, cotangents
from grokinterp.encodings.geometry.fisher_mlp import mlp_diagonal
from grokinterp.encodings.geometry.inputs import (
    Logits,
    check_finite,
    logits_on_batches,
    row_numbers,
    sample,
)
from grokinterp.errors import InputError
from grokinterp.fourier.basis import gini
from grokinterp.models.architecture import Weights
from grokinterp.models.mlp import MLPArchitecture
from grokinterp.runs.resolve import snapshot_at
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.task import Task

JACOBIAN_BYTES = 1 << 22  # held at once, where one input has less: what caches hold


@dataclass(frozen=True)
class FisherDiagonal:
    """A number per weight, float64 in the weight's shape, and what it was averaged over.

    `n_samples` inputs were used of the `n_rows` that `rows` has.
    """

    values: dict[str, Tensor] = field(repr=False)
    variant: str
    rows: str
    n_samples: int
    n_rows: int
    seed: int
    step: int | None

    def table(self) -> pd.DataFrame:
        """A row per tensor and one for all: sum (its part of the trace), mean, max, Gini.

        In squared logits ("logits") or squared nats ("softmax") per squared unit of weight. The
        Gini coefficient is NaN where every value is 0.
        """
        every = torch.cat([value.flatten() for value in self.values.values()])
        tensors = {name: value.flatten() for name, value in self.values.items()} | {"all": every}
        frame = pd.DataFrame(
            [
                {
                    "tensor": name,
                    "n_weights": len(value),
                    "sum": float(value.sum()),
                    "mean": float(value.mean()),
                    "max": float(value.max()),
                    "gini": gini(value),
                }
                for name, value in tensors.items()
            ]
        )
        frame.attrs |= {
            "variant": self.variant,
            "rows": self.rows,
            "n_samples": self.n_samples,
            "n_rows": self.n_rows,
            "seed": self.seed,
            "step": self.step,
        }
        return frame


def fisher_diagonal(
    x: Subject,
    *,
    step: int = -1,
    variant: str = "softmax",
    rows: str = "test",
    n_samples: int | None = 256,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> FisherDiagonal:
    r"""The diagonal Fisher information of a model's weights, over inputs of its task.

    `x` is a run (at `step`), a snapshot, or a model with `task`.

    "softmax": F_ii = E_x sum_c p_c (d log p_c / d theta_i)^2, the Fisher information of the
    predicted distribution: the sum over classes is exact, the labels are not looked at (so it is
    not the empirical Fisher; Manning-Coe et al. 2025, arXiv 2502.01739, eq. 14, there on training
    inputs). "logits": G_ii = E_x sum_c (d logit_c / d theta_i)^2, the Gauss-Newton diagonal of the
    raw logits, which the paper's released code computes on test inputs (16 of them for modular
    addition). Logits and softmax are over the answer classes, without "=".

    `rows` says over which inputs E_x is: "test", "train" or "all". Of more than `n_samples`, that
    many are drawn without replacement: the first of a permutation that `seed` fixes, so that a
    smaller sample is part of a larger one; None takes all. The forward is in the precision of the
    weights, sums are float64.

    A large value says that the output moves with that weight alone near this point. It does not say
    how the weights act together (the off-diagonal), and a small softmax value may only say that the
    model is certain. InputError for a model whose weights alone do not say what it computes, and
    for a transformer other than of one layer without LayerNorm.
    """
    check_variant(variant)
    snapshot = snapshot_at(x, step=step, task=task, train_mask=train_mask)
    check_finite(snapshot.weights)
    inputs = snapshot.task.model_inputs[row_numbers(snapshot.task, snapshot.train_mask, rows)]
    chosen = sample(len(inputs), n_samples, seed)
    architecture = snapshot.architecture
    if isinstance(architecture, MLPArchitecture):
        values = mlp_diagonal(
            snapshot.weights, inputs[chosen], architecture=architecture, variant=variant
        )
    else:
        values = diagonal(logits_of(snapshot), snapshot.weights, inputs[chosen], variant=variant)
    return FisherDiagonal(
        values=values,
        variant=variant,
        rows=rows,
        n_samples=len(chosen),
        n_rows=len(inputs),
        seed=seed,
        step=snapshot.step,
    )


def diagonal(
    logits_fn: Logits,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    *,
    variant: str = "softmax",
    block: int | None = None,
) -> dict[str, Tensor]:
    """The mean over inputs of sum_c (v_c . d logits / d theta_i)^2, exact over the classes c.

    `logits_fn(weights, inputs)` maps inputs [n, ...] to logits [n, classes] and is differentiable
    by torch.func; it is called with one input at a time, under vmap over the others of a block.
    v_c is e_c ("logits") or sqrt(p_c) (e_c - p) with p the softmax ("softmax"). `block` inputs are
    held at once: unless given, as many as keep their Jacobians (weights x classes x inputs) at
    4 MB, at least one. A weight that the logits do not depend on has 0. InputError
    for an unknown variant and for no inputs.

    >>> linear = lambda weights, x: x @ weights["W"]
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    >>> diagonal(linear, {"W": torch.zeros(2, 2)}, x, variant="logits")["W"].tolist()
    [[5.0, 5.0], [2.0, 2.0]]
    """
    check_variant(variant)
    if not len(inputs):
        raise InputError("there is no input to average over; give at least one.")
    constants = {name: weight.detach() for name, weight in weights.items()}

    def squares_of(row: Tensor) -> dict[str, Tensor]:
        logits, pull_back = torch.func.vjp(lambda w: logits_fn(w, row[None])[0], constants)[:2]
        (jacobian,) = torch.func.vmap(pull_back)(cotangents(logits, variant))
        return {name: part.square().sum(dim=0) for name, part in jacobian.items()}

    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in constants.items()}
    for rows in inputs.split(block or _block_size(logits_fn, constants, inputs)):
        # One input without vmap over inputs: its index would be batched, and twice as slow.
        alone = len(rows) == 1
        found = squares_of(rows[0]) if alone else torch.func.vmap(squares_of)(rows)
        for name, squares in found.items():
            total[name] += squares if alone else squares.sum(dim=0, dtype=torch.float64)
    return {name: value / len(inputs) for name, value in total.items()}


def logits_of(snapshot: Snapshot) -> Logits:
    """The answer logits [n, n_classes] of one input (n = 1), as a function of weights and input."""
    on_batches = logits_on_batches(snapshot)
    if snapshot.transformer is None:
        return on_batches

    def logits_fn(weights: Weights, one: Tensor) -> Float[Tensor, "1 n_classes"]:
        # Embed what this input reads, not the whole vocabulary.
        weights = weights | {"embed.W_E": weights["embed.W_E"][one[0]]}
        return on_batches(weights, torch.arange(one.shape[1])[None])

    return logits_fn


def _block_size(logits_fn: Logits, weights: Weights, inputs: Tensor) -> int:
    with torch.no_grad():
        n_classes = logits_fn(weights, inputs[:1]).shape[1]
    jacobian = n_classes * sum(w.numel() * w.element_size() for w in weights.values())
    return max(1, JACOBIAN_BYTES // jacobian)
