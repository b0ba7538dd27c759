"""The claimed circuit: how far it alone is the model, and by which paths its parts are joined.

Every edge of the graph is measured by cutting it: the target alone is given what it would compute
if the source were ablated, everything else stays as it is, and what changes is the loss and the
target (path patching; Goldowsky-Dill et al. 2023, arXiv 2304.05969).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import Result, plain_values, text_card
from grokinterp.circuits import direction_hooks, hooks
from grokinterp.circuits.ablation import LOSS_ROUNDING, Row, Score, ablate, score
from grokinterp.circuits.interventions import HookPair, Intervention, around, replay
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters, neuron_logit_directions
from grokinterp.circuits.standard import embedding_hook
from grokinterp.fourier._key_frequencies import need_key_frequencies, subject_of
from grokinterp.fourier.answers import group_of
from grokinterp.fourier.basis import n_frequencies
from grokinterp.models.blocks import LOGITS, Edit
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot, need_residual_stream
from grokinterp.tasks.modular import ModularTask

if TYPE_CHECKING:
    import networkx

ACTIVATION_ROUNDING = 1e-5  # relative; of float32, where nothing was changed


@dataclass(frozen=True, kw_only=True)
class Faithfulness(Result):
    """The model, its claimed circuit alone, the model without it, and the circuit less each part.

    The circuit: the key frequencies of the embedding, all heads, the clusters of neurons of key
    frequencies, and of these what the directions u_k, v_k of the neuron-logit map read. Everything
    else is at its mean over the inputs, the skip around the last MLP too. `without` drops the key
    frequencies from the logits; `nothing` keeps only the mean of the logits.

    A circuit that recovers all of the loss suffices; that each part is needed does not show that no
    smaller circuit of another kind would do.

    >>> import grokinterp as gi
    >>> found = gi.circuits.faithfulness(gi.load("mod31-small"), placebos=5)
    >>> round(found.recovered, 2), round(found.lost, 1), found.alone.verdict, found.not_needed
    (0.52, 2.1, 'above chance', ())
    >>> found.table()[["what", "loss_all", "acc_all"]].round(2).head(4)
                      what  loss_all  acc_all
    0            the model      0.00     1.00
    1    the circuit alone      2.52     0.48
    2  without the circuit     11.04     0.02
    3              nothing      5.20     0.03
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

    def _lines(self) -> list[str]:
        return [
            "the circuit alone: the key frequencies of the embedding, all heads, their neuron "
            "clusters, u_k and v_k",
            f"its loss is {self.alone.score.loss_all:.3g}, {self.ratio:.3g} times the model's; it "
            f"recovers {self.recovered:.6g} of the loss gained",
            f"over mean logits, and {self.lost:.3g} is lost without it",
            f"parts it does not need: {', '.join(self._idle()) or 'none'}",
        ]

    def __str__(self) -> str:
        shown = self._short_table()
        return text_card(self._title(), self._lines(), shown, notes=self.notes, most=len(shown))

    def _short_table(self) -> pd.DataFrame:
        return self.table()[["what", "loss_all", "acc_all", "ratio_to_alone"]]

    def _idle(self) -> list[str]:
        return [name.removeprefix("alone less ") for name in self.not_needed]

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

    def _share(self, difference: float) -> float:
        gained = self.nothing.score.loss_all - self.nothing.whole.loss_all
        return difference / gained if gained > 0 else math.nan


