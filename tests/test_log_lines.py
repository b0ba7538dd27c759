"""Text logs as people print them: each is read as it was meant, or refused in one line."""

import json
import time

import numpy as np
import pytest

import grokinterp as gi

STEPS = np.arange(0, 2001, 10)
TRAIN = np.minimum(1, STEPS / 200)
TEST = 1 / (1 + np.exp(-(np.arange(201) - 120) / 6))
MEANT = ("grokked", 200, 1380)


def written(tmp_path, line, name="x.log", before="", encoding="utf-8"):
    """A log with what `line` says of step, training and test accuracy."""
    lines = [line(int(s), float(a), float(b)) for s, a, b in zip(STEPS, TRAIN, TEST, strict=True)]
    path = tmp_path / name
    path.write_bytes((before + "\n".join(lines) + "\n").encode(encoding))
    return path


def found(path, **options):
    phases = gi.detect_phases(path, **options)
    return phases.label, phases.memorization_step, phases.grok_step


READ = {
    "decimal commas": lambda s, a, b: f"step {s} train_acc {a:.4f} test_acc {b:.4f}".replace(
        ".", ","
    ),
    "commas before three digits": lambda s, a, b: (
        f"step {s} train_acc {a:.3f} test_acc {b:.3f}".replace(".", ",")
    ),
    "sections of a line": lambda s, a, b: (
        f"Epoch {s}: Train: loss=1.5 acc={a:.4f} | Val: loss=2.5 acc={b:.4f}"
    ),
    "sections in lines": lambda s, a, b: (
        f"Epoch {s}\nTrain: loss 1 acc {a:.4f}\nTest: loss 2 acc {b:.4f}"
    ),
    "sections in brackets": lambda s, a, b: f"Epoch {s} [train] acc: {a:.4f} [val] acc: {b:.4f}",
    "sections after bars": lambda s, a, b: (
        f"Epoch {s} train | acc={a:.4f}\nEpoch {s} valid | acc={b:.4f}"
    ),
    "loggers": lambda s, a, b: f"INFO:train:step {s} acc {a:.4f}\nINFO:eval:step {s} acc {b:.4f}",
    "dictionaries": lambda s, a, b: (
        f"Step {s}: " + str({"train": {"loss": 1.0, "acc": a}, "val": {"loss": 2.0, "acc": b}})
    ),
    "MNIST": lambda s, a, b: (
        f"Train Epoch: {s}\nTrain set: Average loss: 1.0, Accuracy: {a:.4f}\n"
        f"Test set: Average loss: 2.0, Accuracy: {b:.4f}"
    ),
    "a side in the first name": lambda s, a, b: (
        f"Epoch {s} | Train Loss 1.0 Acc {a:.4f} | Test Loss 2.0 Acc {b:.4f}"
    ),
    "1_000": lambda s, a, b: f"step={s:_} train_acc={a:.4f} test_acc={b:.4f}",
    "1'000": lambda s, a, b: f"step={s:,} ".replace(",", "'") + f"train_acc={a} test_acc={b}",
    "1 000": lambda s, a, b: f"step={s:,} ".replace(",", " ") + f"train_acc={a} test_acc={b}",
    "thin space": lambda s, a, b: (
        f"step={s:,} ".replace(",", "\u2009") + f"train_acc={a} test_acc={b}"
    ),
    "1.000": lambda s, a, b: f"step={s:,} ".replace(",", ".") + f"train_acc={a} test_acc={b}",
    "1.5k": lambda s, a, b: f"step {s / 1000:.2f}k train_acc {a} test_acc {b}",
    "the step last": lambda s, a, b: f"train_acc: {a}\ntest_acc: {b}\nstep {s} done",
    "types of numpy": lambda s, a, b: (
        f"step {np.int64(s)!r}: train_acc {np.float32(a)!r}, test_acc {np.float64(b)!r}"
    ),
    "tensors": lambda s, a, b: (
        f"step {s} train_acc tensor({a:.4f}, device='cuda:0') test_acc torch.tensor({b:.4f})"
    ),
    "arrays": lambda s, a, b: f"step {s} train_acc array({a}) test_acc array({b}, dtype=float32)",
    "fractions": lambda s, a, b: (
        f"step {s} train acc {round(a * 10000)}/10000 ({100 * a:.2f}%) "
        f"test acc {round(b * 10000)}/10000 ({100 * b:.2f}%)"
    ),
    "fractions alone": lambda s, a, b: (
        f"step {s}/2000 train acc {round(a * 3000)}/3000 test acc {round(b * 9000)}/9000"
    ),
    "two names, two numbers": lambda s, a, b: f"step {s} train acc, test acc = {a:.4f}, {b:.4f}",
    "both sides in brackets": lambda s, a, b: f"step {s} acc (train/test): {a:.4f} / {b:.4f}",
    "a side before each": lambda s, a, b: (
        f"step {s} | acc train {a:.4f} val {b:.4f} | loss train 1.0 val 2.0"
    ),
    "the other in brackets": lambda s, a, b: f"step {s} loss 1.0 (val 2.0) acc {a} (val {b})",
    "kinds of a side": lambda s, a, b: (
        f"step {s} train loss | acc: 1.0 | {a:.4f}  test loss | acc: 2.0 | {b:.4f}"
    ),
    "tensors of one number": lambda s, a, b: (
        f"step {s} train_acc tensor([{a:.4f}]) test_acc tensor([[{b:.4f}]])"
    ),
    "batches of an epoch": lambda s, a, b: (
        f"Epoch {s}\nstep 0 train_acc {a / 2} test_acc {b / 2}\nstep 1 train_acc {a} test_acc {b}"
    ),
    "E10": lambda s, a, b: f"E{s} acc_tr={a} acc_te={b}",
    "epoch10": lambda s, a, b: f"epoch{s} train_acc={a} test_acc={b}",
    "the best so far": lambda s, a, b: (
        f"step {s} train acc {a} test acc {b} (best test acc 0.999 at step 130)"
    ),
    "the best in a line of its own": lambda s, a, b: (
        f"step {s} train acc {a}\nbest test acc 0.999 at step 130\ntest acc {b}"
    ),
    "hydra": lambda s, a, b: (
        f"[2024-01-01 12:00:00,123][__main__][INFO] - step {s} train_acc {a} test_acc {b}"
    ),
    "bar": lambda s, a, b: f"[{s / 20:.0f}%] step {s} train_acc {a} test_acc {b}",
    "printed list": lambda s, a, b: str([{"step": s, "train_acc": a, "test_acc": b}]),
    "two counts": lambda s, a, b: f"iter {s}: train_acc {a}\nstep {s}: test_acc {b}",
    "updates in some lines": lambda s, a, b: (
        f"epoch {s} | accuracy {a} | num_updates {s * 7}\nepoch {s} | valid_accuracy {b}"
    ),
    "names after": lambda s, a, b: f"step {s}: {a:.4f} train acc, {b:.4f} test acc",
    "names after, in brackets": lambda s, a, b: f"step {s}: {a} (train acc) {b} (test acc)",
    "names after, and a time": lambda s, a, b: (
        f"Epoch {s} | 4.1 train loss | {a} train acc | {b} test acc | 3.2s"
    ),
    "percent before names": lambda s, a, b: (
        f"Epoch {s}: {100 * a:.2f}% train accuracy, {100 * b:.2f}% test accuracy"
    ),
    "one kind after both": lambda s, a, b: f"step {s}: {100 * a}% train, {100 * b}% test accuracy",
    "sides after": lambda s, a, b: f"step {s}: accuracy {a:.4f} (train), {b:.4f} (test)",
    "sides after a bar": lambda s, a, b: f"step {s}: acc {a} (train) / {b} (test)",
    "sides after, no brackets": lambda s, a, b: f"step {s}: acc = {a} train, {b} test, lr = 0.1",
    "sides after, two kinds": lambda s, a, b: (
        f"step {s}: loss 4.1 (train), 4.9 (test); acc {a} (train), {b} (test)"
    ),
    "sides after each name": lambda s, a, b: f"step {s}: acc={a} [train] acc={b} [test]",
    "sides after each name, and a rate": lambda s, a, b: (
        f"step {s}: acc={a} [train] acc={b} [test] lr=0.001"
    ),
    "on which rows": lambda s, a, b: f"step {s} acc={a} on train, acc={b} on test",
    "a side for a line": lambda s, a, b: (
        f"step {s} loss=1.0 acc={a} (train)\nstep {s} loss=2.0 acc={b} (test)"
    ),
    "parts, sides after": lambda s, a, b: (
        f"step {s} acc {round(a * 10000)}/10000 (train), {round(b * 10000)}/10000 (test)"
    ),
    "Caffe": lambda s, a, b: (
        f"step {s} Train acc = {a}\nTest net output #0: acc = {b} (* 1 = {b} acc)"
    ),
    "sides in brackets": lambda s, a, b: (
        f"step {s} loss[train]=4.1 loss[test]=4.9 acc[train]={a} acc[test]={b} lr=0.1"
    ),
    "sides in quotes": lambda s, a, b: f"step {s} acc['train']={a} acc['test']={b} lr=0.1",
    "sides above": lambda s, a, b: f"step {s} acc^train {a} acc^test {b}",
    "N of M first": lambda s, a, b: f"[{s}/2000] train_acc: {a} test_acc: {b}",
    "a step before a colon": lambda s, a, b: f"{s}: train_acc={a}\n{s}: test_acc={b}",
    "after so many": lambda s, a, b: f"After {s} epochs: train acc {a}, test acc {b}",
    "a side above": lambda s, a, b: (
        f"Epoch {s}\n-----\nacc: {a}  [  64/60000]\nTest Error: \n Accuracy: {b}, Avg loss: 0.2 \n"
    ),
    "ImageNet": lambda s, a, b: (
        f"Epoch: [{s}][0/9]\tLoss 1.0 (1.0)\tAcc@1 {100 * a:.2f} ({100 * a:.2f})\n"
        f"Test: [0/3]\tLoss 2.0 (2.0)\tAcc@1 {50 * b:.2f} ({50 * b:.2f})\n"
        f" *   Acc@1 {100 * b:.3f} Acc@5 99.000"
    ),
    "an Estimator": lambda s, a, b: (
        f"INFO:tensorflow:acc = {a}, step = {s} (0.3 sec)\nINFO:tensorflow:Saving dict for global "
        f"step {s}: accuracy = {b}, global_step = {s}, loss = 4.9"
    ),
    "arrows": lambda s, a, b: f"step {s} train_acc {a / 2} -> {a} test_acc {b / 2:%} \u2192 {b:%}",
}


