"""The words of labels and dates: nothing of curves that are not there, and how to give a split."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi

COLUMNS = ("train_loss", "test_loss", "train_acc", "test_acc")
PROSE = {
    "train_loss": "train loss",
    "test_loss": "test loss",
    "train_acc": "train accuracy",
    "test_acc": "test accuracy",
    "excluded_loss": "excluded loss",
}
ABSENT = ("there is no ", "there is only ", "no train accuracy:", "no test accuracy:")


def curves(kind):
    """A run of 201 rows: losses and accuracies that tell the same story."""
    row = np.arange(201)
    late, early = (1 / (1 + np.exp(-(row - middle) / 6)) for middle in (120, 60))
    train = np.minimum(row / 20, 1)
    test = {
        "grokked": late,
        "dips late": np.where(row > 193, 0.3, late),
        "is lost and regained": np.where((row > 160) & (row < 170), 0.2, late),
        "memorized": np.full(201, 0.01),
        "steady": np.minimum(row / 22, 1),
        "in part": np.minimum(0.7, late),
        "not learned": np.full(201, 0.01),
        "fits most": np.full(201, 0.01),
    }[kind]
    train = train * {"not learned": 0.1, "fits most": 0.985}.get(kind, 1)
    return pd.DataFrame(
        {
            "step": 10 * row,
            "train_loss": 4 * 10 ** (-5 * train) + 1e-6,
            "test_loss": 5 * 10 ** (-5 * test) + 1e-6,
            "train_acc": train,
            "test_acc": test,
            "excluded_loss": 0.01 * 10 ** (3 * early),
        }
    )


KINDS = (
    "grokked", "dips late", "is lost and regained", "memorized", "steady", "in part", "not learned",
    "fits most",
)  # fmt: skip
SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(COLUMNS, n)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("excluded", [(), ("excluded_loss",)])
def test_no_sentence_speaks_of_a_curve_that_is_not_there(kind, excluded):
    for subset in SUBSETS:
        there = (*subset, *excluded)
        found = gi.detect_phases(curves(kind)[["step", *there]])
        words = [*found.reasons, found.margin.meaning]
        for column, prose in PROSE.items():
            said = [x for x in words if prose in x or column in x]
            if column not in there:
                assert not [x for x in said if not any(word in x for word in ABSENT)], there


@pytest.mark.parametrize("kind", ["grokked", "dips late", "is lost and regained"])
def test_of_accuracies_alone_nothing_is_said_of_a_test_loss(kind, run, tmp_path):
    curves(kind)[["step", "train_acc", "test_acc"]].to_csv(tmp_path / "log.csv", index=False)
    status, out, err = run("phases", tmp_path / "log.csv")
    assert (status, err) == (0, "")
    assert "grokked" in out
    assert "test loss" not in out + json.dumps(
        gi.detect_phases(curves(kind)[["step", "train_acc", "test_acc"]]).to_dict()
    )


def test_a_fall_for_good_is_one_of_what_is_there():
    frame = curves("dips late")
    said = gi.detect_phases(frame[["step", "train_acc", "test_acc"]]).reasons
    assert [x for x in said if x.startswith("test accuracy falls for good after step 1930")]
    said = gi.detect_phases(frame[["step", "train_loss", "test_loss"]]).reasons
    assert [x for x in said if x.startswith("test loss rises again for good after step 1930")]


def test_what_the_excluded_loss_confirms_came_before_what_is_there():
    frame = curves("grokked")
    for columns in (frame, frame.drop(columns="test_loss")):
        fell = "test loss fell" if "test_loss" in columns else "test accuracy rose"
        said = gi.detect_phases(columns).reasons
        assert [x for x in said if x.endswith(f"the circuit stood before {fell}")]


class TestPartly:
    def test_train_just_below_its_threshold_with_test_at_chance(self):
        found = gi.detect_phases(curves("fits most")[["step", "train_acc", "test_acc"]])
        assert found.label == "undetermined"
        assert "it fits most of train (0.985 of 0.99) and does not generalise" in found.reasons[0]
        assert "in part" not in found.reasons[0]

    def test_so_of_losses(self):
        frame = curves("memorized")[["step", "train_loss", "test_loss"]]
        frame["train_loss"] += 0.5
        found = gi.detect_phases(frame)
        assert found.label == "undetermined"
        assert (
            "it fits train in part (loss 0.5, learned is below 0.01) and does not generalise"
            in (found.reasons[0])
        )

    def test_test_that_is_half_learned_generalises_in_part(self):
        found = gi.detect_phases(curves("in part")[["step", "train_acc", "test_acc"]])
        assert found.label == "undetermined"
        assert "it generalises in part, or the run was cut off" in found.reasons[0]

    def test_test_learned_and_train_not(self):
        frame = curves("grokked")[["step", "train_loss", "test_loss"]]
        frame["train_loss"] += 0.5
        found = gi.detect_phases(frame)
        assert found.label == "undetermined"
        assert "it generalises, and it fits train in part" in found.reasons[0]

    def test_losses_decide_where_one_accuracy_is_missing_and_that_one_is_named(self):
        said = gi.detect_phases(curves("grokked").drop(columns="test_acc")).reasons
        assert any(x.startswith("no test accuracy: learned means") for x in said)
        said = gi.detect_phases(curves("grokked")[["step", "train_loss", "test_loss"]]).reasons
        assert any(x.startswith("no accuracies: learned means") for x in said)

    def test_losses_of_unmirrored_pairs_are_called_so(self):
        frame = curves("grokked")[["step", "train_loss", "test_loss"]]
        found = gi.detect_phases(frame.assign(test_loss_unmirrored=frame["test_loss"]))
        assert any("unmirrored test loss below 0.01" in reason for reason in found.reasons)


class TestWithoutASplit:
    def test_weights_alone_say_that_it_is_missing_and_how_to_give_it(self, run, tiny_run, tmp_path):
        path = tmp_path / "step_60.pt"
        torch.save(tiny_run.weights(), path)
        for out in (run("phases", path)[1], run("info", path)[1], run("phases", path, "--json")[1]):
            assert "the split is missing" in out
            assert "grokinterp import step_60.pt --out DIR --set split=" in out
            assert "--set train_indices=" in out
            assert "there is only nothing" not in out
        found = gi.detect_phases(gi.load(path))
        assert found.label == "undetermined"
        assert found.reasons[0].startswith("the split is missing")
        assert all(len(reason) <= 400 for reason in found.reasons)

    def test_what_it_says_works(self, run, tiny_run, tmp_path):
        path = tmp_path / "step_60.pt"
        torch.save(tiny_run.weights(), path)
        said = gi.detect_phases(gi.load(path)).reasons[0]
        command = said.partition("`grokinterp ")[2].partition("`")[0].split()
        command = [str(path) if word == "step_60.pt" else word for word in command]
        command = [str(tmp_path / "out") if word == "DIR" else word for word in command]
        assert run(*command)[0] == 0
        imported = gi.load(tmp_path / "out")
        assert len(imported.train_indices) in (14, 15)  # 0.3 of 49
        assert not any("split is missing" in x for x in gi.detect_phases(imported).reasons)

    def test_imported_runs_name_their_source(self, tiny_run, tmp_path):
        torch.save(tiny_run.weights(), tmp_path / "step_60.pt")
        gi.import_run(tmp_path / "step_60.pt", tmp_path / "out")
        assert "import step_60.pt --out" in gi.detect_phases(gi.load(tmp_path / "out")).reasons[0]

    def test_recorded_runs_say_how_the_recorder_gets_it(self, run, tiny_run, tmp_path):
        with gi.Recorder(tmp_path / "mine", task=tiny_run.task) as recorder:
            recorder.save(0, tiny_run.model(0))
        for command in ("info", "phases"):
            status, out, _ = run(command, tmp_path / "mine")
            assert status == 0
            assert "the split is missing" in out
            assert "train_mask=mask" in out

    def test_a_run_with_one_says_nothing_of_it(self, run, tiny_run):
        for command in ("info", "phases"):
            assert "split is missing" not in run(command, tiny_run.path)[1]
