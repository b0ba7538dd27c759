"""How an MLP's operands come in, in every room: summed, each with an embedding of its own, x^2."""

import json

import pytest
import torch

import grokinterp as gi
from grokinterp.circuits import hooks
from grokinterp.encodings.bases import coordinates
from grokinterp.fourier.spectra import embedding_components, embedding_spectrum, input_weights

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

P, WIDTH, D = 7, 12, 4
KINDS = {
    "two-hot, summed": {"combine": "sum"},
    "two-hot, quadratic": {"act_fn": "quadratic"},
    "one embedding, summed": {"embedding": "learned", "d_model": D, "combine": "sum"},
    "two embeddings": {"embedding": "learned", "d_model": D, "separate": True},
    "two embeddings, summed": {
        "embedding": "learned", "d_model": D, "separate": True, "combine": "sum",
    },
}  # fmt: skip
each = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A short run of each kind, not yet looked at."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = gi.Recipe(
        model="mlp", p=P, d_mlp=WIDTH, steps=30, checkpoints="every:15", train_fraction=0.6,
        threads=1,
    )  # fmt: skip
    return {name: gi.train(recipe.replace(**keys), folder / name) for name, keys in KINDS.items()}


@each
def test_a_run_is_written_read_and_resumed(name, runs, tmp_path):
    run, keys = runs[name], KINDS[name]
    written = json.loads((run.path / "run.json").read_text())
    assert written["format"] == 2  # of which 0.2.0 says that it is newer
    again = gi.load(run.path)
    assert again.architecture == run.architecture
    assert {key: getattr(again.recipe, key) for key in keys} == keys
    with gi.Recorder(tmp_path / "r", task=run.task, train_mask=run.train_mask) as recorder:
        recorder.save(0, run.model())
    recorded = gi.load(tmp_path / "r")
    assert recorded.architecture == run.architecture
    assert json.loads((tmp_path / "r" / "run.json").read_text())["format"] == 2
    assert torch.equal(recorded.snapshot().logits, run.snapshot().logits)


def test_a_run_that_0_2_0_knows_is_written_as_it_was(tmp_path):
    run = gi.train(gi.Recipe(model="mlp", p=P, d_mlp=4, steps=1), tmp_path / "run")
    written = json.loads((run.path / "run.json").read_text())
    assert written["format"] == 1
    new = {"combine", "separate"}
    assert not new & {*written["recipe"]} | new & {*written["architecture"]}


@each
def test_input_weights_are_what_an_operand_adds_to_the_neurons(name, runs):
    snapshot = runs[name].snapshot()
    pre = snapshot.activation("blocks.0.mlp.hook_pre").double().view(P, P, WIDTH)
    of_a, of_b = input_weights(snapshot.named_weights, P)
    bias = snapshot.weights["blocks.0.mlp.b_in"].double()
    torch.testing.assert_close(of_a[:, None] + of_b + bias, pre, rtol=1e-5, atol=1e-6)
    with pytest.raises(gi.InputError, match="an MLP has 'direct' only"):
        input_weights(snapshot.named_weights, P, path="attention")


@each
def test_the_embedding_is_all_that_tokens_are_read_as(name, runs):
    weights, snapshot = runs[name].weights(), runs[name].snapshot()
    names = [x for x in ("embed.W_E", "embed_a.W_E", "embed_b.W_E") if x in weights]
    first = weights["blocks.0.mlp.W_in"]
    tables = [weights[x] for x in names] or list(first.split(P))
    found = embedding_components(snapshot)
    assert found.shape == (P, sum(table.shape[1] for table in tables))
    total = sum(table.double().square().sum() for table in tables)
    torch.testing.assert_close(embedding_spectrum(snapshot).sum(), total)
    for drawn in (gi.viz.plot_embedding_spectrum, gi.viz.plot_embedding_heat_map):
        assert drawn(runs[name]).data


@each
def test_weights_turn_into_the_fourier_basis_and_back(name, runs):
    weights = runs[name].weights()
    turned = coordinates(weights, "fourier", tokens=torch.arange(P))
    moved = {x for x in weights if not torch.equal(turned.values[x], weights[x])}
    embedded = {x for x in weights if x.endswith("W_E")}
    assert moved >= (embedded or {"blocks.0.mlp.W_in"}) | {"unembed.W_U"}
    assert ("blocks.0.mlp.W_in" in moved) == (not embedded)
    for x, weight in weights.items():
        back = turned.restore(x, turned.values[x])
        torch.testing.assert_close(back.float(), weight, rtol=1e-5, atol=1e-6)


@each
def test_every_analysis_of_an_mlp_takes_it(name, runs, tmp_path):
    run = runs[name]
    assert len(gi.progress_measures(run)) == 3
    assert gi.fourier.neuron_ipr(run).input_blocks.shape == (2, WIDTH)
    assert gi.circuits.neuron_clusters(run, frequencies=[1]).sizes
    assert gi.encodings.pruning_curve(run, basis="fourier").table().size
    assert gi.geometry.fisher_diagonal(run).values.keys() == run.weights().keys()
    assert gi.ablate(run).table().size
    kept = gi.ablate(run, [hooks.neurons(0, [0, 1])]).table()
    assert len(kept)
    assert gi.report(run, tmp_path / "page.html").exists()


@each
def test_all_frequencies_of_the_embedding_are_the_embedding(name, runs):
    """Keeping every token frequency changes nothing, and keeping one does."""
    run = runs[name]
    hook = "hook_embed" if "W_E" in "".join(run.weights()) else "blocks.0.mlp.hook_pre"
    kept = [hooks.embedding(run.task, ks, hook_name=hook) for ks in (range(1, P // 2 + 1), [1])]
    found = gi.ablate(run, kept).table().set_index("ablation").loss_all
    loss = torch.nn.functional.cross_entropy(run.snapshot().logits, run.task.labels).item()
    assert found[kept[0].name] == pytest.approx(loss, rel=1e-6)
    assert found[kept[1].name] != pytest.approx(loss, rel=1e-5)


def test_an_ensemble_trains_as_single_runs_do(tmp_path):
    from grokinterp.training.ensemble import train_ensemble

    for name, keys in KINDS.items():
        recipes = [
            gi.Recipe(model="mlp", p=P, d_mlp=WIDTH, steps=10, seed=seed, threads=1, **keys)
            for seed in (0, 1)
        ]
        out = [tmp_path / f"{name} {seed}" for seed in (0, 1)]
        together = train_ensemble(recipes, out, progress=False)
        alone = gi.train(recipes[1], tmp_path / f"{name} alone")
        for key, weight in alone.weights().items():
            torch.testing.assert_close(together[1].weights()[key], weight, rtol=1e-4, atol=1e-6)
