"""Attention replaced by one wave, or a few, a head: a sigmoid or a line in C_j(a) - C_j(b)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.arguments import whole, word
from grokinterp.circuits.attention import FLAT, patterns_of
from grokinterp.circuits.attention_readout import AttentionReadout, attention_readout
from grokinterp.circuits.subject import Subject, subject_of
from grokinterp.fourier.answers import group_of
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import AnswerGroup, ModularTask

FITTED = {"sigmoid": "nothing", "linear": "slope, intercept"}  # form -> what the pattern decides


@dataclass(frozen=True)
class AttentionFits:
    """Both forms of every head, and how much of its attention to a they explain.

    `patterns[form]` are what a hook can put in the place of the pattern at the answer position.
    """

    patterns: dict[str, Float[Tensor, "n_inputs n_heads n_tokens"]] = field(repr=False)
    rows: tuple[dict[str, object], ...] = field(repr=False)
    readout: AttentionReadout
    waves: int  # how many leading frequencies of C_j are kept

    def table(self) -> pd.DataFrame:
        """One row a head and form.

        `variance_explained` of the true attention to a, over all inputs; `whole_readout` is the
        same of the same form with all of C_j instead of its leading `waves`: what is missing
        there is the form's fault (and that of "="), the difference is the other frequencies'. Null
        where attention to a does not vary.
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
    1 - r). Nanda et al. 2023 (arXiv 2301.05217) do so with one wave a head. A good fit does not
    show that the model works with it in place, nor a bad one that it fails: run `patterns` through
    a hook for that. Raises as `attention_readout` does.
    """
    snapshot, frequencies = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    readout = attention_readout(snapshot, layer=layer, frequencies=frequencies)
    most = readout.shares.shape[1]
    waves = whole("waves", waves, least=1, most=most, such_as="1")
    truth = patterns_of(snapshot, layer)[:, :, 0].double()
    assert snapshot.transformer is not None  # attention_readout has made sure
    rate = snapshot.transformer.attention_rate
    difference = _differences(snapshot, leading_waves(readout, group_of(snapshot), waves))
    every = _differences(snapshot, readout.scores)
    patterns: dict[str, Tensor] = {}
    rows: list[dict[str, object]] = []
    for form, fitted in FITTED.items():
        slope, intercept, to_a = _fit(form, difference, readout.offset, rate, truth)
        explained = _explained(truth, to_a)
        ceiling = _explained(truth, _fit(form, every, readout.offset, rate, truth)[2])
        patterns[form] = torch.stack(
            [to_a, 2 - rate - to_a, torch.full_like(to_a, 1 - rate)], dim=2
        )
        rows += [
            {
                "head": head,
                "form": form,
                "frequency": k,
                "slope": float(slope[head]),
                "intercept": float(intercept[head]),
                "fitted": fitted,
                "variance_explained": explained[head],
                "whole_readout": ceiling[head],
            }
            for head, k in enumerate(readout.leading)
        ]
    return AttentionFits(patterns, tuple(rows), readout, waves)


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

    Float64, positions a, b, "="; `form` is "sigmoid" or "linear", see `attention_fits`.
    """
    word("form", form, FITTED)
    fits = attention_fits(
        x, waves=waves, layer=layer, step=step, frequencies=frequencies, task=task,
        train_mask=train_mask,
    )  # fmt: skip
    return fits.patterns[form]


def leading_waves(
    readout: AttentionReadout, group: AnswerGroup, waves: int = 1
) -> Float[Tensor, "n_heads p"]:
    """C_j reduced to its mean and leading frequencies; tokens without an exponent keep theirs."""
    scores = readout.scores.clone()
    coefficients = torch.fft.rfft(scores[:, group.tokens], dim=1)
    leading = torch.zeros_like(readout.shares).scatter(1, readout.shares.topk(waves).indices, 1.0)
    coefficients[:, 1:] *= leading * (readout.shares > 0)  # no wave of a head without one
    scores[:, group.tokens] = torch.fft.irfft(coefficients, n=group.order, dim=1)
    return scores


def _differences(
    snapshot: Snapshot, scores: Float[Tensor, "n_heads p"]
) -> Float[Tensor, "n_inputs n_heads"]:
    a, b = snapshot.modular_task.inputs.unbind(1)
    return (scores[:, a] - scores[:, b]).T


def _fit(
    form: str,
    difference: Float[Tensor, "n_inputs n_heads"],
    offset: Float[Tensor, " n_heads"],
    rate: float,
    truth: Float[Tensor, "n_inputs n_heads"],
) -> tuple[Float[Tensor, " n_heads"], Float[Tensor, " n_heads"], Float[Tensor, "n_inputs n_heads"]]:
    """Slope, intercept, and the attention to a that they give."""
    if form == "sigmoid":
        return (
            torch.ones_like(offset),
            offset,
            rate * (difference + offset).sigmoid() + (1 - rate),
        )
    mean = truth.mean(dim=0)
    # The differences have mean zero over all (a, b), so least squares separates.
    squares = difference.square().sum(dim=0)
    inner = (difference * (truth - mean)).sum(dim=0)
    slope = torch.where(squares > 0, inner / squares.clamp_min(1e-300), 0.0)
    return slope, mean, slope * difference + mean


def _explained(
    truth: Float[Tensor, "n_inputs n_heads"], fit: Float[Tensor, "n_inputs n_heads"]
) -> list[float | None]:
    spread = truth.std(dim=0, correction=0)
    explained = 1 - (truth - fit).square().mean(dim=0) / spread.square().clamp_min(1e-300)
    return [float(share) if s >= FLAT else None for share, s in zip(explained, spread, strict=True)]
