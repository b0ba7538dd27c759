"""Runs of MLPs and CNNs: what works on a transformer's works on theirs."""

import json
import shutil

import pytest
import torch

import grokinterp as gi
from grokinterp import circuits
from grokinterp.circuits import hooks
from grokinterp.models.kinds import shape_from_dict
from grokinterp.runs.manifest import _checksum
from grokinterp.tasks import IsingTask, task_from_dict

MLP = gi.Recipe(
    model="mlp", p=7, d_mlp=24, train_fraction=0.6, optimizer="adam", lr=5e-3, weight_decay=1e-4,
    batch_size=8, steps=80, log_every=8, checkpoints="every:40",
)  # fmt: skip
ISING = gi.Recipe(
    task="ising", lattice=8, n_train=20, n_test=30, n_temperatures=10, n_repeats=8, sweeps=5,
    d_mlp=10, optimizer="adam", weight_decay=0.1, lr=1e-3, steps=60, checkpoints="every:20",
)  # fmt: skip
RECIPES = {
    "mlp": MLP,
    "deep": MLP.replace(widths=[12, 9], embedding="learned", d_model=5, init="torch"),
    "ising": ISING,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    return {name: gi.train(recipe, folder / name) for name, recipe in RECIPES.items()}


each = pytest.mark.parametrize("name", RECIPES)


@each
def test_a_run_is_read_back_as_it_was_written(name, runs):
    run = gi.load(runs[name].path)
    run.verify()
    assert run.recipe == RECIPES[name]
    assert run.task == run.recipe.build_task()
    assert task_from_dict(run.task.to_dict()) == run.task
    written = json.loads(json.dumps(run.architecture.to_dict()))
    assert shape_from_dict(written, run.task) == run.architecture
    assert run.train_indices.tolist() == run.recipe.train_indices().tolist()
    assert run.task.title in repr(run)
    assert run.task.title in repr(run.snapshot())


@each
def test_metrics_are_those_of_the_hooked_model(name, runs):
    """Metrics come from the quick forward, the model is built from the weights: they agree."""
    run = runs[name]
    for step in (run.steps[0], run.steps[-1]):
        with torch.no_grad():
            logits = run.model(step)(run.task.model_inputs)
        assert logits.shape == (run.task.n_inputs, run.task.n_classes)
        losses = torch.nn.functional.cross_entropy(logits, run.task.labels, reduction="none")
        logged = run.metrics.set_index("step").loc[step]
        assert float(losses[run.train_mask].mean()) == pytest.approx(logged.train_loss, rel=1e-5)
        assert float(losses[~run.train_mask].mean()) == pytest.approx(logged.test_loss, rel=1e-5)
        right = (logits.argmax(1) == run.task.labels).double()
        assert float(right[~run.train_mask].mean()) == pytest.approx(logged.test_acc)


@each
def test_training_follows_autograd(name, tmp_path):
    """The explicit gradients of 12 updates end where torch's own do."""
    recipe = RECIPES[name].replace(steps=12, checkpoints=[0])
    run = gi.train(recipe, tmp_path / name)
    from grokinterp.updates import Batches

    weights = {k: w.clone().requires_grad_() for k, w in run.weights(0).items()}
    optimizer = recipe.build("optimizer").build(weights.values())
    batches = Batches(recipe, run.train_indices)
    for update in range(12):
        rows = batches.rows(update)
        optimizer.zero_grad()
        logits = run.architecture.forward(weights, run.task.model_inputs[rows])
        torch.nn.functional.cross_entropy(logits, run.task.labels[rows]).backward()
        optimizer.step()
    for key, weight in run.weights().items():
        assert torch.allclose(weight, weights[key], atol=2e-5), key


@each
def test_a_killed_run_resumes_to_the_same_bits(name, runs, tmp_path, monkeypatch):
    from grokinterp.training import loop

    class KillError(Exception):
        pass

    update = loop.Session.update

    def killed(self):
        if self.step == 50:  # saved at 40
            raise KillError
        update(self)

    monkeypatch.setattr(loop.Session, "update", killed)
    with pytest.raises(KillError):
        gi.train(RECIPES[name], tmp_path / "run")
    monkeypatch.setattr(loop.Session, "update", update)
    resumed = gi.train(RECIPES[name], tmp_path / "run", resume=True)
    for step in runs[name].steps:
        for key, weight in runs[name].weights(step).items():
            assert torch.equal(weight, resumed.weights(step)[key])
    assert resumed.metrics.equals(runs[name].metrics)


@each
def test_snapshots_of_a_model_are_those_of_the_run(name, runs):
    run = runs[name]
    model = run.model()
    seen = gi.snapshot(model, run.task, train_mask=run.train_mask)
    assert torch.allclose(seen.logits, run.snapshot().logits, atol=1e-5)
    assert seen.kind == run.architecture.kind
    for hook in run.architecture.hook_names():
        assert torch.allclose(seen.activation(hook), run.snapshot().activation(hook), atol=1e-5)
    model.add_perma_hook("unembed.hook_out", lambda x, hook: 2 * x)
    doubled = gi.snapshot(model, run.task)
    assert torch.allclose(doubled.logits, 2 * seen.logits, atol=1e-5)
    assert doubled.kind == seen.kind


@each
def test_hooks_change_what_follows(name, runs):
    run = runs[name]
    cut = hooks.neurons(0, range(3), mode="zero")
    logits = run.model().run_with_hooks(run.task.model_inputs, fwd_hooks=list(cut))
    weights = run.weights()
    following = "blocks.1.mlp.W_in" if name == "deep" else "unembed.W_U"
    weights[following][:3] = 0
    expected = run.architecture.hooked(weights)(run.task.model_inputs)
    assert torch.allclose(logits, expected, atol=1e-6)


@each
def test_phases_measures_and_ablations(name, runs):
    run = runs[name]
    before = {key: weight.clone() for key, weight in run.weights().items()}
    measures = gi.progress_measures(run)
    assert list(measures.step) == list(run.steps)
    contract = ["train_loss", "test_loss", "train_acc", "test_acc", "restricted_loss",
                "excluded_loss", "trig_loss", "sum_sq_weights", "gini_embedding",
                "gini_unembedding"]  # fmt: skip
    assert set(contract) <= set(measures)
    logged = run.metrics.set_index("step").loc[list(run.steps)]
    assert measures.test_loss.tolist() == pytest.approx(logged.test_loss.tolist(), rel=1e-5)
    squares = sum(float(w.double().square().sum()) for w in before.values())
    assert measures.sum_sq_weights.iloc[-1] == pytest.approx(squares)
    each = [c for c in measures if c.startswith("sum_sq_") and c != "sum_sq_weights"]
    assert measures[each].iloc[-1].sum() == pytest.approx(squares)
    matrices = [key for key in before if ".b" not in key]  # each has its own column
    assert len(each) == len(matrices) + 1
    assert gi.detect_phases(run).label in ("undetermined", "not_learned", "memorized", "steady")
    table = gi.ablate(run, placebos=3).table()
    assert (table.loss_all > 0).all()
    names = list(table.ablation)
    assert "hidden layer 0 (mean)" in names
    assert ("channel 1.3 (mean)" in names) == (name == "ising")


def test_a_channel_ablated_is_a_channel_at_its_mean(runs):
    run = runs["ising"]
    post = run.snapshot().activation("conv.1.hook_post")
    cut = gi.ablate(run, [hooks.channels(1, 2, mode="zero")])
    weights = run.weights()
    weights["blocks.0.mlp.W_in"].view(4, 2, 2, 10)[2] = 0  # 8 x 8, halved twice
    logits = run.architecture.hooked(weights)(run.task.model_inputs)
    loss = torch.nn.functional.cross_entropy(logits.detach(), run.task.labels)
    assert cut.rows[0].score.loss_all == pytest.approx(float(loss), rel=1e-5)
    assert len(cut.rows[0].placebos) == 3
    assert post.shape == (50, 4, 4, 4)


@pytest.mark.parametrize(
    "function",
    [
        circuits.algorithm,
        circuits.attention,
        circuits.attention_fits,
        circuits.attention_readout,
        circuits.circuit_graph,
        circuits.circularity,
        circuits.commutativity,
        circuits.fitted_patterns,
        circuits.gradient_symmetricity,
        circuits.isolate_circles,
    ],
)
def test_what_needs_attention_says_so(function, runs):
    for run in runs.values():
        with pytest.raises(gi.InputError, match="has no attention and no residual stream"):
            function(run)


@each
def test_attribution_is_of_what_the_last_layer_reads(name, runs):
    """The margin of an input is that of its logits, split over the neurons and the bias."""
    run = runs[name]
    snapshot, task = run.snapshot(), run.task
    width = snapshot.mlp_post.shape[1]
    clusters = {1: torch.arange(3), 2: torch.tensor([width - 1])}
    found = circuits.attribution(run, clusters=clusters)
    assert found.parts == (
        "neurons cluster 1", "neurons cluster 2", "neurons, no cluster", "unembedding bias"
    )  # fmt: skip
    wanted = torch.full((task.n_inputs, task.n_classes), -1 / (task.n_classes - 1))
    wanted[torch.arange(task.n_inputs), task.labels] = 1.0
    margin = (snapshot.logits * wanted).sum(1).double()
    torch.testing.assert_close(found.margin, margin, rtol=1e-5, atol=1e-5)
    w_u, bias = run.weights()["unembed.W_U"], run.weights()["unembed.b_U"]
    members = [slice(3), slice(width - 1, width), slice(3, width - 1)]
    logits = [snapshot.mlp_post[:, x] @ w_u[x] for x in members] + [bias]
    for i, part in enumerate(logits):
        expected = (part * wanted).sum(1).double()
        torch.testing.assert_close(found.per_input[:, i], expected, rtol=1e-4, atol=1e-5)
    assert found.most_unexplained < 1e-5
    with pytest.raises(gi.InputError, match=f"outside 0 to {width - 1}"):
        circuits.attribution(run, clusters={1: torch.tensor([width])})


def test_a_recorder_takes_them(runs, tmp_path):
    for name, run in runs.items():
        with gi.Recorder(
            tmp_path / name, task=run.task, train_indices=run.train_indices
        ) as recorder:
            for step in run.steps:
                recorder.save(step, run.model(step))
        again = gi.load(tmp_path / name)
        assert again.architecture == run.architecture
        assert torch.equal(again.snapshot().logits, run.snapshot().logits)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("task", "ising", "'ising' is no description of a task"),
        ("task", {"task": "parity"}, "task='parity' is not known"),
        ("task", {"task": "ising"}, "is damaged"),
        ("architecture", {"kind": "rnn"}, "model='rnn' is not known; did you mean 'cnn'"),
        ("architecture", {"kind": "cnn"}, "is damaged"),
        ("recipe", {"model": ["mlp"]}, r"model=\['mlp'\] is not known; did you mean 'mlp'"),
    ],
)
def test_a_manifest_of_something_else_is_refused(part, value, message, runs, tmp_path):
    shutil.copytree(runs["mlp"].path, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"}
    content[part] = value
    path.write_text(json.dumps(content | {"checksum": _checksum(content)}))
    with pytest.raises(gi.InputError, match=message) as refused:
        gi.load(tmp_path / "run")
    assert str(refused.value).startswith(str(path))


@each
def test_commands(name, runs, run):
    path = runs[name].path
    status, out, _ = run("info", path, "--json")
    assert status == 0
    assert json.loads(out)["architecture"]["kind"] == runs[name].architecture.kind
    assert json.loads(out)["task"]["task"] == runs[name].recipe.task
    status, out, _ = run("info", path)
    assert (status, runs[name].task.title in out) == (0, True)
    status, out, _ = run("phases", path, "--json")
    assert status == 0
    assert json.loads(out)["label"]
    status, out, _ = run("measure", path)
    assert (status, len(out.splitlines())) == (0, 1 + len(runs[name].steps))
    status, out, _ = run("ablate", path, "--placebos", 2)
    assert (status, out.count("hidden layer")) == (0, 2 if name == "deep" else 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "ising", "model": "transformer"},
            "model='transformer' is not for task='ising': it reads operand tokens",
        ),
        ({"model": "cnn"}, "model='cnn' is not for task='modular': it reads lattices"),
        ({"model": "mlp", "equals_token": True}, "is not for task='modular': .*equals_token=False"),
        ({"model": "mlp", "init": "gpt2"}, "init='gpt2'"),
        ({"model": "mlp", "widths": [0]}, "widths"),
        ({"model": "mlp", "widths": "many"}, "is not a list of sizes"),
        ({"model": "mlp", "embedding": "one_hot"}, "embedding='one_hot' is not known"),
        ({"task": "ising", "lattice": 10}, "lattice=10"),
        ({"task": "ising", "n_train": 0}, "n_train"),
        ({"task": "isnig"}, "did you mean 'ising'"),
        ({"w0": 3}, "did you mean 'init_scale'"),
        ({"widths": [64]}, r"widths=\[64\] means nothing for task='modular', model='transformer'"),
        ({"task": "ising", "train_fraction": 0.5}, "train_fraction=0.5 means nothing"),
        ({"model": "mlp", "channels": [1]}, "channels"),
        ({"model": "mlp", "widths": [64, 32], "d_mlp": 7}, "leave n_layers and d_mlp out"),
        ({"model": "mlp", "widths": [10**6, 10**6]}, "parameters; give sizes"),
        ({"model": "mpl"}, "model='mpl' is not known; did you mean 'mlp'"),
        ({"model": ["mlp", "cnn"]}, r"model=\['mlp', 'cnn'\] is not known; valid are: cnn, mlp"),
        ({"task": {"p": 7}}, "task={'p': 7} is not known; valid are: ising, mod"),
        ({"lr": None}, "lr=None is not a number"),
    ],
)
def test_recipes_that_cannot_be(changes, message):
    with pytest.raises(gi.InputError, match=message) as refused:
        gi.Recipe().replace(**changes)
    assert "\n" not in str(refused.value)
    if "w0" not in changes:
        with pytest.raises(gi.InputError, match=message):
            gi.Recipe(**changes)


