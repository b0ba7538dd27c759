"""The commands that read and write checkpoints of others."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pandas as pd
import pytest
import torch

import grokinterp as gi

pytestmark = pytest.mark.shapes_unchecked  # their checks take a third of its time


def test_a_run_goes_out_and_comes_back(run, tiny_run, tmp_path):
    for format in ("demo", "paper"):
        file, folder = tmp_path / f"{format}.pth", tmp_path / format
        status, out, err = run("export", tiny_run.path, "--out", file, "--format", format)
        assert (status, err) == (0, "")
        assert f"{file}: 4 checkpoints" in out
        status, out, err = run("import", file, "--out", folder)
        assert (status, err) == (0, "")
        assert "training rows of" in out
        assert f"grokinterp phases {folder}" in out
        assert gi.load(folder).steps == tiny_run.steps


def test_commands_take_checkpoints_of_others_as_they_are(run, tiny_run, tmp_path):
    file = gi.export(tiny_run, tmp_path / "demo.pth")
    status, out, _ = run("info", file, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["source"]["format"] == "demo"
    assert facts["architecture"]["n_heads"] == 2
    status, out, _ = run("info", file)
    assert "assumed" in out or "its configuration says" in out
    status, out, _ = run("phases", file, "--json")
    assert status == 0
    assert json.loads(out)["label"] in ("memorized", "undetermined", "not_learned", "steady")
    status, out, _ = run("measure", file, "--out", tmp_path / "m.csv")
    assert status == 0
    assert pd.read_csv(tmp_path / "m.csv")["step"].tolist() == list(tiny_run.steps)


def test_what_the_files_do_not_say_is_set(run, tiny_run, tmp_path):
    torch.save(tiny_run.weights(), tmp_path / "weights.pt")
    status, *_ = run(
        "import", tmp_path / "weights.pt", "--out", tmp_path / "run", "--set", "split=torch",
        "--set", "data_seed=0", "--set", "train_fraction=0.5", "--set", "step=60",
    )  # fmt: skip
    assert status == 0
    found = gi.load(tmp_path / "run")
    assert found.steps == (60,)
    assert torch.equal(found.train_indices, tiny_run.train_indices)
    assert found.notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "p=5"), "p=5 contradicts"),
        (("--set", "nonsense=1"), "'nonsense' is not known"),
        (("--set", "p"), "is not key=value"),
        (("--set", "split=torch"), "needs data_seed"),
        (("--set", "act_fn=softplus"), "act_fn='softplus'"),
        (("--format", "demo"), "has the format 'state_dict'"),
        (("--format", "nonsense"), "format='nonsense' is not known"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(
    arguments,
    message,
    run,
    tiny_run,
    tmp_path,
):
    torch.save(tiny_run.weights(), tmp_path / "weights.pt")
    status, out, err = run("import", tmp_path / "weights.pt", "--out", tmp_path / "run", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pt"]


def test_bad_exports(run, tiny_run, tmp_path):
    for arguments in (("--format", "x"), ("--format", "pape")):
        status, out, err = run("export", tiny_run.path, "--out", tmp_path / "x.pth", *arguments)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def import_many(tiny_run, tmp_path, n, **options):
    folder = tmp_path / "many"
    folder.mkdir()
    for step in range(n):
        torch.save(tiny_run.weights(), folder / f"{step}.pt")
    command = [sys.executable, "-m", "grokinterp.cli", "import", folder, "--out", tmp_path / "run"]
    return subprocess.Popen(command, **options)


def test_progress_is_shown_on_a_terminal_only(tiny_run, tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with import_many(tiny_run, tmp_path, 20, stdout=subprocess.PIPE, stderr=theirs) as process:
        assert process.wait(timeout=120) == 0
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert b"import" in shown
    assert b"20/20" in shown


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tiny_run, tmp_path):
    with import_many(
        tiny_run, tmp_path, 3000, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Where the tests run in the background, it is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        aside = []
        while not aside and process.poll() is None:
            aside = [file for file in tmp_path.glob(".importing-*") if (file / "weights").exists()]
            time.sleep(0.01)
        assert aside, process.stderr.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert [file.name for file in tmp_path.iterdir()] == ["many"]
