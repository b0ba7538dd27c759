"""A Recorder goes on in the folder of an earlier one; what cannot be recorded loses nothing."""

import hashlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import grokinterp as gi
from grokinterp.models.transformer import TransformerArchitecture

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time

P = 7
TASK = gi.ModularTask("add", p=P)
MASK = torch.arange(P * P) % 3 == 0
FOUR = ["train_loss", "test_loss", "train_acc", "test_acc"]
SIX = [*FOUR, "test_loss_unmirrored", "test_acc_unmirrored"]


def model(seed, **changes):
    architecture = TransformerArchitecture(
        **{
            "n_layers": 1, "n_heads": 2, "d_model": 16, "d_head": 8, "d_mlp": 32,
            "d_vocab": P + 1, "d_vocab_out": P, "n_ctx": 3,
        } | changes
    )  # fmt: skip
    return architecture.hooked(architecture.initial(seed=seed))


def recorder(out, **changes):
    return gi.Recorder(out, **{"task": TASK, "train_mask": MASK} | changes)


@pytest.fixture
def begun(tmp_path):
    """A run of three checkpoints and a row between, whose recorder was closed."""
    with recorder(tmp_path / "run") as first:
        for step in (0, 10, 20):
            first.save(step, model(step))
        first.log(25, model(25))
    return tmp_path / "run"


def assert_whole(out, steps):
    """The run loads, every file is sound, and the weights are those that were saved."""
    run = gi.load(out)
    run.verify()
    assert run.steps == tuple(steps)
    for step in steps:
        found, saved = run.model(step)(TASK.tokens), model(step)(TASK.tokens)
        assert torch.equal(found, saved)
    return run


def unfinished(out, **changes):
    """As a kill leaves it: run.json says that the run goes on."""
    rewritten(out, {"finished": False} | changes)


