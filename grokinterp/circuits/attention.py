"""Where the answer position looks: attention patterns over the whole task, and over training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.circuits.subject import Subject, need_residual_stream, subject_of
from grokinterp.errors import InputError, named, shown, whole_number
from grokinterp.fourier.answers import no_frequencies_reason, usable_group
from grokinterp.fourier.basis import n_frequencies, transform_2d
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask

if TYPE_CHECKING:
    import plotly.graph_objects as go

FLAT = 1e-6  # spread of attention, or of scores in nats, below which float32 shows only rounding


@dataclass(frozen=True)
class Attention:
    """Attention from the answer position, for every pair of operands.

    `pattern[h, i, a, b]` is what head h gives to position i (a, b, then "=" where there is one) on
    input (a, b). `shares[h, k - 1]` is the share of the pattern's variance over (a, b), all
    positions together, in the terms const, cos w_k, sin w_k of a times the same of b; 0 for a
    constant pattern, None without an answer group (`reason` says why). Where a head looks does
    not say what it moves.
    """

    pattern: Float[Tensor, "n_heads n_tokens p p"] = field(repr=False)
    shares: Float[Tensor, "n_heads n_frequencies"] | None = field(repr=False)
    frequencies: tuple[int, ...]  # the key frequencies, for the column `key`
    layer: int
    step: int | None
    reason: str | None

    @property
    def mean(self) -> Float[Tensor, "n_heads n_tokens"]:
        """Attention to each position, averaged over all inputs (float64)."""
        return self.pattern.double().mean(dim=(2, 3))

    @property
    def spread(self) -> Float[Tensor, "n_heads n_tokens"]:
        """Standard deviation over the inputs of the attention to each position (float64)."""
        return self.pattern.double().std(dim=(2, 3), correction=0)

    def table(self) -> pd.DataFrame:
        """One row a head: means and spreads, the pattern's leading frequency and its share.

        `frequency`, `share` and `key` are null for a constant pattern, and without an answer group.
        """
        n_tokens = self.pattern.shape[1]
        rows = []
        for head, (mean, spread) in enumerate(zip(self.mean, self.spread, strict=True)):
            row: dict[str, object] = {"head": head}
            names = ("a", "b", "equals")[:n_tokens]
            row |= {f"to_{name}": float(x) for name, x in zip(names, mean, strict=True)}
            row |= {f"spread_{name}": float(x) for name, x in zip(names, spread, strict=True)}
            row |= {"frequency": None, "share": None, "key": None}
            row["note"] = "constant over the inputs" if spread.max() < FLAT else self.reason or ""
            if self.shares is not None and self.shares[head].any():
                share, at = self.shares[head].max(dim=0)
                k = int(at) + 1
                row |= {"frequency": k, "share": float(share), "key": k in self.frequencies}
            rows.append(row)
        return pd.DataFrame(rows).astype(
            {"frequency": "Int64", "share": "Float64", "key": "boolean"}
        )

    def plot(self, to: str = "a") -> "go.Figure":
        """Attention to operand "a", "b" or "equals" over all pairs (a, b), a panel a head."""
        from grokinterp.viz import plot_attention

        return plot_attention(self, to=to)


def attention(
    x: Subject,
    *,
    layer: int = 0,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Attention:
    """Attention patterns of one layer from the answer position, as functions of (a, b).

    Weights of the softmax (0 to 1; the weights of a model with an attention rate below 1 sum to
    more). Heat maps over (a, b) as in figure 4 of Nanda et al. 2023 (arXiv 2301.05217). For a layer
    above the first, attention to the position of b is attention to what the position holds by then,
    which may know a too.
    """
    snapshot, frequencies = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    need_residual_stream(snapshot)
    p = snapshot.modular_task.p
    pattern = patterns_of(snapshot, layer).permute(1, 2, 0).unflatten(2, (p, p))
    group = usable_group(snapshot)
    return Attention(
        pattern=pattern,
        shares=None if group is None else _shares(pattern[:, :, group.tokens][..., group.tokens]),
        frequencies=frequencies,
        layer=layer,
        step=snapshot.step,
        reason=no_frequencies_reason(snapshot) if group is None else None,
    )


def commutativity(x: Subject, *, layer: int = 0) -> pd.DataFrame:
    """Mean attention to position 0 minus to position 1 in a run: a row a step, a column a head.

    Averaged over all inputs, from the answer position (ARENA, chapter 1.5). Near 0 the head treats
    the operands alike on average, which a commutative answer asks for; it can still be far from
    symmetric on single inputs, and other parts can break the symmetry.
    """
    if not isinstance(x, Run):
        raise InputError(
            f"{named(x)} is not a run; the means of one model are in circuits.attention(x).table()."
        )
    need_residual_stream(x.snapshot())
    rows = {}
    for step in x.steps:
        mean = patterns_of(x.snapshot(step), layer).double().mean(dim=0)
        rows[step] = (mean[:, 0] - mean[:, 1]).tolist()
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.rename_axis(index="step", columns="head")


def patterns_of(snapshot: Snapshot, layer: int) -> Float[Tensor, "n_inputs n_heads n_tokens"]:
    """The attention pattern of a layer at the answer position, in table order."""
    if whole_number(layer) is None or not 0 <= layer < snapshot.n_layers:
        raise InputError(f"layer={shown(layer)} is not between 0 and {snapshot.n_layers - 1}.")
    pattern = snapshot.activation(f"blocks.{layer}.attn.hook_pattern")
    # Where the softmax is NaN the pattern is 0; weights that are some sum to more than 0.
    if not bool((pattern.sum(dim=-1) > 0).all()):
        raise InputError(f"the attention pattern of layer {layer} is not finite.")
    return pattern


def _shares(
    pattern: Float[Tensor, "n_heads n_tokens n n"],
) -> Float[Tensor, "n_heads n_frequencies"]:
    """Share of variance in the 8 terms of each frequency; 0 for a constant pattern."""
    n = pattern.shape[-1]
    power = transform_2d(pattern.permute(2, 3, 0, 1)).square().sum(dim=3)
    k = (torch.arange(n) + 1) // 2  # of each row of the basis: constant, cos 1, sin 1, cos 2, ...
    size = n_frequencies(n) + 1
    folded = power.new_zeros(size, n, power.shape[2]).index_add_(0, k, power)
    folded = power.new_zeros(size, size, power.shape[2]).index_add_(1, k, folded)
    folded[0, 0] = 0.0
    own = torch.arange(1, size)
    total = folded.sum(dim=(0, 1))
    shares = (folded[own, own] + folded[own, 0] + folded[0, own]) / total
    return torch.where(total > (n * FLAT) ** 2, shares, 0.0).T
