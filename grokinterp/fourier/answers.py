"""The answer's Fourier directions: cos and sin of w_k f(a, b), over all inputs of a task.

With f(a, b) the exponent of the pair in the task's group (a + b mod p for addition), the unit
vectors c_k, s_k over the inputs are proportional to cos(w_k f) and sin(w_k f). Projections onto
them depend on f alone, so nothing of size p cubed is ever built: average over the inputs of each
exponent, then one real DFT over the exponents gives every frequency at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from grokinterp.errors import InputError, whole_number
from grokinterp.fourier.basis import n_frequencies
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.exponents import UNDEFINED
from grokinterp.tasks.modular import AnswerGroup

BLOCK_COLUMNS = 8


@dataclass(frozen=True)
class AnswerSpectrum:
    """A matrix over inputs, seen along the answer's directions (float64).

    `coefficients` are the DFT, over exponents, of the averages over the inputs of each exponent.
    Inputs without an exponent (a zero factor) take no part.
    """

    group: AnswerGroup
    coefficients: Complex[Tensor, "n_frequencies_and_constant m"]

    @classmethod
    def of(cls, matrix: Float[Tensor, "n_inputs m"], group: AnswerGroup) -> "AnswerSpectrum":
        """The spectrum of a matrix with a row per input, in table order."""
        order, count = group.rows.shape
        sums = torch.zeros(order, matrix.shape[1], dtype=torch.float64)
        for rows in group.rows.T.split(BLOCK_COLUMNS):  # small blocks stay in the cache
            sums += matrix[rows.flatten()].view(*rows.shape, -1).sum(dim=0, dtype=torch.float64)
        return cls(group, torch.fft.rfft(sums / count, dim=0))

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
        order, count = self.group.rows.shape
        power = self.coefficients.abs().square().sum(dim=1) * (count / order)
        power[1 : (order + 1) // 2] *= 2
        return power[1:]


def logit_shares(snapshot: Snapshot) -> Float[Tensor, " n_frequencies"]:
    """Share of the centred variance of the logits along cos/sin(w_k f(a, b)), k = 1, 2, ...

    Centred twice: each class's mean over the inputs is taken out, and each input's mean over the
    classes, a shift that no softmax sees. Shares sum to at most 1; the rest is variance along other
    functions of (a, b). Inputs without an exponent (a zero factor) take no part.
    """
    group = group_of(snapshot)
    logits = snapshot.logits.double()
    logits = logits - logits.mean(dim=1, keepdim=True)
    spectrum = AnswerSpectrum.of(logits, group)
    centred = logits[group.of_input != UNDEFINED] - spectrum.mean
    total = centred.square().sum().clamp_min(torch.finfo(torch.float64).tiny)
    return spectrum.power() / total


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
    if not isinstance(frequencies, Iterable):
        raise InputError(f"frequencies={frequencies!r} is not a list; give such as [1, 5].")
    found = set()
    for given in frequencies:
        k = whole_number(given)
        if k is None or not 1 <= k <= highest:
            raise InputError(
                f"frequency {given!r} is not between 1 and {highest}; give such as [1, 5]."
            )
        found.add(k)
    return tuple(sorted(found))
