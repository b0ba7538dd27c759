import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import grokinterp as gi
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.runs.writer import RunWriter
from grokinterp.training import loop
from grokinterp.training.learner import Learner
from grokinterp.updates import Batches
from grokinterp.updates.optimizers import AdamW


def same_bits(one: gi.Run, other: gi.Run) -> bool:
    assert one.steps == other.steps
    tables = ("metrics.csv", "dynamics.csv")
    return all(
        (one.path / table).read_bytes() == (other.path / table).read_bytes() for table in tables
    ) and all(
        torch.equal(one.weights(step)[name], weight)
        for step in one.steps
        for name, weight in other.weights(step).items()
    )


VARIANTS = [
    {},
    {"batch_size": 7},
    {"n_layers": 2, "warmup": 5, "biases": "all"},
    {
        "gradient_filter": "ma", "filter_window": 7, "orthogonal_gradients": True,
        "norm_clamp": "layer", "clamp_from": 30, "lr_schedule": "cosine", "label_noise": 0.2,
    },
    {
        "optimizer": "muon", "gradient_filter": "ema", "decay_on": "matrices", "clip_norm": 0.5,
        "objective": "stablemax", "output_scale": 0.5, "biases": "all",
    },
]  # fmt: skip
MORE = [
    {"optimizer": "adam", "weight_decay": 0.01},
    {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.001},
    {"equals_token": False, "biases": "mlp", "equals_class": False, "act_fn": "gelu"},
]


@pytest.mark.parametrize(
    "changes", [*VARIANTS, *(pytest.param(x, marks=pytest.mark.slow) for x in MORE)], ids=str
)
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(changes, tiny, tmp_path, monkeypatch):
    recipe = tiny.replace(**changes)
    unbroken = gi.train(recipe, tmp_path / "unbroken")
    for stop in (3, 20, 45):
        calls = iter(range(10**6))
        update = loop.Session.update

        def stopping(session, calls=calls, stop=stop, update=update):
            update(session)
            if next(calls) == stop:
                signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(loop.Session, "update", stopping)
            with pytest.raises(gi.Interrupted, match=f"stopped at step {stop + 1} of 60"):
                gi.train(recipe, tmp_path / f"broken{stop}")
        assert not gi.load(tmp_path / f"broken{stop}").finished
        resumed = gi.train(recipe, tmp_path / f"broken{stop}", resume=True)
        assert resumed.finished
        assert same_bits(unbroken, resumed)
        assert not (resumed.path / "resume.safetensors").exists()


@pytest.mark.slow
def test_kill_9_three_times_over_changes_no_bit(tiny, tmp_path):
    # One thread in both: the number changes the bits, and other tests may have changed it here.
    recipe = tiny.replace(steps=1500, checkpoints="every:100", threads=1)
    unbroken = gi.train(recipe, tmp_path / "unbroken")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    command = [
        sys.executable, "-m", "grokinterp.cli", "train", str(tmp_path / "recipe.toml"),
        "--out", str(tmp_path / "killed"), "--resume",
    ]  # fmt: skip
    steps_seen = []
    for wanted in (1, 4, 9):  # kill -9 somewhere after that many checkpoints
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "killed").glob("weights/step_*"))) <= wanted:
            assert process.poll() is None, "training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        steps_seen.append(json.loads((tmp_path / "killed/run.json").read_text())["steps"])
    assert steps_seen[0] != steps_seen[1] != steps_seen[2]
    assert subprocess.run(command, check=False).returncode == 0
    assert same_bits(unbroken, gi.load(tmp_path / "killed"))


def test_resume_starts_a_missing_run_and_leaves_a_finished_one_alone(tiny, tmp_path):
    run = gi.train(tiny.replace(steps=3), tmp_path / "run", resume=True)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    gi.train(tiny.replace(steps=3), tmp_path / "run", resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}


def test_what_a_kill_after_the_last_save_leaves_is_tidied_up(tiny, tmp_path):
    run = gi.train(tiny.replace(steps=3), tmp_path / "run")
    whole = sorted(path.name for path in run.path.rglob("*"))
    (run.path / "resume.safetensors").write_bytes(b"of the step before the last")
    (run.path / ".lock").write_bytes(b"")
    gi.train(tiny.replace(steps=3), tmp_path / "run", resume=True)
    assert sorted(path.name for path in run.path.rglob("*")) == whole


