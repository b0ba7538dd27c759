"""The attention readout: the score that the query of "=" gives to each token's key."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.arguments import number, truth
from grokinterp.circuits.attention import FLAT, patterns_of
from grokinterp.circuits.subject import Subject, need_residual_stream, subject_of
from grokinterp.errors import InputError
from grokinterp.fourier.answers import group_of
from grokinterp.fourier.basis import spectrum
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask


@dataclass(frozen=True)
class AttentionReadout:
    """C_j of every head, and its power along the tokens.

    `scores[j, t]` is C_j(t), in nats of log attention when `scaled`. `shares[j, k - 1]` is the
    share of its variance over the tokens, in group order, along cos and sin of w_k; 0 for a head
    that scores all tokens alike. `offset[j]` is how much more the head prefers position 0 over
    position 1 whatever the token, in the same unit.
    """

    scores: Float[Tensor, "n_heads p"] = field(repr=False)
    shares: Float[Tensor, "n_heads n_frequencies"] = field(repr=False)
    offset: Float[Tensor, " n_heads"] = field(repr=False)
    to_equals: Float[Tensor, " n_heads"] = field(repr=False)  # mean attention that "=" gives itself
    frequencies: tuple[int, ...]
    scaled: bool  # divided by sqrt(d_head)
    threshold: float
    step: int | None
    note: str

    @property
    def leading(self) -> tuple[int | None, ...]:
        """The leading frequency of each head; None for one that scores all tokens alike."""
        return tuple(int(share.argmax()) + 1 if share.any() else None for share in self.shares)

    @property
    def leading_share(self) -> tuple[float, ...]:
        """The share of the variance of C_j along its leading frequency; 0 without one."""
        return tuple(self.shares.max(dim=1).values.tolist())

    def table(self) -> pd.DataFrame:
        """One row a head: leading frequency, share of variance it explains, whether that is all.

        `single_frequency`: the share reaches the threshold. `spread`: standard deviation of C_j
        over the tokens.
        """
        rows = []
        for head, k in enumerate(self.leading):
            share = None if k is None else float(self.shares[head, k - 1])
            rows.append(
                {
                    "head": head,
                    "frequency": k,
                    "variance_explained": share,
                    "single_frequency": share is not None and share >= self.threshold,
                    "key": None if k is None else k in self.frequencies,
                    "spread": float(self.scores[head].std(correction=0)),
                    "offset": float(self.offset[head]),
                    "to_equals": float(self.to_equals[head]),
                    "note": "scores all tokens alike" if k is None else "",
                }
            )
        return pd.DataFrame(rows).astype(
            {"frequency": "Int64", "variance_explained": "Float64", "key": "boolean"}
        )


def attention_readout(
    x: Subject,
    *,
    layer: int = 0,
    scaled: bool = True,
    threshold: float = 0.85,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> AttentionReadout:
    r"""C_j(t) = (q_0 W_Q^j + b_Q^j) . (W_E[t] W_K^j) / sqrt(d_head), q_0 = W_E["="] + W_pos[2].

    Attention to operand a over that to b is exp(C_j(a) - C_j(b) + offset_j). Nanda et al. 2023
    (arXiv 2301.05217) find one frequency a head, with 97.9 to 99.1 % of the variance; their
    notebook leaves the division out (`scaled=False`). `threshold` is where a head counts as of a
    single frequency (the cut they use for neurons; none is published for heads).

    With a LayerNorm, rows of `W_E + W_pos` are normalised as the layer does, and C_j is the mean
    over the two operand positions (`note` says so). Undefined, with an InputError, for layers above
    0, without "=" (the query then varies), for constant attention, for models that `Architecture`
    cannot describe and tasks without a group. The readout says what attention depends on, not what
    is done with it: see `attribution` and ablations.
    """
    threshold = number("threshold", threshold, least=0, most=1, such_as="0.85")
    scaled = truth("scaled", scaled)
    snapshot, frequencies = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    need_residual_stream(snapshot)
    tokens = group_of(snapshot).tokens
    patterns = patterns_of(snapshot, layer)
    scores, offset, note = token_scores(snapshot, layer)
    power = spectrum(scores[:, tokens].T)[1:].T
    power[scores[:, tokens].std(dim=1, correction=0) < FLAT] = 0.0
    unit = 1.0 if scaled else math.sqrt(snapshot.weights["blocks.0.attn.W_Q"].shape[2])
    return AttentionReadout(
        scores=scores * unit,
        shares=power / power.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny),
        offset=offset * unit,
        to_equals=patterns[:, :, 2].double().mean(dim=0),
        frequencies=frequencies,
        scaled=scaled,
        threshold=threshold,
        step=snapshot.step,
        note=note,
    )


def token_scores(
    snapshot: Snapshot, layer: int
) -> tuple[Float[Tensor, "n_heads p"], Float[Tensor, " n_heads"], str]:
    """C_j (scaled), the offset of position 0 against position 1, and what was assumed (float64)."""
    architecture = _checked(snapshot, layer)
    p, w = snapshot.modular_task.p, {name: x.double() for name, x in snapshot.weights.items()}
    embed, position = w["embed.W_E"], w["pos_embed.W_pos"]
    rows = torch.stack([embed + position[i] for i in range(3)])  # [position, token, d_model]
    if architecture.normalization_type == "LN":
        rows = _layer_norm(rows, w, architecture.eps)
    query = _heads(rows[2, p], w, "Q")  # the token p is "="
    keys = _heads(rows, w, "K")
    exact = torch.einsum("hk,ithk->iht", query, keys) / math.sqrt(query.shape[1])
    offset = (exact[0] - exact[1])[:, :p].mean(dim=1)
    if architecture.normalization_type == "LN":
        return exact[:2, :, :p].mean(dim=0), offset, "LayerNorm: mean over the operand positions"
    matrix = torch.einsum("hk,hdk->hd", query, w["blocks.0.attn.W_K"]) / math.sqrt(query.shape[1])
    return matrix @ embed[:p].T, offset, ""


def _checked(snapshot: Snapshot, layer: int) -> Architecture:
    """The architecture of a model that has a readout."""
    architecture = snapshot.transformer
    if layer != 0:
        raise InputError(
            f"layer={layer} has no attention readout: its keys depend on more than one token; "
            "give layer=0."
        )
    if not snapshot.modular_task.equals_token:
        raise InputError(
            'the model reads no "=", so its query varies with b and there is no readout of one '
            "query; look at circuits.attention(x)."
        )
    if architecture is None:
        raise InputError(
            "the attention readout needs a plain model (learned positions, the usual attention and "
            "MLP, no hooks of your own left on); look at circuits.attention(x)."
        )
    if architecture.attention_rate == 0:
        raise InputError("attention is constant (attention_rate=0): no score is read.")
    return architecture


def _layer_norm(
    rows: Float[Tensor, "3 d_vocab d_model"], w: Weights, eps: float
) -> Float[Tensor, "3 d_vocab d_model"]:
    gain, bias = w["blocks.0.ln1.w"], w["blocks.0.ln1.b"]
    return torch.nn.functional.layer_norm(rows, gain.shape, gain, bias, eps)


def _heads(
    rows: Float[Tensor, "*rows d_model"], w: Weights, which: str
) -> Float[Tensor, "*rows n_heads d_head"]:
    matrix, bias = w[f"blocks.0.attn.W_{which}"], w[f"blocks.0.attn.b_{which}"]
    return torch.einsum("...d,hdk->...hk", rows, matrix) + bias
