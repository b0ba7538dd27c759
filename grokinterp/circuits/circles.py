"""Circles in the embedding: how circular it is, and the plane of each circle.

Rows of `W_E` are taken in the order of the task's group, operand tokens only, with their mean taken
out. A circle of frequency k is a plane of the embedding in which token x stands at the angle w_k x.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.arguments import whole
from grokinterp.circuits.subject import Subject, need_residual_stream, subject_of
from grokinterp.errors import InputError
from grokinterp.fourier.answers import group_of
from grokinterp.fourier.basis import fourier_basis, spectrum
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask

ROUNDING = 1e-6  # relative: smaller singular values are those of float32


@dataclass(frozen=True)
class Component:
    """A principal component of the embedding: its leading frequency, and that one's share."""

    frequency: int
    circularity: float
    singular_value: float


@dataclass(frozen=True)
class Circularity:
    """How circular the first principal components of an embedding are.

    `value` is the published mean over `components`. `key_share` is the power of the planes of the
    key frequencies over that of as many principal components (None without key frequencies).
    """

    value: float
    components: tuple[Component, ...]
    key_share: float | None
    frequencies: tuple[int, ...]
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per principal component, strongest first."""
        frame = pd.DataFrame([vars(component) for component in self.components])
        frame.attrs |= {
            "circularity": self.value,
            "key_share": self.key_share,
            "frequencies": self.frequencies,
            "step": self.step,
        }
        return frame


def circularity(
    x: Subject,
    *,
    n_components: int = 4,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Circularity:
    r"""How much each leading principal component of the embedding is a wave of one frequency.

    The mean over the first `n_components` of max_k 2 / (n sum_x v_x^2) |sum_x v_x e^(i w_k x)|^2,
    v a principal component over the n operand tokens (the mean row taken out first); between 0 and
    1, circular from 0.995 on (Zhong et al. 2023, arXiv 2306.17844).

    Components of nearly equal singular value are free to rotate into each other, and mix two
    circles of equal size: the value falls although both are perfect. `key_share` does not: it is 1
    where the planes of the |K| key frequencies hold all that the first 2 |K| components hold, which
    is the most that any planes can. Neither says that the network uses the circles.
    InputError without an answer group or a table of embeddings.
    """
    snapshot, frequencies = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    need_residual_stream(snapshot)
    n_components = whole("n_components", n_components, least=1, such_as="4")
    components = principal_components(snapshot)[:n_components]
    if not components:
        raise InputError("the embeddings of all operands are equal; they have no components.")
    return Circularity(
        value=sum(found.circularity for found in components) / len(components),
        components=components,
        key_share=_key_share(snapshot, frequencies) if frequencies else None,
        frequencies=frequencies,
        step=snapshot.step,
    )


def principal_components(snapshot: Snapshot) -> tuple[Component, ...]:
    """All principal components of the embedding with their leading frequencies."""
    waves, singular, _ = _svd(snapshot)
    return tuple(
        _component(wave, float(value)) for wave, value in zip(waves.T, singular, strict=True)
    )


def frequency_plane(snapshot: Snapshot, k: int) -> Float[Tensor, "n d_model"]:
    """The part of the embedding along cos and sin of w_k x."""
    tokens = centred_embedding(snapshot)
    waves = _rows(k, len(tokens))
    return waves.T @ (waves @ tokens)


def principal_plane(snapshot: Snapshot, k: int) -> Float[Tensor, "n d_model"]:
    """The part along the two strongest principal components whose leading frequency is k."""
    waves, singular, directions = _svd(snapshot)
    leading = [component.frequency for component in principal_components(snapshot)]
    own = [i for i, frequency in enumerate(leading) if frequency == k][:2]
    if not own:
        raise InputError(
            f"no principal component of the embedding has the leading frequency {k}; "
            'take method="frequency".'
        )
    return (waves[:, own] * singular[own]) @ directions[own]


def centred_embedding(snapshot: Snapshot) -> Float[Tensor, "n d_model"]:
    """`W_E` of the operand tokens in the order of the group, less its mean row (float64)."""
    if "embed.W_E" not in snapshot.weights:
        raise InputError("the model has no weight 'embed.W_E', the table of embeddings.")
    embedding = snapshot.weights["embed.W_E"][group_of(snapshot).tokens].double()
    return embedding - embedding.mean(dim=0)


def _svd(
    snapshot: Snapshot,
) -> tuple[Float[Tensor, "n rank"], Float[Tensor, " rank"], Float[Tensor, "rank d_model"]]:
    """The singular value decomposition of the centred embedding, zero values left out."""
    waves, singular, directions = torch.linalg.svd(centred_embedding(snapshot), full_matrices=False)
    rank = int((singular > ROUNDING * singular[0]).sum())
    return waves[:, :rank], singular[:rank], directions[:rank]


def _component(wave: Float[Tensor, " n"], singular_value: float) -> Component:
    share, index = (spectrum(wave)[1:] / wave.square().sum()).max(dim=0)
    return Component(int(index) + 1, float(share), singular_value)


def _key_share(snapshot: Snapshot, frequencies: Sequence[int]) -> float | None:
    """Power in the planes of the frequencies over that of as many leading components."""
    n = group_of(snapshot).order
    singular = _svd(snapshot)[1]
    n_rows = sum(len(_rows(k, n)) for k in frequencies)
    power = sum(float(frequency_plane(snapshot, k).square().sum()) for k in frequencies)
    return power / float(singular[:n_rows].square().sum())


def _rows(k: int, n: int) -> Float[Tensor, "rows n"]:
    """Cos and sin of w_k x as unit vectors; one alternating row for 2 k = n."""
    return fourier_basis(n)[2 * k - 1 : 2 * k + 1]
