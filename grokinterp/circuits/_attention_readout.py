"""Attention as a function of the tokens: the score that the query of "=" gives to each key.

`attention_readout` is that score, C_j of head j; `attention_fits` puts a sigmoid or a line in
C_j(a) - C_j(b), cut to its leading waves, in the place of the attention to a.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import number, truth, whole, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits._attention import FLAT, patterns_of
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.answers import group_of
from grokinterp.fourier.basis import spectrum
from grokinterp.fourier.spectra import token_order
from grokinterp.models.blocks import normed
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot, need_residual_stream
from grokinterp.tasks.modular import ModularTask


@dataclass(frozen=True, kw_only=True)
class AttentionReadout(Result):
    """C_j of every head, and its power along the tokens.

    `scores[j, t]` is C_j(t), in nats of log attention when `scaled`. `shares[j, k - 1]` is the
    share of its variance over the tokens, in group order, along cos and sin of w_k; 0 for a head
    that scores all tokens alike. `offset[j]` is how much more the head prefers the position of a
    over that of b whatever the token, in the same unit.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attention_readout(gi.load("mod31-small"))
    >>> found.leading, [round(share, 2) for share in found.leading_share]
    ((1, 8, 14, 8), [0.84, 0.88, 0.92, 0.37])
    >>> found.table()[["head", "frequency", "single_frequency", "key"]]
       head  frequency  single_frequency   key
    0     0          1             False  True
    1     1          8              True  True
    2     2         14              True  True
    3     3          8             False  True
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
        """One row per head: its leading frequency, what that explains, and whether it is enough.

        `single_frequency`: the share reaches the threshold. `spread`: of C_j over the tokens.
        """
        leading = self.leading
        shares = [share if share else None for share in self.leading_share]
        frame = pd.DataFrame(
            {
                "head": range(len(leading)),
                "frequency": leading,
                "variance_explained": shares,
                "single_frequency": [s is not None and s >= self.threshold for s in shares],
                "key": [None if k is None else k in self.frequencies for k in leading],
                "spread": self.scores.std(dim=1, correction=0).tolist(),
                "offset": self.offset.tolist(),
                "to_equals": self.to_equals.tolist(),
                "note": ["" if k else "scores all tokens alike" for k in leading],
            }
        )
        nullable = {"frequency": "Int64", "variance_explained": "Float64", "key": "boolean"}
        return frame.astype(nullable)


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
    r"""C_j(t) = (q_0 W_Q^j + b_Q^j) . (W_E[t] W_K^j) / sqrt(d_head), q_0 = W_E["="] + W_pos[last].

    Attention to operand a over that to b is exp(C_j(a) - C_j(b) + offset_j). Nanda et al. 2023
    (arXiv 2301.05217) find one frequency per head, with 97.9 to 99.1 % of the variance; their
    notebook leaves the division out (`scaled=False`). `threshold` is where a head counts as of a
    single frequency (the cut they use for neurons; none is published for heads).

    With norms before it, rows of `W_E + W_pos` are normalised as the layer does, and C_j is the
    mean over the two operand positions (`note` says so). Undefined, with an InputError, for layers
    above 0, without "=" (the query then varies), for constant attention, for models that no
    `TransformerArchitecture` describes and tasks without a group. The readout says what attention
    depends on, not what is done with it: see `attribution` and ablations.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attention_readout(gi.load("mod31-small"))
    >>> found.table()[["head", "frequency", "variance_explained", "single_frequency"]].round(2)
       head  frequency  variance_explained  single_frequency
    0     0          1                0.84             False
    1     1          8                0.88              True
    2     2         14                0.92              True
    3     3          8                0.37             False
    """
    threshold = number("threshold", threshold, least=0, most=1, such_as="0.85")
    scaled = truth("scaled", scaled)
    snapshot, frequencies = subject_of(x, step, frequencies, task, train_mask)
    need_residual_stream(snapshot)
    group_of(snapshot)
    tokens = token_order(snapshot)
    patterns = patterns_of(snapshot, layer)
    scores, offset, note = token_scores(snapshot, layer)
    power = spectrum(scores[:, tokens].T)[1:].T
    power[scores[:, tokens].std(dim=1, correction=0) < FLAT] = 0.0
    unit = 1.0 if scaled else math.sqrt(snapshot.weights["blocks.0.attn.W_Q"].shape[2])
    return AttentionReadout(
        scores=scores * unit,
        shares=power / power.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny),
        offset=offset * unit,
        to_equals=patterns[:, :, -1].double().mean(dim=0),
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
    architecture, other = snapshot.transformer, "look at circuits.attention(x)"
    if layer != 0:
        why = "its keys depend on more than one token; give layer=0"
        raise InputError(f"layer={layer} has no attention readout: {why}.")
    if not snapshot.modular_task.equals_token:
        why = "its query varies with b and there is no readout of one query"
        raise InputError(f'the model reads no "=" at its end, so {why}; {other}.')
    if architecture is None:
        plain = "learned positions, the usual attention and MLP, no hooks of your own left on"
        raise InputError(f"the attention readout needs a plain model ({plain}); {other}.")
    if architecture.attention_rate == 0:
        raise InputError("attention is constant (attention_rate=0): no score is read.")
    reads, w = snapshot.modular_task.reads, {n: x.double() for n, x in snapshot.weights.items()}
    places, last = list(reads.operand_places), reads.words[-1]
    positions = w["pos_embed.W_pos"][[*places, len(reads.words) - 1]]
    rows = w["embed.W_E"] + positions[:, None]  # [a, b and the last position; token; d_model]
    normalised = architecture.normalization_type is not None and architecture.norm_position == "pre"
    if normalised:
        rows = normed(w, architecture, "blocks.0.ln1", rows)
    query, keys = (
        torch.einsum("...d,hdk->...hk", x, w[f"blocks.0.attn.W_{which}"])
        + w[f"blocks.0.attn.b_{which}"]
        for which, x in (("Q", rows[2, reads.id_of[last]]), ("K", rows[:, reads.operand_rows]))
    )
    root = math.sqrt(query.shape[1])
    exact = torch.einsum("hk,ithk->iht", query, keys) / root
    offset = (exact[0] - exact[1]).mean(dim=1)
    if normalised:
        note = f"{architecture.norm_name}: mean over the operand positions"
        return exact[:2].mean(dim=0), offset, note
    matrix = torch.einsum("hk,hdk->hd", query, w["blocks.0.attn.W_K"]) / root
    return matrix @ w["embed.W_E"][reads.operand_rows].T, offset, ""


