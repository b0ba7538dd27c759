"""Embeddings: flat figures come back, and what a curved one loses is told."""

import math

import pytest
import torch

import grokinterp as gi
from grokinterp.base.errors import InputError
from grokinterp.geometry.paths import information_path
from grokinterp.geometry.predictions import (
    classical_scaling,
    pairwise_distances,
    root_probabilities,
    stress_of,
    trajectory_embedding,
)
from tests.made_runs import changed, made_run
from tests.test_neurons import random_model


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_flat_figure_comes_back():
    points = draw(9, 2) * torch.tensor([3.0, 1.0])
    distances = (points[:, None] - points).norm(dim=2)
    found, eigenvalues = classical_scaling(distances, dimensions=2)
    torch.testing.assert_close(
        (found[:, None] - found).norm(dim=2), distances, rtol=1e-12, atol=1e-13
    )
    centred = points - points.mean(dim=0)
    torch.testing.assert_close(eigenvalues[:2], torch.linalg.svdvals(centred).square())
    assert float(eigenvalues[2:].abs().max()) < 1e-12
    assert stress_of(distances, found, eigenvalues[:2].sign()) < 1e-13
    for axis in found.T:
        assert axis[axis.abs().argmax()] > 0
    one, _ = classical_scaling(distances, dimensions=1)
    torch.testing.assert_close(one, found[:, :1])
    squares = (one - one.T).abs()
    expected = (distances - squares).norm() / distances.norm()
    assert stress_of(distances, one, torch.ones(1)) == pytest.approx(float(expected))