def rewritten(out, changes):
    path = out / "run.json"
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"} | changes
    text = json.dumps(content, sort_keys=True)
    content["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


class TestGoingOn:
    def test_it_goes_on_from_the_last_checkpoint(self, begun):
        with recorder(begun, resume=True) as second:
            assert second.last_step == 20
            second.log(25, model(26))
            second.save(30, model(30))
            assert second.last_step == 30
        run = assert_whole(begun, [0, 10, 20, 30])
        assert run.finished
        assert run.metrics.columns.tolist() == ["step", *SIX]
        assert run.metrics["step"].tolist() == [0, 10, 20, 25, 30]

    def test_it_is_the_run_that_one_recorder_would_have_written(self, begun, tmp_path):
        with recorder(begun, resume=True) as second:
            second.save(30, model(30))
        with recorder(tmp_path / "whole") as whole:
            for step in (0, 10, 20, 30):
                whole.save(step, model(step))
        for path in (tmp_path / "whole").rglob("*"):
            if path.is_file() and path.name != "run.json":
                assert (
                    path.read_bytes() == (begun / path.relative_to(tmp_path / "whole")).read_bytes()
                )
        here, there = (
            json.loads((x / "run.json").read_text()) for x in (begun, tmp_path / "whole")
        )
        assert {k: v for k, v in here.items() if k != "checksum"} == {
            k: v for k, v in there.items() if k != "checksum"
        }

    def test_what_was_logged_after_the_checkpoint_is_forgotten(self, begun):
        with recorder(begun, resume=True) as second:
            second.save(22, model(22))
        assert gi.load(begun).metrics["step"].tolist() == [0, 10, 20, 22]

    def test_a_loop_can_always_say_so(self, tmp_path):
        for until in (3, 3, 5):
            with recorder(tmp_path / "new/run", resume=True) as again:
                first = 0 if again.last_step is None else again.last_step + 1
                for step in range(first, until):
                    again.save(step, model(step))
            assert_whole(tmp_path / "new/run", range(until))

    def test_with_nothing_left_to_record_the_run_is_as_it_was(self, begun):
        before = (begun / "metrics.csv").read_bytes()
        unfinished(begun)
        run = recorder(begun, resume=True).close()
        assert run.finished
        assert (begun / "metrics.csv").read_bytes() == before
        assert_whole(begun, [0, 10, 20])
        assert not (begun / ".lock").exists()

    def test_rows_instead_of_a_mask_and_without_a_split(self, tmp_path):
        rows = MASK.nonzero().flatten()
        for name, split in (("rows", rows.flip(0)), ("none", None)):
            for step in (0, 1):
                with gi.Recorder(
                    tmp_path / name, task=TASK, train_indices=split, resume=True
                ) as again:
                    again.save(step, model(step))
            assert_whole(tmp_path / name, [0, 1])
        with recorder(tmp_path / "rows", resume=True) as again:  # the same rows, as a mask
            again.save(2, model(2))
        assert torch.equal(gi.load(tmp_path / "rows").train_indices, rows.flip(0))

    def test_a_run_of_four_columns_keeps_them(self, begun):
        """As 0.2.0 wrote it."""
        lines = [line.split(",")[:5] for line in (begun / "metrics.csv").read_text().splitlines()]
        content = "".join(",".join(line) + "\n" for line in lines).encode()
        (begun / "metrics.csv").write_bytes(content)
        sums = json.loads((begun / "run.json").read_text())["sha256"]
        sums |= {"metrics.csv": hashlib.sha256(content).hexdigest()}
        rewritten(begun, {"sha256": sums, "metrics": {"rows": 4, "bytes": len(content)}})
        with recorder(begun, resume=True) as second:
            assert list(second.save(30, model(30))) == FOUR
            second.save(40, model(40), metrics=dict.fromkeys(SIX, 0.5))
        run = assert_whole(begun, [0, 10, 20, 30, 40])
        assert run.metrics.columns.tolist() == ["step", *FOUR]
        assert run.metrics.notna().all(axis=None)

    def test_other_kinds_of_model_go_on_too(self, tmp_path):
        recipe = gi.Recipe(model="mlp", p=P, widths=(8,))
        for step in (0, 1):
            weights = recipe.architecture().initial(seed=step, rule="xavier")
            with gi.Recorder(tmp_path / "run", task=recipe.build_task(), resume=True) as again:
                again.save(step, recipe.architecture().hooked(weights))
        assert gi.load(tmp_path / "run").steps == (0, 1)


class TestAfterAKill:
    def leftovers(self, out):
        with (out / "metrics.csv").open("ab") as file:
            file.write(b"30,0.12")  # half a row
        (out / "weights/step_00000030.safetensors").write_bytes(b"half a checkpoint")
        (out / "weights/.writing-step_00000040.safetensors").write_bytes(b"less")
        (out / ".writing-run.json").write_bytes(b"{")

    def test_halves_of_files_are_no_obstacle(self, begun):
        unfinished(begun)
        self.leftovers(begun)
        with recorder(begun, resume=True) as second:
            assert second.last_step == 20
            second.save(30, model(30))
        assert_whole(begun, [0, 10, 20, 30])
        assert not list(begun.rglob(".writing-*"))

    @pytest.mark.slow
    def test_killed_for_real(self, tmp_path):
        code = (
            "import os, sys, torch, grokinterp as gi\n"
            "from tests.test_recorder_resume import model, recorder\n"
            "r = recorder(sys.argv[1])\n"
            "r.save(0, model(0)); r.save(10, model(10)); r.log(15, model(15)); os._exit(9)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "run")], check=False, capture_output=True
        )
        assert done.returncode == 9, done.stderr
        assert not gi.load(tmp_path / "run").finished
        with recorder(tmp_path / "run", resume=True) as second:
            second.save(15, model(15))
        assert assert_whole(tmp_path / "run", [0, 10, 15]).finished

    def test_killed_before_the_first_checkpoint(self, tmp_path):
        out = tmp_path / "run"
        first = recorder(out)
        first.log(0, model(0))  # run.json is there, and names nothing
        first.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        with pytest.raises(gi.InputError, match="resume=True"):
            recorder(out).save(0, model(0))
        with recorder(out, resume=True) as second:
            assert second.last_step is None
            second.save(0, model(0))
        assert_whole(out, [0])

    def test_an_error_in_the_loop_keeps_what_was_saved(self, tmp_path):
        def loop():
            with recorder(tmp_path / "run") as first:
                first.save(0, model(0))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            loop()
        with recorder(tmp_path / "run", resume=True) as second:
            second.save(1, model(1))
        assert_whole(tmp_path / "run", [0, 1])

    def test_a_damaged_file_is_named(self, begun):
        with (begun / "weights/step_00000010.safetensors").open("r+b") as file:
            file.seek(200)
            file.write(b"\xff")
        second = recorder(begun, resume=True)
        with pytest.raises(gi.InputError, match=r"step_00000010\.safetensors is damaged"):
            second.save(30, model(30))
        assert gi.load(begun).steps == (0, 10, 20)


REFUSED = {
    "task": ({"task": gi.ModularTask("subtract", p=P)}, "operation='add' there, 'subtract' here"),
    "layout": (
        {"task": gi.ModularTask("add", p=P, equals_token=False)},
        "equals_token=True there, False here",
    ),
    "p": ({"task": gi.ModularTask("add", p=5), "train_mask": torch.arange(25) < 9}, "p=7 there, 5"),
    "mask": (
        {"train_mask": MASK ^ (torch.arange(P * P) == 5)},
        "17 training rows there, 18 training rows here; 1 rows differ, the first is row 5",
    ),
    "no mask": ({"train_mask": None}, "17 training rows there, no split here"),
}


class TestRefusals:
    @pytest.mark.parametrize("name", REFUSED)
    def test_another_task_or_split(self, name, begun):
        changes, message = REFUSED[name]
        before = {x: x.read_bytes() for x in begun.rglob("*") if x.is_file()}
        with pytest.raises(gi.InputError, match=message) as refused:
            recorder(begun, resume=True, **changes)
        assert "\n" not in str(refused.value)
        assert "another folder" in str(refused.value)
        assert {x: x.read_bytes() for x in begun.rglob("*") if x.is_file()} == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"d_mlp": 33}, "d_mlp=32 there, 33 here"),
            ({"act_fn": "gelu"}, "act_fn='relu' there, 'gelu' here"),
            ({"n_layers": 2, "d_vocab_out": P + 1}, "n_layers=1 there, 2 here; d_vocab_out=7"),
        ],
    )
    def test_another_model(self, changes, message, begun):
        second = recorder(begun, resume=True)
        for _ in range(2):
            with pytest.raises(gi.InputError, match=message):
                second.save(30, model(30, **changes))
        second.save(30, model(30))
        with pytest.raises(gi.InputError, match=message):
            second.save(40, model(40, **changes))
        second.save(40, model(40))
        second.close()
        assert_whole(begun, [0, 10, 20, 30, 40])

    @pytest.mark.parametrize("step", [0, 15, 20])
    def test_steps_that_are_recorded_already(self, step, begun):
        second = recorder(begun, resume=True)
        for record in (second.save, second.log):
            with pytest.raises(gi.InputError, match=f"step={step} does not come after step 20"):
                record(step, model(1))
        second.save(21, model(21))
        second.close()
        assert_whole(begun, [0, 10, 20, 21])

    def test_a_folder_that_is_there_without_saying_so(self, begun):
        with pytest.raises(gi.InputError, match=r"already holds a run.*resume=True"):
            recorder(begun).save(30, model(30))
        assert_whole(begun, [0, 10, 20])

    def test_runs_that_no_recorder_wrote(self, tiny, tiny_run, tmp_path):
        task, rows = tiny_run.task, tiny_run.train_indices
        with pytest.raises(gi.InputError, match=r"gi\.train wrote.*resume=True") as refused:
            gi.Recorder(tiny_run.path, task=task, train_indices=rows, resume=True)
        assert "\n" not in str(refused.value)
        with pytest.raises(gi.InputError, match=r"already holds a run.*gi\.train\(recipe"):
            gi.Recorder(tiny_run.path, task=task, train_indices=rows).save(0, tiny_run.model())
        gi.export(tiny_run, tmp_path / "demo.pth")
        gi.import_run(tmp_path / "demo.pth", tmp_path / "imported")
        with pytest.raises(gi.InputError, match="imported"):
            gi.Recorder(tmp_path / "imported", task=task, train_indices=rows, resume=True)

    def test_a_file_in_place_of_a_folder(self, tmp_path):
        (tmp_path / "run").write_text("not a run")
        with pytest.raises(gi.InputError, match="is a file"):
            recorder(tmp_path / "run", resume=True)

    def test_a_damaged_run(self, begun):
        (begun / "run.json").write_text("{}")
        with pytest.raises(gi.InputError, match="damaged"):
            recorder(begun, resume=True)

    def test_one_recorder_at_a_time(self, begun):
        first, second = recorder(begun, resume=True), recorder(begun, resume=True)
        first.save(30, model(30))
        with pytest.raises(gi.InputError, match="being written by this very process"):
            second.save(40, model(40))
        first.close()
        with pytest.raises(gi.InputError, match="step=30 does not come after step 30"):
            second.save(30, model(31))  # which it was at when it was made, not any more
        second.save(40, model(40))
        second.close()
        with pytest.raises(gi.InputError, match="another has written it since"):
            first.save(50, model(50))
        assert_whole(begun, [0, 10, 20, 30, 40])

    def test_a_closed_recorder_can_go_on(self, tmp_path):
        first = recorder(tmp_path / "run")
        first.save(0, model(0))
        first.close()
        first.save(1, model(1))
        assert not gi.load(tmp_path / "run").finished
        assert first.close().finished
        assert_whole(tmp_path / "run", [0, 1])


