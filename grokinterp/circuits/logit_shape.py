r"""The shape of the logits as a function of (a, b, c): what does the distance a - b do to them?

Every task with an answer group is addition of exponents: with x the exponent of a, and y the
exponent of b or, for subtraction, minus it, the answer has the exponent x + y mod n. Its logits are
looked at along x + y, which the answer depends on, and along the distance d = x - y mod n, which it
does not.

Two algorithms on a circle of frequency k (w = 2 pi k / n) write, up to a factor,

    clock:  cos(w (x + y - z))                          z the exponent of the class c
    pizza:  |cos(w d / 2)| cos(w (x + y - z))

(Zhong et al. 2023, arXiv 2306.17844). Both factors are functions on the group: d + n
instead of d turns w d / 2 by k pi, which changes the sign of its cosine at most, for odd and for
even n. Over z alone, waves of different frequencies are orthogonal whatever stands before them, so
each frequency is fitted on its own and the parts of the variance add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.circuits.subject import Subject, need_key_frequencies, subject_of
from grokinterp.fourier.answers import AnswerSpectrum, group_of
from grokinterp.fourier.basis import n_frequencies
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.exponents import UNDEFINED
from grokinterp.tasks.modular import AnswerGroup, ModularTask

ROUNDING = 1e-6  # relative: variation below it is that of float32


@dataclass(frozen=True)
class DistanceIrrelevance:
    """q, the mean over distances of the spread within one over the spread over all pairs.

    `value` is None where the right answer's logit does not vary at all; `reason` says so.
    """

    value: float | None
    std_all: float  # logit units
    std_within: Float[Tensor, " order"] = field(repr=False, compare=False)  # by distance
    mean_within: Float[Tensor, " order"] = field(repr=False, compare=False)
    reason: str | None
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per distance: mean and spread of the right answer's logit."""
        frame = pd.DataFrame(
            {"mean": self.mean_within.numpy(), "std": self.std_within.numpy()}
        ).rename_axis(index="distance")
        frame.attrs |= {"std_all": self.std_all, "q": self.value, "step": self.step}
        return frame.reset_index()


