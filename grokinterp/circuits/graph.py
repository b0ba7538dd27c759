"""The circuit as a graph: embedding frequencies, heads, neuron clusters, logit frequencies.

Every edge is measured by cutting it: the target alone is given what it would compute if the source
were ablated, everything else stays as it is, and what changes is the loss and the target (path
patching; Goldowsky-Dill et al. 2023, arXiv 2304.05969).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits.ablation import score
from grokinterp.circuits.hooks import fourier, heads, neurons, replaced_neurons
from grokinterp.circuits.interventions import HookPair, around, replay
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters
from grokinterp.circuits.subspaces import table_directions
from grokinterp.fourier._key_frequencies import need_key_frequencies, subject_of
from grokinterp.fourier.answers import group_of
from grokinterp.fourier.basis import n_frequencies
from grokinterp.models.last_block import Edit
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot, need_residual_stream
from grokinterp.tasks.modular import ModularTask

if TYPE_CHECKING:
    import networkx
    import plotly.graph_objects as go

ACTIVATION_ROUNDING = 1e-5  # relative; of float32, where nothing was changed


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

    It shows through which parts the answer passes in this model; a strong edge does not say what
    the target computes from its source. Frequencies of the embedding reach the last layer's heads
    through everything before them.
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

    def plot(self) -> "go.Figure":
        """The edges as bands, as wide as their shares."""
        return self._drawn()

    def to_networkx(self) -> "networkx.DiGraph":
        """The same as a directed graph; nodes carry `layer`, edges share, loss and change."""
        import networkx

        graph = networkx.DiGraph(frequencies=self.frequencies, loss=self.loss, step=self.step)
        graph.add_nodes_from((name, {"layer": layer}) for name, layer in self.nodes)
        for edge in self.edges:
            graph.add_edge(
                edge.source, edge.target, share=edge.share, loss=edge.loss, change=edge.change
            )
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
    or an MLP, and where the model's loss is not finite.
    """
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    need_residual_stream(snapshot)
    need_key_frequencies(keys)
    paths = _Paths(snapshot, keys)
    return CircuitGraph(
        nodes=tuple(paths.nodes()),
        edges=tuple(paths.edges()),
        frequencies=keys,
        loss=paths.loss,
        step=snapshot.step,
    )


