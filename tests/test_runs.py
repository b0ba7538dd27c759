import json
import math
import random
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from jaxtyping import TypeCheckError

import grokinterp as gi
from grokinterp.base.files import write_whole
from grokinterp.runs.manifest import _checksum
from grokinterp.runs.metrics import evaluate


@pytest.fixture
def copy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run.path, tmp_path / "copy")


def test_a_run_has_the_documented_files(tiny_run):
    names = {str(path.relative_to(tiny_run.path)) for path in tiny_run.path.rglob("*.*")}
    assert names == {
        "run.json", "split.safetensors", "metrics.csv", "dynamics.csv",
        *(f"weights/step_{step:08d}.safetensors" for step in (0, 20, 40, 60)),
    }  # fmt: skip
    content = json.loads((tiny_run.path / "run.json").read_text())
    assert content["format"] == 1
    assert set(content["sha256"]) == names - {"run.json"}
    split = safetensors.torch.load_file(tiny_run.path / "split.safetensors")
    assert split["train_indices"].dtype == torch.int64
    assert split["train_indices"].shape == (24,)


def test_a_run_gives_back_what_was_trained(tiny_run, tiny):
    assert tiny_run.recipe == tiny
    assert tiny_run.steps == (0, 20, 40, 60)
    assert tiny_run.metrics["step"].tolist() == list(range(0, 61, 10))
    assert tiny_run.train_mask.sum() == 24
    assert set(tiny_run.weights(20)) == set(tiny.architecture().parameter_shapes())
    model = tiny_run.model(-1)
    with torch.no_grad():
        logits = model(tiny_run.task.tokens)[:, -1]
    torch.testing.assert_close(tiny_run.snapshot(-1).logits, logits, rtol=1e-4, atol=1e-4)


def test_metrics_of_a_step_are_those_of_its_weights(tiny_run):
    for step in tiny_run.steps:
        snapshot = tiny_run.snapshot(step)
        expected = evaluate(
            snapshot.all_logits, tiny_run.task.labels, tiny_run.train_mask, snapshot.unmirrored_rows
        )
        row = tiny_run.metrics.set_index("step").loc[step]
        assert row.to_dict() == pytest.approx(expected, rel=1e-5)


def test_a_step_that_is_not_saved_names_the_nearest(tiny_run):
    with pytest.raises(gi.InputError, match=r"step 33 is not saved .* nearest checkpoint is 40"):
        tiny_run.weights(33)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("position", [8, 400, -1])
def test_a_flipped_bit_is_found_and_the_file_named(copy, position):
    flip(copy / "weights/step_00000020.safetensors", position)
    run = gi.load(copy)
    run.weights(0)
    with pytest.raises(gi.InputError, match=r"step_00000020\.safetensors is damaged"):
        run.weights(20)
    with pytest.raises(gi.InputError, match=r"step_00000020\.safetensors is damaged"):
        run.verify()


def test_no_flipped_byte_anywhere_goes_unnoticed(tiny_run, tmp_path):
    draw = random.Random(0)
    for attempt in range(40):
        copy = shutil.copytree(tiny_run.path, tmp_path / str(attempt))
        path = draw.choice(sorted(copy.rglob("*.*")))
        flip(path, draw.randrange(path.stat().st_size))
        with pytest.raises(gi.InputError) as error:
            gi.load(copy).verify()
        assert path.name in str(error.value)


@pytest.mark.parametrize("name", ["metrics.csv", "split.safetensors", "run.json"])
def test_every_other_file_is_checked_too(copy, name):
    flip(copy / name, -40)
    with pytest.raises(gi.InputError, match=f"{name} is damaged"):
        gi.load(copy).verify()


def test_a_truncated_or_missing_file_is_named(copy):
    path = copy / "weights/step_00000060.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(gi.InputError, match="step_00000060"):
        gi.load(copy).snapshot()
    path.unlink()
    with pytest.raises(gi.InputError, match=r"step_00000060.* is missing"):
        gi.load(copy).snapshot()


def test_what_is_not_a_run_is_refused(copy, tmp_path):
    with pytest.raises(gi.InputError, match="does not exist"):
        gi.load(tmp_path / "nowhere")
    with pytest.raises(gi.InputError, match=r"not a run: it has no run\.json"):
        gi.load(tmp_path)
    content = json.loads((copy / "run.json").read_text())
    content["format"] = 3
    (copy / "run.json").write_text(json.dumps(content))
    with pytest.raises(gi.InputError, match=r"format 3, newer than the 2 known here; upgrade"):
        gi.load(copy)
    (copy / "run.json").write_text("{")
    with pytest.raises(gi.InputError, match="damaged"):
        gi.load(copy)


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"format": "1"}', '{"format": 0}', ""])
def test_odd_manifests_are_refused_in_one_line(content, copy):
    (copy / "run.json").write_text(content)
    with pytest.raises(gi.InputError, match="damaged or was not written by grokinterp"):
        gi.load(copy)


