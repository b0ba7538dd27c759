import itertools
import os
import signal

import jaxtyping
import pytest
import torch

import grokinterp as gi
from grokinterp.models import stacked
from grokinterp.models.kinds import QuickForward
from grokinterp.runs.manifest import Manifest
from grokinterp.runs.metrics import evaluate
from grokinterp.tasks import unmirrored_rows
from grokinterp.training import (
    EnsembleTiming,
    ensemble,
    faster_as_ensemble,
    groups,
    loop,
    train_ensemble,
)
from grokinterp.training.learner import EnsembleLearner, Learner, evaluate_members
from grokinterp.updates.optimizers import Batches, build_optimizer, learning_rate

QUICK = gi.recipes()["mod11-quick"].replace(threads=1)
MLP = gi.Recipe(
    model="mlp", p=13, d_mlp=24, batch_size=20, train_fraction=0.7, lr=1e-2, threads=1
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeds(recipe, n=8, **changes):
    return [recipe.replace(seed=seed, **changes) for seed in range(n)]


def small(**changes):
    return gi.Recipe(**{"p": 7, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32} | changes)


def single(recipe):
    """Steps of one recipe, as the loop of a single run takes them."""
    learner = Learner(recipe, "cpu")
    optimizer = build_optimizer(recipe, learner.trained.values())
    batches = Batches(recipe, recipe.train_indices())
    for step in range(10**6):
        yield learner.weights
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step)
        learner.backward(batches.rows(step))
        optimizer.step()


VARIANTS = {
    "mod11-quick": (QUICK, 200, 2),
    "mod31-grokked": (gi.recipes()["mod31-grokked"], 3, 3),  # 768 rows
    "biases": (small(biases="all", lr=1e-2, warmup=10), 100, 2),
    "no equals": (small(equals_token=False, biases="mlp", act_fn="gelu", lr=1e-2), 60, 2),
    "equals class": (small(equals_class=True, init="paper", batch_size=8), 60, 2),
    "adam": (small(optimizer="adam", weight_decay=1e-3, lr=1e-2), 60, 2),
    "sgd": (small(optimizer="sgd", weight_decay=1e-3, lr=0.3), 100, 2),
    "mlp": (MLP, 200, 4),
    "embedded mlp": (MLP.replace(embedding="learned", d_model=6, reshuffle=False), 60, 2),
    "deep mlp": (MLP.replace(widths=(9, 5), optimizer="adam", init="torch"), 60, 2),
}