def distance_irrelevance(
    x: Subject,
    *,
    step: int = -1,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> DistanceIrrelevance:
    r"""How little the distance between the operands says about the right answer's logit.

    q = (mean over d of std(L_xy over the pairs of distance d)) / std(L_xy over all pairs), with
    L_xy the logit of the right answer and population standard deviations; between 0 and 1, no
    unit. Zhong et al. 2023 (arXiv 2306.17844): 0 to 0.4 for pizzas, 0.4 to 1 for clocks.
    Distances are of exponents (the module says which); for addition d = a - b mod p.

    It asks about right answers alone and only how much the distance matters, not in which form:
    a memorising network has q near 1 as well. InputError for a task without an answer group.
    """
    snapshot, _ = subject_of(x, step=step, frequencies=(), task=task, train_mask=train_mask)
    group = group_of(snapshot)
    n = group.order
    grid = operand_grid(group)
    labels = snapshot.task.labels
    right = snapshot.logits[torch.arange(len(labels)), labels].double()[grid]
    position = torch.arange(n)
    by_distance = right[(position[:, None] + position) % n, position]  # [d, y]: x = y + d
    std_within = by_distance.std(dim=1, unbiased=False)
    std_all = float(right.std(unbiased=False))
    constant = std_all <= ROUNDING * float(right.abs().max())
    return DistanceIrrelevance(
        value=None if constant else float(std_within.mean()) / std_all,
        std_all=std_all,
        std_within=std_within,
        mean_within=by_distance.mean(dim=1),
        reason="the right answer's logit is the same for all pairs" if constant else None,
        step=snapshot.step,
    )


@dataclass(frozen=True)
class WaveFit:
    """One frequency's share of the centred variance of the logits, by form.

    `free` is the best that any function of the distance before cos(w (x + y - z)) can do: an upper
    bound for both forms. The amplitudes are the least-squares factors, in logit units.
    """

    frequency: int
    clock: float
    pizza: float
    free: float
    clock_amplitude: float
    pizza_amplitude: float


@dataclass(frozen=True)
class LogitForms:
    """How much of the logits the clock's form and the pizza's form explain, per frequency.

    Shares of the variance over all (a, b, c) after taking out each input's mean over the classes
    and each class's mean over the inputs; the latter held `class_means` of the variance before.
    """

    fits: tuple[WaveFit, ...]
    class_means: float
    step: int | None

    @property
    def clock(self) -> float:
        """Share of the variance explained by clocks of all these frequencies."""
        return sum(fit.clock for fit in self.fits)

    @property
    def pizza(self) -> float:
        """Share of the variance explained by pizzas of all these frequencies."""
        return sum(fit.pizza for fit in self.fits)

    @property
    def free(self) -> float:
        """Share explained with any function of the distance before each wave."""
        return sum(fit.free for fit in self.fits)

    def table(self) -> pd.DataFrame:
        """One row per frequency, strongest first, and a last one for all of them together."""
        frame = pd.DataFrame([vars(fit) for fit in self.fits])
        frame = frame.sort_values("free", ascending=False)
        joint = {"frequency": "all", "clock": self.clock, "pizza": self.pizza, "free": self.free}
        frame = pd.concat([frame.astype({"frequency": object}), pd.DataFrame([joint])])
        frame.attrs |= {"class_means": self.class_means, "step": self.step}
        return frame.reset_index(drop=True)


def logit_forms(
    x: Subject,
    *,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> LogitForms:
    r"""Least-squares fits of the logits by the clock's and by the pizza's form (see the module).

    With R_k(d) the sum of L cos(w_k (x + y - z)) over the pairs of distance d and all z, and
    g(d) = 1 or |cos(w_k d / 2)|, the share explained is (sum_d g R_k)^2 / (n^2/2 sum_d g^2 |L|^2).
    Source: Zhong et al. 2023 (arXiv 2306.17844), who fit one circle at a time: see
    `grokinterp.circuits.isolation.isolate_circles`.

    On a whole model the forms do not tell pizza from clock: further circles at twice the frequency
    fill the gaps that |cos| leaves, and the published pizza network, with its circles together,
    has logits of the clock's form. InputError without an answer group or key frequencies.
    """
    snapshot, keys = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    group = group_of(snapshot)
    need_key_frequencies(keys)
    waves, variance, class_means = _waves_by_distance(snapshot, group)
    fits = tuple(_fit(k, waves[k], variance=variance, order=group.order) for k in keys)
    return LogitForms(fits, class_means, snapshot.step)


def pizza_envelope(k: int, order: int) -> Float[Tensor, " order"]:
    """|cos(w_k d / 2)| at every distance d."""
    return torch.cos(torch.pi * ((k * torch.arange(order)) % order).double() / order).abs()


def operand_grid(group: AnswerGroup) -> Int[Tensor, "order order"]:
    """The input with exponents x and y, where x is that of a and x + y that of the answer."""
    defined = (group.of_input != UNDEFINED).nonzero().flatten()
    first = group.of_token[defined // len(group.of_token)]
    second = (group.of_input[defined] - first) % group.order
    grid = torch.empty(group.order, group.order, dtype=torch.int64)
    grid[first, second] = defined
    return grid


def _fit(k: int, wave: Float[Tensor, " order"], *, variance: float, order: int) -> WaveFit:
    # Sum of squares of cos(w_k (x + y - z)) over the pairs of one distance and all z.
    squares = order * order / (1 if 2 * k == order else 2)

    def share_and_amplitude(envelope: Float[Tensor, " order"]) -> tuple[float, float]:
        inner, norm = float(wave @ envelope), squares * float(envelope @ envelope)
        return inner**2 / norm / variance, inner / norm

    clock, clock_amplitude = share_and_amplitude(torch.ones(order, dtype=torch.float64))
    pizza, pizza_amplitude = share_and_amplitude(pizza_envelope(k, order))
    free = float(wave @ wave) / squares / variance
    return WaveFit(k, clock, pizza, free, clock_amplitude, pizza_amplitude)


def _waves_by_distance(
    snapshot: Snapshot, group: AnswerGroup
) -> tuple[Float[Tensor, "n_frequencies_and_constant order"], float, float]:
    """R_k(d) of the centred logits, their variance (sum of squares), and the class means' share.

    One slice of the p-cubed table at a time, each through a real DFT over the classes:
    sum_z L cos(w (s - z)) is the real part of exp(-i w s) times the conjugate of its DFT.
    """
    n = group.order
    y = torch.arange(n)
    turns = torch.outer(y, torch.arange(n_frequencies(n) + 1)) % n
    angle = 2 * torch.pi * turns.double() / n
    means = AnswerSpectrum.of(snapshot.logits, group).mean[group.tokens]
    means = means - means.mean()
    waves = torch.zeros(n_frequencies(n) + 1, n, dtype=torch.float64)
    variance = 0.0
    for x, rows in enumerate(operand_grid(group)):
        block = snapshot.logits[rows].double()[:, group.tokens]
        block = block - block.mean(dim=1, keepdim=True) - means
        variance += float(block.square().sum())
        turn = torch.exp(-1j * angle[(x + y) % n])
        waves[:, (x - y) % n] += (turn * torch.fft.rfft(block, dim=1).conj()).real.T
    of_means = n * n * float(means.square().sum())
    smallest = torch.finfo(torch.float64).tiny
    return waves, max(variance, smallest), of_means / max(variance + of_means, smallest)