@pytest.mark.parametrize("form", list(READ))
def test_lines_are_read_as_they_are_meant(form, tmp_path):
    assert found(written(tmp_path, READ[form])) == MEANT


@pytest.mark.parametrize("name", ["x.json", "x.csv", "x.jsonl", "x"])
def test_under_any_name(name, tmp_path):
    path = written(tmp_path, lambda s, a, b: f"step={s}, train_acc={a}, test_acc={b}", name)
    assert found(path) == MEANT


BEFORE = {
    "a config in JSON": '{"lr": 0.001, "p": 113}\n',
    "a config in lines": '{\n "lr": 0.001,\n "p": 113\n}\n',
    "a config of steps": "epochs: 2000\nsteps: 2000\nseed: 0\n",
}


@pytest.mark.parametrize("before", list(BEFORE))
def test_lines_after_a_config(before, tmp_path):
    path = written(
        tmp_path, lambda s, a, b: f"step {s} train_acc {a} test_acc {b}", before=BEFORE[before]
    )
    assert found(path) == MEANT


REFUSED = {
    "no number": (lambda s, a, b: f"step={s or '?'} train_acc={a} test_acc={b}", r"step \?"),
    "no known number": (
        lambda s, a, b: f"step={s if s < 1000 else f'{s}zz'} train_acc={a} test_acc={b}",
        "is no number",
    ),
    "no side": (lambda s, a, b: f"step {s} acc: {a:.4f}/{b:.4f}", "write train or test"),
    "names after without marks": (
        lambda s, a, b: f"step {s}: {a} train acc {b} test acc",
        "several numbers may be meant: train acc, test acc",
    ),
    "a name on both sides": (
        lambda s, a, b: f"step {s} train acc {a} test acc, train acc {b} test acc",
        "several numbers may be meant",
    ),
    "numbers that begin lines and fall": (
        lambda s, a, b: f"[{s % 100}/100] train_acc: {a} test_acc: {b}",
        "no column 'step'",
    ),
    "a list in each line": (
        lambda s, a, b: f"step {s} train_acc [{a}, {a}] test_acc ({b}, {b})",
        "several lists of numbers under 'train_acc'",
    ),
    "no side in lines": (lambda s, a, b: f"step {s}\nacc: {a}\nacc: {b}", "write train or test"),
    "epoch and batch": (lambda s, a, b: f"epoch {s or 1} 200 train_acc {a} test_acc {b}", "spaces"),
    "a bar": (
        lambda s, a, b: f"\r {s}/2000 [00:10<00:20, 98.7it/s, train_acc={a}, test_acc={b}]",
        "no column 'step'",
    ),
    "a bar without an end": (
        lambda s, a, b: f"\r{s}it [00:10, 98.7it/s, train_acc={a}, test_acc={b}]",
        "no column 'step'",
    ),
    "a side without a measure": (
        lambda s, a, b: f"step {s} train: {a:.4f} test: {b:.4f}",
        "no loss or accuracy beside them",
    ),
    "kinds that are not told apart": (
        lambda s, a, b: f"step {s} train (loss, acc): (1.0, {a}) test (loss, acc): (2.0, {b})",
        "write train or test",
    ),
    "one step for all": (
        lambda s, a, b: f"{'epochs: 2000' if not s else ''}\ntrain_acc {a} test_acc {b}",
        "no column 'step'",
    ),
    "thousands or decimals": (
        lambda s, a, b: f"step {s} train_loss {2 - a:.3f} test_loss {2 - b:.3f}".replace(".", ","),
        "may be thousands or decimals",
    ),
}