STEPS = [True, 1.5, 2.0, "3", None, -1, 2**53, 2**60, 10**400, np.float64(3), torch.tensor([3, 4])]
METRICS = [
    ({"train_los": 1.0}, "train_los.* did you mean 'train_loss'"),
    ({"train_loss": 1.0, "val_accuracy": 0.5}, "val_accuracy"),
    ({"train_acc": 97.3}, "give such as 0.97 for 97 %"),
    ({"test_acc": -0.1}, "no share from 0 to 1"),
    ({"test_acc_unmirrored": 1.001}, "no share from 0 to 1"),
    ({"train_loss": -2.3}, "below 0"),
    ({"test_loss_unmirrored": -1e-3}, "below 0"),
    ({"train_loss": math.inf}, "is not finite"),
    ({"train_loss": math.nan}, "is not finite"),
    ({"train_acc": math.nan}, "is not finite"),
    ({3: 0.5}, "no column"),
    ({"train_loss": 10**400}, "is not a number"),
    ({"train_loss": "0.5"}, "is not a number"),
    ({"train_acc": True}, "is not a number"),
    ({"train_loss": torch.ones(2)}, "is not a number"),
]
OF_ANY_TYPE = """
import math, pathlib, sys, numpy as np, torch
import grokinterp as gi
from tests.test_recorder_resume import METRICS, STEPS, assert_whole, model, recorder

out = pathlib.Path(sys.argv[1])
first = recorder(out)
first.save(0, model(0))
for step in STEPS:
    for record in (first.save, first.log):
        try:
            record(step, model(1))
        except gi.InputError as refused:
            print(refused)
for given in (*(given for given, _ in METRICS), [("train_loss", 1)], 3):
    for record in (first.save, first.log):
        try:
            record(5, model(1), metrics=given)
        except gi.InputError as refused:
            print(refused)
assert_whole(out, [0])
first.save(5, model(5))
first.close()
assert_whole(out, [0, 5])
for changes in ({"resume": 1}, {"resume": "yes"}):
    try:
        recorder(out, **changes)
    except gi.InputError as refused:
        print(refused)
"""


