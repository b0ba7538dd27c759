"""Several threads with one model, and arguments that change after they were given."""

import collections
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp import circuits, encodings
from grokinterp.circuits import hooks
from grokinterp.runs._snapshot import from_weights
from tests.models_of_users import hooks_of, layer_norm_model

# Python's warning filters are of the process: what ignores this one while a model is built is lost
# where another thread puts back the filters it found. In the suite warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")

SIZES = {"p": 7, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32}
RECIPES = {
    "one layer": gi.Recipe(**SIZES),
    "two layers": gi.Recipe(**SIZES, n_layers=2),
    "mlp": gi.Recipe(model="mlp", p=7, widths=(24, 16)),
    "cnn": gi.Recipe(
        task="ising", lattice=8, n_temperatures=4, n_repeats=20, sweeps=5, n_train=30, n_test=20,
        d_mlp=10,
    ),
}  # fmt: skip
OWN = ("own of one layer", "own of two layers")  # with a hook and LayerNorms


def task_and_model(kind):
    if kind in OWN:
        return gi.ModularTask("add", 7), layer_norm_model(layers=1 + OWN.index(kind))
    recipe = RECIPES[kind]
    weights = recipe.architecture().initial(seed=1, rule=recipe.init)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return recipe.build_task(), recipe.architecture().hooked(weights)


@pytest.fixture(autouse=True)
def many_switches():
    """Threads take turns a thousand times as often, so that what can go wrong does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(looks, *, times, threads=4):
    """Every look in turn from several threads; what differed from doing it alone, and how often."""
    alone = [look() for look in looks]
    wrong: collections.Counter[str] = collections.Counter()

    def work(first):
        for turn in range(times):
            look = (first + turn) % len(looks)
            try:
                if not torch.equal(looks[look](), alone[look]):
                    wrong[f"look {look} gave other numbers"] += 1
            except Exception as error:
                wrong[repr(error)] += 1

    workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*RECIPES, *OWN])
def test_threads_that_look_at_one_model(kind):
    task, model = task_and_model(kind)
    before = hooks_of(model), model.training
    neurons = "blocks.0.mlp.hook_pre"
    looks = [
        lambda: gi.snapshot(model, task).all_logits,
        lambda: gi.snapshot(model, task).activation(neurons),
        lambda: gi.snapshot(model, task).mlp_post,
    ]
    if kind != "cnn":
        chosen = [hooks.neurons(0, range(5))]
        if kind != "mlp":
            chosen += [hooks.mlp(0, mode="zero"), hooks.mlp_skip(0)]  # one object for all threads
            looks.append(lambda: circuits.attention_patterns(model, task=task).patterns)
            looks.append(lambda: circuits.gradient_symmetricity(model, task=task).cosines)

        def ablated():
            found = gi.ablate(model, chosen, task=task, frequencies=[1], placebos=2)
            return torch.tensor(found.table()["loss_all"].to_numpy())

        looks.append(ablated)
    assert not at_once(looks, times=6 * len(looks))
    assert (hooks_of(model), model.training) == before


def test_threads_that_look_at_one_snapshot():
    task, model = task_and_model("own of two layers")
    alone = gi.snapshot(model, task)
    names = ("blocks.0.mlp.hook_pre", "blocks.1.attn.hook_pattern", "blocks.0.hook_resid_mid")
    expected = {name: alone.activation(name) for name in names}
    for _ in range(5):
        seen = gi.snapshot(model, task)
        looks = [lambda name=name, seen=seen: seen.activation(name) for name in names]
        assert not at_once(looks, times=9)
        assert all(torch.equal(seen.activation(name), expected[name]) for name in names)


def test_threads_that_build_models_leave_random_numbers_alone():
    architecture = RECIPES["two layers"].architecture()
    weights = architecture.initial(seed=1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), list(warnings.filters)
    model = lambda: architecture.hooked(weights)(torch.tensor([[1, 2, 7]]))  # noqa: E731
    assert not at_once([model], times=10)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert list(warnings.filters) == before[2]


class TestCopies:
    def test_a_snapshot_keeps_mask_and_weights_of_its_time(self):
        task, model = task_and_model("one layer")
        mask = np.arange(49) % 2 == 0
        for given in (torch.tensor(mask), mask):
            seen = gi.snapshot(model, task, train_mask=torch.as_tensor(given))
            before = seen.logits.clone()
            given[:] = False
            assert torch.equal(seen.train_mask, torch.arange(49) % 2 == 0)
        later = gi.snapshot(model, task)  # computed only after the weights have changed
        weights = {name: weight.clone() for name, weight in later.weights.items()}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        assert torch.equal(later.logits, before)
        assert torch.equal(seen.activation("blocks.0.mlp.hook_post"), later.mlp_post)
        assert all(torch.equal(later.weights[name], weight) for name, weight in weights.items())

    def test_a_recorder_keeps_the_split_it_was_given(self, tmp_path):
        task, model = task_and_model("one layer")
        rows = torch.tensor([3, 1, 4, 15, 9])
        mask = torch.zeros(49, dtype=torch.bool)
        mask[rows] = True
        metrics = {"train_loss": 1.0}
        for name, split in (("rows", {"train_indices": rows}), ("mask", {"train_mask": mask})):
            recorder = gi.Recorder(tmp_path / name, task=task, **split)
            rows.zero_()
            mask.zero_()
            recorder.save(0, model, metrics=metrics)
            metrics["train_loss"] = 2.0
            run = recorder.close()
            assert run.train_mask.nonzero().flatten().tolist() == [1, 3, 4, 9, 15]
            assert run.train_indices.sort().values.tolist() == [1, 3, 4, 9, 15]
            rows.copy_(torch.tensor([3, 1, 4, 15, 9]))
            mask[rows] = True

    def test_hooks_keep_their_values(self):
        task, model = task_and_model("one layer")
        snapshot = gi.snapshot(model, task)
        values = torch.ones(49, 2)
        patterns = torch.full((49, 2, 3), 0.25)
        basis = torch.eye(32)[:, :2].clone()
        made = [
            hooks.replaced_neurons(0, [0, 3], values, name="ones"),
            hooks.replaced_patterns(0, patterns, name="a quarter"),
            hooks.directions("blocks.0.mlp.hook_post", basis, name="two"),
        ]
        before = gi.ablate(snapshot, made, frequencies=[1], placebos=0).table()["loss_all"]
        for tensor in (values, patterns, basis):
            tensor.fill_(0.7)
        after = gi.ablate(snapshot, made, frequencies=[1], placebos=0).table()["loss_all"]
        assert before.tolist() == after.tolist()

    def test_results_keep_their_numbers(self):
        recipe = RECIPES["mlp"]
        weights = recipe.architecture().initial(seed=1, rule=recipe.init)
        seen = from_weights(weights, recipe.architecture(), recipe.build_task())
        grid = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
        curve = encodings.pruning_curve(seen, fractions=grid)
        grid.fill_(3.0)
        assert curve.fractions.tolist() == [0.0, 0.5, 1.0]

    def test_phases_keep_their_curves(self):
        steps = np.arange(0, 2000, 10)
        columns = {
            "train_loss": 3 * np.exp(-steps / 100), "test_loss": 3 * np.exp(-steps / 400),
            "train_acc": np.minimum(1, steps / 200), "test_acc": np.minimum(1, steps / 1200),
        }  # fmt: skip
        log = pd.DataFrame({"step": steps, **columns})
        found = gi.detect_phases(log)
        before = found.curves.copy()
        log.loc[:, list(columns)] = -5.0
        pd.testing.assert_frame_equal(found.curves, before)
