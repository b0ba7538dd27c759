"""Runs in the plane of their weights: a long-hand decomposition, walks by hand, shipped runs."""

import math

import pytest
import torch

import grokinterp as gi
from grokinterp.sweeps import measured
from tests.made_runs import made_run

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here


@pytest.fixture(scope="module")
def run():
    return gi.load("mod31-small")


def flat(run):
    """All weights of all checkpoints, a row each."""
    weights = [run.weights(step).values() for step in run.steps]
    return torch.stack([torch.cat([w.double().flatten() for w in each]) for each in weights])


def path_of(*paths):
    """Runs of one linear network whose weights go along these paths, [k, 49] each."""
    task = gi.ModularTask("add", p=7)
    architecture = gi.Recipe(model="mlp", p=7, d_mlp=2, equals_token=False).architecture()
    shapes = architecture.parameter_shapes()
    runs = {}
    for i, path in enumerate(paths):
        checkpoints = {}
        for j, row in enumerate(path):
            weights = {name: torch.zeros(s, dtype=torch.float64) for name, s in shapes.items()}
            weights["blocks.0.mlp.W_in"] = row[:28].reshape(14, 2).clone()
            weights["unembed.W_U"] = row[28:42].reshape(2, 7).clone()
            checkpoints[10 * j] = weights
        log = gi.load("mod31-small").metrics.head(2)
        runs[f"run {i}"] = made_run(task, architecture, checkpoints, metrics=log)
    return runs


def walk(lengths, first, start=None):
    """Steps of these lengths along one axis after the other, from axis `first` on."""
    steps = torch.zeros(len(lengths) + 1, 42, dtype=torch.float64)
    steps[0] = 0 if start is None else start
    for i, length in enumerate(lengths):
        steps[i + 1, first + i] = length
    return steps.cumsum(0)


def test_it_is_the_principal_components_of_the_checkpoints(run):
    found = gi.geometry.weight_plane(run)
    points = flat(run)
    points = points - points.mean(0)
    left, sizes, _ = torch.linalg.svd(points, full_matrices=False)
    expected = left[:, :2] * sizes[:2]
    expected = expected * torch.sign(expected[-1] - expected[0])
    assert torch.allclose(found.coordinates, expected, atol=1e-9)
    shares = (sizes**2 / (sizes**2).sum())[: len(run.steps) - 1]
    assert found.shares == pytest.approx(shares.tolist(), abs=1e-12)
    assert found.participation == pytest.approx(float(1 / (shares**2).sum()))
    assert found.share == pytest.approx(float(shares[:2].sum()))
    assert found.n_weights == points.shape[1]


def test_of_one_run_it_agrees_with_the_drift(run):
    found, whole = gi.geometry.weight_plane(run), gi.geometry.drift(run).whole
    assert found.shares == pytest.approx(whole.shares, abs=1e-12)
    assert found.walk_shares == pytest.approx(whole.walk_shares, abs=1e-12)
    assert found.walk_participation == pytest.approx(whole.walk_participation)


def test_walks_of_several_runs_are_what_orthogonal_steps_make():
    """Two runs whose steps are orthogonal, from starts apart: their own null."""
    apart = torch.zeros(42, dtype=torch.float64)
    apart[40:] = torch.tensor([3.0, -1.0])
    first, second = walk([1, 2, 3, 1, 1], 0), walk([2, 2, 5], 10, start=apart)
    found = gi.geometry.weight_plane(path_of(first, second))
    assert found.walk_shares == pytest.approx(found.shares, abs=1e-12)
    assert found.walk_participation == pytest.approx(found.participation)
    straight = first.clone()
    straight[:, 0] = torch.tensor([0.0, 1, 3, 6, 7, 8])
    straight[:, 1:] = 0
    found = gi.geometry.weight_plane(path_of(straight, second))
    again = gi.geometry.weight_plane(path_of(first, second))
    assert found.walk_shares == pytest.approx(again.walk_shares, abs=1e-12)
    assert found.shares[0] > again.shares[0]


def test_a_line_is_of_one_dimension():
    line = torch.linspace(0, 4, 5, dtype=torch.float64)[:, None] * torch.ones(42)
    found = gi.geometry.weight_plane(path_of(line))
    assert found.shares[0] == pytest.approx(1)
    assert found.coordinates[:, 1].tolist() == [0] * 5
    size = math.sqrt(42)
    along = [-2 * size, -size, 0, size, 2 * size]
    assert found.coordinates[:, 0].tolist() == pytest.approx(along, abs=1e-9)


def test_phases_are_those_of_each_checkpoint(run):
    found = gi.geometry.weight_plane({"one": run, "half": halved(run)}, step=run.steps)
    table = found.table()
    phases = gi.detect_phases(run.metrics).phases
    known = table[(table.run == "one") & table.phase.notna()]
    ends = {phase.name: (phase.start, phase.end) for phase in phases}
    assert all(ends[row.phase][0] <= row.step <= ends[row.phase][1] for row in known.itertuples())
    assert set(known.phase) == set(ends)
    assert set(table.step[table.phase.isna() & (table.run == "one")]) == {
        step for step in run.steps if step > phases[-1].end
    }
    assert "neurons are not matched" in found.notes[0]


def halved(run):
    """Its checkpoints with all weights halved, and its log."""
    checkpoints = {
        step: {name: weight / 2 for name, weight in run.weights(step).items()} for step in run.steps
    }
    rows = run.train_indices
    return made_run(run.task, run.architecture, checkpoints, train=rows, metrics=run.metrics)


def test_what_has_no_plane_is_said(run):
    still = path_of(torch.ones(3, 42, dtype=torch.float64))
    found = gi.geometry.weight_plane(still)
    assert found.shares == ()
    assert math.isnan(found.share)
    assert "no components: the weights do not move" in found.notes
    assert "do not move" in found.plot().layout.annotations[0].text
    with pytest.raises(gi.InputError, match="other names or shapes than those of mod31-small"):
        gi.geometry.weight_plane(["mod31-small", "mod113-steady"])
    with pytest.raises(gi.InputError, match="one checkpoint is no path"):
        gi.geometry.weight_plane(run, 10_000)
    with pytest.raises(gi.InputError, match="not finite"):
        gi.geometry.weight_plane(path_of(torch.full((2, 42), torch.nan)))


def test_the_shipped_run_turns_in_its_plane():
    """More of it lies in the plane than of a walk, by its second component."""
    found = gi.geometry.weight_plane("mod113-grokked")
    assert found.shares[:2] == pytest.approx((0.578, 0.274), abs=2e-3)
    assert found.walk_shares[:2] == pytest.approx((0.538, 0.189), abs=2e-3)
    assert "in the plane (random walks" in str(found)
    assert found.components(2).share.tolist() == list(found.shares[:2])


def test_the_figure_and_the_measure(run):
    drawn = gi.geometry.weight_plane({"one": run, "half": halved(run)}).plot()
    lines = [line.name for line in drawn.data if line.mode == "lines"]
    assert lines == ["one", "half"]
    symbols = [symbol for line in drawn.data[2:] for symbol in line.marker.symbol]
    assert symbols.count("diamond") == symbols.count("circle-open") == 2
    row = measured(run, ["weight_plane"])
    assert row["plane_share"] == pytest.approx(0.916, abs=1e-3)
    assert row["plane_share_of_walk"] == pytest.approx(0.80, abs=0.01)
