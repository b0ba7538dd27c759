"""Direct logit attribution: which part of a model pushes the right answer above the wrong ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.arguments import listed, word
from grokinterp.circuits.neurons import neuron_clusters
from grokinterp.circuits.subject import Subject, need_residual_stream, subject_of
from grokinterp.circuits.writers import Writer, needed_activations, writers
from grokinterp.errors import InputError, shown, whole_number
from grokinterp.fourier.answers import AnswerSpectrum, no_frequencies_reason, usable_group
from grokinterp.runs.snapshot import BLOCK_ROWS, Snapshot
from grokinterp.runs.taking import from_weights
from grokinterp.tasks.modular import AnswerGroup, ModularTask

if TYPE_CHECKING:
    import plotly.graph_objects as go

AGAINST = ("mean", "best")


@dataclass(frozen=True)
class Attribution:
    """The margin of the right answer, as a sum over parts and over logit frequencies (float64).

    `per_input[i, j]` is what part j adds to the margin of input i, `margin[i]` the margin itself,
    both in logits. `spectrum[j, k]` is what part j adds to the average margin through its logits'
    component along cos/sin(w_k f(a, b)), k = 0 the constant; None without an answer group
    (`reason` says why).
    """

    parts: tuple[str, ...]
    per_input: Float[Tensor, "n_inputs n_parts"] = field(repr=False)
    margin: Float[Tensor, " n_inputs"] = field(repr=False)
    spectrum: Float[Tensor, "n_parts n_frequencies_and_constant"] | None = field(repr=False)
    frequencies: tuple[int, ...]
    against: str
    step: int | None
    reason: str | None
    note: str

    @property
    def total(self) -> float:
        """The margin, averaged over all inputs."""
        return float(self.margin.mean())

    @property
    def unexplained(self) -> float:
        """`total` less the sum of all parts: rounding, or what else the model has."""
        return float((self.margin - self.per_input.sum(dim=1)).mean())

    @property
    def most_unexplained(self) -> float:
        """The same on the input where it is largest, in absolute value: means can hide it."""
        return float((self.margin - self.per_input.sum(dim=1)).abs().max())

    def table(self) -> pd.DataFrame:
        """One row a part: mean over all inputs, share of the total, spread over the inputs.

        Shares are null for a total of zero.
        """
        mean = self.per_input.mean(dim=0)
        total = self.total
        return pd.DataFrame(
            {
                "part": self.parts,
                "margin": mean.tolist(),
                "share": [x / total if total else None for x in mean.tolist()],
                "spread": self.per_input.std(dim=0, correction=0).tolist(),
            }
        ).astype({"share": "Float64"})

    def by_frequency(self) -> pd.DataFrame:
        """Part by logit frequency: every cell a share of the mean margin, in logits.

        Columns: each key frequency, the `other` frequencies together, the `constant` (mean logits
        over the inputs), the `rest` (functions of (a, b) other than f, and inputs without an
        exponent) and their sum, `margin`; the last row sums the parts.
        """
        if self.spectrum is None:
            raise InputError(f"{self.reason}; the parts alone are in .table().")
        mean = self.per_input.mean(dim=0)
        keys: dict[int | str, Tensor] = {k: self.spectrum[:, k] for k in self.frequencies}
        constant = self.spectrum[:, 0]
        other = self.spectrum[:, 1:].sum(dim=1) - sum(keys.values(), torch.zeros_like(mean))
        rest = mean - self.spectrum.sum(dim=1)
        columns = keys | {"other": other, "constant": constant, "rest": rest, "margin": mean}
        frame = pd.DataFrame({name: column.tolist() for name, column in columns.items()})
        frame.index = pd.Index(self.parts, name="part")
        frame.loc["all parts"] = frame.sum()
        return frame

    def plot(self) -> "go.Figure":
        """What each part adds to the margin, by logit frequency where there are any."""
        from grokinterp.viz import plot_attribution

        return plot_attribution(self)


def attribution(
    x: Subject,
    *,
    against: str = "mean",
    clusters: Mapping[int, Int[Tensor, " n"]] | None = None,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Attribution:
    r"""The margin m . L of the right answer, split over everything that writes to the residual.

    m is 1 at the right class and, with `against="mean"`, -1/(p - 1) at each other answer; with
    "best", -1 at the wrong answer that the whole model finds best on that input. L is linear in
    what the parts write: token and position at the answer position, every head (z W_O), every MLP
    and all biases. The last MLP is split by `clusters`, label -> neurons, -1 for no cluster; those
    of `neuron_clusters` unless given, {} for none. A final LayerNorm is frozen at its own scale on
    each input. By frequency, each part's logits are projected on cos/sin(w_k f(a, b)) first.

    Computed in float64 from the weights, so that the parts sum to the margin; a model that
    `Architecture` cannot describe is taken with its own activations, and `unexplained` says what is
    missing. Raises InputError for such a model with something nonlinear before its logits. Direct
    effects alone: a head that feeds the MLP has no share in what the MLP writes, though nothing
    would be written without it. For that, ablate.
    """
    snapshot, frequencies = subject_of(
        x, step=step, frequencies=frequencies, task=task, train_mask=train_mask
    )
    need_residual_stream(snapshot)
    word("against", against, AGAINST)
    seen, note = _in_float64(snapshot)
    directions = _directions(seen, against)
    group = usable_group(seen)
    along = None if group is None else AnswerSpectrum.of(directions, group)
    parts: list[str] = []
    each, spectra = [], []
    if clusters is None:
        clusters = _own_clusters(snapshot, frequencies)
    else:
        clusters = _given_clusters(snapshot, clusters)
    for writer in writers(seen, clusters):
        parts += writer.parts
        each.append(_margins(writer, directions))
        if along is not None:
            spectra.append(_by_frequency(writer, along, seen.task.n_inputs))
    return Attribution(
        parts=tuple(parts),
        per_input=torch.cat(each, dim=1),
        margin=(seen.logits.double() * directions).sum(dim=1),
        spectrum=torch.cat(spectra) if spectra else None,
        frequencies=frequencies,
        against=against,
        step=snapshot.step,
        reason=no_frequencies_reason(seen) if group is None else None,
        note=note,
    )


def _given_clusters(snapshot: Snapshot, given: object) -> dict[int, Int[Tensor, " n"]]:
    """Clusters of one's own: label -> neurons of the last layer."""
    if not isinstance(given, Mapping):
        raise InputError(
            f"clusters={shown(given)} are no dict; give such as {{9: [0, 4]}}: label -> neurons."
        )
    w_out = f"blocks.{snapshot.n_layers - 1}.mlp.W_out"
    if given and w_out not in snapshot.weights:
        raise InputError("clusters are of neurons, and the model has no MLP; leave them out.")
    n = len(snapshot.weights[w_out]) if given else 0
    found = {}
    for label, members in given.items():
        if whole_number(label) is None:
            raise InputError(f"cluster {shown(label)} has no number; label it such as 9, or -1.")
        numbers = []
        for one in listed(f"cluster {shown(label)}", members, such_as="[0, 4]"):
            number = whole_number(one)
            if number is None or not 0 <= number < n:
                raise InputError(
                    f"cluster {shown(label)} has a neuron outside 0 to {n - 1}: {shown(one)}; give "
                    "numbers of neurons."
                )
            numbers.append(number)
        found[label] = torch.tensor(numbers, dtype=torch.int64)
    return found