def test_a_manifest_that_lacks_something_is_refused(copy):
    content = json.loads((copy / "run.json").read_text())
    for key in ("task", "architecture", "steps", "sha256"):
        lacking = {k: v for k, v in content.items() if k not in (key, "checksum")}
        lacking["checksum"] = _checksum(lacking)
        (copy / "run.json").write_text(json.dumps(lacking))
        with pytest.raises(gi.InputError, match="damaged"):
            gi.load(copy)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [child.name for child in tmp_path.iterdir()] == ["file"]


class TestRecorder:
    def model(self, tiny, seed):
        return tiny.architecture().hooked(_weights(tiny, seed))

    def test_it_writes_a_run_like_any_other(self, tiny, tmp_path):
        mask = torch.zeros(49, dtype=torch.bool)
        mask[::2] = True
        recorder = gi.Recorder(tmp_path / "mine", task=tiny.build_task(), train_mask=mask)
        first, second = self.model(tiny, 1), self.model(tiny, 2)
        logged = recorder.save(0, first)
        recorder.log(5, first, metrics={"train_loss": 1.5})
        recorder.save(10, second)
        run = recorder.close()
        assert run.steps == (0, 10)
        assert run.recipe is None
        assert torch.equal(run.train_mask, mask)
        assert run.metrics["step"].tolist() == [0, 5, 10]
        assert run.metrics["train_loss"][1] == 1.5
        assert math.isnan(run.metrics["test_loss"][1])
        assert run.metrics["test_loss"][0] == logged["test_loss"]
        assert torch.equal(run.weights(10)["embed.W_E"], second.W_E)
        assert len(gi.progress_measures(run)) == 2

    def test_without_a_split_what_needs_it_is_null(self, tiny, tmp_path):
        with gi.Recorder(tmp_path / "mine", task=tiny.build_task()) as recorder:
            recorder.save(0, self.model(tiny, 1))
        run = gi.load(tmp_path / "mine")
        assert run.train_mask is None
        row = gi.progress_measures(run, frequencies=[1]).iloc[0]
        assert row[["train_loss", "test_loss", "excluded_loss"]].isna().all()
        assert row[["restricted_loss", "trig_loss", "sum_sq_weights"]].notna().all()

    @pytest.mark.shapes_unchecked
    def test_bad_use_is_refused(self, tiny, tmp_path):
        task = tiny.build_task()
        faults = {
            "names a row twice": torch.tensor([1, 1]),
            "names row 49, which the table does not have": torch.tensor([0, 49]),
            "names row -1, which": torch.tensor([-1], dtype=torch.int8),
            "names no row": torch.tensor([], dtype=torch.int64),
            "is torch.float32 of shape": torch.tensor([0.0, 1.0]),
            "is torch.bool of shape": torch.tensor([True, False]),
            r"of shape \(1, 2\), which are no rows": torch.tensor([[0, 1]]),
        }
        for fault, rows in faults.items():
            with pytest.raises(gi.InputError, match=f"{fault}.* numbers from 0 to 48"):
                gi.Recorder(tmp_path / "x", task=task, train_indices=rows)
        recorder = gi.Recorder(tmp_path / "x", task=task)
        with pytest.raises(gi.InputError, match="nothing was saved"):
            recorder.close()
        recorder.save(5, self.model(tiny, 1))
        with pytest.raises(gi.InputError, match="step=5 does not come after step 5"):
            recorder.save(5, self.model(tiny, 1))
        recorder.close()
        with pytest.raises(gi.InputError, match="already holds a run"):
            gi.Recorder(tmp_path / "x", task=task).save(0, self.model(tiny, 1))

    def test_numbers_of_any_kind_are_recorded_as_numbers(self, tiny, tmp_path):
        recorder = gi.Recorder(tmp_path / "x", task=tiny.build_task())
        metrics = {"train_loss": torch.tensor(0.5), "test_loss": None, "test_acc": np.float32(0.25)}
        recorder.save(np.int64(0), self.model(tiny, 1), metrics=metrics)
        row = recorder.close().metrics.iloc[0]
        assert (row["train_loss"], row["test_acc"]) == (0.5, 0.25)
        assert math.isnan(row["test_loss"])

    @pytest.mark.parametrize("step", [True, 1.5, -1, "1"])
    def test_steps_that_are_none_are_refused_before_anything_is_written(self, step, tmp_path, tiny):
        recorder = gi.Recorder(tmp_path / "x", task=tiny.build_task())
        with pytest.raises((gi.InputError, TypeCheckError)):
            recorder.save(step, self.model(tiny, 1))
        assert not (tmp_path / "x").exists()

    def test_a_run_without_a_split_has_an_undetermined_label(self, tiny, tmp_path):
        with gi.Recorder(tmp_path / "x", task=tiny.build_task()) as recorder:
            recorder.save(0, self.model(tiny, 1))
        found = gi.detect_phases(gi.load(tmp_path / "x"))
        assert (found.label, found.key_frequencies) == ("undetermined", ())