FITTED = {"sigmoid": "nothing", "linear": "slope, intercept"}  # of each form, to the pattern


@dataclass(frozen=True, kw_only=True)
class AttentionFits(Result):
    """Both forms of every head, and how much of its attention to a they explain.

    `patterns[form]` are what a hook can put in the place of the pattern at the answer position.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attention_fits(gi.load("mod31-small"))
    >>> found.patterns["linear"].shape
    torch.Size([961, 4, 3])
    >>> found.table()[["head", "form", "variance_explained", "whole_readout"]].round(2).head(4)
       head     form  variance_explained  whole_readout
    0     0  sigmoid                0.84            1.0
    1     1  sigmoid                0.87            1.0
    2     2  sigmoid                0.93            1.0
    3     3  sigmoid                0.34            1.0
    """

    patterns: dict[str, Float[Tensor, "n_inputs n_heads n_tokens"]] = field(repr=False)
    rows: tuple[dict[str, object], ...] = field(repr=False)
    readout: AttentionReadout
    waves: int  # how many leading frequencies of C_j are kept

    def table(self) -> pd.DataFrame:
        """One row per head and form.

        `variance_explained` of the true attention to a, over all inputs; `whole_readout` is the
        same with all of C_j instead of its leading `waves`: what is missing there is the form's
        fault (and that of "="), the difference is the other frequencies'. Null for a constant.
        """
        nullable = {"frequency": "Int64", "variance_explained": "Float64"}
        return pd.DataFrame(self.rows).astype(nullable | {"whole_readout": "Float64"})