@pytest.mark.parametrize("form", list(REFUSED))
def test_what_is_not_certain_is_refused_in_one_line(form, tmp_path):
    line, said = REFUSED[form]
    with pytest.raises(gi.InputError, match=said) as error:
        gi.detect_phases(written(tmp_path, line))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 400


def test_a_step_before_and_after_its_numbers_is_refused(tmp_path):
    text = "".join(f"train_acc {i / 9}\nstep {i}\n" for i in range(9)) + "train_acc 1\n"
    (tmp_path / "x.log").write_text(text)
    with pytest.raises(gi.InputError, match="before its first step and after its last"):
        gi.detect_phases(tmp_path / "x.log")


def test_a_name_that_comes_twice_in_a_line_is_left_out_with_a_note(tmp_path):
    path = written(tmp_path, lambda s, a, b: f"step {s} val_acc {b} loss {1 - a} loss {2 - b}")
    frame = gi.read_log(path)
    assert "left out, as several numbers may be meant: loss" in frame.attrs["notes"]
    assert "train_loss" not in frame


ROUNDED = [x.round(4).tolist() for x in (STEPS, TRAIN, TEST)]
AS_ARRAYS = ["array(" + np.array2string(np.array(x), threshold=9999) + ")" for x in ROUNDED]
LISTS = {
    "of Python": str(dict(zip(("step", "train_acc", "test_acc"), ROUNDED, strict=True))),
    "of YAML": "lr: 0.1\nsteps: {}\ntrain_acc: {}\ntest_acc: {}\n".format(*ROUNDED),
    "assigned": "steps = {}\ntrain_accs = {}\ntest_accs = {}\n".format(*ROUNDED),
    "of numpy": "{{'step': {}, 'train_acc': {}, 'test_acc': {}}}".format(*AS_ARRAYS),
    "nested": str({"step": ROUNDED[0], "acc": {"train": ROUNDED[1], "test": ROUNDED[2]}}),
}


