"""Which frequency each neuron depends on, and the clusters of neurons that share one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.arguments import number
from grokinterp.circuits.subject import Subject, subject_of
from grokinterp.errors import InputError, shown, whole_number
from grokinterp.fourier.acceptance import Keys
from grokinterp.fourier.answers import no_frequencies_reason
from grokinterp.fourier.spectra import neuron_powers, token_order
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask

if TYPE_CHECKING:
    import plotly.graph_objects as go

LEFTOVER = -1  # the cluster of neurons that no frequency explains well enough


@dataclass(frozen=True)
class NeuronClusters:
    """The neurons of one layer, each with its leading frequency and its cluster.

    A cluster says on which waves of a and of b its neurons depend, not that the answer needs them:
    drop the cluster and look at the loss for that.
    """

    leading: Int[Tensor, " d_mlp"] = field(repr=False)  # frequency; 0 for a dead neuron
    fraction: Float[Tensor, " d_mlp"] = field(repr=False)  # of its variance; NaN for a dead neuron
    quadratic_fraction: Float[Tensor, " d_mlp"] = field(repr=False)  # its four products alone
    variance_shares: Float[Tensor, " d_mlp"] = field(repr=False)  # of the layer's variance
    key_frequencies: tuple[int, ...]
    threshold: float
    layer: int
    step: int | None
    notes: tuple[str, ...]

    @cached_property
    def cluster(self) -> Int[Tensor, " d_mlp"]:
        """The leading frequency where its fraction reaches the threshold, else -1 (leftover)."""
        return torch.where(self.fraction >= self.threshold, self.leading, LEFTOVER)

    @property
    def frequencies(self) -> tuple[int, ...]:
        """The frequencies that have a cluster, ascending, key or not."""
        return tuple(k for k in self.cluster.unique().tolist() if k != LEFTOVER)

    @property
    def sizes(self) -> dict[int, int]:
        """Neurons of every cluster; -1 counts the leftover, dead neurons among them."""
        return {k: len(self.members(k)) for k in (*self.frequencies, LEFTOVER)}

    @property
    def dead(self) -> tuple[int, ...]:
        """Neurons with the same activation on every input: they belong to no frequency."""
        return tuple((self.leading == 0).nonzero().flatten().tolist())

    @property
    def variance_share(self) -> float:
        """Share of the layer's centred activation variance in the neurons of clusters."""
        return float(self.variance_shares[self.cluster != LEFTOVER].sum())

    def members(self, k: int) -> Int[Tensor, " n_members"]:
        """The neurons of cluster k, ascending; k = -1 for the leftover, none where k has none."""
        if whole_number(k) is None:
            raise InputError(
                f"k={shown(k)} is no frequency; give such as 9, or -1 for the leftover."
            )
        return (self.cluster == k).nonzero().flatten()

    def table(self) -> pd.DataFrame:
        """One row per neuron; fractions and shares are from 0 to 1, `.attrs` has the rest."""
        frame = pd.DataFrame(
            {
                "neuron": range(len(self.leading)),
                "leading": self.leading.numpy(),
                "fraction": self.fraction.numpy(),
                "quadratic_fraction": self.quadratic_fraction.numpy(),
                "cluster": self.cluster.numpy(),
                "key": [k in self.key_frequencies for k in self.cluster.tolist()],
                "variance_share": self.variance_shares.numpy(),
                "dead": (self.leading == 0).numpy(),
            }
        )
        frame.attrs.update(self.assumptions)
        return frame

    def summary(self) -> pd.DataFrame:
        """One row per cluster, the leftover last.

        Fractions are means over its live neurons, NaN where it has none.
        """
        rows = []
        for k, size in self.sizes.items():
            members = self.members(k)
            rows.append(
                {
                    "cluster": k,
                    "neurons": size,
                    "key": k in self.key_frequencies,
                    "variance_share": float(self.variance_shares[members].sum()),
                    "fraction": float(self.fraction[members].nanmean()),
                    "quadratic_fraction": float(self.quadratic_fraction[members].nanmean()),
                }
            )
        frame = pd.DataFrame(rows)
        frame.attrs.update(self.assumptions, variance_share=self.variance_share)
        return frame

    def plot(self) -> "go.Figure":
        """Every neuron by its leading frequency and how much that explains."""
        from grokinterp.viz import plot_neuron_clusters

        return plot_neuron_clusters(self)

    @property
    def assumptions(self) -> dict[str, object]:
        """What the tables rest on: they carry it as `.attrs`."""
        return {
            "key_frequencies": list(self.key_frequencies),
            "threshold": self.threshold,
            "layer": self.layer,
            "step": self.step,
            "notes": list(self.notes),
        }


def neuron_clusters(
    x: Subject,
    *,
    layer: int | None = None,
    threshold: float = 0.85,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> NeuronClusters:
    r"""Sort a layer's neurons (the last one's unless given) by the frequency they depend on.

    With G the post-activations of one neuron over the n*n grid of (a, b), centred, and Ĝ their 2-D
    transform, the fraction of frequency k is the sum of Ĝ_ij^2 over i, j in {const, cos w_k,
    sin w_k}, over that of all i, j. A neuron is in the cluster of its leading frequency k if that
    fraction is at least `threshold`, else in the leftover, -1 (Nanda et al. 2023, arXiv 2301.05217,
    section 4.3 and their notebook; TransformerLens' demo asks for more than 0.85). The quadratic
    fraction counts the four products cos, sin of a times cos, sin of b only (ARENA). `frequencies`
    (those of the logits unless given) only mark clusters as key. Multiplication is looked at in
    discrete logarithms, zero factors left out. InputError for a layer without such neurons, for
    activations that are not finite, and where there is no frequency above 0.
    """
    threshold = number("threshold", threshold, least=0, most=1, such_as="0.85")
    snapshot, key = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    layer = snapshot.n_layers - 1 if layer is None else layer
    powers = neuron_powers(snapshot, layer=layer)
    if not powers.both.shape[1]:
        raise InputError(f"{no_frequencies_reason(snapshot)}, so neurons cannot be sorted by one.")
    if not powers.total.isfinite().all():
        raise InputError(f"neurons of layer {layer} are not finite; look at an earlier step.")
    own = powers.first + powers.second + powers.both
    best = own.argmax(dim=1, keepdim=True)
    dead = powers.total == 0
    return NeuronClusters(
        leading=torch.where(dead, 0, best.flatten() + 1),
        fraction=own.gather(1, best).flatten() / powers.total,
        quadratic_fraction=powers.both.gather(1, best).flatten() / powers.total,
        variance_shares=powers.total / powers.total.sum().clamp_min(torch.finfo().tiny),
        key_frequencies=key,
        threshold=threshold,
        layer=layer,
        step=snapshot.step,
        notes=_cluster_notes(snapshot, key, dead),
    )


def _cluster_notes(snapshot: Snapshot, key: Keys, dead: Bool[Tensor, " d_mlp"]) -> tuple[str, ...]:
    notes = []
    if not key:
        notes.append(f"no frequency is key: {key.reason}")
    if len(token_order(snapshot)) < snapshot.modular_task.p:
        notes.append("inputs with a zero factor take no part")
    if dead.all():
        notes.append("every neuron is dead")
    return tuple(notes)