def test_other_runs_are_refused(tiny, tmp_path):
    gi.train(tiny.replace(steps=3), tmp_path / "run")
    with pytest.raises(gi.InputError, match="already holds a run"):
        gi.train(tiny.replace(steps=3), tmp_path / "run")
    with pytest.raises(gi.InputError, match=r"another run \(lr=0\.01 there, 0\.5 asked\)"):
        gi.train(tiny.replace(steps=3, lr=0.5), tmp_path / "run", resume=True)


def test_a_folder_with_other_files_is_used_and_they_stay(tiny, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    gi.train(tiny.replace(steps=3), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_kill_during_the_replay_of_a_resumed_run_loses_nothing(tiny, tmp_path, monkeypatch):
    """Killed after a save but before its resume state, then again while that stretch is redone."""
    recipe = tiny.replace(checkpoints=[10, 20, 30, 40, 50])
    unbroken = gi.train(recipe, tmp_path / "unbroken")

    class KilledError(Exception):
        """Stands for a kill: nothing runs after it."""

    def kill(*_):
        raise KilledError

    saves = loop.Session.save_state
    with monkeypatch.context() as patch:
        patch.setattr(loop.Session, "save_state", lambda s: kill() if s.step == 40 else saves(s))
        with pytest.raises(KilledError):
            gi.train(recipe, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("grokinterp.runs.writer.RunWriter.flush_manifest", kill_second(kill))
        with pytest.raises(KilledError):
            gi.train(recipe, tmp_path / "run", resume=True)
    gi.load(tmp_path / "run").verify()
    assert same_bits(unbroken, gi.train(recipe, tmp_path / "run", resume=True))


def kill_second(kill):
    """The method, but for the second call of it: that is killed before it writes."""
    original = RunWriter.flush_manifest
    calls = []

    def method(writer):
        calls.append(writer)
        kill() if len(calls) == 2 else original(writer)

    return method


def test_resuming_over_a_run_whose_manifest_is_lost_is_refused(tiny, tmp_path):
    run = gi.train(tiny, tmp_path / "run")
    (run.path / "run.json").unlink()
    with pytest.raises(gi.InputError, match=r"already holds a run \(metrics\.csv\)"):
        gi.train(tiny, tmp_path / "run", resume=True)


def test_what_was_killed_before_its_first_save_is_no_checkpoint_of_others(tiny_run, tmp_path):
    """As a kill between the split and run.json leaves it, and one within the split."""
    for name in ("split.safetensors", ".writing-split.safetensors"):
        (tmp_path / name).write_bytes((tiny_run.path / "split.safetensors").read_bytes())
        with pytest.raises(gi.InputError, match=r"not a run: it has no run\.json"):
            gi.load(tmp_path)


def test_a_damaged_resume_file_is_named(tiny, tmp_path, monkeypatch):
    def stop_at_once(session):
        signal.raise_signal(signal.SIGINT)
        original(session)

    original = loop.Session.update
    with monkeypatch.context() as patch:
        patch.setattr(loop.Session, "update", stop_at_once)
        with pytest.raises(gi.Interrupted):
            gi.train(tiny, tmp_path / "run")
    path = tmp_path / "run/resume.safetensors"
    whole = path.read_bytes()
    step = whole.index(b'"step":"') + len(b'"step":"')
    for place in (-5, step):  # in the weights, and in the number of the step
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(gi.InputError, match=r"resume\.safetensors is damaged"):
            gi.train(tiny, tmp_path / "run", resume=True)


def test_the_fast_forward_trains_like_that_of_all_blocks(tiny, tmp_path, monkeypatch):
    fast = gi.train(tiny.replace(steps=20), tmp_path / "fast")
    monkeypatch.setattr(TransformerArchitecture, "at_answer_alone", False)
    slow = gi.train(tiny.replace(steps=20), tmp_path / "slow")
    for name, weight in slow.weights().items():
        torch.testing.assert_close(fast.weights()[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("p", [7, 31])  # 24 rows a batch, and 480: other products there
def test_gradients_lie_in_memory_as_their_weights_do(p, tiny, monkeypatch):
    """The fused optimisers take a transposed gradient for one that is not, without a word."""
    recipe = tiny.replace(p=p, biases="all")
    build, kept = AdamW.build, []
    monkeypatch.setattr(AdamW, "build", lambda *given: kept.append(build(*given)) or kept[-1])
    learner = Learner([recipe], "cpu")
    learner.update(0)
    (group,) = kept[0].param_groups
    assert len(group["params"]) == len(learner.trained)
    for name, weight in zip(learner.trained, group["params"], strict=True):
        assert weight.grad.stride() == weight.stride(), name


def test_a_warm_up_begins_with_an_update_of_rate_zero(tiny, tmp_path):
    run = gi.train(tiny.replace(warmup=10, steps=2, checkpoints="every:1"), tmp_path / "run")
    first, second, third = (run.weights(step) for step in (0, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(second["embed.W_E"], third["embed.W_E"])


@pytest.mark.parametrize(("biases", "trained"), [("none", 0), ("mlp", 2), ("all", 7)])
def test_which_biases_are_trained(biases, trained, tiny, tmp_path):
    run = gi.train(tiny.replace(biases=biases, steps=5), tmp_path / "run")
    moved = [n for n, w in run.weights().items() if ".b_" in n and w.abs().sum() > 1e-7]
    # a key bias adds the same to every score of a query, so its gradient is rounding noise
    assert len([name for name in moved if not name.endswith("b_K")]) in (trained, trained - 1)
    assert (trained == 0) == (moved == [])
    if biases == "mlp":
        assert {name.rpartition(".")[2] for name in moved} == {"b_in", "b_out"}


def test_mini_batches_cover_every_training_row_once_an_epoch(tiny):
    recipe = tiny.replace(batch_size=7)
    rows = torch.arange(100, 124)
    batches = Batches(recipe, rows)
    epoch = [batches.rows(update) for update in range(4)]
    assert [len(batch) for batch in epoch] == [7, 7, 7, 3]
    assert sorted(torch.cat(epoch).tolist()) == rows.tolist()
    following = [batches.rows(update) for update in range(4, 8)]
    assert not torch.equal(torch.cat(epoch), torch.cat(following))
    assert all(torch.equal(*pair) for pair in zip(epoch, map(batches.rows, range(4)), strict=True))
    once = Batches(recipe.replace(reshuffle=False), rows)
    for update in range(4):
        assert torch.equal(once.rows(update), epoch[update])
        assert torch.equal(once.rows(update + 4), epoch[update])


def test_adamw_equals_its_definition(tiny, tmp_path):
    """One update by hand: decoupled decay, then lr * sign-like first step of Adam."""
    recipe = tiny.replace(steps=1, lr=0.01, weight_decay=0.5)
    run = gi.train(recipe, tmp_path / "run")
    before, after = run.weights(0), run.weights(1)
    from grokinterp.models.answer_position import AnswerForward

    leaf = before["unembed.W_U"].clone().requires_grad_()
    rows = run.train_indices
    logits = AnswerForward({**before, "unembed.W_U": leaf})(run.task.tokens[rows])
    torch.nn.functional.cross_entropy(logits.double(), run.task.labels[rows]).backward()
    gradient = leaf.grad
    expected = before["unembed.W_U"] * (1 - 0.01 * 0.5) - 0.01 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(after["unembed.W_U"], expected, rtol=1e-5, atol=1e-6)


def test_adam_couples_the_weight_decay_into_the_gradient(tiny, tmp_path):
    """At the first step Adam moves by lr * sign(gradient + decay * weight), whatever its size."""
    recipe = tiny.replace(steps=1, lr=0.01, weight_decay=100.0, optimizer="adam")
    run = gi.train(recipe, tmp_path / "run")
    before, after = run.weights(0)["embed.W_E"], run.weights(1)["embed.W_E"]
    large = before.abs() > 0.05  # where 100 times the weight outweighs its gradient
    assert large.sum() > 50
    torch.testing.assert_close(after[large], (before - 0.01 * before.sign())[large])


def test_an_unusable_device_is_refused(tiny, tmp_path):
    with pytest.raises(gi.InputError, match="device='nonsense'"):
        gi.train(tiny.replace(device="nonsense"), tmp_path / "run")
    if not torch.cuda.is_available():
        with pytest.raises(gi.InputError, match="device='cuda'"):
            gi.train(tiny.replace(device="cuda"), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("size", ["200k", "read-only"])
def test_a_full_or_read_only_disk_loses_nothing(size, tiny, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    options = "size=200k" if size == "200k" else "ro"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow mounts")
    try:
        settings = ["checkpoints=every:5", "steps=500", "log_every=500"]
        (tmp_path / "recipe.toml").write_text(tiny.to_toml())
        result = subprocess.run(
            [
                sys.executable, "-m", "grokinterp.cli", "train", str(tmp_path / "recipe.toml"),
                "--out", str(disk / "run"), *(x for s in settings for x in ("--set", s)),
            ],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        expected = "No space left" if size == "200k" else "Read-only file system"
        assert expected in result.stderr
        if size == "200k":
            run = gi.load(disk / "run")
            run.verify()
            assert len(run.steps) > 1
    finally:
        subprocess.run(["umount", str(disk)], check=True)
