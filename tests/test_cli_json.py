"""`--json`: one object that any reader of JSON can read, with the numbers of the table."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.cli.terminal import show_json
from tests.clock import clock_architecture, clock_weights


def strict(text):
    """What a reader makes of it that knows only the standard: no NaN, no Infinity."""

    def refuse(token):
        raise AssertionError(f"{token} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert isinstance(found, dict)
    assert text.endswith("}\n")
    return found


@pytest.fixture(scope="module")
def bare(tiny_run, tmp_path_factory):
    """A run of which no split is known, so that nothing of train and test is."""
    folder = tmp_path_factory.mktemp("bare") / "bare"
    with gi.Recorder(folder, task=tiny_run.task) as recorder:
        for step in tiny_run.steps:
            recorder.save(step, tiny_run.model(step))
    return folder


def test_measure_has_the_numbers_of_its_table(run, tiny_run, bare, tmp_path):
    for path in (tiny_run.path, bare):
        out = tmp_path / f"{path.name}.csv"
        status, printed, _ = run("measure", path, "--json", "--out", out)
        found = strict(printed)
        assert status == 0
        assert found["run"] == str(path)
        table = pd.read_csv(out)
        assert [row["step"] for row in found["measures"]] == list(gi.load(path).steps)
        assert list(found["measures"][0]) == list(table.columns)
        for row, (_, line) in zip(found["measures"], table.iterrows(), strict=True):
            for column, value in row.items():
                assert (value is None) == math.isnan(line[column])
                assert value is None or value == pytest.approx(line[column], rel=1e-12)
        assert run("measure", path, "--json")[1] == printed
    assert all(row["train_loss"] is None for row in found["measures"])
    assert found["reason"] or found["key_frequencies"]


def test_ablate_has_the_numbers_of_its_table(run, tiny_run, bare, tmp_path):
    for path in (tiny_run.path, bare):
        out = tmp_path / f"{path.name}.csv"
        command = ("ablate", path, "--placebos", "2", "--step", "40", "--json")
        status, printed, err = run(*command, "--out", out)
        found = strict(printed)
        assert (status, err) == (0, "")
        assert found["step"] == 40
        table = pd.read_csv(out)
        assert [row["ablation"] for row in found["ablations"]] == list(table.ablation)
        for row, (_, line) in zip(found["ablations"], table.iterrows(), strict=True):
            assert row.keys() == set(table.columns)
            assert row["loss_all"] == pytest.approx(line.loss_all, rel=1e-12)
            assert (row["loss_train"] is None) == math.isnan(line.loss_train)
        assert (found["faithfulness"] is None) != (found["no_faithfulness"] is None)


def test_ablate_tells_how_far_the_circuit_is_the_model(run, tmp_path):
    """Of weights that compute with two known frequencies and nothing else."""
    p, keys = 13, (2, 5)
    task = gi.ModularTask("add", p=p, equals_token=True)
    model = clock_architecture(p, len(keys)).hooked(clock_weights(p, keys, 20.0))
    mask = torch.arange(p * p) % 3 == 0
    with gi.Recorder(tmp_path / "clock", task=task, train_mask=mask) as recorder:
        recorder.save(0, model)
    status, printed, _ = run("ablate", tmp_path / "clock", "--placebos", "0", "--json")
    found = strict(printed)
    assert status == 0
    assert found["key_frequencies"] == list(keys)
    assert found["no_faithfulness"] is None
    told = found["faithfulness"]
    expected = gi.circuits.faithfulness(gi.load(tmp_path / "clock"), placebos=0)
    assert told["recovered"] == pytest.approx(expected.recovered)
    assert told["recovered"] == pytest.approx(1, abs=1e-3)
    assert told["lost"] == pytest.approx(expected.lost)
    assert told["frequencies"] == list(keys)
    assert [row["what"] for row in told["rows"]] == list(expected.table().what)


@pytest.mark.parametrize("command", ["info", "phases", "verify"])
def test_others_are_strict_too(command, run, tiny_run, bare):
    for path in (tiny_run.path, bare):
        status, printed, err = run(command, path, "--json")
        if command == "verify" and path == bare:  # nothing to train again
            assert (status, printed, len(err.splitlines())) == (2, "", 1)
        else:
            assert status == 0
            strict(printed)


def test_compare_is_strict_too(run, tiny, tiny_run, tmp_path):
    other = gi.train(tiny.replace(seed=5), tmp_path / "other")
    status, printed, _ = run("compare", tiny_run.path, other.path, "--json")
    assert status == 0
    assert {row["run"] for row in strict(printed)["runs"]} == {"tiny", "other"}


def test_whatever_a_result_holds_is_json(capsys):
    show_json(
        {
            "nan": math.nan, "inf": [math.inf, -math.inf], "numpy": np.float32("nan"),
            "two": (1, 2), "count": np.int64(3), "array": np.array([1.5, np.nan]),
            "tensor": torch.tensor([1, 2]),
            "na": pd.NA, "truth": np.bool_(True), "name": "b\udcff ☃", 7: "key", "none": None,
        }
    )  # fmt: skip
    assert strict(capsys.readouterr().out) == {
        "nan": None, "inf": [None, None], "numpy": None, "two": [1, 2], "count": 3,
        "array": [1.5, None], "tensor": [1, 2], "na": None, "truth": True, "name": "b\\udcff ☃",
        "7": "key", "none": None,
    }  # fmt: skip
