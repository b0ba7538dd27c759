"""Weights that are NaN or infinite: the same answers in every forward, and never saved."""

import math
from dataclasses import replace

import pytest
import torch

import grokinterp as gi
from grokinterp.base.files import sha256, tensors_to_bytes
from grokinterp.models.cross_entropy import answer_scores, right_answers
from grokinterp.runs.manifest import Manifest
from grokinterp.runs.metrics import evaluate
from tests.made_runs import made_run

NAN = math.nan
SIZES = {"p": 7, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 32}
RECIPES = {
    "transformer": gi.Recipe(**SIZES),
    "blended": gi.Recipe(**SIZES, equals_token=False),
    "mlp": gi.Recipe(model="mlp", p=7, widths=(24, 16), embedding="learned", d_model=6),
    "cnn": gi.Recipe(
        task="ising", lattice=8, n_temperatures=4, n_repeats=20, sweeps=5, n_train=30, n_test=20,
        d_mlp=10,
    ),
}  # fmt: skip
ARCHITECTURES = {kind: recipe.architecture() for kind, recipe in RECIPES.items()}
ARCHITECTURES["blended"] = replace(ARCHITECTURES["blended"], attention_rate=0.5)
BROKEN = [
    ("transformer", "blocks.0.attn.W_K", (0, 0, 0), NAN),
    ("transformer", "blocks.0.attn.W_K", ..., NAN),
    ("transformer", "blocks.0.attn.W_Q", (1, 2, 3), math.inf),
    ("transformer", "blocks.0.attn.b_K", (0, 0), NAN),
    ("transformer", "embed.W_E", 3, NAN),
    ("transformer", "embed.W_E", (7, 0), NAN),  # of "="
    ("transformer", "unembed.W_U", (..., 2), NAN),
    ("transformer", "unembed.b_U", 0, -math.inf),
    ("transformer", "blocks.0.mlp.b_in", 5, NAN),
    ("blended", "blocks.0.attn.W_K", (0, 0, 0), NAN),
    ("blended", "blocks.0.attn.W_V", (1, 0, 0), NAN),
    ("mlp", "embed.W_E", (2, 1), NAN),
    ("mlp", "blocks.0.mlp.b_in", 3, NAN),
    ("mlp", "blocks.1.mlp.W_in", (0, 0), math.inf),
    ("mlp", "unembed.W_U", (..., 6), NAN),
    ("cnn", "conv.0.W", (0, 0, 1, 1), NAN),
    ("cnn", "unembed.b_U", 1, NAN),
]


def weights_of(kind):
    return ARCHITECTURES[kind].initial(seed=3, rule=RECIPES[kind].init, scale=2.0)


def broken(kind, name, place, value):
    weights = weights_of(kind)
    weights[name][place] = value
    return weights


def mask_of(task):
    return torch.arange(task.n_inputs) % 3 == 0


@pytest.mark.parametrize(("kind", "name", "place", "value"), BROKEN)
def test_every_forward_gives_the_answers_of_the_model_itself(kind, name, place, value):
    task, architecture = RECIPES[kind].build_task(), ARCHITECTURES[kind]
    weights = broken(kind, name, place, value)
    model = architecture.hooked(weights)
    with torch.no_grad():
        own = model(task.model_inputs)
    own = own[:, -1] if own.ndim == 3 else own
    undefined = own.isnan().any(dim=1)
    right = (own.argmax(dim=1) == task.labels) & ~undefined

    seen = gi.snapshot(model, task, train_mask=mask_of(task))
    again = made_run(task, architecture, {4: weights}).snapshot(4)
    blocks = again.logit_blocks(torch.arange(task.n_inputs))
    found = {
        "a user's model": seen.all_logits,
        "a run": again.all_logits,
        "in blocks": torch.cat([logits for _, logits in blocks]),
        "with weights": again.logits_with(weights),
    }
    if kind in ("transformer", "mlp"):
        sound, inputs = weights_of(kind), task.model_inputs.expand(2, -1, -1)
        both = {name: torch.stack([sound[name], weights[name]]) for name in weights}
        found["in an ensemble"] = architecture.forward(both, inputs)[1]
    for what, logits in found.items():
        scores = answer_scores(logits, task.labels)
        torch.testing.assert_close(logits, own, equal_nan=True, msg=what)
        assert torch.equal(scores.right, right), what
        assert scores.losses[undefined].isnan().all(), what


def test_attention_that_is_nan_is_none_as_in_transformerlens():
    """So a run and its model answer alike; here they did not, by 100 points of accuracy."""
    weights = broken("transformer", "blocks.0.attn.W_K", ..., NAN)
    seen = made_run(
        RECIPES["transformer"].build_task(), ARCHITECTURES["transformer"], {0: weights}
    ).snapshot(0)
    assert seen.all_logits.isfinite().all()
    assert (seen.activation("blocks.0.attn.hook_pattern") == 0).all()


