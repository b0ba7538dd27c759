"""Restricted, excluded and trig loss, and their variants in Grokking_Demo.

L are the logits of the p answer classes, [n_inputs, p]; P_K projects columns on the unit directions
cos/sin(w_k f(a, b)) of the key frequencies K, over all inputs; CE is the mean cross-entropy in
nats, computed in float64. All projections depend on the exponent f alone (see
`grokinterp.fourier.answers`), so nothing of size p cubed is built. For multiplication and division
"all pairs" are those without a zero: the others have no exponent, and no such circuit answers them.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.fourier.answers import (
    AnswerSpectrum,
    ExponentSums,
    LogitTally,
    checked_frequencies,
    group_of,
)
from grokinterp.fourier.spectra import neuron_logit_map
from grokinterp.models.cross_entropy import answer_scores
from grokinterp.runs._snapshot import Block, Snapshot
from grokinterp.tasks.answer_group import UNDEFINED


def restricted_loss(snapshot: Snapshot, frequencies: Sequence[int]) -> float:
    """CE over all pairs of P_K L + mean(L): what the key frequencies compute on their own.

    Nanda et al. 2023 (arXiv 2301.05217), section 5.1 and their code: logits, all pairs, column
    means added back. Low says that these directions suffice for the answer, not that the network
    reads nothing else: compare with the excluded loss.

    `gi.progress.restricted_loss` takes a run too (with `step`), a path, or a model with `task`;
    without frequencies, the key ones of the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for step in (0, 300, 10_000):
    ...     print(step, round(gi.progress.restricted_loss(run, step=step), 3))
    0 3.483
    300 0.165
    10000 0.0
    >>> round(gi.progress.restricted_loss(run, [2, 3, 5]), 1)  # of others
    5.9
    """
    spectrum, frequencies = _along(snapshot, frequencies)
    table = spectrum.component(frequencies) + spectrum.mean
    return _loss_over_pairs(table, snapshot)


def excluded_loss(snapshot: Snapshot, frequencies: Sequence[int]) -> float:
    """CE over training pairs of L - P_K L: what is left without the key frequencies.

    Nanda et al. 2023, section 5.1 and their code: logits, training pairs, no mean added. It rises
    once the training answers come from the circuit; memorised answers do not need it. NaN without a
    split.

    `gi.progress.excluded_loss` takes a run too (with `step`), a path, or a model with `task`;
    without frequencies, the key ones of the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for step in (0, 300, 10_000):
    ...     print(step, round(gi.progress.excluded_loss(run, step=step), 1))
    0 3.5
    300 12.8
    10000 10.4
    >>> gi.progress.excluded_loss(run, [2, 3, 5]) < 1e-3  # of others
    True
    """
    spectrum, frequencies = _along(snapshot, frequencies)
    return _losses_without([spectrum.component(frequencies)], snapshot)[0]


def excluded_loss_each(snapshot: Snapshot, frequencies: Sequence[int]) -> dict[int, float]:
    """Excluded loss of one key frequency at a time (Nanda et al. 2023, appendix; ARENA)."""
    spectrum, frequencies = _along(snapshot, frequencies)
    parts = [spectrum.component([k]) for k in frequencies]
    return dict(zip(frequencies, _losses_without(parts, snapshot), strict=True))


def trig_loss(snapshot: Snapshot, frequencies: Sequence[int]) -> float:
    """CE over all pairs of the least-squares fit of L by cos(w_k(f(a, b) - e(c))), k in K.

    The form that the trigonometric algorithm predicts (Nanda et al. 2023, section 4.2), with one
    coefficient a frequency: see `trig_coefficients`.

    `gi.progress.trig_loss` takes a run too (with `step`), a path, or a model with `task`; without
    frequencies, the key ones of the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for step in (0, 300, 10_000):
    ...     print(step, round(gi.progress.trig_loss(run, [1, 8, 14], step=step), 3))
    0 3.434
    300 0.014
    10000 0.0
    """
    group = group_of(snapshot)
    exponents = torch.arange(group.order)
    wave = torch.zeros(group.order, dtype=torch.float64)
    for k, alpha in trig_coefficients(snapshot, frequencies).items():
        wave += alpha * torch.cos(2 * torch.pi * k * exponents.double() / group.order)
    table = torch.zeros(group.order, snapshot.modular_task.p, dtype=torch.float64)
    table[:, group.tokens] = wave[(exponents[:, None] - exponents[None, :]) % group.order]
    return _loss_over_pairs(table, snapshot)


def trig_coefficients(snapshot: Snapshot, frequencies: Sequence[int]) -> dict[int, float]:
    """Least-squares coefficient alpha_k of cos(w_k(f(a, b) - e(c))) in the logits.

    The waves of different k are orthogonal over all (a, b, c), so each is a projection.
    """
    spectrum, frequencies = _along(snapshot, frequencies)
    order = spectrum.group.order
    exponent = torch.arange(order, dtype=torch.float64)
    found = {}
    for k in frequencies:
        turn = torch.exp(2j * torch.pi * k * exponent / order)
        inner = float((spectrum.coefficients[k, spectrum.group.tokens] * turn).sum().real)
        found[k] = inner / _wave_squares(k, order)
    return found


def trig_variance_explained(snapshot: Snapshot, frequencies: Sequence[int]) -> float:
    """1 - |L - m - fit|^2 / |L - m|^2 of the trig fit, m the mean of L, all over (a, b, c).

    High says that the logits have the predicted form on average over a, b and c.
    """
    spectrum, _ = _along(snapshot, frequencies)
    order, n_inputs = spectrum.group.order, spectrum.group.n_inputs
    count = n_inputs / order  # of the inputs of an exponent
    coefficients = trig_coefficients(snapshot, frequencies)
    fit = sum(alpha**2 * count * _wave_squares(k, order) for k, alpha in coefficients.items())
    n_logits = n_inputs * len(spectrum.mean)
    squares = snapshot.tally(LogitTally).squares
    return float(fit / (squares - n_logits * spectrum.mean.mean().square()))


def _wave_squares(k: int, order: int) -> float:
    """Sum of squares of cos(w_k(f - e)) over all exponents f and e."""
    return order * order / (1 if 2 * k == order else 2)


def restricted_loss_demo(snapshot: Snapshot, frequencies: Sequence[int]) -> float:
    """The restricted loss of TransformerLens' Grokking_Demo.

    MLP activations are reduced to their mean and P_K, sent through `W_out @ W_U` without the
    residual skip, and re-centred to the model's mean logits; CE on test pairs. NaN without a split,
    or with a LayerNorm before the unembedding.

    `gi.progress.restricted_loss_demo` takes a run too (with `step`), a path, or a model with
    `task`; without frequencies, the key ones of the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> gi.progress.restricted_loss_demo(run) < 1e-6
    True
    >>> round(gi.progress.restricted_loss_demo(run, [2, 3, 5]), 1)  # of others
    5.6
    """
    spectrum, frequencies = _along(snapshot, frequencies)
    train = snapshot.train_mask
    if train is None or not snapshot.linear_readout:
        return math.nan
    table = _neuron_part(snapshot, frequencies) + spectrum.mean
    exponents = group_of(snapshot).of_input[~train]
    losses = _loss_by_exponent(table, snapshot)
    return float(losses[exponents[exponents != UNDEFINED]].mean())


def excluded_loss_demo(snapshot: Snapshot, frequencies: Sequence[int]) -> float:
    """The excluded loss of TransformerLens' Grokking_Demo.

    P_K is taken out of the MLP activations, the residual skip stays; CE on training pairs. The
    logits are linear in the activations, so this is L - P_K(A) W_out W_U. NaN without a split, or
    with a LayerNorm before the unembedding.

    `gi.progress.excluded_loss_demo` takes a run too (with `step`), a path, or a model with `task`;
    without frequencies, the key ones of the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> round(gi.progress.excluded_loss_demo(run), 1)
    8.3
    >>> gi.progress.excluded_loss_demo(run, [2, 3, 5]) < 1e-3  # of others
    True
    """
    _, frequencies = _along(snapshot, frequencies)
    if not snapshot.linear_readout:
        return math.nan
    return _losses_without([_neuron_part(snapshot, frequencies)], snapshot)[0]


class NeuronTally(ExponentSums):
    """A `Tally` of the last MLP's neurons along the answer's directions."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(group_of(snapshot))
        self.needs = (snapshot.mlp_post_name,)

    def add(self, block: Block) -> None:
        """Count a block."""
        self.count(block.rows, block.activations[self.needs[0]])