@pytest.fixture
def shapes_unchecked():
    """Without the checks of every signature, which take far longer than the steps."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_member_is_its_single_run(name, shapes_unchecked):
    recipe, steps, n_members = VARIANTS[name]
    recipes = [each.replace(data_seed=i % 2) for i, each in enumerate(seeds(recipe, n_members))]
    learner = EnsembleLearner(recipes, "cpu")
    for step in range(steps):
        learner.update(step)
    for member, each in enumerate(recipes):
        weights = next(itertools.islice(single(each), steps, None))
        for key, weight in weights.items():
            off = (learner.member(member)[key] - weight).abs().max()
            assert off < 1e-4, (member, key)


def test_members_may_have_rates_of_their_own():
    recipes = [
        small(seed=1, lr=1e-2, weight_decay=0.5), small(seed=2, lr=1e-2, weight_decay=0.5),
        small(seed=1, lr=1e-3, warmup=20), small(seed=1, betas=(0.9, 0.99), init_scale=2.0),
    ]  # fmt: skip
    learner = EnsembleLearner(recipes, "cpu")
    for step in range(30):
        learner.update(step)
    for member, each in enumerate(recipes):
        weights = next(itertools.islice(single(each), 30, None))
        for key, weight in weights.items():
            torch.testing.assert_close(learner.member(member)[key], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "recipe",
    [
        small(),
        small(equals_token=False, act_fn="silu"),
        small(equals_class=True),
        MLP.replace(p=7),
        MLP.replace(p=7, embedding="learned", d_model=3, widths=(5, 4), act_fn="gelu"),
    ],
    ids=["transformer", "no equals", "equals class", "mlp", "deep mlp"],
)
@pytest.mark.parametrize("block_size", [1, 2**20])
def test_gradients_in_float64_are_the_single_ones(recipe, block_size, monkeypatch):
    monkeypatch.setitem(stacked.BLOCK_SIZE, "cpu", block_size)
    architecture, task = recipe.architecture(), recipe.build_task()
    generator = torch.Generator().manual_seed(0)
    members = [
        {
            name: torch.randn(shape, generator=generator, dtype=torch.float64) * 0.3
            for name, shape in architecture.parameter_shapes().items()
        }
        for _ in range(3)
    ]
    rows = torch.stack([torch.randperm(49, generator=generator)[:20] for _ in members])
    inputs, labels = task.model_inputs[rows], task.labels[rows]
    found = stacked.stacked_gradients(architecture, stacked.stack(members), inputs, labels)
    logits = stacked.stacked_logits(architecture, stacked.stack(members), inputs)
    for i, weights in enumerate(members):
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        alone = QuickForward(architecture, leaves)(inputs[i])
        torch.testing.assert_close(logits[i], alone.detach(), rtol=0, atol=1e-12)
        torch.nn.functional.cross_entropy(alone, labels[i]).backward()
        for name, leaf in leaves.items():
            torch.testing.assert_close(found[name][i], leaf.grad, rtol=0, atol=1e-12)


def test_a_key_bias_is_not_trained_because_nothing_depends_on_it():
    recipe = small(biases="all")
    learner = EnsembleLearner([recipe], "cpu")
    assert set(learner.member(0)) - set(learner.trained) == {"blocks.0.attn.b_K"}
    for step in range(5):
        learner.update(step)
    assert not learner.member(0)["blocks.0.attn.b_K"].any()


@pytest.mark.parametrize("n_train", [1, 20, 77, 121])
def test_metrics_of_members_have_the_bits_of_single_ones(n_train):
    generator = torch.Generator().manual_seed(n_train)
    logits = torch.randn(3, 121, 11, generator=generator) * 5
    labels = torch.randint(11, (3, 121), generator=generator)
    order = torch.rand(3, 121, generator=generator).argsort(dim=1)
    masks = order < n_train
    found = evaluate_members(logits, labels, masks)
    alone = [evaluate(*member) for member in zip(logits, labels, masks, strict=True)]
    assert list(map(str, found)) == list(map(str, alone))  # nan and all
    unmirrored = [unmirrored_rows(gi.ModularTask("add", p=11), mask) for mask in masks[:2]]
    rows = [*(each.nonzero().flatten() for each in unmirrored), None]
    found = evaluate_members(logits, labels, masks, rows)
    members = zip(logits, labels, masks, [*unmirrored, None], strict=True)
    more = [evaluate(*member) for member in members]
    assert list(map(str, found)) == list(map(str, more))
    assert [len(each) for each in more] == [6, 6, 4]
    assert [str(list(each.values())[:4]) for each in more] == [
        str(list(each.values())) for each in alone
    ]


def test_so_have_those_of_a_large_table(shapes_unchecked):
    """Long sums are split into blocks: of 12769 inputs, as of few."""
    task = gi.ModularTask("add", p=113)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, task.n_inputs, 113, generator=generator) * 5
    labels = task.labels.expand(3, -1)
    order = torch.rand(3, task.n_inputs, generator=generator).argsort(dim=1)
    masks = order < 3830
    unmirrored = [unmirrored_rows(task, mask) for mask in masks]
    rows = [each.nonzero().flatten() for each in unmirrored]
    assert len({len(each) for each in rows}) == 3
    members = zip(logits, labels, masks, unmirrored, strict=True)
    alone = [evaluate(*member) for member in members]
    assert evaluate_members(logits, labels, masks, rows) == alone


def same_run(one, other):
    assert one.steps == other.steps
    assert one.metrics.equals(other.metrics)
    for step in one.steps:
        ours, theirs = one.weights(step), other.weights(step)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    return True


def test_members_are_ordinary_runs(tiny, tmp_path):
    recipes = [tiny.replace(threads=1, seed=seed, data_seed=seed) for seed in range(2)]
    runs = train_ensemble(recipes, tmp_path / "all")
    names = [f"seed={seed},data_seed={seed}" for seed in range(2)]
    assert [run.path.name for run in runs] == names
    for run, recipe in zip(runs, recipes, strict=True):
        run = gi.load(run.path)
        run.verify()
        assert run.finished
        assert run.recipe == recipe
        assert run.manifest.environment["ensemble"] == 2
        assert sorted(path.name for path in run.path.iterdir()) == [
            "metrics.csv", "run.json", "split.safetensors", "weights",
        ]  # fmt: skip
        alone = gi.train(recipe, tmp_path / f"alone{recipe.seed}")
        assert run.steps == alone.steps
        assert run.train_indices.tolist() == alone.train_indices.tolist()
        for column in run.metrics:
            torch.testing.assert_close(
                torch.tensor(run.metrics[column]), torch.tensor(alone.metrics[column]),
                rtol=1e-6, atol=1e-12,
            )  # fmt: skip
        for step in run.steps:
            for name, weight in alone.weights(step).items():
                torch.testing.assert_close(run.weights(step)[name], weight, rtol=0, atol=1e-6)
        assert gi.detect_phases(run).label == gi.detect_phases(alone).label
        assert run.snapshot().logits.shape == (49, 7)


class KilledError(Exception):
    """Stands for a kill: nothing runs after it."""


def kill(*_):
    raise KilledError


def kill_at(monkeypatch, target, name, call):
    """Let a function be killed at its `call`-th call, before it does anything."""
    original, calls = getattr(target, name), []

    def counting(*args, **kwargs):
        calls.append(1)
        return kill() if len(calls) == call else original(*args, **kwargs)

    monkeypatch.setattr(target, name, counting)


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    recipes = seeds(tiny.replace(threads=1, batch_size=9, warmup=5), 3)
    recipes[2] = recipes[2].replace(weight_decay=0.1)
    folder = tmp_path_factory.mktemp("unbroken")
    return recipes, train_ensemble(recipes, [folder / str(i) for i in range(3)])


KILLS = {
    "while the runs begin": (loop.RunWriter, "create", 2),
    "before the first state": (loop.Session, "update", 7),
    "while the first state is written": (loop.RunWriter, "save_resume", 2),
    "while a later state is written": (loop.RunWriter, "save_resume", 5),
    "between the renames of the first state": (loop.os, "replace", None),
    "while checkpoints are written": (loop.RunWriter, "save", 8),
    "while the runs are finished": (loop.RunWriter, "finish", 2),
}


@pytest.mark.parametrize("where", KILLS)
def test_a_killed_ensemble_resumes_to_the_same_bits(where, unbroken, tmp_path, monkeypatch):
    recipes, runs = unbroken
    outs = [tmp_path / str(i) for i in range(3)]
    target, name, call = KILLS[where]
    with monkeypatch.context() as patch:
        if call is None:
            replace, renamed = os.replace, []

            def stopping(source, target):
                renamed.append(str(source).endswith(loop.RESUME_NEXT))
                return kill() if sum(renamed) == 2 else replace(source, target)

            patch.setattr(target, name, stopping)
        else:
            kill_at(patch, target, name, call)
        with pytest.raises(KilledError):
            train_ensemble(recipes, outs)
    for out in outs:
        if (out / "run.json").exists() and Manifest.read(out).steps:
            gi.load(out).verify()
    resumed = train_ensemble(recipes, outs, resume=True)
    assert all(map(same_run, runs, resumed))
    assert all(run.finished and not run.manifest.later for run in resumed)
    assert not list(tmp_path.rglob("resume*"))


def test_ctrl_c_loses_nothing(unbroken, tmp_path, monkeypatch):
    recipes, runs = unbroken
    outs = [tmp_path / str(i) for i in range(3)]
    update = loop.Session.update

    def stopping(session):
        update(session)
        if session.step == 33:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Session, "update", stopping)
        with pytest.raises(gi.Interrupted, match="stopped at step 33 of 60"):
            train_ensemble(recipes, outs)
    assert [gi.load(out).steps for out in outs] == [(0, 20)] * 3
    assert all(map(same_run, runs, train_ensemble(recipes, outs, resume=True)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    train_ensemble(recipes, outs, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_member_can_go_on_singly_and_says_so(unbroken, tmp_path, monkeypatch):
    recipes, runs = unbroken
    outs = [tmp_path / str(i) for i in range(3)]
    with monkeypatch.context() as patch:
        kill_at(patch, loop.Session, "update", 50)
        with pytest.raises(KilledError):
            train_ensemble(recipes, outs)
    alone = gi.train(recipes[0], outs[0], resume=True)
    for name, weight in runs[0].weights().items():
        torch.testing.assert_close(alone.weights()[name], weight, rtol=0, atol=1e-6)
    (later,) = alone.manifest.later
    assert later["from_step"] == 40
    assert "ensemble" not in later["environment"]
    rest = train_ensemble(recipes, outs, resume=True)  # the finished one stays as it is
    assert [run.finished for run in rest] == [True] * 3
    assert rest[1].manifest.later[0]["environment"]["ensemble"] == 2


@pytest.mark.parametrize(
    ("recipes", "why"),
    [
        ([small(), small(d_mlp=16)], r"recipes 0 and 1 have d_mlp=32 and 16; .*differ in seed"),
        ([small(), small(steps=3)], "have steps=10000 and 3"),
        ([small(n_layers=2)], r"2 layers are not batched.*singly"),
        ([gi.Recipe(task="ising")], "kind cnn are not batched"),
        ([], "no recipes"),
    ],
)
def test_what_cannot_be_trained_together_is_refused(recipes, why, tmp_path):
    with pytest.raises(gi.InputError, match=why) as refused:
        train_ensemble(recipes, tmp_path)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_folders_that_do_not_fit_are_refused(tiny, tmp_path):
    pair = seeds(tiny.replace(steps=3), 2)
    with pytest.raises(gi.InputError, match="2 recipes and 1 folders"):
        train_ensemble(pair, [tmp_path])
    with pytest.raises(gi.InputError, match="given for two members"):
        train_ensemble(pair, [tmp_path, tmp_path])
    with pytest.raises(gi.InputError, match="when='sometimes' is not known"):
        train_ensemble(pair, tmp_path, when="sometimes")
    train_ensemble(pair, tmp_path)
    with pytest.raises(gi.InputError, match="seed=1 already holds a run"):
        train_ensemble(pair, [tmp_path / "new", tmp_path / "seed=1"])
    assert not (tmp_path / "new").exists()
    with pytest.raises(gi.InputError, match=r"another run \(lr=0\.01 there, 0\.5 asked\)"):
        train_ensemble([each.replace(lr=0.5) for each in pair], [tmp_path / "seed=0",
                       tmp_path / "seed=1"], resume=True)  # fmt: skip


def test_members_without_a_common_step_are_refused(tiny, tmp_path, monkeypatch):
    recipes = seeds(tiny, 2)
    with monkeypatch.context() as patch:
        kill_at(patch, loop.Session, "update", 50)
        with pytest.raises(KilledError):
            train_ensemble(recipes, tmp_path)
    (tmp_path / "seed=1/resume.safetensors").unlink()
    with pytest.raises(gi.InputError, match=r"seed=1 is saved at step 0, .*seed=0 at 40"):
        train_ensemble(recipes, tmp_path, resume=True)


@pytest.mark.parametrize("faster", [True, False])
def test_what_is_faster_is_chosen_said_and_kept(faster, tiny, tmp_path, monkeypatch, caplog):
    recipes = seeds(tiny.replace(steps=30), 2)
    timed = []

    def timing(asked):
        timed.append(asked)
        return EnsembleTiming(members=2, singly=1e-3, together=0.5e-3 if faster else 2e-3)

    monkeypatch.setattr(ensemble, "faster_as_ensemble", timing)
    with monkeypatch.context() as patch, caplog.at_level("INFO"):
        kill_at(patch, loop.Session, "update", 25)
        with pytest.raises(KilledError):
            train_ensemble(recipes, tmp_path, when="faster")
    assert ("trained together" if faster else "one after the other") in caplog.text
    runs = train_ensemble(recipes, tmp_path, resume=True, when="faster")
    assert len(timed) == 1
    together = ["ensemble" in run.manifest.environment for run in runs]
    assert together == [faster] * 2
    assert all(run.finished and not run.manifest.later for run in runs)


def test_timing_times_both_ways():
    timing = faster_as_ensemble(seeds(small(), 3), seconds=0.05)
    assert timing.members == 3
    assert 0 < timing.singly < 1
    assert 0 < timing.together < 1
    assert timing.faster == (timing.together < timing.singly)
    assert timing.table().seconds.tolist() == [timing.singly, timing.together]


def test_groups_hold_every_recipe_once_with_those_it_can_be_trained_with():
    recipes = {f"{d},{seed}": small(d_mlp=d, seed=seed) for seed in range(5) for d in (8, 16)}
    recipes["deep"] = small(n_layers=2)
    recipes["deep too"] = small(n_layers=2, seed=1)
    found = groups(recipes, 3)
    assert sorted(itertools.chain(*found)) == sorted(recipes)
    assert found == [
        ["8,0", "8,1", "8,2"], ["16,0", "16,1", "16,2"], ["8,3", "8,4"], ["16,3", "16,4"],
        ["deep"], ["deep too"],
    ]  # fmt: skip
    assert groups(recipes, 1) == [[name] for name in recipes]
