"""Direct logit attribution: which part of a model pushes the right answer above the wrong ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import listed, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.result import Result
from grokinterp.circuits.neurons import neuron_clusters
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.answers import AnswerSpectrum, no_frequencies_reason, usable_group
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import BLOCK_ROWS, Snapshot, from_weights, need_residual_stream
from grokinterp.tasks.modular import AnswerGroup, ModularTask

# MERGED circuits.writers: Everything that writes to the residual stream at the answer position, up to the logits.
#
# The logits are a sum over writers of `activations @ to_logits`: a token, a position, the heads' z,
# the neurons, the biases.


@dataclass(frozen=True)
class Writer:
    """One linear piece of the logits: `activations @ to_logits`, its columns sorted into parts."""

    parts: tuple[str, ...]
    activations: Float[Tensor, "n_inputs m"]
    to_logits: Float[Tensor, "m p"]  # float64
    membership: Float[Tensor, "m n_parts"]  # 1 where a column belongs to a part


def needed_activations(snapshot: Snapshot) -> tuple[str, ...]:
    """The activations that `writers` asks for, so that one forward can give them all."""
    names = [] if snapshot.linear_readout else ["ln_final.hook_scale"]
    for layer in range(snapshot.n_layers):
        names.append(f"blocks.{layer}.attn.hook_z")
        if f"blocks.{layer}.mlp.W_out" in snapshot.weights:
            names.append(f"blocks.{layer}.mlp.hook_post")
    return tuple(names)


def writers(snapshot: Snapshot, clusters: Mapping[int, Int[Tensor, " n"]]) -> Iterator[Writer]:
    """All writers of a model, in the order in which it computes them."""
    w = snapshot.weights
    if clusters and f"blocks.{snapshot.n_layers - 1}.mlp.W_out" not in w:
        raise InputError("the last layer has no MLP to split by clusters.")
    final = _Final(snapshot)
    rows = w["embed.W_E"][snapshot.modular_task.tokens[:, -1]]
    d_model = rows.shape[1]
    yield final.writer(
        ("embedding",), rows, torch.eye(d_model), torch.zeros(d_model, dtype=torch.int64)
    )
    if "pos_embed.W_pos" in w:
        yield final.bias(
            "position", w["pos_embed.W_pos"][snapshot.modular_task.tokens.shape[1] - 1]
        )
    for layer in range(snapshot.n_layers):
        block = f"blocks.{layer}"
        prefix = f"layer {layer} " if snapshot.n_layers > 1 else ""
        z = snapshot.activation(f"{block}.attn.hook_z")
        n_heads, d_head = z.shape[1:]
        yield final.writer(
            tuple(f"{prefix}head {head}" for head in range(n_heads)),
            z.flatten(1),
            w[f"{block}.attn.W_O"].flatten(0, 1),
            torch.arange(n_heads).repeat_interleave(d_head),
        )
        if f"{block}.attn.b_O" in w:
            yield final.bias(f"{prefix}attention bias", w[f"{block}.attn.b_O"])
        if f"{block}.mlp.W_out" in w:
            w_out = w[f"{block}.mlp.W_out"]
            own = clusters if layer == snapshot.n_layers - 1 else {}
            parts, part_of = _split(f"{prefix}MLP", own, len(w_out))
            post = snapshot.activation(f"{block}.mlp.hook_post")
            yield final.writer(parts, post, w_out, part_of)
        if f"{block}.mlp.b_out" in w:
            yield final.bias(f"{prefix}MLP bias", w[f"{block}.mlp.b_out"])
    yield from final.own_biases()


class _Final:
    """What stands between the residual stream and the logits: a frozen LayerNorm, `W_U`."""

    def __init__(self, snapshot: Snapshot) -> None:
        w, p = snapshot.weights, snapshot.task.n_classes
        self.n_inputs = snapshot.task.n_inputs
        self.unembed = w["unembed.W_U"][:, :p].double()
        self.biases = {}  # what is added after the residual stream, as logits
        self.gain, self.scale = None, torch.ones(1)
        if not snapshot.linear_readout:
            self.gain = w["ln_final.w"].double()
            self.scale = snapshot.activation("ln_final.hook_scale").double()
            self.biases["LayerNorm bias"] = w["ln_final.b"].double() @ self.unembed
        if "unembed.b_U" in w:
            self.biases["unembedding bias"] = w["unembed.b_U"][:p].double()

    def writer(
        self,
        parts: tuple[str, ...],
        activations: Float[Tensor, "n_inputs m"],
        to_residual: Float[Tensor, "m d_model"],
        part_of: Int[Tensor, " m"],
    ) -> Writer:
        """A writer of `activations @ to_residual`, its columns sorted into parts."""
        rows = to_residual.double()
        if self.gain is not None:
            rows = (rows - rows.mean(dim=1, keepdim=True)) * self.gain
            activations = activations.double() / self.scale
        membership = torch.nn.functional.one_hot(part_of, len(parts)).double()
        return Writer(parts, activations, rows @ self.unembed, membership)

    def bias(self, name: str, vector: Float[Tensor, " d_model"]) -> Writer:
        """A writer of one vector, the same on every input."""
        one = torch.zeros(1, dtype=torch.int64)
        return self.writer((name,), torch.ones(self.n_inputs, 1), vector[None], one)

    def own_biases(self) -> Iterator[Writer]:
        """Writers of what is added after the residual stream."""
        one = torch.ones(1, 1, dtype=torch.float64)
        for name, logits in self.biases.items():
            yield Writer((name,), one.expand(self.n_inputs, 1), logits[None], one)


def _split(
    name: str, clusters: Mapping[int, Int[Tensor, " n"]], d_mlp: int
) -> tuple[tuple[str, ...], Int[Tensor, " d_mlp"]]:
    """The parts of an MLP, and the part of every neuron."""
    labels = sorted(set(clusters) - {-1})
    part_of = torch.full((d_mlp,), len(labels))
    for part, label in enumerate(labels):
        neurons = torch.as_tensor(clusters[label])
        if len(neurons) and not 0 <= int(neurons.min()) <= int(neurons.max()) < d_mlp:
            raise InputError(f"cluster {label} has a neuron outside 0 to {d_mlp - 1}.")
        if bool((part_of[neurons] != len(labels)).any()) or len(neurons.unique()) < len(neurons):
            raise InputError(f"cluster {label} has a neuron twice, or one of another cluster.")
        part_of[neurons] = part
    if not labels:
        return (name,), part_of
    return (*(f"{name} cluster {label}" for label in labels), f"{name}, no cluster"), part_of


if TYPE_CHECKING:
    import plotly.graph_objects as go

AGAINST = ("mean", "best")


@dataclass(frozen=True, kw_only=True)
class Attribution(Result):
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
        return self._drawn()


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