def _weights(recipe, seed):
    return recipe.architecture().initial(seed=seed)


class TestSnapshot:
    def test_a_model_is_left_exactly_as_it_was(self, tiny_run):
        model = tiny_run.model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        flags = [parameter.requires_grad for parameter in model.parameters()]
        mode = model.training
        snapshot = gi.snapshot(model, tiny_run.task)
        assert snapshot.logits.shape == (49, 7)
        snapshot.activation("blocks.0.attn.hook_q")  # only the hooked forward has it
        assert model.training == mode
        assert flags == [parameter.requires_grad for parameter in model.parameters()]
        assert not any(point.fwd_hooks for point in model.hook_dict.values())
        after = model.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)

    def test_hooked_and_fast_activations_agree(self, tiny_run):
        model = tiny_run.model()
        fast = gi.snapshot(model, tiny_run.task)
        doubled = lambda x, hook: x  # noqa: E731 - a permanent hook makes the model not plain
        model.hook_dict["blocks.0.mlp.hook_post"].add_hook(doubled, is_permanent=True)
        slow = gi.snapshot(model, tiny_run.task)
        for name in ("blocks.0.mlp.hook_post", "blocks.0.attn.hook_pattern"):
            torch.testing.assert_close(
                fast.activation(name), slow.activation(name), rtol=1e-4, atol=1e-5
            )
        torch.testing.assert_close(fast.logits, slow.logits, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("change", ["activation", "hook", "scale"])
    def test_a_changed_module_is_seen_as_it_is(self, change, tiny_run):
        """Nothing in the configuration says so; the logits do."""
        model = tiny_run.model()
        block = model.blocks[0]
        if change == "activation":
            hook = block.mlp.hook_post
            hook.register_forward_hook(lambda module, args, output: output.tanh())
        elif change == "hook":
            hook = block.attn.hook_z if hasattr(block.attn, "hook_z") else block.attn.o.hook_in
            hook.register_forward_hook(lambda module, args, output: 2 * output)
        else:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter *= 1.5
        with torch.no_grad():
            logits = model(tiny_run.task.tokens)[:, -1]
        seen = gi.snapshot(model, tiny_run.task).logits
        torch.testing.assert_close(seen, logits, rtol=1e-4, atol=1e-4)

    def test_precision_is_that_of_the_model(self, tiny, tmp_path):
        for n_layers in (1, 2):
            architecture = tiny.replace(n_layers=n_layers).architecture()
            weights = architecture.initial(seed=0)
            exact = architecture.hooked({n: w.double() for n, w in weights.items()})
            seen = gi.snapshot(exact, tiny.build_task())
            with torch.no_grad():
                logits = exact(tiny.build_task().tokens)[:, -1]
            assert seen.logits.dtype == torch.float64
            torch.testing.assert_close(seen.logits, logits, rtol=1e-10, atol=1e-12)

    def test_the_equals_class_is_left_out_of_the_answers(self, tiny, tmp_path):
        run = gi.train(tiny.replace(equals_class=True, steps=2), tmp_path / "run")
        snapshot = run.snapshot()
        assert snapshot.all_logits.shape == (49, 8)
        assert snapshot.logits.shape == (49, 7)

    def test_a_model_for_another_task_is_refused(self, tiny_run):
        with pytest.raises(
            gi.InputError, match=r"8 tokens, 3 positions and 7 classes; add mod 11 .* give .* p=7"
        ):
            gi.snapshot(tiny_run.model(), gi.ModularTask("add", 11))
        with pytest.raises(gi.InputError, match=r"train_mask is torch\.bool of shape"):
            gi.snapshot(tiny_run.model(), tiny_run.task, train_mask=torch.ones(3).bool())
