"""The circuit graph and the circuit alone, by closures written out on TransformerLens' forward."""

import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import (
    circuit_graph,
    faithfulness,
    fitted_neurons,
    neuron_clusters,
    neuron_logit_directions,
)
from grokinterp.circuits.direction_hooks import table_directions
from grokinterp.runs._snapshot import from_weights
from tests import clock
from tests.test_ablation import closed_form, hand_built  # noqa: F401
from tests.test_architectures import example


def loss_of(logits, task):
    chosen = logits.double().log_softmax(1).gather(1, task.labels[:, None])
    return -float(chosen.mean())


def noisy_clock():
    """Clusters of 2, 5 and 13, nothing in them zero, nor any direction quite one of a cluster."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: w.double() + 0.03 * torch.randn(w.shape, generator=generator).double()
        for name, w in clock.clock_weights(31, (2, 5, 13), 10.0).items()
    }
    return clock.clock_architecture(31, 3), weights, gi.ModularTask("add", 31)


class Dense:
    """One model, its own activations, and edits given as (hook name, function of the tensor)."""

    def __init__(self, variant):
        architecture, weights, self.task = (
            noisy_clock() if variant == "noisy clock" else example(variant)
        )
        self.snapshot = from_weights(weights, architecture, self.task)
        self.model = architecture.hooked(weights)
        self.last = f"blocks.{architecture.n_layers - 1}."

    def run(self, edits, *names):
        seen = {}

        def look(tensor, hook, name):
            seen[name] = tensor[:, -1].clone()

        fwd = [(name, lambda x, hook, edit=edit: edit(x.clone())) for name, edit in edits]
        fwd += [(name, lambda x, hook, name=name: look(x, hook, name)) for name in names]
        with torch.no_grad():
            logits = self.model.run_with_hooks(self.task.tokens, fwd_hooks=fwd)
        return logits[:, -1, : self.task.p], seen


def put(index, values):
    def edit(x):
        x[:, -1, index] = values[:, index]
        return x

    return edit


def averaged(index, axis):
    def edit(x):
        x.index_copy_(axis, index, x.index_select(axis, index).mean(0, keepdim=True).expand_as(
            x.index_select(axis, index)))  # fmt: skip
        return x

    return edit


@pytest.mark.parametrize("variant", ["canonical", "deep layer norm", "no equals"])
def test_every_edge_is_a_cut_path(variant):
    dense, keys = Dense(variant), (1, 3)
    z, post, pre = (dense.last + n for n in ("attn.hook_z", "mlp.hook_post", "hook_resid_pre"))
    whole, own = dense.run([], z, post, pre)
    clusters = neuron_clusters(dense.snapshot, frequencies=keys)
    groups = {
        "other neurons" if k == -1 else f"neurons k={k}": clusters.members(k)
        for k, size in clusters.sizes.items()
        if size
    }
    layer = dense.last.split(".")[1]
    head_names = {f"head {layer}.{h}": torch.tensor([h]) for h in range(own[z].shape[1])}
    expected = {}

    def edge(source, target, mine, cut, logits):
        variance = (mine - mine.mean(dim=0)).square().sum()
        share = float((mine - cut).square().sum() / variance)
        expected[source, target] = (share, loss_of(logits, dense.task))

    def into_neurons(source, edits):
        cut = dense.run(edits, post)[1][post]
        if (cut - own[post]).norm() > 1e-5 * own[post].norm():
            for target, members in groups.items():
                logits, _ = dense.run([(post, put(members, cut))])
                edge(source, target, own[post][:, members], cut[:, members], logits)

    def into_logits(source, edits):
        lost = whole - dense.run(edits)[0]
        for k in keys:
            wave = table_directions(dense.task, (k,), "answer")[0]
            mine, part = (wave @ (wave.T @ x) for x in (whole, lost))
            edge(source, f"logits k={k}", mine, mine - part, whole - part)

    for source, dropped in (("k=1", (1,)), ("k=3", (3,)), ("other", (2,))):
        wave = table_directions(dense.task, dropped, "operands")[0]
        drop = ("hook_embed", lambda x, w=wave: x - (w @ (w.T @ x.flatten(1))).view_as(x))
        _, cut = dense.run([drop], z, pre)
        for target, head in head_names.items():
            logits, _ = dense.run([(z, put(head, cut[z]))])
            edge(f"embedding {source}", target, own[z][:, head], cut[z][:, head], logits)
        around = (cut[pre] - own[pre])[:, None]
        into_neurons(
            f"embedding {source}", [(f"{dense.last}hook_attn_out", lambda x, d=around: x + d)]
        )
    for source, head in head_names.items():
        into_neurons(source, [(z, averaged(head, 2))])
        every = torch.arange(own[post].shape[1])
        into_logits(source, [(z, averaged(head, 2)), (post, put(every, own[post]))])
    for source, members in groups.items():
        into_logits(source, [(post, averaged(members, 2))])

    graph = circuit_graph(dense.snapshot, frequencies=keys)
    assert {(edge.source, edge.target) for edge in graph.edges} == set(expected)
    assert graph.loss == pytest.approx(loss_of(whole, dense.task), rel=1e-9)
    for edge in graph.edges:
        share, loss = expected[edge.source, edge.target]
        assert edge.share == pytest.approx(share, rel=1e-6, abs=1e-12)
        assert edge.loss == pytest.approx(loss, rel=1e-9)
        assert edge.change == pytest.approx(loss - loss_of(whole, dense.task), abs=1e-9)


@pytest.mark.parametrize("variant", ["canonical", "layer norm", "no equals", "noisy clock"])
@pytest.mark.parametrize("keys", [(2,), (2, 1), (2, 5)])
def test_the_circuit_alone(variant, keys):
    dense = Dense(variant)
    if max(keys) > dense.task.p // 2:
        pytest.skip("has no such frequency")
    clusters = neuron_clusters(dense.snapshot, frequencies=keys)
    outside = [n for n, k in enumerate(clusters.cluster.tolist()) if k not in keys]
    wave = table_directions(dense.task, keys, "operands")[0]
    w_l = dense.snapshot.weights["blocks.0.mlp.W_out"] @ dense.snapshot.weights["unembed.W_U"]
    p = dense.task.p
    angle = 2 * math.pi * torch.outer(torch.arange(p).double(), torch.tensor(keys).double()) / p
    basis = torch.linalg.qr(w_l[:, :p] @ torch.cat([angle.cos(), angle.sin()], dim=1))[0]

    def keep(x):
        return x.mean(0) + (wave @ (wave.T @ x.flatten(1))).view_as(x)

    def read(x):
        along = x @ basis @ basis.T
        return along + (x - along).mean(0)

    def loss(less=()):
        stream = {}

        def note(x):
            stream["mid"] = x
            return x

        edits = [
            ("hook_embed", keep),
            *less,
            ("blocks.0.mlp.hook_post", averaged(torch.tensor(outside), 2)),
            ("blocks.0.mlp.hook_post", read),
            ("blocks.0.hook_resid_mid", note),
            ("blocks.0.hook_mlp_out", lambda x: x - stream["mid"] + stream["mid"].mean(0)),
        ]
        return loss_of(dense.run(edits)[0], dense.task)

    found = faithfulness(dense.snapshot, frequencies=keys, placebos=0)
    assert found.alone.score.loss_all == pytest.approx(loss(), rel=1e-9)
    parts = {row.name: row.score.loss_all for row in found.parts}
    for head in range(dense.snapshot.architecture.n_heads):
        less = [("blocks.0.attn.hook_z", averaged(torch.tensor([head]), 2))]
        assert parts[f"alone less head 0.{head} (mean)"] == pytest.approx(loss(less), rel=1e-9)
    for k in keys:
        if len(clusters.members(k)):
            less = [("blocks.0.mlp.hook_post", averaged(clusters.members(k), 2))]
            name = f"alone less neurons of k = {k} (mean)"
            assert parts[name] == pytest.approx(loss(less), rel=1e-9)
    nothing = dense.run([("unembed.hook_out", lambda x: x.mean(0).expand_as(x))])[0]
    assert found.nothing.score.loss_all == pytest.approx(loss_of(nothing, dense.task), rel=1e-9)


def test_what_is_recovered_and_lost(hand_built):  # noqa: F811
    """With a frequency of the circuit not named, what is recovered is not all."""
    found = faithfulness(hand_built, frequencies=[2, 5], placebos=5)
    whole, nothing = closed_form((2, 5, 13)), found.nothing.score.loss_all
    alone, without = closed_form((2, 5)), closed_form((2, 5, 13), averaged=(2, 5))
    assert found.recovered == pytest.approx((nothing - alone) / (nothing - whole), rel=1e-3)
    assert found.lost == pytest.approx((without - whole) / (nothing - whole), rel=1e-3)
    assert found.alone.verdict == "above chance"  # it costs less than random circuits
    assert found.alone.ratio < min(found.alone.placebo_ratios)


def test_rows_of_the_papers_table():
    dense, post = Dense("noisy clock"), "blocks.0.mlp.hook_post"
    keys = (2, 5, 13)
    values = gi.paper_table(dense.snapshot, frequencies=keys).table().set_index("quantity")["value"]
    clusters = neuron_clusters(dense.snapshot, frequencies=keys)
    members = torch.cat([clusters.members(k) for k in keys])
    assert len(members) > 150
    fits = {
        terms: fitted_neurons(dense.snapshot, clusters=clusters, terms=terms)
        for terms in ("degree_2", "products")
    }
    basis = neuron_logit_directions(dense.snapshot, frequencies=keys).basis
    rows = {
        "clustered neurons as degree-2 polynomials": [(post, put(members, fits["degree_2"]))],
        "clustered neurons in their 3 x 3 block": [(post, put(members, fits["products"]))],
        f"keep only u_k, v_k at {post} (zero)": [(post, lambda x: x @ basis @ basis.T)],
        f"drop u_k, v_k at {post} (zero)": [(post, lambda x: x - x @ basis @ basis.T)],
        "MLP 0 (zero)": [("blocks.0.hook_mlp_out", lambda x: 0 * x)],
        "attention 0 (zero)": [("blocks.0.hook_attn_out", lambda x: 0 * x)],
    }
    for k in keys:
        rows[f"without the cluster of k = {k}, the others in their block"] = [
            (post, put(members, fits["products"])),
            (post, averaged(clusters.members(k), 2)),
        ]
    for name, edits in rows.items():
        expected = loss_of(dense.run(edits)[0], dense.task)
        assert values[f"loss: {name}"] == pytest.approx(expected, rel=1e-9), name
