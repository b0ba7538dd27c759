"""The runs that ship with the repository: whole, small, and what their names say."""

import json
from pathlib import Path

import pytest

import grokinterp as gi
from grokinterp import encodings

pytestmark = pytest.mark.slow

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
RUNS = {
    "mod31-small": ("grokked", "transformer"),
    "mod113-grokked": ("grokked", "transformer"),
    "mod113-steady": ("steady", "transformer"),
    "mlp113-grokked": ("grokked", "mlp"),
    "mlp113-steady": ("steady", "mlp"),
    "ising-grokked": ("grokked", "cnn"),
    "ising-steady": ("steady", "cnn"),
}
each = pytest.mark.parametrize("name", RUNS)


def test_they_are_listed_and_small():
    assert {path.name for path in CHECKPOINTS.iterdir() if path.is_dir()} == set(RUNS)
    readme = (CHECKPOINTS / "README.md").read_text()
    assert all(f"grokinterp train {name} " in readme for name in RUNS)
    sizes = [file.stat().st_size for file in CHECKPOINTS.rglob("*") if file.is_file()]
    assert sum(sizes) < 64e6


@each
def test_a_run_is_whole_and_of_its_recipe(name):
    run = gi.load(CHECKPOINTS / name)
    run.verify()
    assert run.recipe == gi.recipes()[name]
    assert run.finished
    assert run.architecture.kind == RUNS[name][1]


@pytest.mark.parametrize("grokked", ["mod113-half-grokked", "mlp113-grokked", "ising-grokked"])
def test_pairs_differ_in_the_scale_of_their_initial_weights_alone(grokked):
    steady = f"{grokked.partition('-')[0]}-steady"

    one, other = (gi.recipes()[name].to_dict() for name in (grokked, steady))
    assert {key for key in one if one[key] != other[key]} == {"init_scale"}


@each
def test_commands(name, run):
    path, (label, kind) = CHECKPOINTS / name, RUNS[name]
    status, out, _ = run("info", path, "--json")
    assert (status, json.loads(out)["recipe"]["model"]) == (0, kind)
    if name == "mod113-grokked":
        return  # the other two commands on it: tests/test_cli.py
    status, out, _ = run("phases", path, "--json", "--expect", label)
    assert status == 0
    found = json.loads(out)
    assert (found["key_frequencies"] is None) == (kind == "cnn")
    assert (found["phases"] != []) == (label == "grokked")
    status, out, _ = run("measure", path)
    assert status == 0
    header, *rows = out.splitlines()
    assert len(rows) == len(gi.load(path).steps)
    assert ("median_r_energy" in header) == (kind == "cnn")
    assert ("ipr_input" in header) == (kind != "cnn")


@pytest.mark.parametrize("name", ["ising-grokked", "ising-steady"])
def test_ising_models_see_energy_before_magnetisation(name):
    table = encodings.observable_correlations(gi.load(CHECKPOINTS / name))
    median = table.set_index(["layer", "observable"]).median_r["hidden"]
    assert median["energy"] > median["abs_magnetization"] > median["magnetization"]
    assert median["energy"] > 0.9


def test_grokked_and_steady_mlps_are_sparse_in_the_fourier_basis_and_not_in_their_own():
    for name in ("mlp113-grokked", "mlp113-steady"):
        last = gi.load(CHECKPOINTS / name).snapshot()
        own, fourier = (encodings.pruning_curve(last, basis=b) for b in ("weights", "fourier"))
        assert own.prunable < 0.75
        assert fourier.prunable > 0.95
