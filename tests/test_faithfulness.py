"""Faithfulness, the circuit graph and the paper's table: known truths, and the shipped run."""

import math

import networkx
import pytest

import grokinterp as gi
from grokinterp.circuits import circuit_graph, faithfulness
from grokinterp.runs._snapshot import from_weights
from tests.test_ablation import KEYS, P, closed_form, hand_built, same, state  # noqa: F401
from tests.test_architectures import example


@pytest.fixture(name="clock")
def fixture_clock(hand_built):  # noqa: F811
    return hand_built


def test_the_circuit_of_clock_weights_is_all_of_them(clock):
    found = faithfulness(clock, placebos=3)
    assert found.frequencies == KEYS
    assert found.alone.score.loss_all == pytest.approx(closed_form(KEYS), rel=2e-4)
    assert found.recovered == pytest.approx(1, abs=1e-4)
    assert found.ratio == pytest.approx(1, abs=1e-3)
    assert found.nothing.score.loss_all == pytest.approx(math.log(P), rel=1e-4)
    averaged = closed_form(KEYS, averaged=KEYS)
    assert found.without.score.loss_all == pytest.approx(averaged, rel=2e-4)
    whole = closed_form(KEYS)
    assert found.lost == pytest.approx((averaged - whole) / (math.log(P) - whole), rel=1e-3)
    assert found.not_needed == ()
    parts = {row.name: row.score.loss_all for row in found.parts}
    assert len(parts) == 3 + 1 + 3
    for k in KEYS:
        others = tuple(j for j in KEYS if j != k)
        expected = pytest.approx(closed_form(others), rel=2e-4)
        assert parts[f"alone less drop k = {k} of the operands at hook_embed"] == expected
        assert parts[f"alone less neurons of k = {k} (mean)"] >= 0.9 * closed_form(others)
    assert parts["alone less head 0.0 (mean)"] > 0.9 * math.log(P)
    frame = found.table().set_index("what")
    assert frame.loc["the model", "loss_all"] == pytest.approx(whole, rel=2e-4)
    assert frame.loc["the circuit alone", "ratio_to_alone"] == 1


def test_the_circuit_of_the_shipped_run(shipped):
    found = faithfulness(shipped, placebos=2)
    assert found.recovered > 0.9999
    assert found.lost > 1
    assert found.alone.verdict == "above chance"
    assert found.alone.score.acc_all == 1


def test_edges_of_clock_weights(clock):
    """All of the head's variance comes from the embedding, a third each; clusters stay apart."""
    graph = circuit_graph(clock)
    edges = {(edge.source, edge.target): edge for edge in graph.edges}
    whole = closed_form(KEYS)
    assert graph.loss == pytest.approx(whole, rel=2e-4)
    for k in KEYS:
        others = tuple(j for j in KEYS if j != k)
        edge = edges[f"embedding k={k}", "head 0.0"]
        assert edge.share == pytest.approx(1 / 3, rel=1e-4)
        assert edge.loss == pytest.approx(closed_form(others), rel=2e-4)
        assert edge.change == pytest.approx(closed_form(others) - whole, rel=1e-3)
        into = edges["head 0.0", f"neurons k={k}"]
        assert into.share > 1  # the mean of a ReLU is not the ReLU of the mean
        out = edges[f"neurons k={k}", f"logits k={k}"]
        assert out.share == pytest.approx(1, rel=1e-4)
        assert out.loss == pytest.approx(closed_form(KEYS, averaged=(k,)), rel=2e-4)
        assert edges["head 0.0", f"logits k={k}"].share == pytest.approx(0, abs=1e-9)
        for other in others:
            assert edges[f"neurons k={other}", f"logits k={k}"].share < 1e-5  # 64 phases alias
    assert edges["embedding other", "head 0.0"].share < 1e-9
    assert not any(s.startswith("embedding") and t.startswith("neurons") for s, t in edges)
    drawn = graph.to_networkx()
    assert networkx.is_directed_acyclic_graph(drawn)
    assert drawn.nodes["head 0.0"]["layer"] == "heads"
    assert drawn.edges["neurons k=2", "logits k=2"]["share"] == pytest.approx(1, rel=1e-4)
    assert set(graph.node_table()["node"]) == set(drawn.nodes)
    assert graph.table()["change"].is_monotonic_decreasing


