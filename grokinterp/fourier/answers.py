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

from grokinterp.fourier.basis import n_frequencies
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import AnswerGroup


@dataclass(frozen=True)
class AnswerSpectrum:
    """A matrix over inputs, seen along the answer's directions (float64).

    `mean` is the average over all inputs, `total` the sum of squares of the centred matrix.
    """

    group: AnswerGroup
    coefficients: Complex[Tensor, "n_frequencies_and_constant m"]
    mean: Float[Tensor, " m"]
    total: float

    @classmethod
    def of(cls, matrix: Float[Tensor, "n_inputs m"], group: AnswerGroup) -> "AnswerSpectrum":
        """The spectrum of a matrix with a row per input, in table order."""
        by_exponent = matrix[group.rows.flatten()].view(*group.rows.shape, -1)
        averages = by_exponent.mean(dim=1, dtype=torch.float64)
        mean = matrix.mean(dim=0, dtype=torch.float64)
        squares = torch.linalg.vector_norm(matrix, dtype=torch.float64).square()
        total = float(squares - len(matrix) * mean.square().sum())
        return cls(group, torch.fft.rfft(averages, dim=0), mean, total)

    def component(self, frequencies: Iterable[int]) -> Float[Tensor, "order_and_undefined m"]:
        """P_K: the part along c_k, s_k of these frequencies, one row per exponent.

        Row `f` belongs to the inputs with exponent f; the last row is for inputs without one and is
        0. Index with `group.of_input` to get a row per input.
        """
        kept = torch.zeros_like(self.coefficients)
        index = torch.tensor(sorted(set(frequencies)), dtype=torch.int64)
        kept[index] = self.coefficients[index]
        part = torch.fft.irfft(kept, n=self.group.order, dim=0)
        return torch.nn.functional.pad(part, (0, 0, 0, 1))

    def shares(self) -> Float[Tensor, " n_frequencies"]:
        """Share of the centred sum of squares along each frequency k = 1, 2, ..."""
        order, count = self.group.rows.shape
        power = self.coefficients.abs().square().sum(dim=1) * (count / order)
        power[1 : (order + 1) // 2] *= 2
        return power[1:] / max(self.total, torch.finfo(torch.float64).tiny)


def answer_spectrum(snapshot: Snapshot) -> AnswerSpectrum | None:
    """The spectrum of a snapshot's logits, or None when the task has no answer group.

    Logits count up to a shift per input, which no softmax sees, so each input's mean over the
    answer classes is taken out first.
    """
    group = usable_group(snapshot)
    if group is None:
        return None

    def compute() -> AnswerSpectrum:
        logits = snapshot.logits.double()
        return AnswerSpectrum.of(logits - logits.mean(dim=1, keepdim=True), group)

    return snapshot.memo("answer_spectrum", compute)


def usable_group(snapshot: Snapshot) -> AnswerGroup | None:
    """The task's answer group where it has at least one frequency."""
    group = snapshot.task.answer_group
    return group if group is not None and n_frequencies(group.order) else None


def no_frequencies_reason(snapshot: Snapshot) -> str:
    """Why a task has no key frequencies."""
    task = snapshot.task
    return task.no_group_reason or f"{task.operation} mod {task.p} has no frequency above 0"