def _own_clusters(snapshot: Snapshot, frequencies: tuple[int, ...]) -> dict[int, Int[Tensor, " n"]]:
    """The neuron clusters of the last layer; none where there is no MLP or no answer group."""
    if usable_group(snapshot) is None or not frequencies:
        return {}
    if f"blocks.{snapshot.n_layers - 1}.mlp.W_out" not in snapshot.weights:
        return {}
    found = neuron_clusters(snapshot, frequencies=frequencies)
    return {k: found.members(k) for k in found.frequencies}


def _in_float64(snapshot: Snapshot) -> tuple[Snapshot, str]:
    """The same model computed in float64 where its weights tell all, and what was assumed."""
    if not bool(snapshot.logits.isfinite().all()):
        raise InputError("the logits are not finite; a margin is not defined.")
    frozen = "" if snapshot.linear_readout else "final LayerNorm frozen at its scale on each input"
    if snapshot.transformer is not None:
        weights = {name: weight.double() for name, weight in snapshot.weights.items()}
        exact = from_weights(weights, snapshot.transformer, snapshot.task)
        exact.gather(*needed_activations(exact))
        return exact, frozen
    if not snapshot.linear_readout:
        raise InputError(
            "the logits are not linear in the residual stream, and the weights do not say how; "
            "give a model with a full LayerNorm ('LN') or none before its unembedding."
        )
    return snapshot, (
        f"the model's own activations, {snapshot.logits.dtype}: what else its hooks or modules "
        "write is in `most_unexplained`"
    )


def _directions(snapshot: Snapshot, against: str) -> Float[Tensor, "n_inputs p"]:
    """M of every input: right class minus wrong ones."""
    p, right = snapshot.task.n_classes, snapshot.task.labels[:, None]
    if against == "mean":
        return torch.full((len(right), p), -1 / (p - 1), dtype=torch.float64).scatter(1, right, 1.0)
    best = snapshot.logits.scatter(1, right, -torch.inf).argmax(dim=1, keepdim=True)
    none = torch.zeros(len(right), p, dtype=torch.float64)
    return none.scatter(1, best, -1.0).scatter(1, right, 1.0)


def _margins(
    writer: Writer, directions: Float[Tensor, "n_inputs p"]
) -> Float[Tensor, "n_inputs n_parts"]:
    """What each part adds to the margin of each input."""
    found = [
        (x.double() * (m @ writer.to_logits.T)) @ writer.membership
        for x, m in zip(
            writer.activations.split(BLOCK_ROWS), directions.split(BLOCK_ROWS), strict=True
        )
    ]
    return torch.cat(found)


def _by_frequency(
    writer: Writer, along: AnswerSpectrum, n_inputs: int
) -> Float[Tensor, "n_parts n_frequencies_and_constant"]:
    """What each part adds to the average margin through each frequency of its logits.

    A component depends on the exponent alone, so it meets the mean direction of each exponent; by
    Parseval that is a product of two spectra.
    """
    group: AnswerGroup = along.group
    order = group.order
    activations = AnswerSpectrum.of(writer.activations, group).coefficients
    wanted = along.coefficients @ writer.to_logits.T.to(along.coefficients.dtype)
    product = (activations.conj() * wanted).real / order**2
    product[1 : (order + 1) // 2] *= 2  # the conjugate half
    return (product @ writer.membership).T * (group.rows.numel() / n_inputs)