class _Paths:
    """The parts of one model, and every path of one step between them."""

    def __init__(self, snapshot: Snapshot, keys: tuple[int, ...]) -> None:
        self.snapshot, self.keys = snapshot, keys
        self.last = snapshot.n_layers - 1
        self.block = f"blocks.{self.last}."
        clusters = neuron_clusters(snapshot, frequencies=keys)
        self.clusters = {
            f"neurons k={k}" if k != LEFTOVER else "other neurons": clusters.members(k)
            for k, size in clusters.sizes.items()
            if size
        }
        w_o = snapshot.weights[f"{self.block}attn.W_O"]
        self.w_o = {f"head {self.last}.{h}": w_o[h] for h in range(len(w_o))}
        dropped = {f"embedding k={k}": [k] for k in keys}
        every = set(range(1, n_frequencies(group_of(snapshot).order) + 1))
        if others := sorted(every - set(keys)):
            dropped["embedding other"] = others
        self.drop = {
            name: fourier("hook_embed", snapshot.modular_task, some, terms="operands")
            for name, some in dropped.items()
        }
        self.logits = replay(snapshot, ())
        self.z = self.recorded(f"{self.block}attn.hook_z", ())
        self.post = self.recorded(f"{self.block}mlp.hook_post", ())
        self.loss = score(snapshot, self.logits).loss_all
        if not math.isfinite(self.loss):
            raise InputError(f"the model's loss is {self.loss}; look at an earlier step.")

    def nodes(self) -> Iterator[tuple[str, str]]:
        logits = [f"logits k={k}" for k in self.keys]
        layers: dict[str, Iterable[str]] = {
            "embedding": self.drop, "heads": self.w_o, "neurons": self.clusters, "logits": logits,
        }  # fmt: skip
        return ((name, layer) for layer, names in layers.items() for name in names)

    def edges(self) -> Iterator[Edge]:
        for source, dropped in self.drop.items():
            z = self.recorded(f"{self.block}attn.hook_z", dropped)
            for head, target in enumerate(self.w_o):
                own, then = self.z[:, head], z[:, head]
                logits = replay(self.snapshot, self.patched_head(head, then))
                yield self.edge(source, target, own, own - then, logits)
            yield from self.into_clusters(source, self.around_attention(dropped))
        for head, source in enumerate(self.w_o):
            yield from self.into_clusters(source, heads(self.last, head))
            yield from self.into_logits(source, self.around_mlp(head))
        for source, members in self.clusters.items():
            yield from self.into_logits(source, neurons(self.last, members.tolist()))

    def into_clusters(self, source: str, cut: Sequence[HookPair]) -> Iterator[Edge]:
        """What the neurons of each cluster would do with the source ablated."""
        post = self.recorded(f"{self.block}mlp.hook_post", cut)
        if (post - self.post).norm() <= ACTIVATION_ROUNDING * self.post.norm():
            return  # there is no such path: after "=" nothing of a or b is around the attention
        for target, members in self.clusters.items():
            own, then = self.post[:, members], post[:, members]
            patch = replaced_neurons(self.last, members.tolist(), then, name=target)
            yield self.edge(source, target, own, own - then, replay(self.snapshot, patch))

    def into_logits(self, source: str, cut: Sequence[HookPair]) -> Iterator[Edge]:
        """What each key frequency of the logits would be with the source ablated."""
        lost = self.logits - replay(self.snapshot, cut)
        for k in self.keys:
            basis = table_directions(self.snapshot.modular_task, (k,), "answer")[0].to(lost)
            part = basis @ (basis.T @ lost)
            own = basis @ (basis.T @ self.logits)
            yield self.edge(source, f"logits k={k}", own, part, self.logits - part)

    def edge(self, source: str, target: str, own: Tensor, lost: Tensor, logits: Tensor) -> Edge:
        """Of the target's own values the part that is lost with the edge, and the logits then."""
        variance = (own - own.mean(dim=0)).double().square().sum()
        share = float(lost.double().square().sum() / variance) if variance > 0 else 0.0
        loss = score(self.snapshot, logits).loss_all
        return Edge(source, target, share, loss, loss - self.loss)

    def patched_head(self, head: int, z: Float[Tensor, "n_inputs d_head"]) -> list[HookPair]:
        def change(own: Tensor) -> Tensor:
            changed = own.clone()
            changed[:, -1, head] = z.to(own)
            return changed

        return [(f"{self.block}attn.hook_z", Edit(change))]

    def around_attention(self, dropped: Sequence[HookPair]) -> Sequence[HookPair]:
        """The residual stream around the last attention as it is with the frequency dropped."""
        name = f"{self.block}hook_resid_pre"
        stream = self.recorded(name, dropped)

        def change(own: Tensor, out: Tensor) -> Tensor:
            changed = out.clone()
            changed[:, -1] += stream.to(out) - own[:, -1]
            return changed

        return around(name, f"{self.block}hook_attn_out", change)

    def around_mlp(self, head: int) -> list[HookPair]:
        """The residual stream after the MLP without what the head varies by."""
        written = self.z[:, head] @ self.w_o[f"head {self.last}.{head}"].to(self.z)
        varying = written - written.mean(dim=0)

        def change(stream: Tensor) -> Tensor:
            changed = stream.clone()
            changed[:, -1] -= varying.to(stream)
            return changed

        return [(f"{self.block}hook_resid_post", Edit(change))]

    def recorded(self, name: str, cut: Sequence[HookPair]) -> Tensor:
        """An activation at the answer position with these edits made."""
        seen: list[Tensor] = []

        def keep(x: Tensor) -> Tensor:
            seen.append(x[:, -1].cpu())
            return x

        replay(self.snapshot, [*cut, (name, Edit(keep, reads_only=True))])
        return seen[0]
