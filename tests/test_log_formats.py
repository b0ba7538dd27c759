"""Logs of every tool give the phases of the same curves, and say how they were read."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import grokinterp as gi
from grokinterp.reading import words
from tests.log_writers import CURVES, WRITERS

ROUNDED = ("event", "json_of_pandas")  # writers that keep float32, or 15 digits


@pytest.fixture(scope="module")
def frame(shipped):
    """The metrics of a run that grokked, fewer of them, with accuracies that float32 keeps."""
    return shipped.metrics[["step", *CURVES]].iloc[::20].reset_index(drop=True)


@pytest.fixture(scope="module")
def expected(frame):
    return gi.detect_phases(frame)


@pytest.mark.parametrize("name", list(WRITERS))
def test_what_is_written_is_read(name, frame, expected, tmp_path):
    path, options = WRITERS[name](frame, tmp_path / "log")
    found = gi.detect_phases(path, **options)
    assert found.label == expected.label == "grokked"
    assert (found.memorization_step, found.grok_step) == (
        expected.memorization_step, expected.grok_step
    )  # fmt: skip
    table = gi.read_log(path, **options)
    assert list(table) == ["step", *CURVES]
    assert table["step"].tolist() == frame["step"].tolist()
    exact = 1e-6 if name.startswith(ROUNDED) else 1e-13
    for column in CURVES:
        np.testing.assert_allclose(table[column], frame[column], rtol=exact, atol=exact / 10)
    if not name.startswith(ROUNDED):
        assert found.phases == expected.phases
    assert list(found.notes) == table.attrs["notes"]
    assert all(note in found.reasons for note in found.notes)


def test_on_the_command_line(frame, run, tmp_path):
    path, _ = WRITERS["keras_history_csv"](frame, tmp_path)
    status, out, err = run("phases", path)
    assert (status, err) == (0, "")
    said = "read epoch as step, loss as train_loss, val_loss as test_loss, accuracy as train_acc"
    assert said in out
    percent = frame.rename(columns={"test_acc": "x"})
    percent.assign(train_acc=100 * percent["train_acc"], x=100 * percent["x"]).to_csv(
        tmp_path / "other.csv", index=False
    )
    _, out, _ = run("phases", tmp_path / "other.csv", "--columns", "test_acc=x")
    assert "x as test_acc, percent (train_acc goes up to 100)" in out
    status, out, _ = run("phases", tmp_path / "other.csv", "--columns", "test_acc=x", "--json")
    found = json.loads(out)
    assert (status, found["label"]) == (0, "grokked")
    assert any("percent" in note for note in found["notes"])
    status, _, err = run("phases", tmp_path / "other.csv", "--columns", "test_acc=y")
    assert status == 2
    assert (
        "has no column 'y' for test_acc (found: step, train_loss, test_loss, train_acc, x)" in err
    )


SEPARATORS = (",", ";", "\t", "|", " ")
STEP_NAMES = ("step", "Step", "epoch", "iteration", "_step", "global_step", "trainer/global_step")
SIDE_NAMES = (("train", "test"), ("training", "val"), ("Train", "Valid"), ("tr", "heldout"),
              ("train", "validation"), ("TRAIN", "EVAL"), ("train", "held-out"))  # fmt: skip
KIND_NAMES = (("acc", "loss"), ("accuracy", "nll"), ("Accuracy", "Loss"), ("acc", "ce"))
JOINED = ("_", "/", ".", "-", " ")


@settings(max_examples=60, deadline=None)
@given(
    separator=st.sampled_from(SEPARATORS),
    step=st.sampled_from(STEP_NAMES),
    sides=st.sampled_from(SIDE_NAMES),
    kinds=st.sampled_from(KIND_NAMES),
    join=st.sampled_from(JOINED),
    side_first=st.booleans(),
    unit=st.sampled_from(("share", "percent", "error", "error in percent")),
    decimal_comma=st.booleans(),
    sparse=st.booleans(),
    data=st.data(),
)
def test_any_spelling_unit_order_and_sparsity_is_the_same_log(
    frame, tmp_path_factory, separator, step, sides, kinds, join, side_first, unit, decimal_comma,
    sparse, data,
):  # fmt: skip
    if separator == " ":  # which may not be in a name, nor stand for an empty cell
        join, sparse = "_", False
    columns, written = {"step": step}, frame.copy()
    for ours, theirs in zip(("train", "test"), sides, strict=True):
        for kind, name in zip(("acc", "loss"), kinds, strict=True):
            name = "error" if kind == "acc" and "error" in unit else name
            parts = (theirs, name) if side_first else (name, theirs)
            columns[f"{ours}_{kind}"] = join.join(parts)
        if "error" in unit:
            written[f"{ours}_acc"] = 1 - written[f"{ours}_acc"]
        if "percent" in unit:
            written[f"{ours}_acc"] *= 100
    if sparse:
        sides_of = {x: [c for c in frame if c.startswith(x)] for x in ("train", "test")}
        written = pd.concat([written[["step", *own]] for own in sides_of.values()])
    order = data.draw(st.permutations(list(written)))
    rows = data.draw(st.sampled_from(("kept", "reversed", "mixed")))
    if rows != "kept":
        written = written.iloc[::-1] if rows == "reversed" else written.sample(frac=1)
    path = tmp_path_factory.mktemp("log") / "log.csv"
    decimal = "," if decimal_comma and separator != "," else "."
    written[order].rename(columns=columns).to_csv(path, index=False, sep=separator, decimal=decimal)
    found, expected = gi.detect_phases(path), gi.detect_phases(frame)
    assert (found.label, found.memorization_step, found.grok_step) == (
        expected.label, expected.memorization_step, expected.grok_step
    )  # fmt: skip
    for column in frame:
        np.testing.assert_allclose(found.curves[column], frame[column], rtol=1e-9, atol=1e-12)
    assert any("percent" in note for note in found.notes) == ("percent" in unit)
    assert not any("twice" in note for note in found.notes)


class TestRuns:
    def several(self, frame):
        late = frame.assign(step=frame["step"] * 2)
        memorized = frame.iloc[: len(frame) // 8]
        return {"0": frame, "1": late, "7": memorized}

    def check(self, found, frame):
        runs = self.several(frame)
        assert list(found.runs) == list(runs)
        for name, one in runs.items():
            alone = gi.detect_phases(one)
            assert found[name].label == alone.label
            assert found[name].grok_step == alone.grok_step
            assert found[name].phases == alone.phases
        assert found["7"].label == "memorized"
        assert found.table()["run"].tolist() == list(runs)

    @pytest.mark.parametrize("column", ["seed", "Run", "name", "experiment"])
    def test_by_a_column(self, column, frame, run, tmp_path):
        runs = self.several(frame)
        both = pd.concat([x.assign(**{column: name}) for name, x in runs.items()])
        both.sample(frac=1, random_state=0).sort_values(column).to_csv(tmp_path / "x.csv")
        self.check(gi.detect_phases(tmp_path / "x.csv"), frame)
        self.check(gi.detect_phases(both), frame)
        status, out, err = run("phases", tmp_path / "x.csv", "--json")
        assert (status, err) == (0, "")
        found = json.loads(out)["runs"]
        assert [one["run"] for one in found] == list(runs)
        assert [one["label"] for one in found] == ["grokked", "grokked", "memorized"]
        assert run("phases", tmp_path / "x.csv", "--expect", "grokked")[0] == 3
        status, out, _ = run("phases", tmp_path / "x.csv")
        assert f"{tmp_path / 'x.csv'}, run 7: memorized" in out
        table = gi.read_log(tmp_path / "x.csv")
        assert list(table)[:2] == ["run", "step"]
        assert str(gi.detect_phases(tmp_path / "x.csv")).startswith("Phases of runs")

    def test_by_a_column_that_is_named(self, frame, run, tmp_path):
        runs = self.several(frame)
        both = pd.concat([x.assign(weight_decay=float(name)) for name, x in runs.items()])
        both.to_csv(tmp_path / "x.csv", index=False)
        self.check(gi.detect_phases(tmp_path / "x.csv", by="weight_decay"), frame)
        status, out, _ = run("phases", tmp_path / "x.csv", "--by", "weight_decay", "--json")
        assert status == 0
        assert len(json.loads(out)["runs"]) == 3
        with pytest.raises(gi.InputError, match="no column 'wd' to tell runs apart"):
            gi.detect_phases(tmp_path / "x.csv", by="wd")

    def test_of_a_page_of_wandb(self, frame, tmp_path):
        runs = self.several(frame)
        wide = frame[["step"]].rename(columns={"step": "Step"})
        for name, one in runs.items():
            own = one.rename(columns={x: f"{name} - {x}" for x in CURVES})
            wide = wide.merge(own.rename(columns={"step": "Step"}), on="Step", how="outer")
        wide.to_csv(tmp_path / "x.csv", index=False)
        self.check(gi.detect_phases(tmp_path / "x.csv"), frame)

    def test_of_a_dictionary(self, frame, tmp_path):
        runs = {name: x.to_dict("list") for name, x in self.several(frame).items()}
        (tmp_path / "x.json").write_text(json.dumps(runs))
        self.check(gi.detect_phases(tmp_path / "x.json"), frame)

    def test_of_folders_of_event_files(self, frame, tmp_path):
        for name, one in self.several(frame).items():
            WRITERS["event_files"](one, tmp_path / name)
        found = gi.detect_phases(tmp_path)
        assert {x: one.label for x, one in found.runs.items()} == {
            "0": "grokked", "1": "grokked", "7": "memorized"
        }  # fmt: skip

    def test_a_column_of_one_value_makes_no_runs(self, frame):
        assert gi.detect_phases(frame.assign(seed=3, run="a")).label == "grokked"
        found = gi.detect_phases(frame.assign(seed=3), by="seed")
        assert list(found.runs) == ["3"]


def test_the_words_of_the_documentation_are_those_that_are_understood():
    page = Path(__file__).parents[1] / "docs" / "logs.md"
    rows = [line.strip("| \n").split(" | ") for line in page.read_text().splitlines()
            if line.startswith("| ")]  # fmt: skip
    said = {row[0]: set(row[1].removesuffix(", and their plurals").split(", ")) for row in rows
            if len(row) == 2}  # fmt: skip
    for table, names in ((words.SIDES, ("train", "test", "validation")),
                         (words.KINDS, ("acc", "err (1 - acc)", "loss"))):  # fmt: skip
        for name in names:
            meant = name.partition(" ")[0]
            assert said[name] == {word for word, meaning in table.items() if meaning == meant}
    steps = said["step"] | said["step, where no column counts updates"]
    assert steps == set(words.STEPS)


class TestColumns:
    def test_the_later_row_of_a_step_counts_column_by_column(self):
        frame = pd.DataFrame({
            "step": [0, 1, 1, 1, 2], "train_acc": [0, 0.5, None, 0.25, 1],
            "val_acc": [0, None, 0.75, None, 1],
        })  # fmt: skip
        found = gi.detect_phases(frame)
        assert found.curves["train_acc"].tolist() == [0, 0.25, 1]
        assert found.curves["test_acc"].tolist() == [0, 0.75, 1]
        assert "1 step was logged twice; the last row of each counts" in found.notes

    def test_rows_of_one_side_each_are_no_repeated_steps(self, frame, tmp_path):
        path, _ = WRITERS["lightning_csv"](frame, tmp_path)
        assert not any("twice" in note for note in gi.detect_phases(path).notes)

    @pytest.mark.parametrize(
        ("names", "read"),
        [
            ("step,epoch,train_acc,test_acc", ["step", "train_acc", "test_acc"]),
            ("epoch,_step,train acc,VAL ACC", ["_step", "train acc", "VAL ACC"]),
            ("_step,trainer/global_step,tr.acc,te.acc", ["trainer/global_step", "tr.acc"]),
            ("Iteration,lr,Accuracy/train,Accuracy/held-out", ["Iteration", "Accuracy/held-out"]),
            ("it,x,trainAcc,validationAccuracy", ["it", "trainAcc", "validationAccuracy"]),
            ("global-step,x,training accuracy,evaluation accuracy", ["global-step"]),
            ("step,val_acc,train_acc,test_acc", ["step", "test_acc"]),
            ("steps,loss,acc,val_acc", ["steps", "acc", "val_acc"]),
        ],
    )
    def test_words_in_any_case_joined_in_any_way(self, names, read):
        values = [[0, 0, 0.1, 0.2], [10, 5, 0.5, 0.6]]
        found = gi.detect_phases(pd.DataFrame(values, columns=names.split(",")))
        said = " ".join(found.notes)
        for name in read:
            ours = name in ("step", "train_acc", "test_acc")
            assert ours or re.search(rf"(?<![\w/]){re.escape(name)} as \w+", said)
        by_name = dict(zip(names.split(","), values[1], strict=True))
        assert found.curves["step"].tolist()[-1] == by_name[read[0]]

    def test_more_values_come_before_a_better_name(self):
        frame = pd.DataFrame({"step": range(9), "loss": 1.0, "train_loss": [None] * 8 + [0.5]})
        assert gi.detect_phases(frame).curves["train_loss"].tolist() == [1.0] * 9

    def test_a_batch_within_an_epoch_is_no_step(self):
        frame = pd.DataFrame({"epoch": np.repeat(range(9), 3), "iter": [0, 1, 2] * 9, "acc": 0.1})
        found = gi.detect_phases(frame.assign(val_acc=0.1))
        assert found.curves["step"].tolist() == list(range(9))

    def test_an_accuracy_without_a_side_needs_another(self):
        with pytest.raises(gi.InputError, match="none of the columns"):
            gi.detect_phases(pd.DataFrame({"step": [0], "accuracy": [0.1]}))

    def test_lists_without_steps_are_counted(self, tmp_path):
        (tmp_path / "x.json").write_text('{"loss": [3, 2, 1], "val_loss": [3, 3, 3]}')
        found = gi.detect_phases(tmp_path / "x.json")
        assert found.curves["step"].tolist() == [0, 1, 2]
        assert "it has no steps: entries are counted from 0" in found.notes

    def test_but_rows_of_a_table_are_not(self, run, tmp_path):
        (tmp_path / "x.csv").write_text("counter,val_loss\n0,3\n10,2\n")
        status, _, err = run("phases", tmp_path / "x.csv")
        assert status == 2
        assert "--columns step=counter, or --columns step=row to count rows" in err
        _, out, _ = run("phases", tmp_path / "x.csv", "--columns", "step=row")
        assert "row as step" in out
        found = gi.detect_phases(tmp_path / "x.csv", columns={"step": "counter"})
        assert found.curves["step"].tolist() == [0, 10]

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"step": "nothing"}, "no column 'nothing' for step"),
            ({"test": "val"}, "did you mean 'test_acc'"),
            ({"test_acc": 1.5}, "is not the name of a column"),
            ([], "is not a dict"),
            ("test_acc=a,test_acc=b", "names a column twice"),
        ],
    )
    def test_columns_that_are_none_are_refused(self, columns, said):
        with pytest.raises(gi.InputError, match=said):
            gi.detect_phases(pd.DataFrame({"step": [0], "val_acc": [0.1]}), columns=columns)

    def test_a_run_has_no_columns_to_name(self, tiny_run):
        with pytest.raises(gi.InputError, match="columns= is for logs"):
            gi.detect_phases(tiny_run.path, columns={"step": "epoch"})
        with pytest.raises(gi.InputError, match="leave them out for a run"):
            gi.detect_phases(tiny_run, by="seed")

    def test_the_frame_that_was_given_stays_as_it_was(self, frame):
        given = frame.rename(columns={"test_acc": "val_acc"}).assign(seed=[0, 1] * (len(frame) // 2)
            + [0] * (len(frame) % 2))  # fmt: skip
        before = given.copy(deep=True)
        gi.detect_phases(given)
        pd.testing.assert_frame_equal(given, before)
        assert given.attrs == {}


class TestPercent:
    def test_all_columns_decide_together(self):
        train = [1.0, 50, 100, 100, 100, 100]
        found = gi.detect_phases(pd.DataFrame({
            "step": range(6), "train_acc": train, "test_acc": [0.9, 0.8, 0.9, 1.0, 0.9, 0.7],
        }))  # fmt: skip
        assert found.label == "memorized"
        assert found.curves["test_acc"].max() == 0.01
        assert "read percent (train_acc goes up to 100)" in found.notes

    @pytest.mark.parametrize("name", ["test_acc_pct", "test acc (%)", "test_acc_percent"])
    def test_a_name_may_say_it(self, name):
        frame = pd.DataFrame({"step": [0, 1], name: [0.5, 0.9]})
        found = gi.detect_phases(frame).curves["test_acc"]
        assert found.tolist() == pytest.approx([0.005, 0.009])

    def test_two_units_are_refused_until_one_is_said(self, run, tmp_path):
        share = [0.01, 0.5, 1, 1, 1, 1]
        frame = pd.DataFrame({"step": range(6), "tr_acc": [1.0, 50, *[100] * 4], "te_acc": share})
        frame.to_csv(tmp_path / "x.csv", index=False)
        status, _, err = run("phases", tmp_path / "x.csv")
        assert status == 2
        assert "tr_acc goes up to 100, and te_acc stays at 1 as a share does" in err
        _, out, _ = run("phases", tmp_path / "x.csv", "--columns", "train_acc=tr_acc%")
        assert "read tr_acc as train_acc, te_acc as test_acc, percent" in out
        found = gi.detect_phases(frame, columns={"train_acc": "tr_acc%"})
        assert found.curves["test_acc"].tolist() == share

    @pytest.mark.parametrize("wrong", [1.2, 101, 3830])
    def test_a_slip_or_a_count_is_none(self, wrong):
        frame = pd.DataFrame({"step": range(200), "test_acc": [0.5] * 199 + [wrong]})
        with pytest.raises(gi.InputError, match="shares from 0 to 1"):
            gi.detect_phases(frame)


def test_the_columns_are_said_where_there_are_no_names(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 3)))
    with pytest.raises(gi.InputError, match=r"no header .*--columns step=0,train_acc=1"):
        gi.detect_phases(tmp_path / "x.npy")


def test_thousands_are_no_decimals(tmp_path):
    text = "step;test_acc;train_loss\n1,000;0.5;1\n2,000;0.6;1\n10,000;0.7;1\n"
    (tmp_path / "x.csv").write_text(text)
    assert gi.read_log(tmp_path / "x.csv")["step"].tolist() == [1000, 2000, 10000]
    (tmp_path / "x.csv").write_text("step;test_acc\n1.000;0,5\n2.000;0,625\n10.000;0,7\n")
    assert gi.read_log(tmp_path / "x.csv")["step"].tolist() == [1000, 2000, 10000]
    assert gi.read_log(tmp_path / "x.csv")["test_acc"].tolist() == [0.5, 0.625, 0.7]
