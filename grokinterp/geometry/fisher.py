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

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.fourier.basis import gini
from grokinterp.geometry.inputs import Logits, Sampled, check_finite, draw_inputs, logits_on_batches
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.reading._load import Subject, snapshot_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.task import Task

VARIANTS = ("softmax", "logits")
JACOBIAN_BYTES = 1 << 22  # held at once, where one input has less: what caches hold
INPUTS_AT_ONCE = 64  # their cotangents, classes^2 each, are 7 MB at 113 classes


@dataclass(frozen=True, kw_only=True)
class FisherDiagonal(Sampled):
    """A number per weight, float64 in the weight's shape, and the inputs it was averaged over.

    >>> import grokinterp as gi
    >>> found = gi.geometry.fisher_diagonal(gi.load("mod31-small"), n_samples=64)
    >>> found.values["embed.W_E"].shape, found.rows, found.n_samples, found.n_rows
    (torch.Size([32, 32]), 'test', 64, 337)
    >>> found.table()[["tensor", "n_weights", "gini"]].round(1).tail(3)
             tensor  n_weights  gini
    14  unembed.W_U        992   1.0
    15  unembed.b_U         31   0.9
    16          all      16799   0.9
    """

    values: dict[str, Tensor] = field(repr=False)
    variant: str
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per tensor and one for all: sum (its part of the trace), mean, max, Gini.

        In squared logits ("logits") or squared nats ("softmax") per squared unit of weight. The
        Gini coefficient is NaN where every value is 0.
        """
        tensors = {name: value.flatten() for name, value in self.values.items()}
        tensors["all"] = torch.cat(list(tensors.values()))
        rows = [
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
        return self._frame(rows, variant=self.variant, step=self.step)


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
    predicted distribution: the sum over classes is exact and the labels are not used (so it is not
    the empirical Fisher; Manning-Coe et al. 2025, arXiv 2502.01739, eq. 14, there on training
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
    for a transformer of several layers or with LayerNorm.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for variant in ("softmax", "logits"):
    ...     table = gi.geometry.fisher_diagonal(run, variant=variant, n_samples=16).table()
    ...     print(variant, table.sort_values("sum").tensor.tolist()[-4:-1])
    softmax ['blocks.0.attn.W_K', 'pos_embed.W_pos', 'embed.W_E']
    logits ['blocks.0.attn.W_K', 'pos_embed.W_pos', 'embed.W_E']
    """
    word("variant", variant, VARIANTS)
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    weights, architecture = snapshot.weights, snapshot.architecture
    check_finite(weights)
    chosen, record = draw_inputs(snapshot.task, snapshot.train_mask, rows, n_samples, seed)
    inputs = snapshot.task.model_inputs[chosen]
    values = None if architecture is None else _own_diagonal(architecture, weights, inputs, variant)
    if values is None:
        values = diagonal(logits_of(snapshot), weights, inputs, variant=variant)
    return FisherDiagonal(values=values, variant=variant, step=snapshot.step, **record)


def _own_diagonal(
    architecture: BaseArchitecture, weights: Weights, inputs: Tensor, variant: str
) -> dict[str, Tensor] | None:
    """What `diagonal` gives, where the architecture has a faster way to it; else None."""
    constants = {name: weight.detach() for name, weight in weights.items()}
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in constants.items()}
    for rows in inputs.split(INPUTS_AT_ONCE):
        sums = architecture.squares_of_gradients(
            constants, rows, lambda logits: cotangents(logits, variant)
        )
        if sums is None:
            return None
        for name, squares in sums.items():
            total[name] += squares
    return {name: value / len(inputs) for name, value in total.items()}


def diagonal(
    logits_fn: Logits,
    weights: Mapping[str, Tensor],
    inputs: Tensor,
    *,
    variant: str = "softmax",
) -> dict[str, Tensor]:
    """The mean over inputs of sum_c (v_c . d logits / d theta_i)^2, exact over the classes c.

    `logits_fn(weights, inputs)` maps inputs [n, ...] to logits [n, classes] and is differentiable
    by torch.func; it is called with one input at a time, under vmap over the others of a block.
    v_c is e_c ("logits") or sqrt(p_c) (e_c - p) with p the softmax ("softmax"). As many inputs are
    held at once as keep their Jacobians (weights x classes x inputs) at 4 MB, at least one. A
    weight that the logits do not depend on has 0. InputError for an unknown variant and for no
    inputs.

    >>> linear = lambda weights, x: x @ weights["W"]
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    >>> diagonal(linear, {"W": torch.zeros(2, 2)}, x, variant="logits")["W"].tolist()
    [[5.0, 5.0], [2.0, 2.0]]
    """
    word("variant", variant, VARIANTS)
    if not len(inputs):
        raise InputError("there is no input to average over; give at least one.")
    constants = {name: weight.detach() for name, weight in weights.items()}

    def squares_of(row: Tensor) -> dict[str, Tensor]:
        logits, pull_back = torch.func.vjp(lambda w: logits_fn(w, row[None])[0], constants)[:2]
        (jacobian,) = torch.func.vmap(pull_back)(cotangents(logits, variant))
        return {name: part.square().sum(dim=0) for name, part in jacobian.items()}

    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in constants.items()}
    with torch.no_grad():
        n_classes = logits_fn(constants, inputs[:1]).shape[1]
    of_one = n_classes * sum(w.numel() * w.element_size() for w in constants.values())
    for rows in inputs.split(max(1, JACOBIAN_BYTES // of_one)):
        # One input without vmap over inputs: its index would be batched, and twice as slow.
        alone = len(rows) == 1
        found = squares_of(rows[0]) if alone else torch.func.vmap(squares_of)(rows)
        for name, squares in found.items():
            total[name] += squares if alone else squares.sum(dim=0, dtype=torch.float64)
    return {name: value / len(inputs) for name, value in total.items()}


def logits_of(snapshot: Snapshot) -> Logits:
    """The answer logits [1, n_classes] of one input, as a function of weights and input."""
    on_batches = logits_on_batches(snapshot)
    if snapshot.transformer is None:
        return on_batches

    def logits_fn(weights: Weights, one: Tensor) -> Float[Tensor, "1 n_classes"]:
        # Embed what this input reads, not the whole vocabulary.
        weights = weights | {"embed.W_E": weights["embed.W_E"][one[0]]}
        return on_batches(weights, torch.arange(one.shape[1])[None])

    return logits_fn


def cotangents(
    logits: Float[Tensor, "*rows classes"], variant: str
) -> Float[Tensor, "classes *rows classes"]:
    """v_c for every class c: e_c ("logits"), or sqrt(p_c) (e_c - p) with p the softmax ("softmax").

    In the type of the logits; made in float64, so that 1 - p_c of a certain model is no noise.

    >>> cotangents(torch.zeros(2), "softmax").tolist()
    [[0.35355..., -0.35355...], [-0.35355..., 0.35355...]]
    """
    n_classes = logits.shape[-1]
    one_hot = torch.eye(n_classes, dtype=torch.float64, device=logits.device)
    one_hot = one_hot.view(n_classes, *(1,) * (logits.ndim - 1), n_classes)
    if variant == "logits":
        return one_hot.expand(n_classes, *logits.shape).to(logits.dtype)
    p = logits.double().softmax(dim=-1)
    return (p.movedim(-1, 0).sqrt()[..., None] * (one_hot - p)).to(logits.dtype)
