"""grokinterp geometry: what is printed, what scripts read, and what is refused."""

import json

import pandas as pd
import pytest
import torch

import grokinterp as gi

pytestmark = pytest.mark.shapes_unchecked


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The object of one step, with its curvature, and the CSV of the same."""
    import contextlib
    import io
    import sys

    from grokinterp import cli

    out = tmp_path_factory.mktemp("csv") / "shapes.csv"
    before, sys.argv = sys.argv, [
        "grokinterp", "geometry", "mod31-small", "--step", "-1", "--curvature", "--json",
        "--out", str(out),
    ]  # fmt: skip
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stopped:
        cli.main()
    sys.argv = before
    assert not stopped.value.code
    return json.loads(printed.getvalue()), pd.read_csv(out)


def test_json_has_the_tables(asked):
    found, _ = asked
    assert found["run"] == "mod31-small"
    wanted = {"step", "cloud", "symmetry", "symmetry_null95", "participation_ratio", "key_share",
              "h1", "h1_null95"}  # fmt: skip
    assert [row["cloud"] for row in found["steps"]] == ["embedding", "unembedding", "answers"]
    for row in found["steps"]:
        assert wanted <= row.keys()
        assert row["step"] == 10_000
    assert {"cloud", "step", "interval", "width", "reason"} <= found["transitions"][0].keys()
    assert [x["cloud"] for x in found["transitions"]][-2:] == ["test_accuracy", "test_loss"]
    assert [row["hook"] for row in found["routing"]][-1] == "blocks.0.hook_resid_post"
    assert [row["loss_is"] for row in found["curvature"]] == ["raw", "matched"]
    assert [row["rows"] for row in found["noise_radius"]] == ["train", "test"]
    assert found["notes"]


def test_they_are_what_python_gives(asked):
    found, csv = asked
    table = gi.geometry.representations("mod31-small", -1).table()
    assert csv.columns.tolist() == table.columns.tolist()
    for name in ("symmetry", "h1", "participation_ratio"):
        assert csv[name].tolist() == pytest.approx(table[name].tolist())
        assert [row[name] for row in found["steps"]] == pytest.approx(table[name].tolist())


def test_a_pipe_gets_a_csv_and_what_was_left_out(run, tiny_run):
    code, printed, said = run("geometry", tiny_run.path, "--step", "60")
    assert code == 0
    head, *rows = printed.strip().splitlines()
    assert head.startswith("step,cloud,symmetry,")
    assert len(rows) == 3
    assert all(line.startswith("60,") for line in rows)
    del said


def test_a_pipe_gets_the_curvature_that_it_asked_for(run, tiny_run):
    code, printed, _ = run("geometry", tiny_run.path, "--step", "60", "--curvature")
    assert code == 0
    for found in (
        gi.geometry.curvature(tiny_run, 60), gi.geometry.noise_radius(tiny_run, 60),
        gi.geometry.routing(tiny_run, 60),
    ):  # fmt: skip
        assert str(found) in printed


def test_without_a_split_all_else_is_looked_at(run, tmp_path):
    torch.save(gi.load("mod31-small").weights(10_000), tmp_path / "m.pt")
    code, printed, said = run("geometry", tmp_path / "m.pt", "--curvature")
    assert code == 0
    assert "Representations" in printed
    assert "Noise radius" in printed
    lines = said.strip().splitlines()
    assert any("no curvature: rows='train' needs the split" in line for line in lines)
    assert any("curvature is of the last checkpoint alone" in line for line in lines)


@pytest.mark.parametrize(
    ("step", "said"),
    [("last", "--step 'last' is no checkpoint; give its step, -1 or all."), ("7", "7")],
)
def test_a_step_that_is_none_is_refused(run, step, said):
    code, printed, error = run("geometry", "mod31-small", "--step", step)
    assert (code, printed) == (2, "")
    assert said in error
    assert len(error.strip().splitlines()) == 1
