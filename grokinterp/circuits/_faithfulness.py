"""Faithfulness: how far the claimed circuit alone is the model, and whether all of it is needed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.result import Result, plain_values
from grokinterp.circuits.ablation import LOSS_ROUNDING, Row, Score, ablate, embedding_hook
from grokinterp.circuits.hooks import directions, embedding, fourier, heads, mlp_skip, neurons
from grokinterp.circuits.interventions import Intervention
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters, neuron_logit_directions
from grokinterp.fourier._key_frequencies import need_key_frequencies, subject_of
from grokinterp.models.last_block import LOGITS
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.modular import ModularTask

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLACEBOS = 10


@dataclass(frozen=True, kw_only=True)
class Faithfulness(Result):
    """The model, its claimed circuit alone, the model without it, and the circuit less each part.

    The circuit: the key frequencies of the embedding, all heads, the clusters of neurons of key
    frequencies, and of these what the directions u_k, v_k of the neuron-logit map read. Everything
    else is at its mean over the inputs, the skip around the last MLP too. `without` drops the key
    frequencies from the logits; `nothing` keeps only the mean of the logits.

    A circuit that recovers all of the loss suffices; that each part is needed does not show that no
    smaller circuit of another kind would do.
    """

    frequencies: tuple[int, ...]
    alone: Row = field(repr=False)
    without: Row = field(repr=False)
    nothing: Row = field(repr=False)
    parts: tuple[Row, ...] = field(repr=False)  # the circuit alone, less one part each
    step: int | None

    def __repr__(self) -> str:
        numbers = [f"{name}={getattr(self, name):.6g}" for name in ("recovered", "lost", "ratio")]
        names = [f"{name}={getattr(self, name)}" for name in ("not_needed", "frequencies", "step")]
        return f"Faithfulness({', '.join(numbers + names)})"

    @property
    def ratio(self) -> float:
        """Loss of the circuit alone over that of the model; `recovered` cannot see it near 1."""
        return self.alone.ratio

    @property
    def recovered(self) -> float:
        """(nothing - alone) / (nothing - model) in loss on all inputs; 1 is all, above 1 better.

        NaN, as `lost` is, for a model that is no better than nothing: there is no loss to recover.
        """
        return self._share(self.nothing.score.loss_all - self.alone.score.loss_all)

    @property
    def lost(self) -> float:
        """(without - model) / (nothing - model) in loss on all inputs; may pass 1."""
        return self._share(self.without.score.loss_all - self.without.whole.loss_all)

    @property
    def not_needed(self) -> tuple[str, ...]:
        """Parts whose removal from the circuit alone costs nothing, within rounding."""
        alone = self.alone.score.loss_all * (1 + LOSS_ROUNDING)
        return tuple(row.name for row in self.parts if row.score.loss_all <= alone)

    def _scores(self) -> dict[str, Score]:
        """The model's score, and those of all rows by their names."""
        rows = (self.alone, self.without, self.nothing, *self.parts)
        return {"the model": self.alone.whole} | {row.name: row.score for row in rows}

    def table(self) -> pd.DataFrame:
        """One row each: losses and accuracies, and the loss over that of the circuit alone."""
        frame = pd.DataFrame(
            {"what": name, **vars(score)} for name, score in self._scores().items()
        )
        frame["ratio_to_alone"] = frame["loss_all"] / self.alone.score.loss_all
        frame["verdict"] = ""
        frame.loc[1:2, "verdict"] = [self.alone.verdict, self.without.verdict]
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `grokinterp ablate --json` prints them; what is not defined is None."""
        names = ("step", "frequencies", "recovered", "lost", "ratio", "not_needed")
        return plain_values({name: getattr(self, name) for name in names} | {"rows": self.table()})

    def plot(self) -> "go.Figure":
        """The losses of all rows on a log axis."""
        return self._drawn()

    def _share(self, difference: float) -> float:
        gained = self.nothing.score.loss_all - self.nothing.whole.loss_all
        return difference / gained if gained > 0 else math.nan


def faithfulness(
    x: Subject,
    *,
    step: int = -1,
    placebos: int = PLACEBOS,
    seed: int = 0,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Faithfulness:
    """How much of the loss the circuit alone recovers, how much is lost without it, what it needs.

    Each part removed from the circuit (a head, a cluster, a frequency of the embedding) is compared
    with the circuit. It has no placebos: what is outside is gone already, and the rest is claimed
    too. The circuit as a whole is compared with random sets of as many frequencies, neurons and
    directions. InputError without key frequencies or an MLP: then nothing is claimed.
    """
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    need_key_frequencies(keys)
    circuit = _circuit_alone(snapshot, keys)
    # The part first: what the directions then read of the neurons is without it.
    less = [(x + circuit).called(f"alone less {x.name}") for x in _parts(snapshot, keys)]
    rows = ablate(
        snapshot,
        [
            circuit,
            fourier(LOGITS, snapshot.modular_task, keys).called("without the circuit"),
            fourier(LOGITS, snapshot.modular_task, (), keep=True).called("nothing"),
            *(replace(one, draw=None, no_placebo="a part of the circuit") for one in less),
        ],
        frequencies=keys,
        placebos=placebos,
        seed=seed,
    ).rows
    alone, without, nothing, *others = rows
    return Faithfulness(
        frequencies=keys,
        alone=alone,
        without=without,
        nothing=nothing,
        parts=tuple(others),
        step=snapshot.step,
    )


def _circuit_alone(snapshot: Snapshot, keys: tuple[int, ...]) -> Intervention:
    """Everything but the claimed circuit at its mean."""
    last = snapshot.n_layers - 1
    clusters = neuron_clusters(snapshot, frequencies=keys)
    others = [k for k in (*clusters.frequencies, LEFTOVER) if k not in keys]
    outside = [neuron for k in others for neuron in clusters.members(k).tolist()]
    found = embedding(snapshot.modular_task, keys, hook_name=embedding_hook(snapshot))
    if outside:
        found += neurons(last, outside)
    basis = neuron_logit_directions(snapshot, frequencies=keys).basis
    found += directions(f"blocks.{last}.mlp.hook_post", basis, keep=True, mode="mean")
    if snapshot.kind == "transformer":
        found += mlp_skip(last)
    return replace(found, name="the circuit alone", keeps=True)


def _parts(snapshot: Snapshot, keys: tuple[int, ...]) -> list[Intervention]:
    """Frequencies of the embedding, heads, and clusters of neurons."""
    hook, task = embedding_hook(snapshot), snapshot.modular_task
    found = [fourier(hook, task, [k], terms="operands") for k in keys]
    for layer in range(snapshot.n_layers):
        n_heads = len(snapshot.weights.get(f"blocks.{layer}.attn.W_Q", ()))
        found += [heads(layer, head) for head in range(n_heads)]
    clusters = neuron_clusters(snapshot, frequencies=keys)
    for k in keys:
        if len(members := clusters.members(k)):
            found.append(neurons(clusters.layer, members.tolist(), name=f"neurons of k = {k}"))
    return found
