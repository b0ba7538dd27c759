"""Logs in shapes that mislead: read right, refused in one line, or said."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from tests.log_writers import events

ROWS = np.arange(201)
STEPS = 10 * ROWS
TRAIN = np.minimum(ROWS / 20, 1)
TEST = 1 / (1 + np.exp(-(ROWS - 120) / 6))
TRAIN_LOSS = np.maximum(4.7 * np.exp(-ROWS / 5), 1e-4)  # below 0.01 from step 310 on
TEST_LOSS = np.maximum(5 - 5 * TEST, 1e-4)
LOG = pd.DataFrame({"step": STEPS, "train_acc": TRAIN, "test_acc": TEST})


def dates(x, **options):
    """Label and the two dates."""
    found = gi.detect_phases(x, **options)
    return found.label, found.memorization_step, found.grok_step


EXPECTED = ("grokked", 200, 1380)


def written(path, data):
    path.write_text(json.dumps(data, default=lambda x: x.tolist()))
    return path


class TestSteps:
    def test_a_scalar_of_the_epoch_is_no_axis_of_the_others(self, tmp_path):
        frame = LOG.assign(epoch=ROWS.astype(float), val_acc=TEST).drop(columns="test_acc")
        events(frame, tmp_path, {x: x for x in ("train_acc", "val_acc", "epoch")})
        assert dates(tmp_path) == EXPECTED

    def test_each_side_may_have_its_own(self, tmp_path):
        frame = pd.concat([
            pd.DataFrame({"train/step": STEPS, "train/acc": TRAIN}),
            pd.DataFrame({"val/step": STEPS, "val/acc": TEST}),
        ])  # fmt: skip
        assert dates(frame) == EXPECTED
        renamed = frame.rename(columns={
            "train/step": "train_num_updates", "val/step": "valid_num_updates",
        })  # fmt: skip
        assert dates(renamed) == EXPECTED

    def test_what_only_counts_rows_comes_last(self):
        frame = LOG.rename(columns={"step": "epoch"}).assign(_step=ROWS)
        assert dates(frame) == EXPECTED
        assert dates(LOG.rename(columns={"step": "iteration"}).assign(step=0)) == EXPECTED

    @pytest.mark.parametrize("name", ["log_step", "log(step)", "log steps", "train step (log)"])
    def test_logarithms_of_steps_are_none(self, name):
        logged = LOG.assign(step=np.log10(1 + STEPS)).rename(columns={"step": name})
        with pytest.raises(gi.InputError, match=r"has no column 'step' .* --columns step=i, or"):
            gi.detect_phases(logged)
        whole = LOG.rename(columns={"step": "log_steps"})
        assert dates(whole) == EXPECTED

    @pytest.mark.parametrize("name", ["", "Unnamed: 0"])
    def test_an_index_without_a_name(self, name, tmp_path):
        LOG.rename(columns={"step": name}).to_csv(tmp_path / "x.csv", index=False)
        assert dates(tmp_path / "x.csv") == EXPECTED
        (note,) = gi.detect_phases(tmp_path / "x.csv").notes
        assert note == "read the first column, which has no name, as step"
        LOG.assign(step=ROWS).rename(columns={"step": name}).to_csv(tmp_path / "x.csv", index=False)
        with pytest.raises(gi.InputError, match="such as --columns step=0, or"):
            gi.detect_phases(tmp_path / "x.csv")
        assert dates(tmp_path / "x.csv", columns="step=0,train_acc=1,test_acc=2")[2] == 138

    @pytest.mark.parametrize("key", ["{}", "step {}", "epoch_{}", "iter={}"])
    def test_records_by_step(self, key, tmp_path):
        data = {
            key.format(step): {"train_acc": a, "test_acc": b}
            for step, a, b in zip(STEPS.tolist(), TRAIN, TEST, strict=True)
        }
        assert dates(written(tmp_path / "x.json", data)) == EXPECTED

    def test_lists_with_steps_and_values(self, tmp_path):
        data = {
            "train.loss": {"steps": STEPS, "timestamps": [], "values": TRAIN_LOSS},
            "val.acc": {"steps": STEPS, "values": TEST}, "train.acc": {"x": STEPS, "y": TRAIN},
        }  # fmt: skip
        assert dates(written(tmp_path / "x.json", data)) == EXPECTED

    def test_triples_of_time_step_and_value(self, tmp_path):
        data = {
            name: [[1.7e9 + i, step, value] for i, (step, value) in enumerate(
                zip(STEPS.tolist(), values, strict=True))]
            for name, values in (("train_acc", TRAIN), ("test_acc", TEST))
        }  # fmt: skip
        assert dates(written(tmp_path / "x.json", data)) == EXPECTED

    def test_matrices_besides_are_no_steps(self, tmp_path):
        np.savez(tmp_path / "x.npz", **{x: LOG[x] for x in LOG}, w=np.ones((3, 3)),
                 extra=np.random.default_rng(0).random((201, 2)))  # fmt: skip
        assert dates(tmp_path / "x.npz") == EXPECTED
        assert not any("twice" in x for x in gi.detect_phases(tmp_path / "x.npz").notes)

    def test_an_index_may_be_the_steps(self, tmp_path):
        indexed = LOG.set_index("step")
        assert dates(indexed) == EXPECTED
        both = pd.concat({0: indexed, 1: indexed}, names=["seed", "step"])
        assert [x.grok_step for x in gi.detect_phases(both).runs.values()] == [1380, 1380]
        (tmp_path / "x.json").write_text(indexed.to_json(orient="split", double_precision=15))
        assert dates(tmp_path / "x.json", columns={"step": "index"}) == EXPECTED
        with pytest.raises(gi.InputError, match="step=index"):
            gi.detect_phases(tmp_path / "x.json")

    def test_a_column_by_row_may_be_the_steps(self, tmp_path):
        """As pandas writes them, where the columns do not have the same rows."""
        data = {name: dict(zip(map(str, ROWS), LOG[name], strict=True)) for name in LOG}
        data["train_acc"]["999"] = data["train_acc"].pop("200")
        assert dates(written(tmp_path / "x.json", data)) == EXPECTED

    def test_columns_may_have_numbers_for_names(self):
        columns = {"step": 0, "train_acc": 1, "test_acc": 2}
        frame = pd.DataFrame(LOG.to_numpy())[[0, 2, 1]]
        assert dates(frame, columns=columns) == EXPECTED
        frame.columns = [5, 7, 6]
        assert dates(frame, columns={"step": 5, "train_acc": 6, "test_acc": 7}) == EXPECTED

    def test_all_rows_of_one_step(self):
        with pytest.raises(gi.InputError, match="201 rows, all of step 0"):
            gi.detect_phases(LOG.assign(step=0))

    def test_lists_that_differ_by_one(self, tmp_path):
        data = {"train_accs": TRAIN, "test_accs": TEST[:-1]}
        assert dates(written(tmp_path / "x.json", data)) == ("grokked", 20, 138)
        data = {"eval_steps": STEPS, "test_acc": TEST, "train_acc": np.interp(
            np.arange(2001), STEPS, TRAIN)}  # fmt: skip
        found = gi.detect_phases(written(tmp_path / "y.json", data))
        assert (found.label, found.grok_step) == ("grokked", 1380)
        assert "train_acc: a list of 2001, taken to be one a step from 0 on" in found.notes


class TestChoice:
    def test_a_side_comes_before_none(self):
        assert dates(LOG.rename(columns={"train_acc": "train_accuracy"}).assign(acc=TEST)) == (
            EXPECTED
        )  # fmt: skip
        frame = pd.DataFrame({"step": STEPS, "train loss": TRAIN_LOSS, "val loss": TEST_LOSS})
        assert gi.detect_phases(frame.assign(loss=1.0)).memorization_step == 310

    @pytest.mark.parametrize("every", [None, 100, 201])
    def test_few_values_of_test_do_not_hide_validation(self, every):
        test = np.where(ROWS % every == 0, 0.5, np.nan) if every else np.full(201, np.nan)
        frame = LOG.rename(columns={"test_acc": "val_acc"}).assign(test_acc=test)
        assert dates(frame) == EXPECTED

    @pytest.mark.parametrize("names", [
        ("eval_train_accuracy", "eval_test_accuracy"), ("eval/train_acc", "eval/val_acc"),
        ("train_acc1", "test_acc1"),
    ])  # fmt: skip
    def test_words_of_what_was_evaluated(self, names):
        renamed = LOG.rename(columns=dict(zip(("train_acc", "test_acc"), names, strict=True)))
        assert dates(renamed) == EXPECTED

    @pytest.mark.parametrize("column", ["split", "type", "data", "phase"])
    def test_a_column_that_says_the_side(self, column):
        frame = pd.concat([
            pd.DataFrame({"step": STEPS, column: "train", "acc": TRAIN}),
            pd.DataFrame({"step": STEPS, column: "val", "acc": TEST}),
            pd.DataFrame({"step": [2000, 2000], column: ["ood", None], "acc": [0.1, 0.2]}),
        ])  # fmt: skip
        assert dates(frame) == EXPECTED

    def test_what_there_is_is_said_where_nothing_is_known(self):
        frame = pd.DataFrame({"step": [0, 1], "loss of test": [1, 2]})
        with pytest.raises(gi.InputError, match=r"found: step, loss of test\); say which"):
            gi.detect_phases(frame)

    def test_numbers_of_columns_beside_a_header(self, tmp_path):
        LOG.rename(columns={"test_acc": "x"}).to_csv(tmp_path / "x.csv", index=False)
        assert dates(tmp_path / "x.csv", columns="step,train_acc,test_acc") == EXPECTED
        assert dates(LOG, columns={}) == EXPECTED


class TestUnits:
    def test_a_column_that_never_leaves_one_percent_is_said(self):
        frame = LOG.assign(train_acc=100 * TRAIN, test_acc=0.98 * TEST)
        found = gi.detect_phases(frame)
        assert found.label == "memorized"
        assert any("test_acc never goes above 1, and is read as percent too" in x
                   for x in found.notes)  # fmt: skip
        assert dates(frame, columns={"train_acc": "train_acc%"})[0] == "grokked"

    def test_a_loss_is_no_error_rate(self):
        frame = pd.DataFrame({"step": STEPS, "train_error": TRAIN_LOSS, "test_error": TEST_LOSS})
        with pytest.raises(gi.InputError, match="--columns train_loss=train_error"):
            gi.detect_phases(frame)

    def test_shares_with_a_sign_of_percent_are_asked_for(self):
        frame = LOG.assign(**{x: [f"{y:.2f}%" for y in LOG[x]] for x in ("train_acc", "test_acc")})
        (note,) = (x for x in gi.detect_phases(frame).notes if "sign" in x)
        assert "never goes above 1 %; if these are shares, write them without it" in note


class TestRuns:
    LATE = LOG.assign(test_acc=np.minimum(TEST, 0.01))

    def test_a_grid_is_told_apart_by_what_varies(self):
        parts = [
            (LOG if lr else self.LATE).assign(seed=seed, lr=lr) for seed in (0, 1) for lr in (0, 1)
        ]
        found = gi.detect_phases(pd.concat(parts))
        assert {name: one.label for name, one in found.runs.items()} == {
            "0, 0": "memorized", "0, 1": "grokked", "1, 0": "memorized", "1, 1": "grokked"
        }  # fmt: skip
        assert "runs are told apart by seed, lr" in found["0, 0"].notes
        alone = gi.detect_phases(pd.concat([p.drop(columns="seed") for p in parts[:2]]))
        assert list(alone.runs) == ["0", "1"]
        assert list(gi.detect_phases(pd.concat(parts), by=["lr", "seed"]).runs) == [
            "0, 0", "1, 0", "0, 1", "1, 1"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "name",
        [
            "{}_seed{}",
            "seed_{1}/{0}",
            "{} - run{}",
            "{}/trial={}",
            "{}_wd{}",
            "{} (wd=0.{})",
            "lr_1e-{1}/{0}",
            "{}_p{}",
            "{}, weight_decay {}",
            "frac 0.{1}: {0}",
        ],
    )
    def test_a_column_a_run_and_metric(self, name):
        names = {x: LOG[x] for x in ("train_acc", "test_acc")}
        wide = {name.format(x, i): y for i in range(2) for x, y in names.items()}
        found = gi.detect_phases(pd.DataFrame({"step": STEPS, **wide}))
        assert [run.grok_step for run in found.runs.values()] == [1380, 1380]
        assert all(run[-1] == str(i) for i, run in enumerate(found.runs))

    def test_columns_beside_those_of_runs(self, tmp_path):
        assert dates(LOG.assign(train_acc_p5=0.1, train_acc_p95=0.9)) == EXPECTED
        (tmp_path / "x.csv").write_text(
            "Step,a - test_acc,b - test_loss,lr,lr\n0,0,1,1,2\n9,1,1,1,2"
        )
        assert list(gi.detect_phases(tmp_path / "x.csv").runs) == ["a", "b"]
        twice = pd.DataFrame([[0, 0.1, 0.2]], columns=["step", "a - test_acc", "a - test_acc"])
        with pytest.raises(gi.InputError, match="two columns 'a - test_acc'; keep one"):
            gi.detect_phases(twice)

    @pytest.mark.parametrize("stack", [
        lambda x: np.stack([x, x], 1), lambda x: np.stack([x, x, x], 1),
        lambda x: np.stack([x, x]), lambda x: np.stack([100 * x] * 2, 1),
        lambda x: {"0": x, "1": x}, lambda x: {"0.1": x, "0.3": x, "1.0": x},
    ])  # fmt: skip
    def test_a_list_of_steps_beside_several_runs(self, stack, tmp_path):
        data = {"epochs": STEPS, "train_acc": stack(TRAIN), "test_acc": stack(TEST)}
        files = [written(tmp_path / "x.json", data)]
        if not isinstance(data["train_acc"], dict):
            np.savez(tmp_path / "x.npz", **data)
            files.append(tmp_path / "x.npz")
        for file in files:
            runs = gi.detect_phases(file).runs.values()
            assert len(runs) > 1
            assert all(one.grok_step == 1380 for one in runs)

    @pytest.mark.parametrize("data", [
        {"train_acc": [TRAIN, TRAIN], "test_acc": [TEST, TEST]},
        {"steps": STEPS, "acc": np.stack([TRAIN, TEST], 1)},
        {"steps": STEPS, "train_acc": np.stack([np.round(97 * TRAIN), 97 + 0 * TRAIN], 1)},
        {"steps": np.arange(5), "train_acc": np.eye(5)},
        {"steps": np.arange(3), "train_acc": np.ones((2, 3))},
    ], ids=["no steps", "sides", "counts", "square", "short"])  # fmt: skip
    def test_a_matrix_of_which_nothing_says_what_it_is(self, data, tmp_path):
        with pytest.raises(gi.InputError, match=r"acc is a matrix of \d+ x \d+, and nothing says"):
            gi.detect_phases(written(tmp_path / "x.json", data))

    def test_pairs_beside_their_steps(self, tmp_path):
        data = {"steps": STEPS, "train_acc": np.stack([STEPS, TRAIN], 1), "test_acc": TEST}
        assert dates(written(tmp_path / "x.json", data)) == EXPECTED

    def test_numbers_as_names_are_said_to_be_steps(self, tmp_path):
        data = {str(i): {"train_acc": 0.99, "test_acc": 0.1 * i} for i in range(3)}
        note = "the numbers 0 to 2 by which its records are kept are taken to be steps"
        assert note in gi.detect_phases(written(tmp_path / "x.json", data)).notes
        curves = {name: dict(enumerate([0.1, 0.5, 1.0])) for name in ("train_acc", "test_acc")}
        assert note in gi.detect_phases(written(tmp_path / "x.json", curves)).notes
        rows = LOG.rename(columns={"step": "epoch"}).to_dict("index")
        assert dates(written(tmp_path / "x.json", rows)) == EXPECTED

    def test_names_that_are_alike(self, tmp_path):
        both = pd.concat([LOG.assign(run="a"), self.LATE.assign(run="b ")])
        assert list(gi.detect_phases(both).runs) == ["a", "b"]
        data = [{"name": "x", **LOG.to_dict("list")}, {"name": "x", **self.LATE.to_dict("list")}]
        found = gi.detect_phases(written(tmp_path / "x.json", data))
        assert {x: y.label for x, y in found.runs.items()} == {"x": "grokked", "x (2)": "memorized"}

    def test_runs_within_runs(self, tmp_path):
        data = {
            lr: {seed: LOG.to_dict("list") for seed in ("seed0", "seed1")}
            for lr in ("lr=1", "lr=2")
        }
        found = gi.detect_phases(written(tmp_path / "x.json", data))
        assert list(found.runs) == ["lr=1/seed0", "lr=1/seed1", "lr=2/seed0", "lr=2/seed1"]

    def test_runs_without_a_curve_are_left_out_and_named(self, tmp_path):
        events(LOG, tmp_path, {"train_acc": "acc/train", "test_acc": "acc/test"})
        events(LOG[:1].assign(lr=0.1), tmp_path / "hparams", {"lr": "hparam/lr"})
        found = gi.detect_phases(tmp_path)
        assert [x.label for x in found.runs.values()] == ["grokked"]
        assert any("left out: hparams" in x for one in found.runs.values() for x in one.notes)

    def test_scalars_that_were_added_together(self, tmp_path):
        for name, column in (("train", "train_acc"), ("test", "test_acc")):
            events(LOG, tmp_path / f"acc_{name}", {column: "acc"})
        assert dates(tmp_path) == EXPECTED

    @pytest.mark.parametrize("by", ["step", "train_acc", [], 5, "nothing"])
    def test_what_tells_no_runs_apart(self, by):
        with pytest.raises(gi.InputError):
            gi.detect_phases(LOG.assign(seed=0), by=by)


class TestReruns:
    SHORT = LOG.assign(test_acc=np.minimum(TEST, 0.01))[:150]
    NOTE = "steps begin again at 0 in row 202: the 201 rows before it are of an earlier run"

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "log", "events", "header"])
    def test_a_shorter_one_is_not_mixed_with_the_run_before(self, kind, tmp_path):
        both, path = pd.concat([LOG, self.SHORT], ignore_index=True), tmp_path / f"x.{kind}"
        if kind == "events":
            for i, part in enumerate((LOG, self.SHORT)):
                events(part, tmp_path / str(i), {x: x for x in ("train_acc", "test_acc")})
                (file,) = (tmp_path / str(i)).iterdir()
                file.rename(tmp_path / f"{file.name}.{i}")
                (tmp_path / str(i)).rmdir()
            path = tmp_path
        elif kind == "jsonl":
            both.to_json(path, orient="records", lines=True)
        elif kind == "log":
            rows = both.itertuples(index=False)
            path.write_text("".join(f"step {s} train_acc {a} test_acc {b}\n" for s, a, b in rows))
        else:
            again = self.SHORT.to_csv(index=False, header=kind == "header")
            path.write_text(LOG.to_csv(index=False) + again)
        assert dates(path) == ("memorized", 200, None)
        assert any(self.NOTE in note for note in gi.detect_phases(path).notes)

    def test_a_curve_that_the_last_run_has_not_is_of_the_run_before(self):
        both = pd.concat([LOG, self.SHORT[["step", "train_acc"]]])
        assert dates(both)[1:] == (200, None)

    @pytest.mark.parametrize(
        "frame",
        [
            LOG[["step", "train_acc"]]
            .merge(LOG[["step", "test_acc"]], how="outer")
            .sample(frac=1, random_state=0),
            pd.concat([LOG[["step", "train_acc"]], LOG[["step", "test_acc"]]]),
            pd.concat([LOG[:1], LOG[:2], LOG]),
            pd.concat([LOG[:120], LOG[100:]]),
            pd.concat([LOG[100:], LOG[:100]]),
            pd.concat([LOG, LOG[:1]]),
            pd.concat([LOG, LOG]),
        ],
        ids=["shuffled", "blocks", "start", "resumed", "parts", "check", "same"],
    )
    def test_what_is_none(self, frame):
        assert dates(frame) == EXPECTED


class TestComments:
    @pytest.mark.parametrize("at", [0, 1, 100])
    def test_lines_of_them_are_left_out(self, at, tmp_path):
        lines = LOG.to_csv(index=False).splitlines()
        (tmp_path / "x.csv").write_text("\n".join([*lines[:at], "# resumed, again", *lines[at:]]))
        assert dates(tmp_path / "x.csv") == EXPECTED

    def test_a_cell_may_have_such_a_line(self, tmp_path):
        LOG.assign(note="a\n# b").to_csv(tmp_path / "x.csv", index=False)
        assert dates(tmp_path / "x.csv") == EXPECTED


class TestCells:
    @pytest.mark.parametrize(("step", "acc"), [
        ("{}/2000", "{:.4f}"), ("Epoch {}", "{:.4f}"), ("{}", "{:.4f} \u00b1 0.01"),
        ("{}", "{:.4f}+/-0.01"), ("**{}**", "**{:.4f}**"), ("{}", "\x1b[36m{:.4f}\x1b[0m"),
    ])  # fmt: skip
    def test_what_is_certain_is_read(self, step, acc, tmp_path):
        rows = [f"{step.format(s)},{acc.format(a)},{acc.format(b)}"
                for s, a, b in LOG.itertuples(index=False)]  # fmt: skip
        (tmp_path / "x.csv").write_text("\n".join(["epoch,train_acc,test_acc", *rows]))
        assert dates(tmp_path / "x.csv") == EXPECTED

    def test_how_many_were_right(self):
        counts = {x: [f"{round(9409 * y)}/9409" for y in LOG[x]] for x in ("train_acc", "test_acc")}
        assert dates(LOG.assign(**counts)) == EXPECTED
        for cell in ("9410/9409", "0/0"):
            with pytest.raises(gi.InputError, match="no number"):
                gi.detect_phases(pd.DataFrame({"step": [0], "train_acc": cell}))
        with pytest.raises(gi.InputError, match="no number"):
            gi.detect_phases(pd.DataFrame({"step": ["1/2", "1/3"], "train_acc": 0.5}))

    @pytest.mark.parametrize("marks", ["+-=|", "\u250f\u2501\u2501\u2503"])
    def test_tables_that_are_drawn(self, marks, tmp_path):
        corner, dash, double, bar = marks
        rule = corner.join(["", *[9 * dash] * 3, ""])
        lines = [
            bar.join(["", *(f" {x:7} " for x in row), ""])
            for row in [("step", "trn acc", "test acc"), *LOG.round(4).itertuples(index=False)]
        ]
        text = [rule, lines[0], rule.replace(dash, double), *(f"{x}\n{rule}" for x in lines[1:])]
        (tmp_path / "x.txt").write_text("\n".join(text))
        assert dates(tmp_path / "x.txt") == EXPECTED


class TestOtherFiles:
    def test_lists_beside_the_weights_of_a_network_that_is_not_known(self, tmp_path):
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 300))
        lists = {"train_accs": TRAIN.tolist(), "test_accs": TEST.tolist(), "steps": STEPS.tolist()}
        torch.save({"model": net.state_dict(), **lists}, tmp_path / "x.pt")
        assert dates(tmp_path / "x.pt") == EXPECTED
        notes = gi.detect_phases(tmp_path / "x.pt").notes
        assert any("its checkpoints are not read: " in note for note in notes)
        torch.save({"model": net.state_dict()}, tmp_path / "y.pt")
        with pytest.raises(gi.InputError, match="multilayer perceptron"):
            gi.detect_phases(tmp_path / "y.pt")

    def test_a_table_that_pandas_pickled(self, tmp_path):
        LOG.to_pickle(tmp_path / "x.pkl")
        with pytest.raises(gi.InputError, match=r"of pandas.DataFrame.*with its to_csv"):
            gi.detect_phases(tmp_path / "x.pkl")

    def test_lists_in_cells(self, tmp_path):
        row = {name: LOG[name].tolist() for name in LOG}
        frame = pd.DataFrame([{"seed": seed, **row} for seed in (0, 1)])
        assert [x.grok_step for x in gi.detect_phases(frame).runs.values()] == [1380, 1380]
        frame.to_parquet(tmp_path / "x.parquet")
        with pytest.raises(
            gi.InputError, match=r"lists in the cells of train_acc, test_acc; write"
        ):
            gi.detect_phases(tmp_path / "x.parquet")
        with pytest.raises(gi.InputError, match="in one row of several lengths"):
            gi.detect_phases(pd.DataFrame([{**row, "test_acc": [0.1]}]))

    @pytest.mark.parametrize(("name", "content", "said"), [
        ("x.csv.zip", "metrics.csv", "is a zip archive, no log; unpack it"),
        ("x.xlsx", "[Content_Types].xml", "is an Excel or Word file, no log; save it as CSV"),
        ("x.mat", b"MATLAB 5.0 MAT-file, \x80", "is a MATLAB file, no log; save its"),
        ("x.ipynb", b'{"cells": [], "nbformat": 4}', "is a Jupyter notebook, no log; give what"),
    ])  # fmt: skip
    def test_what_it_is_that_is_no_log(self, name, content, said, tmp_path):
        if isinstance(content, str):
            with zipfile.ZipFile(tmp_path / name, "w") as archive:
                archive.writestr(content, LOG.to_csv(index=False))
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(gi.InputError, match=said):
            gi.detect_phases(tmp_path / name)


class TestFolders:
    def test_beside_checkpoints_that_cannot_be_read(self, tmp_path):
        LOG.to_csv(tmp_path / "metrics.csv", index=False)
        (tmp_path / "checkpoints").mkdir()
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        torch.save({"state_dict": net.state_dict()}, tmp_path / "checkpoints" / "step_100.ckpt")
        assert dates(tmp_path) == EXPECTED
        notes = gi.detect_phases(tmp_path).notes
        assert any("its checkpoints are not read: " in note for note in notes)

    def test_a_summary_does_not_hide_the_log(self, tmp_path):
        written(tmp_path / "results.json", {"test_acc": 0.98, "seed": 3})
        LOG.to_csv(tmp_path / "progress.csv", index=False)
        (tmp_path / "requirements.txt").write_text("torch==2\n")
        assert dates(tmp_path) == EXPECTED

    @pytest.mark.parametrize("name", [
        "seed_{}.csv", "seed_{}/log.csv", "version_{}/metrics.csv", "{}/any.jsonl", "a_{}.csv.xz",
    ])  # fmt: skip
    def test_several_runs(self, name, tmp_path):
        for i, rows in ((10, LOG), (9, LOG[:160])):
            path = tmp_path / name.format(i)
            path.parent.mkdir(exist_ok=True)
            if path.suffix == ".jsonl":
                rows.to_json(path, orient="records", lines=True)
            else:
                rows.to_csv(path, index=False)
        found = gi.detect_phases(tmp_path)
        run = name.split("/")[0].removesuffix(".xz").removesuffix(".csv")
        assert list(found.runs) == [run.format(9), run.format(10)]
        assert [len(one.curves) for one in found.runs.values()] == [160, 201]
        assert gi.read_log(tmp_path)["run"].nunique() == 2

    @pytest.mark.parametrize("name", ["{}.csv", "run_{}.csv", "{}/metrics.csv"])
    def test_a_file_a_side(self, name, tmp_path):
        for side, values in (("train", TRAIN), ("val", TEST)):
            path = tmp_path / name.format(side)
            path.parent.mkdir(exist_ok=True)
            pd.DataFrame({"step": STEPS, "acc": values}).to_csv(path, index=False)
        assert dates(tmp_path) == EXPECTED
        if name == "{}.csv":
            LOG.to_csv(tmp_path / "other.csv", index=False)
            with pytest.raises(gi.InputError, match=r"named after a side \(other, train, val\)"):
                gi.detect_phases(tmp_path)

    def test_what_is_left_out_of_several(self, tmp_path):
        for name in ("a", "b"):
            LOG.to_csv(tmp_path / f"{name}.csv", index=False)
        (tmp_path / "c.csv").write_text("x,y\n1,2\n")
        (tmp_path / "d.csv").symlink_to(tmp_path / "a.csv")
        found = gi.detect_phases(tmp_path)
        assert list(found.runs) == ["a", "b"]
        assert any(note.startswith("left out: c (") for note in found["a"].notes)

    def test_the_only_table_and_one_within(self, tmp_path):
        (tmp_path / "version_0").mkdir()
        LOG.to_csv(tmp_path / "version_0" / "metrics.csv.xz", index=False)
        assert dates(tmp_path) == EXPECTED
        (tmp_path / "version_0" / "metrics.csv.xz").rename(tmp_path / "my_run.csv.xz")
        assert dates(tmp_path) == EXPECTED
