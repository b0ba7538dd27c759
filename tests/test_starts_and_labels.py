"""Where training starts, and which labels it is given: weights of another run, wrong labels."""

import copy
import shutil
from dataclasses import dataclass

import pytest
import torch

import grokinterp as gi
from grokinterp.training.loop import Session
from tests.small_runs import SMALL, each_trained_once, flat, norm

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return each_trained_once(tmp_path_factory.mktemp("runs"))


def test_a_run_starts_from_another(runs, tmp_path):
    first = runs()
    recipe = SMALL.replace(
        start=first.path, start_step=10, weight_decay=0.0, steps=2, checkpoints="every:1"
    )
    run = gi.train(recipe, tmp_path / "run", progress=False)
    assert all(torch.equal(w, first.weights(10)[n]) for n, w in run.weights(0).items())
    went_on = runs(checkpoints=[10, 11])
    moments_anew = gi.train(recipe.replace(weight_decay=1.0), tmp_path / "anew", progress=False)
    assert not torch.equal(flat(moments_anew.weights(1)), flat(went_on.weights(11)))
    held = recipe.replace(norm_clamp="global", clamp_to=0.5)
    half = gi.train(held, tmp_path / "half", progress=False)
    assert norm(half.weights()) == pytest.approx(0.5 * norm(first.weights(10)), rel=1e-6)
    assert gi.load(tmp_path / "run").recipe == recipe
    for changes, said in (
        ({"start": "mod31-small"}, "is a run of another model"),
        ({"start": str(tmp_path / "nothing")}, "nothing"),
        ({"start": str(first.path), "start_step": 999}, "999 is not saved"),
        ({"start_step": 5}, "start_step=5 is given without start"),
    ):
        with pytest.raises(gi.InputError, match=said):
            gi.train(SMALL.replace(**changes), tmp_path / "no", progress=False)


def test_a_run_goes_on_without_the_run_that_it_started_from(runs, tmp_path):
    shutil.copytree(runs().path, tmp_path / "first")
    recipe = SMALL.replace(start=str(tmp_path / "first"), norm_clamp="layer", biases="all")
    whole = gi.train(recipe, tmp_path / "whole", progress=False)
    session = Session([(recipe, tmp_path / "run")], resume=False)
    for _ in range(15):
        session.update()
    shutil.rmtree(tmp_path / "first")
    run = gi.train(recipe, tmp_path / "run", resume=True, progress=False)
    assert all(torch.equal(w, whole.weights()[n]) for n, w in run.weights().items())
    assert run.dynamics.equals(whole.dynamics)


def test_wrong_labels_that_no_recipe_draws_are_not_recorded(runs, tmp_path):
    noisy, clean = SMALL.replace(label_noise=0.25), runs()
    task, rows = noisy.build_task(), noisy.train_indices()
    net, recorder = clean.model(0), gi.Recorder(tmp_path / "run", task=task, train_indices=rows)
    with pytest.raises(gi.InputError, match="5 of 20 training labels wrong, which no recipe draws"):
        recorder.save(0, net)


def test_wrong_labels_are_those_that_are_trained_on(runs):
    run, clean = runs(label_noise=0.25, steps=200, checkpoints=[0]), runs()
    wrong = run.task.labels != clean.task.labels
    assert int(wrong.sum()) == round(0.25 * int(run.train_mask.sum())) == 5
    assert not (wrong & ~run.train_mask).any()
    assert torch.equal(run.train_indices, clean.train_indices)
    assert (run.task.commutative, run.task.modular.p) == (True, 5)
    assert run.metrics.train_acc.iloc[-1] == 1  # it has fitted them
    right = run.snapshot().logits.argmax(dim=1) == run.task.labels
    assert bool(right[run.train_mask].all())
    again = gi.load(run.path)
    assert again.task == run.task != clean.task
    assert hash(again.task) == hash(run.task)
    assert copy.deepcopy(again.task) == run.task
    assert "5 of 20 training labels wrong" in again.task.title
    table = gi.progress_measures(run, steps=[0, 200])
    assert table.train_acc.tolist() == run.metrics.train_acc.iloc[[0, -1]].tolist()
    other = SMALL.replace(label_noise=0.25, data_seed=1).build_task()
    assert not torch.equal(other.labels, run.task.labels)


def test_noise_builds_a_task_as_its_class_does():
    """What `__post_init__` sets and is no field is there as well."""

    @dataclass(frozen=True, kw_only=True)
    class Bits(gi.tasks.TableTask):
        bits: int = 4
        n_classes = 2

        def __post_init__(self):
            object.__setattr__(self, "all", torch.arange(2**self.bits))

        def inputs(self):
            return (self.all[:, None] >> torch.arange(self.bits)).float() % 2

        def answers(self):
            return self.all % 2

    task = Bits(bits=3)
    noisy = gi.tasks.with_label_noise(task, torch.arange(6), 0.5, seed=0)
    assert torch.equal(noisy.model_inputs, task.model_inputs)
    assert int((noisy.labels != task.labels).sum()) == 3