@pytest.mark.parametrize("form", list(LISTS))
def test_lists_of_numbers_in_text_are_columns(form, tmp_path):
    (tmp_path / "x.txt").write_text(LISTS[form])
    assert found(tmp_path / "x.txt") == MEANT


def test_lists_beside_lines_are_left_out_with_a_note(tmp_path):
    path = written(tmp_path, lambda s, a, b: f"step {s} train_acc {a} test_acc {b}")
    last = gi.read_log(path).iloc[-1].tolist()
    path.write_text(path.read_text() + f"steps: {ROUNDED[0]}\nTrain acc: {ROUNDED[1]}\n")
    frame = gi.read_log(path)
    assert frame.iloc[-1].tolist() == last
    assert "lists of numbers are left out: steps, Train acc" in frame.attrs["notes"]


UNCERTAIN = {
    "a side after a loss": (lambda s, a, b: f"step {s} | Loss {2 - a} | Val {b}", "Val"),
    "a side after a loss without one": (
        lambda s, a, b: f"step {s} | Train acc {a} | loss 1.0 | Val {b}",
        "Val",
    ),
    "a mean beside it": (
        lambda s, a, b: f"step {s} | {a} train acc | {b} ({b / 2}) test acc",
        "test acc",
    ),
    "a spread before the name": (
        lambda s, a, b: f"step {s}: {a} train acc, {b} \u00b1 0.01 test acc",
        "test acc",
    ),
}