def test_without_equals_the_embedding_reaches_the_neurons_around_attention():
    architecture, weights, task = example("no equals")
    graph = circuit_graph(from_weights(weights, architecture, task), frequencies=[1, 2])
    around = [
        edge for edge in graph.edges
        if edge.source == "embedding k=1" and "neurons" in edge.target
    ]  # fmt: skip
    assert around
    assert all(edge.share > 1e-3 for edge in around)


@pytest.mark.parametrize("variant", ["deep layer norm", "bidirectional", "equals class"])
def test_any_plain_model_has_a_graph_and_a_table(variant):
    architecture, weights, task = example(variant)
    snapshot = from_weights(weights, architecture, task)
    graph = circuit_graph(snapshot, frequencies=[1, 3])
    last = architecture.n_layers - 1
    assert {name for name, layer in graph.nodes if layer == "heads"} == {
        f"head {last}.0", f"head {last}.1",
    }  # fmt: skip
    assert all(math.isfinite(edge.share) and math.isfinite(edge.loss) for edge in graph.edges)
    table = gi.paper_table(snapshot, frequencies=[1, 3]).table()
    undefined = table[table["value"].isna()]
    assert (undefined["note"] != "").all()
    assert {"losses", "neurons", "ablations"} <= set(table["section"])


def test_the_papers_table_on_clock_weights(clock):
    table = gi.paper_table(clock)
    assert table.frequencies == KEYS
    assert table["key frequencies"].value == 3
    assert table["key frequencies"].note == "2, 5, 13"
    assert table["neurons above 0.85"].value == 1
    assert table["leftover neurons"].value == 0
    assert table["W_L norm outside the key rows"].value == pytest.approx(0, abs=1e-5)  # float32
    for k in KEYS:
        assert table[f"neurons of k = {k}"].value == 64
        published = f"u_{k} . MLP explained by cos w_{k}(a + b)"
        # 2 (mean |cos|)^2: the envelope averaged over its variance
        assert table[published].value == pytest.approx(8 / math.pi**2, rel=5e-3)
    assert table["loss: MLP 0 (zero)"].value == pytest.approx(math.log(P), rel=1e-6)
    assert table["loss: attention 0 (zero)"].value == pytest.approx(math.log(P), rel=1e-6)
    keep = "loss: keep only u_k, v_k at blocks.0.mlp.hook_post (zero)"
    assert table[keep].value == pytest.approx(closed_form(KEYS), rel=2e-4)
    with pytest.raises(gi.InputError, match="no entry is called"):
        table["nothing"]


def test_the_papers_table_on_the_shipped_run(shipped):
    table = gi.paper_table(shipped)
    assert table["key frequencies"].note == "9, 18, 53, 55"
    assert table["activation variance they hold"].value >= 0.9
    assert table["W_L norm outside the key rows"].value < 0.1
    assert table["logit variance explained by the key cosines"].value >= 0.95
    assert table["accuracy"].value == 1
    assert table["loss: clustered neurons as degree-2 polynomials"].value < 3e-7
    note = table["loss: attention as its one-wave linear fit"].note
    assert note == "heads 0, 2 are not single-frequency"
    assert table.table()["value"].notna().all()
    assert (table.table()["published"] != "").sum() > 40


def test_what_is_not_defined_says_so(shipped):
    early = gi.paper_table(shipped.snapshot(0)).table()
    assert "no key frequencies" in " ".join(early["note"])
    assert "loss: MLP 0 (zero)" in set(early["quantity"])  # this one is
    task = gi.ModularTask("random", 7)
    architecture, weights, _ = example("canonical")
    snapshot = from_weights(weights, architecture, task)
    assert "not a function of one group exponent" in " ".join(
        gi.paper_table(snapshot).table()["note"]
    )
    for function in (faithfulness, circuit_graph):
        with pytest.raises(gi.InputError, match="no key frequencies"):
            function(snapshot)


def test_a_users_model_is_left_as_it_was():
    architecture, weights, task = example("two layers")
    model = architecture.hooked(weights)
    model.add_perma_hook("blocks.0.mlp.hook_post", lambda post, hook: 2 * post)
    before = state(model)
    for function in (faithfulness, circuit_graph, gi.paper_table):
        function(model, task=task, frequencies=[1, 2])
        assert same(before, state(model))
