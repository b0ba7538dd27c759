"""The answer's Fourier directions: cos and sin of w_k f(a, b), over all inputs of a task.

With f(a, b) the exponent of the pair in the task's group (a + b mod p for addition), the unit
vectors c_k, s_k over the inputs are proportional to cos(w_k f) and sin(w_k f). Nothing of size p
cubed is ever built: a real DFT of the averages over the inputs of each exponent gives all of them.

Where exponents have different numbers of inputs, as of a**2 + b**2, inputs are weighted so that all
exponents count alike (`AnswerGroup.weights`): else cos and sin of different k would not be
orthogonal.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from grokinterp.base.checks import listed, whole
from grokinterp.base.errors import InputError
from grokinterp.fourier.basis import n_frequencies
from grokinterp.runs._snapshot import Block, Snapshot
from grokinterp.tasks.answer_group import UNDEFINED, AnswerGroup

BLOCK_CELLS = 2**17  # in float64 at once: more would fall out of the cache


@dataclass(frozen=True)
class AnswerSpectrum:
    """A matrix over inputs, seen along the answer's directions (float64).

    `coefficients` are the DFT, over exponents, of the averages over the inputs of each exponent.
    Inputs without an exponent (a zero factor) take no part.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> seen = run.snapshot()
    >>> found = gi.fourier.AnswerSpectrum.of(seen.logits, run.task.answer_group)
    >>> power = found.power()
    >>> (power.topk(3).indices + 1).tolist()  # which frequencies the logits vary along most
    [14, 1, 8]
    >>> found.component([1, 8, 14]).shape  # a row per a + b mod 31, a column per answer
    torch.Size([31, 31])
    """

    group: AnswerGroup
    coefficients: Complex[Tensor, "n_frequencies_and_constant m"]

    @classmethod
    def of(cls, matrix: Float[Tensor, "n_inputs m"], group: AnswerGroup) -> "AnswerSpectrum":
        """The spectrum of a matrix with a row per input, in table order."""
        sums = ExponentSums(group)
        sums.count(slice(0, len(matrix)), matrix)
        return sums.spectrum

    @property
    def mean(self) -> Float[Tensor, " m"]:
        """The average over all inputs that have an exponent."""
        return self.coefficients[0].real / self.group.order

    def component(self, frequencies: Iterable[int]) -> Float[Tensor, "order m"]:
        """P_K: the part along c_k, s_k of these frequencies, one row per exponent."""
        kept = torch.zeros_like(self.coefficients)
        index = torch.tensor(sorted(set(frequencies)), dtype=torch.int64)
        kept[index] = self.coefficients[index]
        return torch.fft.irfft(kept, n=self.group.order, dim=0)

    def power(self) -> Float[Tensor, " n_frequencies"]:
        """Sum of squares along c_k and s_k, for each frequency k = 1, 2, ..."""
        order = self.group.order
        count = self.group.n_inputs / order  # of the inputs of an exponent
        power = self.coefficients.abs().square().sum(dim=1) * (count / order)
        power[1 : (order + 1) // 2] *= 2
        return power[1:]


class ExponentSums:
    """Sums over the inputs of every exponent, or over some of them, block by block (float64)."""

    needs: tuple[str, ...] = ()  # of a `Tally` that counts such sums

    def __init__(
        self, group: AnswerGroup, *, rows: Bool[Tensor, " n_inputs"] | None = None
    ) -> None:
        self.group = group
        # Inputs without an exponent, or not asked for, are counted in a row of their own, the last.
        counted = group.of_input != UNDEFINED
        counted = counted if rows is None else counted & rows
        self._exponents = group.of_input.where(counted, group.order)
        self._sums: Tensor | None = None

    def count(self, rows: slice, block: Float[Tensor, "rows m"]) -> None:
        """Count consecutive inputs' rows."""
        if self._sums is None:
            self._sums = torch.zeros(self.group.order + 1, block.shape[1], dtype=torch.float64)
        few = max(1, BLOCK_CELLS // block.shape[1])
        parts = zip(self._exponents[rows].split(few), block.split(few), strict=True)
        for exponents, part in parts:
            self._sums.index_add_(0, exponents, part.double())

    @property
    def sums(self) -> Float[Tensor, "order m"]:
        """A row per exponent."""
        assert self._sums is not None
        return self._sums[: self.group.order]

    @cached_property
    def spectrum(self) -> AnswerSpectrum:
        """The spectrum of all that was counted, every input of the group."""
        means = self.sums / self.group.counts[:, None]
        return AnswerSpectrum(self.group, torch.fft.rfft(means, dim=0))


class LogitTally(ExponentSums):
    """A `Tally` of the raw logits along the answer's directions, and of their squares."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(group_of(snapshot))
        self._centred = ExponentSums(self.group)
        self.squares = 0.0  # of all logits of inputs with an exponent
        self._centred_squares = 0.0  # with every input's mean over the classes taken out

    def add(self, block: Block) -> None:
        """Count a block."""
        logits = block.logits.double()
        centred = logits - logits.mean(dim=1, keepdim=True)  # not in place: others look at it too
        self.count(block.rows, logits)
        self._centred.count(block.rows, centred)
        exponents = self.group.of_input[block.rows]
        counted = exponents != UNDEFINED  # the others may be NaN
        weights = self.group.weights[exponents[counted]]
        squares = (torch.linalg.vector_norm(x, dim=1).square() for x in (logits, centred))
        raw, around = (float((each[counted] * weights).sum()) for each in squares)
        self.squares += raw
        self._centred_squares += around

    @cached_property
    def shares(self) -> Float[Tensor, " n_frequencies"]:
        """What `logit_shares` returns."""
        centred = self._centred.spectrum
        total = self._centred_squares - self.group.n_inputs * centred.mean.square().sum()
        return centred.power() / total.clamp_min(torch.finfo(torch.float64).tiny)


def logit_shares(snapshot: Snapshot) -> Float[Tensor, " n_frequencies"]:
    """Share of the centred variance of the logits along cos/sin(w_k f(a, b)), k = 1, 2, ...

    Centred twice: each class's mean over the inputs is taken out, and each input's mean over the
    classes, a shift that no softmax sees. Shares sum to at most 1; the rest is variance along other
    functions of (a, b). Inputs without an exponent (a zero factor) take no part.

    `gi.fourier.logit_shares` takes a run too (with `step`), a path, or a model with `task`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for step in (0, 300, 10_000):
    ...     shares = gi.fourier.logit_shares(run, step=step)
    ...     print(step, shares[[0, 7, 13]].round(decimals=2).tolist())  # of k = 1, 8, 14
    0 [0.0, 0.0, 0.0]
    300 [0.01, 0.0, 0.76]
    10000 [0.15, 0.07, 0.72]
    """
    return snapshot.tally(LogitTally).shares


def usable_group(snapshot: Snapshot) -> AnswerGroup | None:
    """The task's answer group where it has at least one frequency."""
    group = snapshot.task.answer_group
    return group if group is not None and n_frequencies(group.order) else None


def no_frequencies_reason(snapshot: Snapshot) -> str:
    """Why a task has no key frequencies."""
    task = snapshot.task
    return task.no_group_reason or f"{task.title} has no frequency above 0"


def group_of(snapshot: Snapshot) -> AnswerGroup:
    """The task's answer group; without one there are no frequencies to look along."""
    group = usable_group(snapshot)
    if group is None:
        raise InputError(no_frequencies_reason(snapshot) + ".")
    return group


def checked_frequencies(frequencies: Iterable[int], group: AnswerGroup) -> tuple[int, ...]:
    """Frequencies of a group, ascending, each once; refused if one is not between 1 and n // 2."""
    highest = n_frequencies(group.order)
    given = listed("frequencies", frequencies, such_as="[1, 5]")
    checked = {whole("frequency", k, least=1, most=highest, such_as="1") for k in given}
    return tuple(sorted(checked))