@pytest.mark.parametrize("form", list(UNCERTAIN))
def test_what_may_be_of_something_else_is_left_out_with_a_note(form, tmp_path):
    line, name = UNCERTAIN[form]
    frame = gi.read_log(written(tmp_path, line))
    assert f"left out, as several numbers may be meant: {name}" in frame.attrs["notes"]
    assert not {"test_loss", "test_acc"} & set(frame)


def test_seeds_and_runs_tell_lines_apart(tmp_path):
    for word in ("seed=0", "seed=1"), ("run=a", "run=b"), ("seed 0\n", "seed 1\n"):
        text = "".join(
            f"{name} step {s} train_acc {a} test_acc {b * share}\n"
            for name, share in zip(word, (1, 0.1), strict=True)
            for s, a, b in zip(STEPS, TRAIN, TEST, strict=True)
        )
        (tmp_path / "x.log").write_text(text)
        runs = gi.detect_phases(tmp_path / "x.log")
        assert [run.label for run in runs.runs.values()] == ["grokked", "memorized"]


LINE = "step {s} train_acc {a:.4f} test_acc {b:.4f}\n"
SETTINGS = {  # what stands before a run, in its lines, and what tells runs apart
    "in each line": ("", "wd={k} ", LINE, "wd"),
    "learning rates": ("", "lr=0.00{k} wd=1 ", LINE, "lr"),
    "in brackets": ("", "[p=9{k}] ", LINE, "p"),
    "two words": ("=== weight decay {k}.0 ===\n", "", LINE, "weight_decay"),
    "above": ("p = 11{k}\n", "", LINE, "p"),
    "arguments": ("Namespace(lr=0.001, wd=0.{k}, seed=0)\n", "", LINE, "wd"),
    "a share": ("--- Training with frac_train=0.{k} ---\n", "", LINE, "frac_train"),
    "sides in lines of their own": (
        "wd: {k}\n",
        "",
        "step {s}\ntrain_acc {a}\ntest_acc {b}\n",
        "wd",
    ),
}


def written_runs(tmp_path, head, mark, line, shares=(1, 0.1)):
    """A log of runs, one after the other, of which the first alone learns."""
    text = "".join(
        head.format(k=k)
        + "".join(
            mark.format(k=k) + line.format(s=s, a=a, b=b * share)
            for s, a, b in zip(STEPS, TRAIN, TEST, strict=True)
        )
        for k, share in enumerate(shares, 1)
    )
    (tmp_path / "x.log").write_text(text)
    return tmp_path / "x.log"


@pytest.mark.parametrize("form", list(SETTINGS))
def test_settings_tell_runs_apart_where_steps_begin_again(form, tmp_path):
    *parts, word = SETTINGS[form]
    runs = gi.detect_phases(written_runs(tmp_path, *parts)).runs
    assert [run.label for run in runs.values()] == ["grokked", "memorized"]
    assert all(f"runs are told apart by {word}" in run.notes for run in runs.values())


@pytest.mark.parametrize(
    "line",
    [
        lambda s, a, b: f"step {s} lr {0.001 / (s + 1):.6f} train_acc {a} test_acc {b}",
        lambda s, a, b: (
            f"step {s} lr {0.1 if s < 99 else 0.01} train_acc {a}\nstep {s} test_acc {b}"
        ),
        lambda s, a, b: (
            ("Namespace(lr=0.1)\n" if s == 1000 else "")
            + f"step {s - 300 * (s > 1000)} train_acc {a} test_acc {b}"
        ),
    ],
    ids=["a schedule", "a drop", "a restart"],
)
def test_settings_of_one_run_tell_nothing_apart(line, tmp_path):
    phases = gi.detect_phases(written(tmp_path, line, before="lr=0.2\n"))
    assert phases.memorization_step == 200
    assert not any("told apart" in note for note in phases.notes)


