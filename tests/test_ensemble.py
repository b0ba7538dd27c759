import itertools
import os
import signal

import pytest
import torch

import grokinterp as gi
from grokinterp.runs.manifest import Manifest
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED
from grokinterp.training import (
    EnsembleTiming,
    ensemble,
    faster_as_ensemble,
    groups,
    loop,
    train_ensemble,
)
from grokinterp.training.learner import Learner
from grokinterp.updates import CrossEntropy

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

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


def after(steps, *recipes):
    """A single run after some updates, or several that are trained together."""
    learner = Learner(recipes, "cpu")
    for step in range(steps):
        learner.update(step)
    return learner


VARIANTS = {
    "mod11-quick": (QUICK, 50, 2),
    "mod31-grokked": (gi.recipes()["mod31-grokked"], 3, 3),  # 768 rows
    "biases": (small(biases="all", lr=1e-2, warmup=10), 50, 2),
    "no equals": (small(equals_token=False, biases="mlp", act_fn="gelu", lr=1e-2), 50, 2),
    "equals class": (small(equals_class=True, init="paper", batch_size=8), 50, 2),
    "adam": (small(optimizer="adam", weight_decay=1e-3, lr=1e-2), 50, 2),
    "sgd": (small(optimizer="sgd", weight_decay=1e-3, lr=0.3), 30, 2),  # later any rounding grows
    "mlp": (MLP, 50, 4),
    "embedded mlp": (MLP.replace(embedding="learned", d_model=6, reshuffle=False), 50, 2),
    "deep mlp": (MLP.replace(widths=(9, 5), optimizer="adam", init="torch"), 50, 2),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_member_is_its_single_run(name):
    recipe, steps, n_members = VARIANTS[name]
    recipes = [each.replace(data_seed=i % 2) for i, each in enumerate(seeds(recipe, n_members))]
    learner = after(steps, *recipes)
    for member, each in enumerate(recipes):
        for key, weight in after(steps, each).weights.items():
            off = (learner.member(member)[key] - weight).abs().max()
            assert off < 1e-5, (member, key)


def test_members_may_have_rates_of_their_own():
    recipes = [
        small(seed=1, lr=1e-2, weight_decay=0.5), small(seed=2, lr=1e-2, weight_decay=0.5),
        small(seed=1, lr=1e-3, warmup=20), small(seed=1, betas=(0.9, 0.99), init_scale=2.0),
    ]  # fmt: skip
    learner = after(30, *recipes)
    for member, each in enumerate(recipes):
        for key, weight in after(30, each).weights.items():
            torch.testing.assert_close(learner.member(member)[key], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "recipe",
    [
        small(),
        small(equals_token=False, act_fn="silu"),
        small(equals_class=True),
        small(attn_only=True),
        MLP.replace(p=7),
        MLP.replace(p=7, embedding="learned", d_model=3, widths=(5, 4), act_fn="gelu"),
    ],
    ids=["transformer", "no equals", "equals class", "attention alone", "mlp", "deep mlp"],
)
def test_gradients_in_float64_are_the_single_ones(recipe):
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
    stacked = {name: torch.stack([weights[name] for weights in members]) for name in members[0]}
    found = architecture.gradients_on(inputs, labels, CrossEntropy())(stacked)
    logits = architecture.forward(stacked, inputs)
    for i, weights in enumerate(members):
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        alone = architecture.forward(leaves, inputs[i])
        torch.testing.assert_close(logits[i], alone.detach(), rtol=0, atol=1e-12)
        torch.nn.functional.cross_entropy(alone, labels[i]).backward()
        for name, leaf in leaves.items():
            torch.testing.assert_close(found[name][i], leaf.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("members", [1, 2])
def test_a_key_bias_is_not_trained_because_nothing_depends_on_it(members):
    learner = after(5, *seeds(small(biases="all"), members))
    assert set(learner.member(0)) - set(learner.trained) == {"blocks.0.attn.b_K"}
    assert not learner.member(members - 1)["blocks.0.attn.b_K"].any()


@pytest.mark.parametrize("p", [7, 17])  # members in one forward, and 289 rows: one by one
def test_metrics_of_members_are_those_of_single_runs(p):
    recipes = [small(p=p, seed=seed, data_seed=seed, init_scale=3.0) for seed in range(3)]
    learner = Learner(recipes, "cpu")
    for step in range(2):
        found = learner.evaluate()
        for each, weights, metrics in zip(
            recipes, map(learner.member, range(3)), found, strict=True
        ):
            single = Learner([each], "cpu")
            for name, weight in single.weights.items():
                weight.copy_(weights[name])
            (alone,) = single.evaluate()
            assert list(metrics) == [*COLUMNS, *UNMIRRORED]
            assert metrics == pytest.approx(alone, rel=1e-5 if p == 7 else 0, abs=0)
        learner.update(step)


def same_run(one, other):
    assert one.steps == other.steps
    assert one.metrics.equals(other.metrics)
    for step in one.steps:
        ours, theirs = one.weights(step), other.weights(step)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    return True


def test_members_are_ordinary_runs(tiny, tmp_path):
    quick = tiny.replace(threads=1, steps=40)
    recipes = [quick.replace(seed=seed, data_seed=seed) for seed in range(2)]
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
            "dynamics.csv", "metrics.csv", "run.json", "split.safetensors", "weights",
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
                torch.testing.assert_close(run.weights(step)[name], weight, rtol=0, atol=1e-5)
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


@pytest.mark.parametrize("ids", [{}, {"operand_ids": 1, "token_ids": {"op": 0, "=": 12}}])
def test_members_read_one_layout(ids, tmp_path):
    plain, other = QUICK, QUICK.replace(layout="a op b =", seed=1, **ids)
    for both in ([plain, other], [other, plain]):
        with pytest.raises(gi.InputError, match=r"layout=.*None.*those of one ensemble"):
            train_ensemble(both, tmp_path)
    with pytest.raises(gi.InputError, match="answer_ids=None and 1;"):
        train_ensemble([other, other.replace(answer_ids=1)], tmp_path)