def _neuron_part(snapshot: Snapshot, frequencies: Sequence[int]) -> Float[Tensor, "order p"]:
    """P_K of the MLP activations, seen through the neuron-logit map."""
    component = snapshot.tally(NeuronTally).spectrum.component(frequencies)
    return component @ neuron_logit_map(snapshot)[:, : snapshot.modular_task.p]


def _along(
    snapshot: Snapshot, frequencies: Sequence[int]
) -> tuple[AnswerSpectrum, tuple[int, ...]]:
    """The spectrum of the raw logits (a shift per input is left in, as in the paper), and K."""
    keys = checked_frequencies(frequencies, group_of(snapshot))
    return snapshot.tally(LogitTally).spectrum, keys


def _loss_by_exponent(
    table: Float[Tensor, "order p"], snapshot: Snapshot
) -> Float[Tensor, " order"]:
    """Cross-entropy at every exponent, for logits that depend on the exponent alone."""
    return answer_scores(table, group_of(snapshot).tokens).losses  # whose inputs share their label


def _loss_over_pairs(table: Float[Tensor, "order p"], snapshot: Snapshot) -> float:
    """Their mean over all pairs that have an exponent."""
    group = group_of(snapshot)
    return float(_loss_by_exponent(table, snapshot) @ (group.counts.double() / group.n_inputs))


def _losses_without(parts: Sequence[Float[Tensor, "order p"]], snapshot: Snapshot) -> list[float]:
    """CE over training pairs of the logits less each of these parts, which depend on f(a, b)."""
    if snapshot.train_mask is None:
        return [math.nan] * len(parts)
    of_input, labels = group_of(snapshot).of_input, snapshot.task.labels
    rows = (snapshot.train_mask & (of_input != UNDEFINED)).nonzero().flatten()
    sums = [0.0] * len(parts)
    for some, logits in snapshot.logit_blocks(rows):
        for place, part in enumerate(parts):
            rest = part.index_select(0, of_input[some]).neg_().add_(logits)
            sums[place] += float(answer_scores(rest, labels[some]).losses.sum())
    return [total / len(rows) if len(rows) else math.nan for total in sums]