class TestJSON:
    """Records in any order and number, and what is none."""

    @pytest.mark.parametrize("between", ["", "\n", ",\n", "\nstarting again\n"])
    @pytest.mark.parametrize("indent", [None, 1])
    def test_records_one_after_the_other(self, between, indent, tmp_path):
        records = [
            json.dumps({"step": int(s), "train_acc": a, "test_acc": b}, indent=indent)
            for s, a, b in zip(STEPS, TRAIN, TEST, strict=True)
        ]
        (tmp_path / "x.jsonl").write_text(between.join(records))
        assert found(tmp_path / "x.jsonl") == MEANT

    def test_lines_between_are_counted(self, tmp_path):
        text = '{"step": 0, "test_acc": 0.1}\nhello\n{"step": 1, "test_acc": 0.2}\n'
        (tmp_path / "x.jsonl").write_text(text)
        notes = gi.read_log(tmp_path / "x.jsonl").attrs["notes"]
        assert "1 lines that are no JSON were left out" in notes

    @pytest.mark.parametrize("indent", [None, 1])
    def test_a_document_that_is_cut_off_is_no_text(self, indent, tmp_path):
        text = json.dumps({"step": STEPS.tolist(), "train_acc": TRAIN.tolist()}, indent=indent)
        (tmp_path / "x.json").write_text(text[:-20])
        with pytest.raises(gi.InputError, match="cannot be read"):
            gi.detect_phases(tmp_path / "x.json")

    def test_a_table_under_its_name(self, tmp_path):
        path = written(
            tmp_path, lambda s, a, b: f"{s},{a},{b}", "x.json", "step,train_acc,test_acc\n"
        )
        assert found(path) == MEANT


TABLES = {
    "below text": ("Starting run\nlr 0.1\nstep,train_acc,test_acc\n", "{s},{a},{b}"),
    "below text, by spaces": ("Using GPU\n  step  train_acc test_acc\n", "{s:5d}  {a:.4f} {b:.4f}"),
    "of Excel": ("sep=;\r\nstep;train_acc;test_acc\r\n", "{s};{a};{b}"),
    "with an index": ("    step  train_acc  test_acc\n", "{s} {s}  {a}  {b}"),
}


@pytest.mark.parametrize("form", list(TABLES))
def test_tables_in_text(form, tmp_path):
    before, row = TABLES[form]
    path = written(tmp_path, lambda s, a, b: row.format(s=s, a=a, b=b), before=before)
    assert found(path) == MEANT


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("mark", ["\u00a0", "\u202f", "'", " ", "."])
def test_digits_in_groups(mark, encoding, tmp_path):
    if (mark, encoding) == ("\u202f", "cp1252"):
        pytest.skip("cp1252 has no such space")

    def row(s, a, b):
        step = f"{1000 * s:,}".replace(",", mark)
        return f"{step};{a:.4f};{b:.4f}".replace(".", ",") if mark != "." else f"{step};{a};{b}"

    path = written(tmp_path, row, "x.csv", "step;train_acc;test_acc\n", encoding)
    assert found(path) == ("grokked", 200_000, 1_380_000)


def test_quoted_thousands_of_a_whole_column(tmp_path):
    path = written(
        tmp_path, lambda s, a, b: f'"{100 * s:,}",{a},{b}', "x.csv", "step,train_acc,test_acc\n"
    )
    assert found(path) == ("grokked", 20_000, 138_000)


def test_decimals_that_look_like_thousands_are_refused(tmp_path):
    path = written(
        tmp_path, lambda s, a, b: f"{s};{2 - a:.3f}".replace(".", ","), "x.csv", "step;test_loss\n"
    )
    with pytest.raises(gi.InputError, match=r"may be 2000 or 2\.000"):
        gi.detect_phases(path)


def test_many_lines_and_long_ones_take_no_time(tmp_path):
    lines = [f"step {i} train_acc {i / 50_000:.4f} test_acc 0.1\n" for i in range(50_000)]
    lines[10] = lines[10].strip() + " weights=" + " 0.123" * 50_000 + "\n"
    (tmp_path / "x.log").write_text("".join(lines))
    before = time.process_time()
    assert len(gi.read_log(tmp_path / "x.log")) >= 49_999
    assert time.process_time() - before < 8