def attention_fits(
    x: Subject,
    *,
    waves: int = 1,
    layer: int = 0,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> AttentionFits:
    r"""Attention to a as g(slope (C_j(a) - C_j(b)) + intercept), C_j cut to its leading waves.

    `waves`: how many frequencies of each head are kept, its strongest first. "sigmoid": g is the
    logistic function; nothing is fitted to the pattern, for softmax without "=" has slope 1 and as
    intercept the positional offset, both from the weights. "linear": g is the identity; slope and
    intercept are least squares over all inputs (values outside 0 to 1 are left as they are). In
    both, attention to b is the rest, and "=" gets none (with an attention rate r, r times this plus
    1 - r). Nanda et al. 2023 (arXiv 2301.05217) do so with one wave per head. A good fit does not
    show that the model works with it in place, nor a bad one that it fails: run `patterns` through
    a hook for that. Raises as `attention_readout` does.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attention_fits(gi.load("mod31-small"), waves=2)
    >>> found.table()[["head", "form", "frequency", "variance_explained"]].round(2).tail(4)
       head    form  frequency  variance_explained
    4     0  linear          1                0.91
    5     1  linear          8                0.89
    6     2  linear         14                0.96
    7     3  linear          8                0.67
    """
    snapshot, frequencies = subject_of(x, step, frequencies, task, train_mask)
    readout = attention_readout(snapshot, layer=layer, frequencies=frequencies)
    waves = whole("waves", waves, least=1, most=readout.shares.shape[1], such_as="1")
    reads = snapshot.modular_task.reads
    of_a, of_b = reads.operand_places
    truth = patterns_of(snapshot, layer)[:, :, of_a].double()
    assert snapshot.transformer is not None  # attention_readout has made sure
    rate = snapshot.transformer.attention_rate
    cut = _leading_waves(readout, token_order(snapshot), waves)
    a, b = snapshot.modular_task.operands.unbind(1)
    difference, every = ((scores[:, a] - scores[:, b]).T for scores in (cut, readout.scores))
    patterns: dict[str, Tensor] = {}
    rows: list[dict[str, object]] = []
    for form, fitted in FITTED.items():
        slope, intercept, to_a, explained = _fit(form, difference, readout.offset, rate, truth)
        ceiling = _fit(form, every, readout.offset, rate, truth)[3]
        constant = torch.full_like(to_a, 1 - rate)
        of_place = {of_a: to_a, of_b: 2 - rate - to_a}
        parts = [of_place.get(place, constant) for place in range(len(reads.words))]
        patterns[form] = torch.stack(parts, dim=2)
        for head, k in enumerate(readout.leading):
            row = {"head": head, "form": form, "frequency": k}
            row |= {"slope": float(slope[head]), "intercept": float(intercept[head])}
            row |= {"fitted": fitted, "variance_explained": explained[head]}
            rows.append(row | {"whole_readout": ceiling[head]})
    return AttentionFits(patterns=patterns, rows=tuple(rows), readout=readout, waves=waves)


def fitted_patterns(
    x: Subject,
    *,
    form: str = "sigmoid",
    waves: int = 1,
    layer: int = 0,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Float[Tensor, "n_inputs n_heads n_tokens"]:
    """The fitted pattern at the answer position, for a hook to put in place of the true one.

    Float64, at every position of the layout; `form` is "sigmoid" or "linear", see `attention_fits`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> fitted = gi.circuits.fitted_patterns(run, form="sigmoid")
    >>> replaced = gi.hooks.replaced_patterns(0, fitted, name="fitted patterns")
    >>> gi.ablate(run, [replaced], placebos=5).table()[["acc_all", "ratio", "placebo_min"]].round()
       acc_all  ratio  placebo_min
    0      1.0  116.0       4412.0
    """
    word("form", form, FITTED)
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    fits = attention_fits(snapshot, waves=waves, layer=layer, frequencies=keys)
    return fits.patterns[form]


def _leading_waves(readout: AttentionReadout, tokens: Tensor, waves: int) -> Tensor:
    """C_j reduced to its mean and leading frequencies; tokens without an exponent keep theirs."""
    scores = readout.scores.clone()
    coefficients = torch.fft.rfft(scores[:, tokens], dim=1)
    leading = torch.zeros_like(readout.shares).scatter(1, readout.shares.topk(waves).indices, 1.0)
    coefficients[:, 1:] *= leading * (readout.shares > 0)  # no wave of a head without one
    scores[:, tokens] = torch.fft.irfft(coefficients, n=len(tokens), dim=1)
    return scores


def _fit(
    form: str, difference: Tensor, offset: Tensor, rate: float, truth: Tensor
) -> tuple[Tensor, Tensor, Tensor, list[float | None]]:
    """Slope and intercept of each head, the attention to a they give, the variance it explains.

    `difference`, `truth` and the attention are [n_inputs, n_heads].
    """
    spread, mean = torch.std_mean(truth, dim=0, correction=0)
    if form == "sigmoid":
        slope, intercept = torch.ones_like(offset), offset
        to_a = rate * (difference + offset).sigmoid() + (1 - rate)
    else:  # The differences have mean zero over all (a, b), so least squares separates.
        squares = difference.square().sum(dim=0)
        inner = (difference * (truth - mean)).sum(dim=0)
        slope = torch.where(squares > 0, inner / squares.clamp_min(1e-300), 0.0)
        intercept, to_a = mean, slope * difference + mean
    shares = 1 - (truth - to_a).square().mean(dim=0) / spread.square().clamp_min(1e-300)
    varies = spread >= FLAT
    explained = [float(x) if y else None for x, y in zip(shares, varies, strict=True)]
    return slope, intercept, to_a, explained