def test_axes_that_count_backwards():
    """Around a circle by arc lengths the picture needs them; all axes together are exact."""
    angles = torch.arange(6).double() * math.pi / 3
    apart = (angles[:, None] - angles).abs()
    distances = torch.minimum(apart, 2 * math.pi - apart)
    every, eigenvalues = classical_scaling(distances, dimensions=6)
    assert eigenvalues.min() < -0.1
    assert (eigenvalues.abs().diff() <= 1e-12).all()
    assert stress_of(distances, every, eigenvalues.sign()) < 1e-7  # 0 is the root of a rounding
    squares = (every[:, None] - every).square() @ eigenvalues.sign()
    torch.testing.assert_close(squares, distances.square(), rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    recipe = gi.Recipe(
        model="mlp", p=7, d_mlp=16, train_fraction=0.6, steps=30, checkpoints="every:10", lr=1e-2
    )
    return [
        gi.train(recipe.replace(seed=seed, data_seed=data), folder / f"seed {seed}")
        for seed, data in ((0, 0), (1, 0), (2, 1))
    ]


def test_runs_are_placed_by_their_geodesic_distances(runs):
    found = trajectory_embedding(runs, dimensions=12)
    table = found.table()
    assert table["run"].tolist() == ["seed 0"] * 4 + ["seed 1"] * 4 + ["seed 2"] * 4
    assert table["step"].tolist() == [0, 10, 20, 30] * 3
    assert list(table.columns[2:]) == [f"x{axis}" for axis in range(1, 13)]
    roots = [root_probabilities(run.snapshot(step).logits) for run in runs for step in run.steps]
    expected = pairwise_distances(torch.stack(roots))
    points = torch.tensor(table.iloc[:, 2:].to_numpy())
    squares = (points[:, None] - points).square() @ found.eigenvalues.sign()
    torch.testing.assert_close(squares, expected.square(), rtol=1e-4, atol=1e-6)
    assert sum(found.explained) == pytest.approx(1)
    assert (found.n_samples, found.n_rows, found.rows) == (49, 49, "all")

    few = trajectory_embedding(runs)
    assert len(few.explained) == 3
    assert few.explained == found.explained[:3]
    torch.testing.assert_close(few.coordinates, found.coordinates[:, :3])
    assert found.stress < few.stress < 0.5
    assert few.table().attrs == {
        "explained": list(few.explained), "eigenvalues": few.eigenvalues[:3].tolist(),
        "stress": few.stress, "rows": "all", "n_samples": 49, "n_rows": 49, "seed": 0,
    }  # fmt: skip


def test_names_steps_and_rows_are_those_asked_for(runs):
    found = trajectory_embedding(
        {"a": runs[1], "b": runs[0]}, steps=[0, 20], rows="test", n_samples=5, seed=3, dimensions=2
    )
    assert found.runs == ("a", "a", "b", "b")
    assert found.steps == (0, 20, 0, 20)
    assert (found.n_samples, found.n_rows, found.seed) == (5, 20, 3)
    path = information_path(runs[1], steps=[0, 20], n_samples=5, seed=3)
    alone = trajectory_embedding(
        [runs[1]], steps=[0, 20], rows="test", n_samples=5, seed=3, dimensions=1
    )
    one, other = alone.coordinates.flatten().tolist()
    assert abs(one - other) == pytest.approx(path.geodesic, rel=1e-12)
    assert alone.explained == (pytest.approx(1),)
    assert alone.stress < 1e-12


def test_long_runs_are_thinned_with_both_ends(runs):
    weights = runs[0].weights(0)
    steps = [0, 1, 2, 3, 5, 8, 13, 21, 34]
    run = made_run(
        runs[0].task, runs[0].architecture,
        {s: {n: w * (1 + s) for n, w in weights.items()} for s in steps},
    )  # fmt: skip
    assert trajectory_embedding([run], most=3).steps == (0, 5, 34)
    assert trajectory_embedding([run], most=4).steps == (0, 3, 8, 34)  # places 2.67 and 5.33
    assert trajectory_embedding([run], most=9).steps == tuple(steps)


def test_points_that_fall_together():
    weights, shape, task = random_model(1, 5)
    run = made_run(task, shape, {0: weights, 1: weights})
    found = trajectory_embedding([run], dimensions=2)
    assert found.coordinates.tolist() == [[0, 0], [0, 0]]
    assert (found.explained, found.stress) == ((0.0, 0.0), 0.0)


def test_runs_that_do_not_compare_are_refused(runs):
    with pytest.raises(InputError, match="'seed 2' has another split"):
        trajectory_embedding(runs, rows="test")
    unsplit = made_run(runs[0].task, runs[0].architecture, {0: runs[0].weights(0)})
    with pytest.raises(InputError, match="'made' has another split than the first run, or none"):
        trajectory_embedding([runs[0], unsplit], rows="train")
    with pytest.raises(InputError, match="needs the split"):
        trajectory_embedding([unsplit, runs[0]], rows="train")
    weights, shape, _ = random_model(1, 7)
    other = made_run(gi.ModularTask("subtract", 7), shape, {0: weights})
    with pytest.raises(
        InputError, match="'made' learned subtract mod 7 on other inputs or answers"
    ):
        trajectory_embedding([runs[0], other])
    same = made_run(gi.ModularTask("add", 7), shape, {0: weights})  # reads "=" as well
    assert trajectory_embedding([runs[0], same]).runs[-1] == "made"
    ising = made_run(gi.IsingTask(lattice=8, n_train=2, n_test=2), shape, {0: weights})
    with pytest.raises(InputError, match="other inputs"):
        trajectory_embedding([runs[0], ising])
    twin = made_run(
        gi.IsingTask(lattice=8, n_train=2, n_test=2, seed=1), shape, {0: weights}, name="twin"
    )
    with pytest.raises(InputError, match=r"'twin' .* \(of Ising, with one seed\)"):
        trajectory_embedding([ising, twin])


def test_what_cannot_be_used_is_refused(runs):
    with pytest.raises(InputError, match="one name; give a dict"):
        trajectory_embedding([runs[0], runs[0]])
    with pytest.raises(InputError, match="is no run"):
        trajectory_embedding([])
    for most in (1, True):
        with pytest.raises(InputError, match="most="):
            trajectory_embedding(runs, most=most)
    for dimensions in (0, 13):
        with pytest.raises(InputError, match="from 1 to 12"):
            trajectory_embedding(runs, dimensions=dimensions)
    broken = changed(runs[0], lambda w: {n: part * math.nan for n, part in w.items()})
    with pytest.raises(InputError, match="step 0 are not finite"):
        trajectory_embedding([broken])