def test_an_input_with_nan_among_its_logits_is_never_right():
    logits = torch.tensor([[NAN, 1.0, 0.0], [0.0, NAN, 0.0], [2.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 0])
    assert right_answers(logits, labels).tolist() == [False, False, True, True]
    scores = answer_scores(logits, labels)
    assert scores.right.tolist() == [False, False, True, True]
    assert scores.losses.isnan().tolist() == [True, True, False, False]
    mask = torch.tensor([True, False, True, False])
    found = [evaluate(each, labels, mask) for each in (logits, torch.full((4, 3), NAN))]
    assert [(row["train_acc"], row["test_acc"]) for row in found] == [(0.5, 0.5), (0.0, 0.0)]
    assert math.isnan(found[0]["train_loss"])
    assert math.isnan(found[1]["test_loss"])


@pytest.mark.parametrize(("kind", "name", "place", "value"), BROKEN)
def test_a_recorder_refuses_them_and_says_which(kind, name, place, value, tmp_path):
    model = RECIPES[kind].architecture().hooked(broken(kind, name, place, value))
    sound = RECIPES[kind].architecture().hooked(weights_of(kind))
    recorder = gi.Recorder(tmp_path / "x", task=RECIPES[kind].build_task())
    what = "NaN" if math.isnan(value) else "infinite"
    for save in (recorder.save, recorder.log):
        with pytest.raises(gi.InputError, match=f"step 0: weight '{name}' is not finite .{what}"):
            save(0, model)
    assert not (tmp_path / "x").exists()
    recorder.save(0, sound)
    recorder.log(5, sound)
    with pytest.raises(gi.InputError, match="lower lr, or look at step 0, the last that is saved"):
        recorder.save(10, model)
    recorder.save(10, sound)
    run = recorder.close()
    assert run.metrics["step"].tolist() == [0, 5, 10]
    assert torch.equal(run.weights(10)[name], weights_of(kind)[name])


DIVERGING = gi.Recipe(
    p=7, d_model=16, n_heads=2, d_head=8, d_mlp=32, train_fraction=0.5, optimizer="sgd", lr=1e20,
    steps=60, checkpoints=(0, 40), log_every=5,
)  # fmt: skip


def test_training_that_diverges_stops_and_keeps_what_it_has(tmp_path, run):
    with pytest.raises(gi.InputError, match=r"step 40: weight .* is not finite") as refused:
        gi.train(DIVERGING, tmp_path / "run")
    assert "look at step 0, the last that is saved" in str(refused.value)
    assert "\n" not in str(refused.value)
    kept = gi.load(tmp_path / "run")
    assert (kept.steps, kept.finished) == ((0,), False)
    # When it happened is in the metrics: a loss that is no number, and no answer that is right.
    metrics = kept.metrics.set_index("step")
    assert metrics.index.tolist() == list(range(0, 41, 5))
    assert metrics["train_loss"].isna().tolist() == [False] + 8 * [True]
    assert metrics["train_acc"].tolist()[1:] == 8 * [0.0]
    assert gi.detect_phases(kept).label != "grokked"
    (tmp_path / "r.toml").write_text(DIVERGING.to_toml())
    status, out, err = run("train", tmp_path / "r.toml", "--out", tmp_path / "again")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "is not finite" in err


def test_a_diverging_member_does_not_take_the_others_with_it(tmp_path):
    """They go on to the end, singly."""
    from grokinterp.sweeps import Sweep, run_sweep

    sweep = Sweep(DIVERGING, ({"lr": (1e-3, 1e20, 1e-2)},), ensemble=3)
    table = run_sweep(sweep, tmp_path / "out", progress=False).set_index("run")
    assert table.note.str.contains("is not finite").tolist() == [False, True, False]
    for name in ("lr=0.001", "lr=0.01"):
        assert gi.load(tmp_path / "out" / name).finished


def test_a_run_that_has_them_is_not_exported(tiny_run, tmp_path):
    """As runs may that were written before they were refused."""
    weights = {n: w * NAN if n == "unembed.W_U" else w for n, w in tiny_run.weights(40).items()}
    checkpoints = {20: tiny_run.weights(20), 40: weights}
    run = made_run(tiny_run.task, tiny_run.architecture, checkpoints)
    run.metrics = tiny_run.metrics
    for format in ("demo", "paper"):
        with pytest.raises(gi.InputError, match=r"step 40: weight 'unembed.W_U' is not finite"):
            gi.export(run, tmp_path / "x.pth", format=format)
    assert not (tmp_path / "x.pth").exists()


def test_they_are_not_imported(tiny_run, tmp_path):
    for step in (20, 40):
        torch.save(dict(tiny_run.weights(step)), tmp_path / f"step_{step}.pt")
    weights = tiny_run.weights(60)
    weights["embed.W_E"][2, 3] = NAN
    torch.save(weights, tmp_path / "step_60.pt")
    with pytest.raises(gi.InputError, match=r"step 60: weight 'embed.W_E' is not finite .NaN: 1"):
        gi.import_run(tmp_path, tmp_path / "out")
    (tmp_path / "step_60.pt").unlink()
    assert gi.import_run(tmp_path, tmp_path / "out").steps == (20, 40)


def test_a_run_that_was_saved_with_them_still_loads(tiny, tmp_path):
    """And its measures say what it is."""
    folder = gi.train(tiny, tmp_path / "run").path
    file = folder / "weights" / "step_00000060.safetensors"
    weights = {name: weight * NAN for name, weight in gi.load(folder).weights(60).items()}
    file.write_bytes(tensors_to_bytes(weights, step=60))
    manifest = Manifest.read(folder)
    manifest.sha256[f"weights/{file.name}"] = sha256(file.read_bytes())
    manifest.write(folder)
    run = gi.load(folder)
    assert not answer_scores(run.snapshot().logits, run.task.labels).right.any()
    assert gi.key_frequencies(run).frequencies == ()
    assert len(gi.progress_measures(run)) == len(run.steps)
