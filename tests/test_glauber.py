"""Dynamics against scalar Python, exact Boltzmann sums and the exact 16 x 16 torus."""

import itertools
import math
from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from grokinterp.base.errors import InputError
from grokinterp.tasks import ising as dynamics
from grokinterp.tasks.ising import (
    critical_temperature,
    energies,
    flip_thresholds,
    glauber,
    magnetizations,
    neighbours,
    random_draws,
    streams,
)
from tests.torus import torus_energy

WORD = 2**64 - 1


def mixed(z):
    """The mixing function of splitmix64 on one Python integer."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def drawn(key, number):
    return mixed(key + (number + 1) * 0x9E3779B97F4A7C15 & WORD)


def one_chain(temperature, row, lattice, sweeps, seed):
    """The documented dynamics, one spin at a time."""
    key = drawn(mixed(seed), row)
    n = lattice**2
    spins = [[0] * lattice for _ in range(lattice)]
    for site in range(n):
        spins[site // lattice][site % lattice] = 1 if drawn(key, site) >> 63 else -1
    for update in range(n * sweeps):
        bits = drawn(key, n + update)
        i, j = divmod((bits >> 32) * n >> 32, lattice)
        around = sum(
            spins[(i + di) % lattice][(j + dj) % lattice]
            for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0))
        )
        flip = 1 / (1 + math.exp(2 * spins[i][j] * around / temperature))
        if bits % 2**32 < round(flip * 2**32):
            spins[i][j] *= -1
    return spins


@pytest.mark.parametrize("lattice", [3, 4, 5])
def test_every_chain_is_the_scalar_dynamics_bit_for_bit(lattice):
    temperatures, rows = [1.3, 2.3, 3.2, 50.0], [0, 1, 49_999, 2**40]
    found = glauber(
        torch.tensor(temperatures), torch.tensor(rows), lattice=lattice, sweeps=7, seed=12
    )
    assert found.dtype == torch.int8
    for t, row, spins in zip(torch.tensor(temperatures).tolist(), rows, found, strict=True):
        assert spins.tolist() == one_chain(t, row, lattice, 7, 12)


def test_a_chain_does_not_depend_on_its_company_or_on_the_blocks(monkeypatch):
    n = dynamics.CHAINS + 3
    temperatures, rows = torch.linspace(1, 4, n).double(), torch.arange(n)
    setting = {"lattice": 5, "sweeps": 3, "seed": 4}
    everything = glauber(temperatures, rows, **setting)
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:50]
    assert torch.equal(glauber(temperatures[chosen], rows[chosen], **setting), everything[chosen])
    monkeypatch.setattr(dynamics, "CHAINS", 7)
    monkeypatch.setattr(dynamics, "DRAWS", 4)
    assert torch.equal(glauber(temperatures[chosen], rows[chosen], **setting), everything[chosen])


def test_no_chains_and_no_sweeps():
    none = glauber(torch.zeros(0), torch.zeros(0).long(), lattice=3, sweeps=5, seed=0)
    assert none.shape == (0, 3, 3)
    n = 4000
    start = glauber(torch.ones(n), torch.arange(n), lattice=8, sweeps=0, seed=0).double()
    assert abs(start.sum()) < 4 * math.sqrt(n * 64)
    assert start.sum(0).abs().max() < 4 * math.sqrt(n)  # no site is biased
    assert abs(energies(start.to(torch.int8)).mean()) < 4 / math.sqrt(n * 128)


def test_seeds_and_rows_make_different_chains():
    def spins(row, seed):
        t, rows = torch.tensor([2.0]), torch.tensor([row])
        return glauber(t, rows, lattice=8, sweeps=2, seed=seed).flatten().tolist()

    chains = {tuple(spins(row, seed)) for row in range(4) for seed in (0, 1, 2, 2**63 - 1)}
    assert len(chains) == 16


def test_arguments_and_global_random_states_are_left_alone():
    temperatures, rows = torch.tensor([1.5, 2.5]), torch.tensor([3, 1])
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    glauber(temperatures, rows, lattice=3, sweeps=2, seed=0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert (temperatures.tolist(), rows.tolist()) == ([1.5, 2.5], [3, 1])


def test_thresholds_are_the_flip_probabilities():
    found = flip_thresholds(torch.tensor([2.0, 1e-300], dtype=torch.float64))
    for up, spin in itertools.product(range(5), (-1, 1)):
        change = 2 * spin * (2 * up - 4)
        code = 2 * up + (spin == 1)
        assert found[0, code] == round(2**32 / (1 + math.exp(change / 2.0)))
        assert found[1, code] == (0 if change > 0 else 2**31 if change == 0 else 2**32)
    assert (found[0, 0::2] + found[0, 1::2] == 2**32).all()  # there and back


def test_neighbours_are_mutual_and_at_distance_one():
    for lattice in (3, 4, 7):
        near = neighbours(lattice)
        for site, around in enumerate(near.tolist()):
            assert len({site, *around}) == 5
            for other in around:
                assert site in near[other]
                steps = [
                    min((a - b) % lattice, (b - a) % lattice)
                    for a, b in zip(divmod(site, lattice), divmod(other, lattice), strict=True)
                ]
                assert sorted(steps) == [0, 1]


# The random numbers


def test_draws_are_the_published_generator():
    """First numbers of splitmix64 from state 1234567, as its reference implementation has them."""
    found = random_draws(np.array([1234567], dtype=np.uint64), np.arange(5))[:, 0].tolist()
    assert found == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.fixture(scope="module")
def numbers():
    """200 rows of 1000 consecutive random_draws each, [number, row]."""
    return random_draws(streams(torch.arange(200), seed=0), np.arange(1000))


def test_draws_are_evenly_spread_and_site_and_flip_independent(numbers):
    site = (numbers >> np.uint64(60)).astype(int).ravel()
    flip = (numbers >> np.uint64(28) & np.uint64(15)).astype(int).ravel()
    joint = np.bincount(16 * site + flip, minlength=256)
    assert stats.chisquare(joint).pvalue > 1e-3
    for one in (site, flip):
        assert stats.chisquare(np.bincount(one, minlength=16)).pvalue > 1e-3
    ones = [int((numbers >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(64)]
    assert max(abs(n - numbers.size / 2) for n in ones) < 4.5 * math.sqrt(numbers.size / 4)


@pytest.mark.parametrize("axis", [0, 1], ids=["consecutive updates", "neighbouring rows"])
@pytest.mark.parametrize("lag", [1, 2, 16])
def test_draws_are_uncorrelated(numbers, axis, lag):
    halves = numbers >> np.uint64(32), numbers & np.uint64(2**32 - 1)
    early, late = slice(None, -lag), slice(lag, None)
    if axis == 1:
        early, late = (slice(None), early), (slice(None), late)
    for a, b in itertools.product(halves, repeat=2):
        x, y = (v.astype(float).ravel() for v in (a[early], b[late]))
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / math.sqrt(len(x))


def test_the_next_row_seed_or_update_changes_half_of_the_bits():
    rows, number = torch.arange(2000), np.array([5])
    base = random_draws(streams(rows, seed=8), number)
    others = {
        "row": random_draws(streams(rows + 1, seed=8), number),
        "seed": random_draws(streams(rows, seed=9), number),
        "update": random_draws(streams(rows, seed=8), number + 1),
    }
    for name, other in others.items():
        changed = np.bitwise_count(base ^ other).astype(float)
        assert abs(changed.mean() - 32) < 4 * math.sqrt(16 / 2000), name
        assert abs(changed.var() - 16) < 4 * 16 * math.sqrt(2 / 2000), name


# Equilibrium


@cache
def states(lattice):
    """All configurations with their energies, by the definition over pairs."""
    bits = np.arange(2**lattice**2)[:, None] >> np.arange(lattice**2) & 1
    spins = (2 * bits - 1).reshape(-1, lattice, lattice)
    energy = sum(
        -spins[:, i, j] * (spins[:, (i + 1) % lattice, j] + spins[:, i, (j + 1) % lattice])
        for i in range(lattice)
        for j in range(lattice)
    )
    return spins, energy


def boltzmann(lattice, temperature):
    weight = np.exp(-(states(lattice)[1] + 2 * lattice**2) / temperature)
    return weight / weight.sum()


def equilibrium(lattice, temperatures, n, sweeps, seed=0):
    """`n` independent chains at each temperature, [temperature, chain, lattice, lattice]."""
    t = torch.tensor(temperatures, dtype=torch.float64).repeat_interleave(n)
    spins = glauber(t, torch.arange(len(t)), lattice=lattice, sweeps=sweeps, seed=seed)
    return spins.view(len(temperatures), n, lattice, lattice)


@pytest.mark.parametrize("temperature", [1.3, 2.269185, 3.5])
def test_the_acceptance_rule_keeps_the_boltzmann_distribution(temperature):
    """Detailed balance of every pair of states of the 3 x 3 lattice, and of the full matrix."""
    spins, _ = states(3)
    code = np.arange(512)
    probability = boltzmann(3, temperature)
    table = flip_thresholds(torch.tensor([temperature], dtype=torch.float64))[0] / 2**32
    step = np.zeros((512, 512))
    near = neighbours(3)
    flat = spins.reshape(512, 9)
    for site in range(9):
        up = (flat[:, near[site]] == 1).sum(1)
        step[code, code ^ (1 << site)] = table[2 * up + (flat[:, site] == 1)] / 9
    step[code, code] = 1 - step.sum(1)
    flow = probability[:, None] * step
    np.testing.assert_allclose(flow, flow.T, rtol=1e-6)  # probabilities are multiples of 2**-32
    np.testing.assert_allclose(probability @ step, probability, rtol=1e-6)


def test_all_512_states_of_the_small_lattice_are_visited_as_boltzmann_says():
    found = equilibrium(3, [3.0, 6.0], 20_000, 40)
    for t, spins in zip([3.0, 6.0], found, strict=True):
        code = ((spins.flatten(1).long() + 1) // 2) @ (1 << torch.arange(9))
        counts = torch.bincount(code, minlength=512).numpy()
        assert stats.chisquare(counts, 20_000 * boltzmann(3, t)).pvalue > 1e-3


def test_energy_and_magnetization_of_many_chains_against_all_65536_states():
    temperatures, n = [1.6, 2.269185, 3.5], 4000
    spins, energy = states(4)
    found = equilibrium(4, temperatures, n, 300)
    for t, sample in zip(temperatures, found, strict=True):
        probability = boltzmann(4, t)
        exact = {
            "energy": (energies(sample), probability @ energy / 32),
            "energy squared": (energies(sample) ** 2, probability @ energy**2 / 32**2),
            "|M|": (magnetizations(sample).abs(), probability @ abs(spins.mean((1, 2)))),
            "M": (magnetizations(sample), 0.0),
        }
        for name, (values, expected) in exact.items():
            sigma = float(values.std()) / math.sqrt(n)
            assert abs(float(values.mean()) - expected) < 4 * sigma, (t, name)
            assert sigma < 0.02


@pytest.mark.parametrize("lattice", [3, 4])
@pytest.mark.parametrize("temperature", [1.5, 2.269185, 3.5])
def test_the_exact_torus_is_the_sum_over_all_states(lattice, temperature):
    expected = boltzmann(lattice, temperature) @ states(lattice)[1] / lattice**2
    assert torus_energy(lattice, temperature) == pytest.approx(expected, rel=1e-12)


def test_the_critical_torus_approaches_onsagers_energy():
    """-sqrt(2) - a / L at Tc with a = 2 t2 t3 t4 / (t2 + t3 + t4), theta constants at e**-pi.

    Ferdinand and Fisher 1969, Phys. Rev. 185, 832; the next correction is of order 1 / L**3.
    """
    theta = [float(mpmath.jtheta(k, 0, mpmath.exp(-mpmath.pi))) for k in (2, 3, 4)]
    amplitude = 2 * math.prod(theta) / sum(theta)
    for lattice in (8, 16, 32):
        rest = torus_energy(lattice, critical_temperature()) + math.sqrt(2) + amplitude / lattice
        assert abs(rest) < 0.25 / lattice**3


@pytest.mark.parametrize(
    ("temperature", "sweeps"),
    [pytest.param(critical_temperature(), 400, marks=pytest.mark.slow), (3.0, 60)],
)
def test_long_chains_have_the_exact_energy_of_the_torus(temperature, sweeps):
    """L = 16; at Tc, -sqrt(2) of the infinite lattice is more than five deviations away."""
    n = 600
    energy = 2 * energies(equilibrium(16, [temperature], n, sweeps, seed=1)[0])
    sigma = float(energy.std()) / math.sqrt(n)
    assert abs(float(energy.mean()) - torus_energy(16, temperature)) < 4 * sigma
    assert abs(float(energy.mean()) + math.sqrt(2)) > 5 * sigma


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lattice": 2}, "lattice=2 is not a whole number from 3 to 64; give such as 16."),
        ({"lattice": 65}, "lattice=65"),
        ({"sweeps": -1}, "sweeps=-1"),
        ({"sweeps": 10**9}, "sweeps=1000000000"),
        ({"sweeps": True}, "sweeps=True"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
        ({"temperatures": torch.tensor([1.0, 0.0])}, "temperatures contain one that is not posit"),
        ({"temperatures": torch.tensor([1.0, -2.0])}, "temperatures contain one"),
        ({"temperatures": torch.tensor([1.0, math.nan])}, "temperatures contain one"),
        ({"temperatures": torch.tensor([1.0, math.inf])}, "temperatures contain one"),
        ({"rows": torch.tensor([0, -1])}, "2 rows do not name a stream for each of 2 temperatures"),
    ],
)
def test_what_cannot_be_simulated_is_refused(change, message):
    given = {"temperatures": torch.ones(2), "rows": torch.arange(2), "lattice": 3, "sweeps": 1}
    with pytest.raises(InputError) as refused:
        glauber(**{**given, "seed": 0, **change})
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
