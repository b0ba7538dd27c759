"""Direct logit attribution: which part of a model pushes the right answer above the wrong ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import finite, listed, refused, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.result import Result
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.answers import AnswerSpectrum, no_frequencies_reason, usable_group
from grokinterp.models.hooked_module import HookedModule
from grokinterp.models.user_models import alone_with
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot, from_weights
from grokinterp.runs.forwards import BLOCK_ROWS, device_of
from grokinterp.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Attribution(Result):
    """The margin of the right answer, as a sum over parts and over logit frequencies (float64).

    `per_input[i, j]` is what part j adds to the margin of input i, `margin[i]` the margin itself,
    both in logits. `spectrum[j, k]` is what part j adds to the average margin through its logits'
    component along cos/sin(w_k f(a, b)), k = 0 the constant; None without an answer group.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attribution(gi.load("mod31-small"))
    >>> round(found.total, 1), abs(found.most_unexplained) < 1e-9
    (48.2, True)
    >>> found.table().query("part.str.startswith('MLP c')")[["part", "margin", "share"]].round(2)
                 part  margin  share
    7   MLP cluster 1   10.27   0.21
    8  MLP cluster 14   15.28   0.32
    >>> found.by_frequency()[[1, 8, 14, "margin"]].round(1).tail(1)
                  1    8    14  margin
    part
    all parts  12.4  8.3  27.5    48.2
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
        """One row per part: mean over all inputs, share of the total, spread over the inputs.

        Shares are null for a total of zero.
        """
        mean = self.per_input.mean(dim=0).tolist()
        frame = pd.DataFrame({"part": self.parts, "margin": mean})
        frame["share"] = frame["margin"] / self.total if self.total else None
        frame["spread"] = self.per_input.std(dim=0, correction=0).tolist()
        return frame.astype({"share": "Float64"})

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


