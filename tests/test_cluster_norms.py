"""Norms of the neurons that end up in clusters, beside the rest."""

import math

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import cluster_norms, neuron_clusters
from tests.made_runs import changed, made_run

ENDS = [0, 10_000]


@pytest.fixture(scope="module")
def small():
    return gi.load("mod31-small")


@pytest.fixture(scope="module")
def clusters(small):
    return neuron_clusters(small)


def norms_of(weights):
    """Of every neuron: into, out and both, by a loop over neurons."""
    w_in, w_out = weights["blocks.0.mlp.W_in"].double(), weights["blocks.0.mlp.W_out"].double()
    found = []
    for i in range(w_in.shape[1]):
        into = math.sqrt(sum(x * x for x in w_in[:, i].tolist()))
        out = math.sqrt(sum(x * x for x in w_out[i].tolist()))
        found.append((into, out, math.sqrt(into**2 + out**2)))
    return torch.tensor(found, dtype=torch.float64)


class TestWhatItMeans:
    def test_means_over_the_clusters_of_the_last_checkpoint(self, small, clusters):
        found = cluster_norms(small, steps=ENDS)
        inside = clusters.cluster != -1
        assert (found.n_clustered, found.n_rest) == (int(inside.sum()), int((~inside).sum()))
        table = found.table().set_index("step")
        for step in ENDS:
            norms = norms_of(small.weights(step))
            for column, side in enumerate(("_in", "_out", "")):
                one, other = (float(norms[rows, column].mean()) for rows in (inside, ~inside))
                row = table.loc[step]
                assert row[f"clustered{side}"] == pytest.approx(one, rel=1e-12)
                assert row[f"rest{side}"] == pytest.approx(other, rel=1e-12)
                assert row[f"ratio{side}"] == pytest.approx(one / other, rel=1e-12)

    def test_each_cluster_by_itself(self, small, clusters):
        found = cluster_norms(small, steps=ENDS).by_cluster()
        assert found.cluster.tolist() == [1, 14, -1] * 2
        assert found.neurons.tolist() == [clusters.sizes[k] for k in (1, 14, -1)] * 2
        norms = norms_of(small.weights())
        for row in found[found.step == 10_000].itertuples():
            own = norms[clusters.members(row.cluster)].mean(dim=0).tolist()
            assert [row.norm_in, row.norm_out, row.norm] == pytest.approx(own, rel=1e-12)

    def test_a_neuron_that_is_scaled_in_the_past_moves_its_own_mean_alone(self, small, clusters):
        """The first checkpoint is changed, and the last decides who is in a cluster."""
        inside = clusters.cluster != -1
        scale = torch.where(inside, 3.0, 1.0)

        def grown(weights):
            return weights | {
                "blocks.0.mlp.W_in": weights["blocks.0.mlp.W_in"] * scale,
                "blocks.0.mlp.W_out": weights["blocks.0.mlp.W_out"] * scale[:, None],
            }

        checkpoints = {0: grown(small.weights(0)), 10_000: small.weights()}
        run = made_run(small.task, small.architecture, checkpoints, train=small.train_indices)
        before, after = (cluster_norms(x, steps=ENDS).table() for x in (small, run))
        assert after.ratio[0] == pytest.approx(3 * before.ratio[0])
        assert after.rest.tolist() == before.rest.tolist()
        assert after.iloc[1].tolist() == before.iloc[1].tolist()

    def test_of_an_mlp_the_answers_are_what_neurons_write(self):
        run = gi.load("mlp113-grokked")
        found = cluster_norms(run, steps=[0])
        assert found.out[0].tolist() == pytest.approx(
            run.weights(0)["unembed.W_U"].double().norm(dim=1).tolist()
        )

    def test_of_a_hidden_layer_before_the_last_the_next_one_is(self):
        shape = gi.Recipe(p=5, model="mlp", widths=(6, 4)).architecture()
        task = gi.ModularTask("add", p=5, equals_token=False)
        run = made_run(task, shape, {0: shape.initial(seed=0)})
        first, last = cluster_norms(run, layer=0), cluster_norms(run)
        weights = {name: w.double() for name, w in run.weights().items()}
        assert (first.layer, last.layer) == (0, 1)
        assert first.out[0].equal(weights["blocks.1.mlp.W_in"].norm(dim=1))
        assert last.into[0].equal(weights["blocks.1.mlp.W_in"].norm(dim=0))
        assert last.out[0].equal(weights["unembed.W_U"].norm(dim=1))


class TestWhatCannotBeSaid:
    def test_without_a_rest_or_without_clusters_there_is_no_ratio(self, small):
        for threshold, missing, note in (
            (0.0, "rest", "every neuron is in a cluster: there is no ratio"),
            (1.0, "clustered", "no neuron is in a cluster: there is no ratio"),
        ):
            found = cluster_norms(small, steps=ENDS, threshold=threshold)
            assert found.table()[[missing, "ratio"]].isna().all(axis=None)
            assert found.notes[-1] == note
            assert len(found.plot().data) == 2  # a line and its band

    def test_what_is_refused(self, small):
        net = torch.nn.Sequential(
            torch.nn.Embedding(5, 4), torch.nn.Flatten(), torch.nn.Linear(8, 5)
        )
        task = gi.ModularTask("add", p=5, equals_token=False)
        for call, message in (
            (lambda: cluster_norms("ising-grokked"), "no operand tokens"),
            (lambda: cluster_norms(net, task=task), "names of its own"),
            (lambda: cluster_norms(small, layer=3), "no activation 'blocks.3"),
            (lambda: cluster_norms(small, steps=[5]), "step 5 is not saved"),
            (lambda: cluster_norms(small, threshold=2), "threshold=2"),
        ):
            with pytest.raises(gi.InputError, match=message):
                call()

    def test_a_network_that_diverged_has_no_clusters(self, small):
        run = changed(small, lambda weights: {n: w * math.nan for n, w in weights.items()})
        with pytest.raises(gi.InputError, match="not finite"):
            cluster_norms(run, steps=[0])


def test_the_shipped_run(shipped):
    """The clusters' neurons shrink as well, only less than the rest."""
    found = cluster_norms(shipped, steps=[0, 1200, 5200, 6100, 12_000])
    assert (found.n_clustered, found.n_rest) == (454, 58)
    table = found.table().set_index("step").round(3)
    assert table.clustered.is_monotonic_decreasing is False  # it grows first
    assert table.clustered[12_000] < table.clustered[5200] < table.clustered[1200]
    assert table.ratio.tolist() == pytest.approx([0.985, 1.098, 1.094, 1.174, 2.319], abs=0.001)
    assert table.ratio_in[12_000] == pytest.approx(table.ratio_out[12_000], abs=0.002)


def test_its_figure(small):
    drawn = cluster_norms(small, steps=ENDS).plot()
    named = {line.name: line for line in drawn.data if line.name}
    assert list(named) == ["87 neurons in clusters", "73 others", "ratio"]
    table = cluster_norms(small, steps=ENDS).table()
    assert list(named["ratio"].y) == table.ratio.tolist()
