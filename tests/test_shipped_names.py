"""Runs that ship are found by their names, from any folder; the thin one is small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import grokinterp as gi
from grokinterp.reading.shipped import INSTALLED, SHIPPED

ROOT = Path(__file__).parent.parent


def test_every_shipped_run_is_found_by_its_name():
    for name in SHIPPED:
        assert gi.load(name).path == ROOT / "checkpoints" / name
    folders = {path.name for path in (ROOT / "checkpoints").iterdir() if path.is_dir()}
    assert folders == set(SHIPPED)


def test_the_installed_one_is_small_and_groks():
    run = gi.load(INSTALLED)
    assert run.recipe == gi.recipes()[INSTALLED]
    assert sum(weight.numel() for weight in run.weights().values()) == 16_799
    assert len(run.steps) >= 12
    files = [file for file in run.path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2e6
    found = gi.detect_phases(INSTALLED)
    assert (found.label, found.key_frequencies) == ("grokked", (1, 8, 14))
    assert all(phase.end is not None for phase in found.phases)


def test_from_another_folder(tmp_path):
    code = (
        "import grokinterp as gi; print(gi.load('mod31-small')); print(gi.load('mod113-grokked'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "add mod 31, 26 checkpoints" in done.stdout
    assert "add mod 113, 26 checkpoints" in done.stdout


def test_what_lies_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / INSTALLED).mkdir()
    with pytest.raises(gi.InputError, match="not a run"):
        gi.load(INSTALLED)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mod31-smal", "did you mean 'mod31-small'"),
        ("MOD113-GROKKED", "did you mean 'mod113-grokked'"),
        ("mod31-grokked", "is a recipe, .* grokinterp train mod31-grokked"),
        ("nothing-like-it", "does not exist"),
    ],
)
def test_other_names(name, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for look in (gi.load, gi.key_frequencies, gi.detect_phases):
        with pytest.raises(gi.InputError, match=says):
            look(name)


def test_one_that_is_not_there_is_said_to_be_in_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grokinterp.reading.shipped.FOLDER", "no such folder")
    with pytest.raises(gi.InputError, match="in no such folder/ of the repository and not in"):
        gi.load("mod113-grokked")