def attribution(
    x: Subject,
    *,
    against: str = "mean",
    clusters: Mapping[int, Int[Tensor, " n"]] | None = None,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Attribution:
    r"""The margin m . L of the right answer, split over everything that writes to the residual.

    m is 1 at the right class and, with `against="mean"`, -1/(p - 1) at each other answer; with
    "best", -1 at the wrong answer that the whole model finds best on that input. L is linear in
    what the parts write: token and position at the answer position, every head (z W_O), every MLP
    and all biases. The last MLP is split by `clusters`, label -> neurons, -1 for no cluster; those
    of `neuron_clusters` unless given, {} for none. A final norm is frozen at its own scale on
    each input. By frequency, each part's logits are projected on cos/sin(w_k f(a, b)) first.

    Computed in float64 from the weights, so that the parts sum to the margin; a model that no
    `TransformerArchitecture` describes is taken with its own activations, and `unexplained` says
    what is missing. Raises InputError for norms after attention and MLP, which leave no sum of
    parts, and for such a model with something nonlinear before its logits.
    A model without a residual stream whose last layer is linear has the neurons that this reads,
    in `clusters` where these are given, and its bias. Direct effects alone: a head that feeds the
    MLP has no share in what the MLP writes, though nothing would be written without it. For that,
    ablate.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.circuits.attribution(run)
    >>> found.table()[["part", "margin", "share"]].iloc[7:10].round(2)
                  part  margin  share
    7    MLP cluster 1   10.27   0.21
    8   MLP cluster 14   15.28   0.32
    9  MLP, no cluster   20.29   0.42
    >>> gi.circuits.attribution(run, against="best", clusters={}).parts[2:6]
    ('head 0', 'head 1', 'head 2', 'head 3')
    """
    snapshot, frequencies = subject_of(x, step, frequencies, task, train_mask)
    word("against", against, ("mean", "best"))
    if snapshot.positions:
        seen, note = _in_float64(snapshot)
        writers = _writers(seen, _clusters(snapshot, frequencies, clusters))
    else:
        seen, note = snapshot, "the neurons that the last, linear layer reads, and its bias"
        writers = _of_last_layer(snapshot, clusters)
    directions = _directions(seen, against)
    group = usable_group(seen)
    along = None if group is None else AnswerSpectrum.of(directions, group)
    parts: list[str] = []
    per_input, spectrum = [], []
    for writer in writers:
        parts += writer.parts  # one writer at a time: their activations are large
        per_input.append(writer.margins(directions))
        if along is not None:
            spectrum.append(writer.by_frequency(along))
    return Attribution(
        parts=tuple(parts),
        per_input=torch.cat(per_input, dim=1),
        margin=(seen.logits.double() * directions).sum(dim=1),
        spectrum=torch.cat(spectrum) if spectrum else None,
        frequencies=frequencies,
        against=against,
        step=snapshot.step,
        reason=no_frequencies_reason(seen) if group is None else None,
        note=note,
    )


def _clusters(
    snapshot: Snapshot, frequencies: tuple[int, ...], given: object
) -> dict[int, Int[Tensor, " n"]]:
    """Label -> neurons of the last layer, as given or its own; no neuron is in two clusters."""
    width = len(snapshot.weights.get(f"blocks.{snapshot.n_layers - 1}.mlp.W_out", ()))
    if given is not None:
        return _checked_clusters(given, width)
    if usable_group(snapshot) is None or not frequencies or not width:
        return {}
    own = neuron_clusters(snapshot, frequencies=frequencies)
    return {k: own.members(k) for k in own.frequencies}


def _checked_clusters(given: object, width: int) -> dict[int, Int[Tensor, " n"]]:
    if not isinstance(given, Mapping):
        raise refused("clusters", given, "a dict of label -> neurons", "such as {9: [0, 4]}")
    if given and not width:
        raise InputError("clusters are of neurons, and the model has no MLP; leave them out.")
    found, taken = {}, torch.zeros(width, dtype=torch.bool)
    for label, members in given.items():
        name = f"cluster {shown(label)}"
        if whole_number(label) is None:
            raise InputError(f"{name} has no number; label it such as 9, or -1.")
        neurons = []
        for one in listed(name, members, such_as="[0, 4]"):
            neuron = whole_number(one)
            if neuron is None or not 0 <= neuron < width:
                outside = f"has a neuron outside 0 to {width - 1}: {shown(one)}"
                raise InputError(f"{name} {outside}; give numbers of neurons.")
            if label != LEFTOVER and taken[neuron]:
                raise InputError(f"{name} has a neuron twice, or one of another cluster: {neuron}.")
            taken[neuron] |= label != LEFTOVER
            neurons.append(neuron)
        found[label] = torch.tensor(neurons, dtype=torch.int64)
    return found


def _in_float64(snapshot: Snapshot) -> tuple[Snapshot, str]:
    """The same model computed in float64 where its weights tell all, and what was assumed."""
    finite("the logits", snapshot.logits)
    if snapshot.transformer is not None:
        norm = f"final {snapshot.transformer.norm_name} frozen at its scale on each input"
        if snapshot.transformer.norm_position == "post":
            raise InputError(
                "norms stand after this transformer's attention and MLP, so its logits are no sum "
                "of what its parts write; use gi.ablate."
            )
        weights = {name: weight.double() for name, weight in snapshot.weights.items()}
        exact = from_weights(weights, snapshot.transformer, snapshot.task)
        names = [] if exact.linear_readout else ["ln_final.hook_scale"]
        for layer in range(exact.n_layers):
            names.append(f"blocks.{layer}.attn.hook_z")
            names += [] if snapshot.transformer.attn_only else [f"blocks.{layer}.mlp.hook_post"]
        exact.gather(*names)
        return exact, "" if exact.linear_readout else norm
    if not snapshot.linear_readout:
        raise InputError(
            "the logits are not linear in the residual stream, and the weights do not say how; "
            "give a model with a norm of TransformerLens, or none, before its unembedding."
        )
    own = f"the model's own activations, {snapshot.logits.dtype}"
    return snapshot, f"{own}: what else its hooks or modules write is in `most_unexplained`"


def _directions(snapshot: Snapshot, against: str) -> Float[Tensor, "n_inputs p"]:
    """The m of every input: 1 at the right class, less at wrong ones."""
    p, right = snapshot.task.n_classes, snapshot.task.labels[:, None]
    if against == "mean":
        wrong = torch.full((len(right), p), -1 / (p - 1), dtype=torch.float64)
    else:
        best = snapshot.logits.scatter(1, right, -torch.inf).argmax(dim=1, keepdim=True)
        wrong = torch.zeros(len(right), p, dtype=torch.float64).scatter(1, best, -1.0)
    return wrong.scatter(1, right, 1.0)


@dataclass(frozen=True)
class Writer:
    """One linear piece of the logits: `activations @ to_logits`, its columns sorted into parts."""

    parts: tuple[str, ...]
    activations: Float[Tensor, "n_inputs m"]
    to_logits: Float[Tensor, "m p"]  # float64
    part_of: Int[Tensor, " m"] | None = None  # the part of each column; None: there is one part

    @property
    def membership(self) -> Float[Tensor, "m n_parts"]:
        """1 where a column belongs to a part."""
        if self.part_of is None:
            return torch.ones(len(self.to_logits), 1, dtype=torch.float64)
        return torch.nn.functional.one_hot(self.part_of, len(self.parts)).double()

    def margins(self, directions: Float[Tensor, "n_inputs p"]) -> Float[Tensor, "n_inputs n_parts"]:
        """What each part adds to the margin of each input."""
        blocks = zip(self.activations.split(BLOCK_ROWS), directions.split(BLOCK_ROWS), strict=True)
        membership = self.membership
        return torch.cat([(x.double() * (m @ self.to_logits.T)) @ membership for x, m in blocks])

    def by_frequency(
        self, along: AnswerSpectrum
    ) -> Float[Tensor, "n_parts n_frequencies_and_constant"]:
        """What each part adds to the average margin through each frequency of its logits.

        A component depends on the exponent alone, so it meets the mean direction of each exponent;
        by Parseval that is a product of two spectra.
        """
        order = along.group.order
        activations = AnswerSpectrum.of(self.activations, along.group).coefficients
        wanted = along.coefficients @ self.to_logits.T.to(along.coefficients.dtype)
        product = (activations.conj() * wanted).real / order**2
        product[1 : (order + 1) // 2] *= 2  # the conjugate half
        share = along.group.n_inputs / len(self.activations)  # of inputs with an exponent
        return (product @ self.membership).T * share


def _writers(snapshot: Snapshot, clusters: Mapping[int, Int[Tensor, " n"]]) -> Iterator[Writer]:
    """All that writes to the logits at the answer position, in the order of the forward."""
    w, task = snapshot.weights, snapshot.modular_task
    unembed = task.of_answers(w["unembed.W_U"]).double()
    one = torch.ones(task.n_inputs, 1, dtype=torch.float64)

    def writer(
        parts: tuple[str, ...],
        activations: Float[Tensor, "n_inputs m"],
        to_residual: Float[Tensor, "m d_model"],
        part_of: Int[Tensor, " m"] | None = None,
    ) -> Writer:
        rows = to_residual.double()
        if not snapshot.linear_readout:  # a norm, frozen at its own scale
            rows = _frozen(snapshot, rows)
            activations = activations.double() / snapshot.activation("ln_final.hook_scale").double()
        return Writer(parts, activations, rows @ unembed, part_of)

    last = task.tokens.shape[1] - 1
    embedded = w["embed.W_E"][task.tokens[:, last]]
    yield writer(("embedding",), embedded, torch.eye(embedded.shape[1]))
    if "pos_embed.W_pos" in w:
        yield writer(("position",), one, w["pos_embed.W_pos"][last, None])
    for layer in range(snapshot.n_layers):
        attn, mlp = f"blocks.{layer}.attn", f"blocks.{layer}.mlp"
        prefix = f"layer {layer} " if snapshot.n_layers > 1 else ""
        z = snapshot.activation(f"{attn}.hook_z")
        n_heads, d_head = z.shape[1:]
        heads = tuple(f"{prefix}head {head}" for head in range(n_heads))
        head_of = torch.arange(n_heads).repeat_interleave(d_head)
        yield writer(heads, z.flatten(1), w[f"{attn}.W_O"].flatten(0, 1), head_of)
        if f"{attn}.b_O" in w:
            yield writer((f"{prefix}attention bias",), one, w[f"{attn}.b_O"][None])
        if f"{mlp}.W_out" in w:
            own = clusters if layer == snapshot.n_layers - 1 else {}
            parts, part_of = _by_cluster(f"{prefix}MLP", len(w[f"{mlp}.W_out"]), own)
            yield writer(parts, snapshot.activation(f"{mlp}.hook_post"), w[f"{mlp}.W_out"], part_of)
        if f"{mlp}.b_out" in w:
            yield writer((f"{prefix}MLP bias",), one, w[f"{mlp}.b_out"][None])
    # What is added after the residual stream, as logits.
    if "ln_final.b" in w:
        yield Writer(("LayerNorm bias",), one, (w["ln_final.b"].double() @ unembed)[None])
    if "unembed.b_U" in w:
        yield Writer(("unembedding bias",), one, task.of_answers(w["unembed.b_U"])[None].double())


def _frozen(snapshot: Snapshot, rows: Float[Tensor, "m d_model"]) -> Float[Tensor, "m d_model"]:
    """What the final norm makes of vectors, but for its scale and its bias: a linear map."""
    kind = snapshot.transformer.normalization_type if snapshot.transformer else "LN"
    if kind in ("LN", "LNPre"):
        rows = rows - rows.mean(dim=1, keepdim=True)
    gain = snapshot.weights.get("ln_final.w")
    return rows if gain is None else rows * gain.double()


def _of_last_layer(snapshot: Snapshot, clusters: object) -> Iterator[Writer]:
    """What the logits are a linear function of, in a model without a residual stream."""
    finite("the logits", snapshot.logits)
    weights, task = snapshot.weights, snapshot.task
    bias: Tensor | None
    if snapshot.n_layers:
        read, matrix, bias = snapshot.mlp_post, weights["unembed.W_U"], weights["unembed.b_U"]
    else:
        model = snapshot.hooked()
        inputs = snapshot.task.model_inputs.to(device_of(model))
        with alone_with(model):
            found = model.last_linear(inputs) if isinstance(model, HookedModule) else None
        if found is None:
            raise InputError(
                f"the logits of this {snapshot.kind} are not the output of a linear layer, so they "
                "are no sum over parts; ablate them instead (gi.ablate)."
            )
        layer, read = found
        matrix, bias = layer.weight.detach().T, layer.bias
    own = _checked_clusters(clusters or {}, len(matrix))
    parts, part_of = _by_cluster("neurons", len(matrix), own)
    yield Writer(parts, read.cpu(), task.of_answers(matrix.cpu().double()), part_of)
    if bias is not None:
        one = torch.ones(snapshot.task.n_inputs, 1, dtype=torch.float64)
        to_logits = task.of_answers(bias.detach().cpu().double())[None]
        yield Writer(("unembedding bias",), one, to_logits)


def _by_cluster(
    what: str, width: int, clusters: Mapping[int, Int[Tensor, " n"]]
) -> tuple[tuple[str, ...], Int[Tensor, " width"]]:
    """Names of a layer's parts, and the part of each neuron: clusters, and the rest."""
    labels = sorted(set(clusters) - {LEFTOVER})
    part_of = torch.full((width,), len(labels))
    for part, label in enumerate(labels):
        part_of[clusters[label]] = part
    rest = f"{what}, no cluster" if labels else what
    return (*(f"{what} cluster {label}" for label in labels), rest), part_of