class TestWhatCanBeRecorded:
    @pytest.mark.parametrize(("given", "message"), METRICS[:10])
    def test_metrics_that_are_none_are_refused_and_lose_nothing(self, given, message, tmp_path):
        first = recorder(tmp_path / "run")
        for record in (first.save, first.log):
            with pytest.raises(gi.InputError, match=message) as refused:
                record(0, model(0), metrics=given)
            assert "\n" not in str(refused.value)
        assert not (tmp_path / "run").exists()
        first.save(0, model(0))
        for record in (first.save, first.log):
            with pytest.raises(gi.InputError, match=message):
                record(1, model(1), metrics=given)
        assert_whole(tmp_path / "run", [0])
        first.save(1, model(1))
        first.close()
        assert assert_whole(tmp_path / "run", [0, 1]).metrics["step"].tolist() == [0, 1]

    @pytest.mark.slow
    def test_whatever_is_given_is_refused_in_one_line(self, tmp_path):
        """In a process of its own: here the type checker would speak first."""
        done = subprocess.run(
            [sys.executable, "-c", OF_ANY_TYPE, str(tmp_path / "run")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 2 * (len(STEPS) + len(METRICS) + 2) + 2, done.stdout
        assert all(len(line) <= 400 for line in lines)
        assert all("step=" in line for line in lines[: 2 * len(STEPS)])

    @pytest.mark.parametrize("step", [0, np.int64(3), torch.tensor(4), 2**53 - 1, 10**8])
    def test_steps_of_every_kind_and_size(self, step, tmp_path):
        with recorder(tmp_path / "run") as first:
            first.save(step, model(0))
            assert first.last_step == int(step)
        run = gi.load(tmp_path / "run")
        run.verify()
        assert run.steps == (int(step),)
        assert run.metrics["step"].tolist() == [int(step)]
        recorder(tmp_path / "run", resume=True).close()

    def test_a_rounding_above_one_is_one(self, tmp_path):
        with recorder(tmp_path / "run") as first:
            found = first.save(0, model(0), metrics={"train_acc": 1 + 5e-7, "test_acc": 0})
        assert (found["train_acc"], found["test_acc"]) == (1.0, 0.0)
        assert gi.load(tmp_path / "run").metrics["train_acc"][0] == 1.0

    def test_nan_is_taken_where_there_are_no_such_rows(self, tmp_path):
        whole = torch.ones(P * P, dtype=torch.bool)
        with recorder(tmp_path / "run", train_mask=whole) as first:
            logged = first.save(0, model(0))
            assert math.isnan(logged["test_loss"])
            first.save(1, model(1), metrics=logged)
            with pytest.raises(gi.InputError, match="train_loss=nan is not finite"):
                first.save(2, model(2), metrics=logged | {"train_loss": math.nan})
        assert_whole(tmp_path / "run", [0, 1])

    def test_a_full_disk_loses_nothing_and_the_step_can_be_tried_again(self, tmp_path, monkeypatch):
        first = recorder(tmp_path / "run")
        first.save(0, model(0))

        def full(*_):
            raise OSError(28, "No space left on device")

        for broken in ("os.fsync", "os.replace"):
            with monkeypatch.context() as patch:
                patch.setattr(broken, full)
                with pytest.raises(OSError, match="No space left"):
                    first.save(1, model(1))
            assert_whole(tmp_path / "run", [0])
        first.save(1, model(1))
        first.close()
        assert_whole(tmp_path / "run", [0, 1])

    def test_weights_of_two_precisions_can_be_read_again(self, tmp_path):
        mixed = model(0)
        with torch.no_grad():
            list(mixed.parameters())[-1].data = list(mixed.parameters())[-1].data.double()
        try:
            mixed(TASK.tokens)
        except RuntimeError:
            with pytest.raises(gi.InputError, match="cannot read the inputs"):
                recorder(tmp_path / "run").save(0, mixed)
            return
        with recorder(tmp_path / "run") as first:
            first.save(0, mixed)
        assert gi.load(tmp_path / "run").weights()["embed.W_E"].dtype == torch.float64

    def test_weights_that_are_not_finite_lose_nothing(self, tmp_path):
        first = recorder(tmp_path / "run")
        first.save(0, model(0))
        diverged = model(1)
        with torch.no_grad():
            next(diverged.parameters()).fill_(math.nan)
        with pytest.raises(gi.InputError, match=r"not finite.*step 0, the last that is saved"):
            first.save(1, diverged)
        first.save(1, model(1))
        first.close()
        assert_whole(tmp_path / "run", [0, 1])
