"""The benchmark: that both sides do the same work. How long it takes is not asserted."""

import json

import pytest
import torch

import grokinterp as gi
from grokinterp.bench import _bench as usual
from grokinterp.bench import bench
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.progress.measures import measure_snapshot
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks.splits import mask_of
from grokinterp.training.learner import Learner

module = products = usual


@pytest.fixture(scope="module")
def recipe():
    return gi.Recipe(p=11, d_model=16, n_heads=2, d_head=8, d_mlp=32, train_fraction=0.5, steps=5)


def test_the_usual_step_is_the_same_update(recipe, monkeypatch):
    kept = []
    build = TransformerArchitecture.hooked
    monkeypatch.setattr(
        TransformerArchitecture, "hooked", lambda *a, **k: kept.append(build(*a, **k)) or kept[-1]
    )
    step = usual.usual_step(recipe)
    learner = Learner([recipe], "cpu")
    for update in range(3):
        step()
        learner.update(update)
    (model,) = kept
    torch.testing.assert_close(model.W_E, learner.weights["embed.W_E"], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(model.W_U, learner.weights["unembed.W_U"], rtol=1e-3, atol=1e-5)


def test_the_usual_measures_are_the_same_numbers(recipe):
    weights = recipe.architecture().initial(seed=3, scale=2.0)
    task = recipe.build_task()
    mask = mask_of(recipe.train_indices(), task.n_inputs)
    row = measure_snapshot(
        from_weights(weights, recipe.architecture(), task, train_mask=mask), (2, 5)
    )
    found = usual.usual_measures(recipe, (2, 5))(weights)
    shared = set(found) & set(row)
    assert len(shared) == 6
    for name in shared:
        assert found[name] == pytest.approx(row[name], rel=1e-4), name


@pytest.mark.slow
def test_the_table_and_json(recipe, monkeypatch, run):
    builtin = type(module.BUILTIN["mod11-quick"])("mod11-quick", "", recipe)
    monkeypatch.setitem(module.BUILTIN, module.RECIPE, builtin)
    monkeypatch.setattr(module, "FREQUENCIES", (2, 5))
    monkeypatch.setattr(module, "CHECKPOINTS", 10)
    monkeypatch.setattr(module, "ROUNDS", 2)
    for name in ("ROWS", "LARGE", "REPEATS"):
        monkeypatch.setattr(products, name, 8)
    found = bench(rounds=2)
    assert (
        found.training_step.ratio_low
        <= found.training_step.ratio
        <= (found.training_step.ratio_high)
    )
    assert 0 < found.all_measures_s < found.measures.ours_ms * 20 / 1e3
    assert found.products.peak >= found.products.forward > 0
    assert list(found.table().what) == ["training step", "all measures of a checkpoint"]
    code, out, err = run("bench", "--json", "--threads", "1")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["environment"]["threads"] == 1
    assert set(told["training_step"]) == {
        "ours_ms", "usual_ms", "ratio", "ratio_low", "ratio_high"
    }  # fmt: skip
    assert "GFLOP/s" in str(found)