def faithfulness(
    x: Subject,
    *,
    step: int = -1,
    placebos: int = 10,
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

    >>> import grokinterp as gi
    >>> found = gi.circuits.faithfulness(gi.load("mod31-small"), placebos=5)
    >>> found.table()[["what", "loss_all", "verdict"]].round(2).head(4)
                      what  loss_all       verdict
    0            the model      0.00
    1    the circuit alone      2.52  above chance
    2  without the circuit     11.04  above chance
    3              nothing      5.20
    """
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    need_key_frequencies(keys)
    circuit = _circuit_alone(snapshot, keys)
    cuts = [
        circuit,
        hooks.fourier(LOGITS, snapshot.modular_task, keys).called("without the circuit"),
        hooks.fourier(LOGITS, snapshot.modular_task, (), keep=True).called("nothing"),
    ]
    for part in _parts(snapshot, keys):
        # The part first: what the directions then read of the neurons is without it.
        less = (part + circuit).called(f"alone less {part.name}")
        cuts.append(replace(less, draw=None, no_placebo="a part of the circuit"))
    rows = ablate(snapshot, cuts, frequencies=keys, placebos=placebos, seed=seed).rows
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
    outside = [i for i, k in enumerate(clusters.cluster.tolist()) if k not in keys]
    found = hooks.embedding(snapshot.modular_task, keys, hook_name=embedding_hook(snapshot))
    if outside:
        found += hooks.neurons(last, outside)
    basis = neuron_logit_directions(snapshot, frequencies=keys).basis
    found += hooks.directions(f"blocks.{last}.mlp.hook_post", basis, keep=True, mode="mean")
    if snapshot.positions:
        found += hooks.mlp_skip(last)
    return replace(found, name="the circuit alone", keeps=True)


def _parts(snapshot: Snapshot, keys: tuple[int, ...]) -> list[Intervention]:
    """Frequencies of the embedding, heads, and clusters of neurons."""
    hook, task = embedding_hook(snapshot), snapshot.modular_task
    found = [hooks.fourier(hook, task, [k], terms="operands") for k in keys]
    for layer in range(snapshot.n_layers):
        n_heads = len(snapshot.weights.get(f"blocks.{layer}.attn.W_Q", ()))
        found += [hooks.heads(layer, head) for head in range(n_heads)]
    clusters = neuron_clusters(snapshot, frequencies=keys)
    for k in keys:
        if len(members := clusters.members(k)):
            name = f"neurons of k = {k}"
            found.append(hooks.neurons(clusters.layer, members.tolist(), name=name))
    return found


@dataclass(frozen=True)
class Edge:
    """One cut edge.

    `share` is the part of the target's variance over the inputs that changes when the edge is cut,
    |x - x_cut|^2 / |x - mean x|^2; `change` the rise of the loss on all inputs in nats. Shares of
    several sources need not sum to 1, nor need changes add up.
    """

    source: str
    target: str
    share: float
    loss: float
    change: float


@dataclass(frozen=True, kw_only=True)
class CircuitGraph(Result):
    """Nodes in layers, and the edges between neighbouring layers, each measured by ablation.

    It shows through which parts the answer passes in this model, not what a target computes from
    its source. The embedding reaches the last layer's heads through everything before them.

    >>> import grokinterp as gi
    >>> found = gi.circuits.circuit_graph(gi.load("mod31-small"))
    >>> found.table()[["source", "target", "share", "change"]].round(2).head(3)
               source         target  share  change
    0  embedding k=14       head 0.2   0.91   19.21
    1        head 0.2  other neurons   0.62    2.82
    2        head 0.3  other neurons   0.53    1.83
    >>> found.node_table().groupby("layer", sort=False).size().to_dict()
    {'embedding': 4, 'heads': 4, 'neurons': 3, 'logits': 3}
    >>> found.to_networkx().number_of_edges()
    49
    """

    nodes: tuple[tuple[str, str], ...]  # (name, layer)
    edges: tuple[Edge, ...] = field(repr=False)
    frequencies: tuple[int, ...]
    loss: float  # of the model, on all inputs
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per edge, strongest first; share has no unit, loss and change are in nats."""
        frame = pd.DataFrame([vars(edge) for edge in self.edges])
        return frame.sort_values("change", ascending=False, ignore_index=True)

    def node_table(self) -> pd.DataFrame:
        """One row per node: its layer, and the sum of the shares that come in and go out.

        Null where there is no edge: nothing comes before the embedding or after the logits.
        """
        frame = pd.DataFrame(self.nodes, columns=["node", "layer"])
        edges = pd.DataFrame([vars(edge) for edge in self.edges])
        for side, column in (("target", "share_in"), ("source", "share_out")):
            frame[column] = frame["node"].map(edges.groupby(side)["share"].sum())
        return frame

    def to_networkx(self) -> "networkx.DiGraph":
        """The same as a directed graph; nodes carry `layer`, edges share, loss and change."""
        import networkx

        graph = networkx.DiGraph(frequencies=self.frequencies, loss=self.loss, step=self.step)
        graph.add_nodes_from((name, {"layer": layer}) for name, layer in self.nodes)
        for edge in self.edges:
            measured = {"share": edge.share, "loss": edge.loss, "change": edge.change}
            graph.add_edge(edge.source, edge.target, **measured)
        return graph


def circuit_graph(
    x: Subject,
    *,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> CircuitGraph:
    """The circuit of a model: embedding frequency -> head -> neuron cluster -> logit frequency.

    Heads and neurons are those of the last layer. An ablated frequency is dropped from the
    embedding, an ablated head or cluster is at its mean over the inputs. The ways around are
    measured too: embedding to cluster past the attention, head to logits past the MLP. "other"
    frequencies and the leftover neurons are controls. InputError without key frequencies
    or an MLP, with norms after the MLP, and where the model's loss is not finite.

    >>> import grokinterp as gi
    >>> found = gi.circuits.circuit_graph(gi.load("mod31-small"))
    >>> found.table()[["source", "target", "change"]].round(2).head(4)
               source         target  change
    0  embedding k=14       head 0.2   19.21
    1        head 0.2  other neurons    2.82
    2        head 0.3  other neurons    1.83
    3        head 0.2   neurons k=14    1.66
    """
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    need_residual_stream(snapshot)
    need_key_frequencies(keys)
    if snapshot.transformer is not None and snapshot.transformer.norm_position == "post":
        raise InputError(
            "norms stand after this transformer's MLP, and change what passes around it: there is "
            "no graph of paths; use gi.ablate."
        )
    paths = _Paths(snapshot, keys)
    return CircuitGraph(
        nodes=tuple(paths.nodes()),
        edges=tuple(paths.edges()),
        frequencies=keys,
        loss=paths.loss,
        step=snapshot.step,
    )


class _Paths:
    """The parts of one model, and every path of one step between them.

    The stream is changed at all positions: after the last attention only the answer's is read.
    """

    def __init__(self, snapshot: Snapshot, keys: tuple[int, ...]) -> None:
        self.snapshot, self.keys, self.last = snapshot, keys, snapshot.n_layers - 1
        self.block = f"blocks.{self.last}."
        clusters = neuron_clusters(snapshot, frequencies=keys)
        self.clusters = {
            f"neurons k={k}" if k != LEFTOVER else "other neurons": clusters.members(k)
            for k, size in clusters.sizes.items()
            if size
        }
        w_o = snapshot.weights[f"{self.block}attn.W_O"]
        self.w_o = {f"head {self.last}.{h}": own for h, own in enumerate(w_o)}
        dropped = {f"embedding k={k}": [k] for k in keys}
        every = range(1, n_frequencies(group_of(snapshot).order) + 1)
        if others := [k for k in every if k not in keys]:
            dropped["embedding other"] = others
        self.drop = {
            name: hooks.fourier("hook_embed", snapshot.modular_task, some, terms="operands")
            for name, some in dropped.items()
        }
        self.logits = replay(snapshot, ())
        self.z = self.recorded(f"{self.block}attn.hook_z", ())
        self.post = self.recorded(f"{self.block}mlp.hook_post", ())
        self.loss = score(snapshot, self.logits).loss_all
        if not math.isfinite(self.loss):
            raise InputError(f"the model's loss is {self.loss}; look at an earlier step.")

    def nodes(self) -> Iterator[tuple[str, str]]:
        yield from ((name, "embedding") for name in self.drop)
        yield from ((name, "heads") for name in self.w_o)
        yield from ((name, "neurons") for name in self.clusters)
        yield from ((f"logits k={k}", "logits") for k in self.keys)

    def edges(self) -> Iterator[Edge]:
        for source, dropped in self.drop.items():
            z = self.recorded(f"{self.block}attn.hook_z", dropped)
            for head, target in enumerate(self.w_o):
                own, then = self.z[:, head], z[:, head]
                logits = replay(self.snapshot, self.patched_head(head, then))
                yield self.edge(source, target, own, own - then, logits)
            yield from self.into_clusters(source, self.around_attention(dropped))
        for head, source in enumerate(self.w_o):
            yield from self.into_clusters(source, hooks.heads(self.last, head))
            yield from self.into_logits(source, self.around_mlp(head))
        for source, members in self.clusters.items():
            yield from self.into_logits(source, hooks.neurons(self.last, members.tolist()))

    def into_clusters(self, source: str, cut: Sequence[HookPair]) -> Iterator[Edge]:
        """What the neurons of each cluster would do with the source ablated."""
        post = self.recorded(f"{self.block}mlp.hook_post", cut)
        if (post - self.post).norm() <= ACTIVATION_ROUNDING * self.post.norm():
            return  # there is no such path: after "=" nothing of a or b is around the attention
        for target, members in self.clusters.items():
            own, then = self.post[:, members], post[:, members]
            patch = hooks.replaced_neurons(self.last, members.tolist(), then, name=target)
            yield self.edge(source, target, own, own - then, replay(self.snapshot, patch))

    def into_logits(self, source: str, cut: Sequence[HookPair]) -> Iterator[Edge]:
        """What each key frequency of the logits would be with the source ablated."""
        lost = self.logits - replay(self.snapshot, cut)
        for k in self.keys:
            basis = direction_hooks.table_directions(self.snapshot.modular_task, (k,), "answer")[
                0
            ].to(lost)
            part, own = (basis @ (basis.T @ logits) for logits in (lost, self.logits))
            yield self.edge(source, f"logits k={k}", own, part, self.logits - part)

    def edge(self, source: str, target: str, own: Tensor, lost: Tensor, logits: Tensor) -> Edge:
        """Of the target's own values the part that is lost with the edge, and the logits then."""
        variance = (own - own.mean(dim=0)).double().square().sum()
        share = float(lost.double().square().sum() / variance) if variance > 0 else 0.0
        loss = score(self.snapshot, logits).loss_all
        return Edge(source, target, share, loss, loss - self.loss)

    def patched_head(self, head: int, z: Float[Tensor, "n_inputs d_head"]) -> list[HookPair]:
        hook, place = f"{self.block}attn.hook_z", (slice(None), -1, head)
        return [(hook, Edit(lambda own: hooks.with_values(own, place, z, hook)))]

    def around_attention(self, dropped: Sequence[HookPair]) -> Sequence[HookPair]:
        """The residual stream around the last attention as it is with the frequency dropped."""
        read, written = f"{self.block}hook_resid_pre", f"{self.block}hook_attn_out"
        stream = self.recorded(read, dropped)[:, None]
        return around(read, written, lambda own, out: out + (stream.to(out) - own))

    def around_mlp(self, head: int) -> list[HookPair]:
        """The residual stream after the MLP without what the head varies by."""
        written = self.z[:, head] @ self.w_o[f"head {self.last}.{head}"].to(self.z)
        varying = (written - written.mean(dim=0))[:, None]
        return [(f"{self.block}hook_resid_post", Edit(lambda x: x - varying.to(x)))]

    def recorded(self, name: str, cut: Sequence[HookPair]) -> Tensor:
        """An activation at the answer position with these edits made."""
        seen: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            seen.append(x[:, -1].cpu())
            return x

        replay(self.snapshot, [*cut, (name, Edit(keep, reads_only=True))])
        return seen[0]