def test_defaults_follow_the_model_and_task():
    mlp = gi.Recipe().replace(model="mlp")
    assert (mlp.init, mlp.biases, mlp.equals_token, mlp.d_mlp) == ("xavier", "all", False, 512)
    ising = mlp.replace(task="ising")
    assert (ising.model, ising.init, ising.d_mlp) == ("cnn", "torch", 100)
    assert ising.replace(task="modular") == gi.Recipe()
    assert gi.Recipe(p=31, n_heads=2).replace(task="ising") == ising  # and forgets what was its own
    assert "p" not in ising.to_dict()
    assert gi.Recipe.from_dict(ising.to_dict()) == ising
    assert gi.Recipe(model="mlp") == mlp
    assert gi.Recipe.from_dict({"task": "ising"}) == ising
    assert mlp.replace(d_mlp=64).replace(model="transformer").d_mlp == 64  # chosen, so it stays


def test_a_task_of_another_kind_is_refused(runs):
    model = runs["ising"].model()
    with pytest.raises(gi.InputError, match=r"the CNN reads lattices of side 8, the task is add"):
        gi.snapshot(model, gi.ModularTask("add", p=7))
    with pytest.raises(gi.InputError, match="the CNN reads lattices of side 8"):
        gi.snapshot(model, IsingTask(lattice=4, n_train=2, n_test=2, sweeps=1))
    with pytest.raises(gi.InputError, match="equals_token=False"):
        gi.snapshot(runs["mlp"].model(), gi.ModularTask("add", p=7))
    with pytest.raises(gi.InputError, match="reads operand tokens"):
        gi.snapshot(runs["mlp"].model(), runs["ising"].task)


def test_parameter_counts_of_the_paper():
    for name, count in {"mlp113-grokked": 174_193, "ising-grokked": 6798}.items():
        shapes = gi.recipes()[name].architecture().parameter_shapes()
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == count
