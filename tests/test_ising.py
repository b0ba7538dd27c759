"""The Ising task: exact observables, the pool, its split and what is refused."""

import json
import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp.base.errors import InputError
from grokinterp.tasks import IsingTask
from grokinterp.tasks.ising import critical_temperature, energies, glauber, magnetizations
from tests.torus import torus_energy

SMALL = {
    "lattice": 4, "n_train": 20, "n_test": 30, "n_temperatures": 5, "n_repeats": 12, "sweeps": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def paper():
    """The setting of the paper."""
    return IsingTask()


def lattice_of(rule, side):
    return torch.tensor([[[rule(i, j) for j in range(side)] for i in range(side)]]).to(torch.int8)


@pytest.mark.parametrize("side", [3, 4, 5, 16, 17])
def test_known_configurations_have_their_exact_energies(side):
    """E counts 2 L**2 pairs: one flipped spin costs 8, an odd side leaves rows unsatisfied."""
    pairs, odd = 2 * side**2, side % 2
    down = lattice_of(lambda i, j: -1, side)
    flipped = lattice_of(lambda i, j: -1 if (i, j) == (1, 2) else 1, side)
    board = lattice_of(lambda i, j: (-1) ** (i + j), side)
    stripe = lattice_of(lambda i, j: 1 if i == 0 else -1, side)
    assert energies(-down).tolist() == energies(down).tolist() == [-1.0]
    assert energies(flipped).tolist() == pytest.approx([(8 - pairs) / pairs], abs=1e-15)
    assert energies(board).tolist() == pytest.approx([1 - odd * 2 / side], abs=1e-15)
    assert energies(stripe).tolist() == pytest.approx([(4 * side - pairs) / pairs], abs=1e-15)
    assert (magnetizations(-down).tolist(), magnetizations(down).tolist()) == ([1.0], [-1.0])
    assert magnetizations(flipped).tolist() == [1 - 2 / side**2]
    assert magnetizations(board).tolist() == [odd / side**2]
    assert magnetizations(stripe).tolist() == pytest.approx([2 / side - 1], abs=1e-15)


@pytest.mark.parametrize("side", [3, 4, 6])
def test_observables_are_the_sums_over_pairs_and_sites(side):
    generator = torch.Generator().manual_seed(0)
    spins = (2 * torch.randint(2, (20, side, side), generator=generator) - 1).to(torch.int8)
    energy, magnetization = energies(spins), magnetizations(spins)
    assert energy.dtype == magnetization.dtype == torch.float64
    for n, s in enumerate(spins.tolist()):
        pairs = total = 0
        for i in range(side):
            for j in range(side):
                total += s[i][j]
                pairs += s[i][j] * (s[(i + 1) % side][j] + s[i][(j + 1) % side])
        assert energy[n] == pytest.approx(-pairs / (2 * side**2), abs=1e-15)
        assert magnetization[n] == pytest.approx(total / side**2, abs=1e-15)


def test_the_critical_temperature_solves_onsagers_condition():
    assert math.sinh(2 / critical_temperature()) == pytest.approx(1, abs=1e-15)


def test_the_setting_of_the_paper(paper):
    assert paper.n_inputs == 1300
    assert paper.configurations.shape == (1300, 16, 16)
    assert paper.configurations.dtype == torch.int8
    assert paper.model_inputs.shape == (1300, 1, 16, 16)
    assert paper.model_inputs.dtype == torch.float32
    assert torch.equal(paper.model_inputs[:, 0], paper.configurations.float())
    assert paper.train_indices.tolist() == list(range(1000, 1300))
    assert paper.pool_rows.unique().numel() == 1300
    assert int(paper.pool_rows.min()) >= 0
    assert int(paper.pool_rows.max()) < 50_000
    assert paper.n_classes == 2
    assert paper.labels.dtype == torch.int64
    share = float(paper.labels.double().mean())
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(1300)
    assert torch.equal(paper.labels == 1, paper.temperatures < critical_temperature())
    grid = critical_temperature() + np.linspace(-1, 1, 50)
    expected = grid[paper.pool_rows.numpy() // 1000]
    np.testing.assert_allclose(paper.temperatures.numpy(), expected, rtol=1e-15)
    assert (paper.answer_group, paper.commutative) == (None, False)
    assert "group" in paper.no_group_reason


def test_domain_walls_survive_in_the_cold_so_energy_tells_the_phases_better(paper):
    """In equilibrium |M| < 0.5 is practically impossible at T < 1.6; walls raise the energy."""
    cold = paper.temperatures < 1.6
    walls = cold & (paper.magnetization.abs() < 0.5)
    assert 10 < int(walls.sum()) < int(cold.sum()) / 2
    assert paper.energy[walls].mean() > paper.energy[cold & ~walls].mean() + 0.1
    assert torch.equal(paper.energy, energies(paper.configurations))
    assert torch.equal(paper.magnetization, magnetizations(paper.configurations))

    def best_accuracies(task):
        scores = (-task.energy, task.magnetization.abs())
        right = [(s[:, None] >= s.unique()).long() == task.labels[:, None] for s in scores]
        return [float(r.double().mean(0).max()) for r in right]

    by_energy, by_size = best_accuracies(paper)
    assert by_size < by_energy < 0.97
    short_by_energy, short_by_size = best_accuracies(IsingTask(sweeps=100))
    assert short_by_size + 0.05 < short_by_energy < by_energy  # more walls are left


def test_hot_rows_of_the_paper_have_the_exact_mean_energy(paper):
    hot = paper.temperatures > 2.8
    exact = {t: torus_energy(16, t) / 2 for t in paper.temperatures[hot].unique().tolist()}
    rest = paper.energy[hot] - torch.tensor([exact[t] for t in paper.temperatures[hot].tolist()])
    assert abs(float(rest.mean())) < 4 * float(rest.std()) / math.sqrt(len(rest))


def test_a_task_holds_rows_of_the_full_pool_bit_for_bit():
    task = IsingTask(**SMALL, seed=3, pool_seed=8)
    rows = torch.arange(60)
    grid = torch.linspace(-1, 1, 5, dtype=torch.float64) + critical_temperature()
    pool = glauber(grid[rows // 12], rows, lattice=4, sweeps=3, seed=8)
    assert torch.equal(task.configurations, pool[task.pool_rows])
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    assert torch.equal(task.pool_rows, order[:50])


def test_the_data_seed_only_permutes_and_the_pool_seed_generates():
    everything = {**SMALL, "n_test": 40}
    one, other = (IsingTask(**everything, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.configurations, other.configurations)
    for name in ("configurations", "temperatures", "labels", "energy"):
        sorted_rows = (getattr(t, name)[t.pool_rows.argsort()] for t in (one, other))
        assert torch.equal(*sorted_rows), name
    again = IsingTask(**everything, pool_seed=1)
    assert torch.equal(again.pool_rows, one.pool_rows)
    assert torch.equal(again.labels, one.labels)
    assert not torch.equal(again.configurations, one.configurations)


def test_equal_tasks_are_generated_once():
    one, same = IsingTask(**SMALL), IsingTask(**SMALL, half_width=1)
    assert one == same
    assert one.configurations is same.configurations
    assert IsingTask(**SMALL, half_width=0.5).configurations is not one.configurations


def test_the_critical_temperature_itself_is_disordered():
    task = IsingTask(**SMALL, half_width=0.7)
    middle = task.pool_rows // 12 == 2
    assert set(task.temperatures[middle].tolist()) == {critical_temperature()}
    assert task.labels.tolist() == (task.pool_rows // 12 < 2).long().tolist()
    ends = {float(task.temperatures.min()), float(task.temperatures.max())}
    assert ends == {critical_temperature() - 0.7, critical_temperature() + 0.7}


def test_a_task_is_what_its_dictionary_says():
    fields = {**SMALL, "half_width": 2.0, "seed": 5, "pool_seed": 2**63 - 1}
    task = IsingTask(**fields)
    given = json.loads(json.dumps(task.to_dict()))
    assert given.pop("task") == "ising"
    assert given == fields
    assert IsingTask(**given) == task
    same = unchecked(**{**fields, "n_train": np.int64(20), "half_width": 2})
    assert json.dumps(same.to_dict()) == json.dumps(task.to_dict())


def unchecked(**fields):
    """A task of fields of any type, past the type checks that only tests have."""
    task = object.__new__(IsingTask)
    for name, value in {**asdict(IsingTask(**SMALL)), **fields}.items():
        object.__setattr__(task, name, value)
    task.__post_init__()
    return task


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lattice": 2}, "lattice=2 is not a whole number from 3 to 64; give such as 16."),
        ({"lattice": 65}, "lattice=65"),
        ({"lattice": 4.0}, "lattice=4.0"),
        ({"lattice": "16"}, "lattice='16'"),
        ({"n_train": 0}, "n_train=0"),
        ({"n_train": True}, "n_train=True"),
        ({"n_train": 31}, "n_train + n_test = 61 rows do not fit into a pool of 60"),
        ({"n_test": 0}, "n_test=0"),
        ({"n_temperatures": 1}, "n_temperatures=1"),
        ({"n_temperatures": 10**9}, "n_temperatures=1000000000"),
        ({"n_repeats": 0}, "n_repeats=0"),
        ({"n_repeats": 10**5}, "n_repeats=100000"),
        ({"sweeps": -1}, "sweeps=-1"),
        ({"sweeps": 10**6}, "sweeps=1000000"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": None}, "seed=None"),
        ({"pool_seed": 2**63}, "pool_seed=9223372036854775808"),
        ({"half_width": 0}, "half_width=0"),
        ({"half_width": 2.27}, "half_width=2.27"),
        ({"half_width": math.nan}, "half_width=nan"),
        ({"half_width": math.inf}, "half_width=inf"),
        ({"half_width": True}, "half_width=True"),
        ({"half_width": "1"}, "half_width='1'"),
        (
            {"lattice": 64, "n_test": 30_000, "n_repeats": 10_000},
            "30020 lattices of side 64 are too many; give at most 24414 rows.",
        ),
    ],
)
def test_what_is_no_task_is_refused(change, message):
    with pytest.raises(InputError) as refused:
        unchecked(**change)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("observable", [energies, magnetizations])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2, 4, 4), "configurations hold something else than spins"),
        (torch.full((2, 4, 4), -128), "configurations hold something else than spins"),
        (torch.ones(1, 2, 2), r"configurations of shape \(1, 2, 2\) are no square lattices"),
    ],
)
def test_what_is_no_configuration_is_refused(observable, given, message):
    with pytest.raises(InputError, match=message):
        observable(given.to(torch.int8))


def test_the_ceiling_is_the_best_threshold_on_the_energy():
    task = IsingTask(lattice=6, n_train=30, n_test=200, n_repeats=20, sweeps=20)
    energy, labels = task.energy[:200], task.labels[:200]
    cuts = [-2.0, *energy.unique().tolist()]
    best = max(float(((energy <= cut).long() == labels).double().mean()) for cut in cuts)
    assert task.ceiling == pytest.approx(best, abs=1e-12)
    assert 0.5 < task.ceiling < 1


def test_a_label_is_judged_by_what_the_task_allows():
    steps = list(range(0, 1000, 10))
    train = [0.5 if s < 50 else 1.0 for s in steps]
    test = [0.5 if s < 500 else 0.92 for s in steps]
    frame = pd.DataFrame({"step": steps, "train_acc": train, "test_acc": test})
    assert gi.detect_phases(frame).label == "undetermined"
    found = gi.detect_phases(frame, ceiling=0.93)
    assert found.label == "grokked"
    assert found.grok_step is None
    assert any("at best" in reason for reason in found.reasons)
    with pytest.raises(InputError, match="ceiling=2"):
        gi.detect_phases(frame, ceiling=2)
