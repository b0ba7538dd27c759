"""The neuron-logit map W_L = W_out W_U along the classes, and the directions it reads neurons on.

Logits that are sums of cos(w_k(f - c)) = cos(w_k f) cos(w_k c) + sin(w_k f) sin(w_k c) have these:
the row cos(w_k c) of W_L is the direction u_k among the neurons on which cos(w_k f(a, b)) is read,
the row sin(w_k c) the direction v_k for sin(w_k f(a, b)).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.circuits.subject import Subject, subject_of
from grokinterp.errors import InputError
from grokinterp.fourier.acceptance import Keys
from grokinterp.fourier.answers import AnswerSpectrum, group_of
from grokinterp.fourier.basis import transform
from grokinterp.fourier.spectra import neuron_logit_map
from grokinterp.runs.snapshot import BLOCK_ROWS, Snapshot
from grokinterp.tasks.exponents import UNDEFINED
from grokinterp.tasks.modular import ModularTask

ROUNDING = 1e-10  # rows this small beside W_L, and spans this thin, are float64 rounding


@dataclass(frozen=True)
class NeuronLogitMap:
    """The Fourier rows of W_L along the classes; `parts` names a direction by (k, "cos" or "sin").

    `directions` are unit vectors among the neurons, cos (u_k) before sin (v_k) for each key
    frequency (k = n / 2 of even n has no sin). `variance_explained` is the share, from 0 to 1, of
    the variance of u_k . MLP(a, b) over (a, b) that a multiple of cos(w_k f) explains, and of
    v_k . MLP(a, b) that one of sin(w_k f) does. A small residual says that the map is of low rank;
    it does not say that the other directions, or the residual skip, do no work.
    """

    frequencies: tuple[int, ...]
    parts: tuple[tuple[int, str], ...] = field(repr=False)
    directions: Float[Tensor, "n_directions d_mlp"] = field(repr=False)
    norms: Float[Tensor, " n_directions"] = field(repr=False)
    variance_explained: Float[Tensor, " n_directions"] = field(repr=False)
    row_norms: Float[Tensor, " n_rows"] = field(repr=False)  # of all rows, in `fourier_basis` order
    step: int | None
    notes: tuple[str, ...]

    @property
    def residual(self) -> float:
        """Frobenius norm of W_L outside the key rows, over that of W_L, the constant row in both.

        Nanda et al. 2023 (arXiv 2301.05217), section 4.2: below 0.0055.
        """
        return float(self._outside.norm() / self.row_norms.norm())

    @property
    def residual_centred(self) -> float:
        """The same without the constant row, which shifts the logits of all these classes alike."""
        return float(self._outside[1:].norm() / self.row_norms[1:].norm())

    @property
    def cosines(self) -> Float[Tensor, "n_directions n_directions"]:
        """Cosines between the directions: the unit matrix where they are orthogonal."""
        return self.directions @ self.directions.T

    @property
    def basis(self) -> Float[Tensor, "d_mlp rank"]:
        """An orthonormal basis of the span of the directions, to keep or to drop it.

        `A @ basis @ basis.T` keeps what of the activations A [n_inputs, d_mlp] lies in the span.
        """
        left, singular, _ = torch.linalg.svd(self.directions.T, full_matrices=False)
        return left[:, singular > ROUNDING]

    def direction(self, k: int, part: str) -> Float[Tensor, " d_mlp"]:
        """The unit vector u_k (`part="cos"`) or v_k (`part="sin"`)."""
        if (k, part) not in self.parts:
            known = ", ".join(f"({k}, {part!r})" for k, part in self.parts) or "none"
            raise InputError(f"direction ({k}, {part!r}) is not one of this map; known: {known}.")
        return self.directions[self.parts.index((k, part))]

    def table(self) -> pd.DataFrame:
        """One row per direction.

        `norm` is in logits per unit of activation, `share` its square over that of W_L,
        `largest_cosine` the absolute cosine with the direction nearest to it.
        """
        others = self.cosines.abs().fill_diagonal_(0.0)
        frame = pd.DataFrame(
            {
                "k": [k for k, _ in self.parts],
                "part": [part for _, part in self.parts],
                "norm": self.norms.numpy(),
                "share": (self.norms / self.row_norms.norm()).square().numpy(),
                "variance_explained": self.variance_explained.numpy(),
                "largest_cosine": [max(row, default=0.0) for row in others.tolist()],
            }
        )
        frame.attrs = {
            "residual": self.residual,
            "residual_centred": self.residual_centred,
            "step": self.step,
            "notes": list(self.notes),
        }
        return frame

    @property
    def _outside(self) -> Float[Tensor, " n_rows"]:
        norms = self.row_norms.clone()
        norms[[_row(*part) for part in self.parts]] = 0.0
        return norms


def neuron_logit_directions(
    x: Subject,
    *,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> NeuronLogitMap:
    r"""The directions among the last MLP's neurons on which the logits read each key frequency.

    u_k = sum over classes c of cos(w_k e(c)) W_L[:, c] / norm, v_k with sin, W_L = W_out W_U over
    the answer classes in the order of the task's group, without "=" (and without 0 for
    multiplication). The variance explained is (c_k . y)^2 / |y - mean(y)|^2 for y = u_k . MLP(a, b)
    with c_k the unit vector along cos(w_k f(a, b)) over all pairs, and s_k for v_k (Nanda et al.
    2023, arXiv 2301.05217, section 4.2 and table 1). InputError without an answer group or an MLP,
    and where the map or the neurons are constant or not finite.
    """
    snapshot, key = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    group = group_of(snapshot)
    rows = transform(neuron_logit_map(snapshot).T[group.tokens])
    if not 0 < rows[1:].norm() < torch.inf:
        raise InputError("W_out W_U is not finite or the same for all classes: it reads nothing.")
    parts = tuple((k, p) for k in key for p in ("cos", "sin") if _row(k, p) < group.order)
    own = rows[[_row(*part) for part in parts]]
    own = own * (own.norm(dim=1, keepdim=True) > ROUNDING * rows.norm())
    norms = own.norm(dim=1)
    directions = torch.nn.functional.normalize(own, dim=1)
    return NeuronLogitMap(
        frequencies=key,
        parts=parts,
        directions=directions,
        norms=norms,
        variance_explained=_variance_explained(snapshot, directions, parts),
        row_norms=rows.norm(dim=1),
        step=snapshot.step,
        notes=_notes(snapshot, key, parts, norms),
    )


def _row(k: int, part: str) -> int:
    """The row of `fourier_basis`."""
    return 2 * k - (part == "cos")


def _variance_explained(
    snapshot: Snapshot,
    directions: Float[Tensor, "n_directions d_mlp"],
    parts: tuple[tuple[int, str], ...],
) -> Float[Tensor, " n_directions"]:
    if not parts:
        return torch.zeros(0, dtype=torch.float64)
    group = group_of(snapshot)
    defined = group.of_input != UNDEFINED
    post = snapshot.mlp_post
    if not post.isfinite().all() or (post[defined] == post[defined][0]).all():
        raise InputError("the neurons are not finite or all dead, so no direction reads anything.")
    read = torch.cat([block.double() @ directions.T for block in post.split(BLOCK_ROWS)])
    read = read - read[defined].mean(dim=0)
    total = read[defined].square().sum(dim=0)
    order, count = group.rows.shape
    coefficients = AnswerSpectrum.of(read, group).coefficients
    found = torch.empty(len(parts), dtype=torch.float64)
    for i, (k, part) in enumerate(parts):
        inner = coefficients[k, i].real if part == "cos" else coefficients[k, i].imag
        wave_squares = order / (1 if 2 * k == order else 2)  # of cos(w_k f) over the exponents
        found[i] = count * inner.square() / wave_squares / total[i]
    return found


def _notes(
    snapshot: Snapshot,
    key: Keys,
    parts: tuple[tuple[int, str], ...],
    norms: Float[Tensor, " n_directions"],
) -> tuple[str, ...]:
    notes = []
    if not parts:
        notes.append(f"no directions: {key.reason}")
    if not snapshot.linear_readout:
        notes.append(
            "a LayerNorm or soft cap follows the MLP, so W_out W_U is not the map the model applies"
        )
    if snapshot.n_layers > 1:
        notes.append(f"only the MLP of the last of {snapshot.n_layers} layers is looked at")
    for (k, part), norm in zip(parts, norms.tolist(), strict=True):
        if norm == 0:
            notes.append(f"W_L has no row {part} {k}: its direction is zero, its numbers NaN")
    return tuple(notes)
