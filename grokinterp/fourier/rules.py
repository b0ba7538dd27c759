"""The rules by which a model's key frequencies are read off, each under its own name.

No source publishes a threshold, and four rules are in use; they differ on some models. Every rule
looks at one snapshot and returns a `Choice`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.fourier import spectra
from grokinterp.fourier.answers import logit_shares
from grokinterp.runs.snapshot import Snapshot

SHARE_FLOOR = 1e-12  # shares below this are rounding noise, whose ratios mean nothing
MIN_KEPT = 0.5  # kept shares must sum to this much for a sparse circuit


@dataclass(frozen=True)
class Cut:
    """Keep the largest `n_kept` shares: the next one is `ratio` times smaller."""

    n_kept: int
    ratio: float


@dataclass(frozen=True)
class Choice:
    """What a rule chose: frequencies ascending, the share of every k, and the cuts it weighed."""

    frequencies: tuple[int, ...]
    shares: Float[Tensor, " n_frequencies"]
    cuts: tuple[Cut, ...] = ()  # best first; empty for a rule without a cut
    reason: str | None = None  # why frequencies is empty


def largest_ratio_cut(shares: Float[Tensor, " n_frequencies"], what: str) -> Choice:
    """Sort the shares, cut at the largest ratio of neighbours in the upper half of the list.

    Accepted only if the kept shares sum to at least 0.5; otherwise no frequency is key.

    >>> largest_ratio_cut(torch.tensor([0.01, 0.6, 0.02, 0.3, 0.01, 0.01]), "logits").frequencies
    (2, 4)
    """
    ordered, order = shares.clamp_min(SHARE_FLOOR).sort(descending=True)
    ratios = (ordered[:-1] / ordered[1:])[: math.ceil(len(shares) / 2)]
    if len(ratios) == 0:
        ratios = torch.tensor([math.inf])  # one frequency: there is nothing to cut off
    by_ratio = ratios.argsort(descending=True, stable=True)
    cuts = tuple(Cut(int(i) + 1, float(ratios[i])) for i in by_ratio)
    n_kept = cuts[0].n_kept
    kept = float(shares[order[:n_kept]].sum())
    if not shares.isfinite().all():
        return Choice((), shares, reason=f"the {what} is not finite")
    if not kept >= MIN_KEPT:
        n_all = len(shares)
        reason = (
            f"no sparse circuit: the {n_kept} leading of {n_all} frequencies hold "
            f"{kept:.1%} of the {what}, less than {MIN_KEPT:.0%}"
        )
        return Choice((), shares, cuts, reason)
    return Choice(tuple(sorted((order[:n_kept] + 1).tolist())), shares, cuts)


def logits_rule(snapshot: Snapshot) -> Choice:
    """Shares of centred logit variance along cos/sin(w_k f(a, b)); largest-ratio cut. The default.

    It asks nothing of the architecture: any model with logits over the answers has these shares.
    """
    return largest_ratio_cut(logit_shares(snapshot), "logit variance along cos/sin(w_k f(a, b))")


def embedding_rule(snapshot: Snapshot) -> Choice:
    """Power of `W_E` along the token axis; largest-ratio cut.

    "Non-negligible norm in W_E" (Nanda et al. 2023, section 4.1), made precise by the cut.
    """
    power = spectra.embedding_spectrum(snapshot)[1:]
    return largest_ratio_cut(power / power.sum(), "embedding's power")


def embedding_demo_rule(snapshot: Snapshot) -> Choice:
    """Frequencies with a cos or sin row of `W_E` whose norm is above max / 4.

    As TransformerLens' Grokking_Demo has it now; it has no notion of a model without a circuit.
    """
    norms = spectra.embedding_rows(snapshot)[1:]
    row_frequency = torch.arange(len(norms)) // 2 + 1
    power = spectra.embedding_spectrum(snapshot)[1:]
    chosen = row_frequency[norms > norms.max() / 4].unique().tolist()
    return Choice(tuple(chosen), power / power.sum())


def neuron_logit_rule(snapshot: Snapshot) -> Choice:
    """Power of `W_out @ W_U` along the class axis; largest-ratio cut.

    The rule the paper names for its progress measures (Nanda et al. 2023, appendix C.2).
    """
    power = spectra.neuron_logit_spectrum(snapshot)[1:]
    return largest_ratio_cut(power / power.sum(), "neuron-logit map's power")


def neurons_rule(snapshot: Snapshot) -> Choice:
    """Every frequency that is the leading one of at least one neuron.

    The paper's notebook: no minimum count, so one stray neuron adds a frequency. Shares are those
    of the neurons (dead ones are not counted).
    """
    fractions = spectra.neuron_frequency_fractions(snapshot)
    leading = fractions[~fractions.isnan().any(dim=1)].argmax(dim=1)
    counts = torch.bincount(leading, minlength=fractions.shape[1])
    chosen = tuple((counts.nonzero().flatten() + 1).tolist())
    reason = None if chosen else "every neuron is dead"
    return Choice(chosen, counts.double() / max(int(counts.sum()), 1), reason=reason)


RULES: dict[str, Callable[[Snapshot], Choice]] = {
    "logits": logits_rule,
    "embedding": embedding_rule,
    "embedding_demo": embedding_demo_rule,
    "neuron_logit": neuron_logit_rule,
    "neurons": neurons_rule,
}
