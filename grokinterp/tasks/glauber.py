"""Single-spin-flip dynamics of the two-dimensional Ising model, one random stream per chain.

An update draws one 64-bit number: its upper half is the site, its lower half decides about the
flip. The number is a hash of (seed, row, number of the draw), so a configuration is a function of
its seed, row, temperature, lattice and sweeps alone: which other rows are asked for, and in which
order, changes no bit of it. All comparisons are between integers.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, UInt64
from scipy.special import expit
from torch import Tensor

from grokinterp.errors import InputError, shown, whole_number

DYNAMICS_LIMITS = {  # lowest and highest; above them, a number is a mistake that eats hours or memory
    "lattice": (3, 64),  # on a smaller torus the four neighbours of a site are not four sites
    "sweeps": (0, 100_000),
    "seed": (0, 2**63 - 1),
}

GAMMA = 0x9E3779B97F4A7C15
CHAINS = 2048  # chains that run side by side: their spins, 0.5 MB at L = 16, stay in the cache
DRAWS = 16  # random numbers made at once for each of them
HALF = np.uint64(32)
LOWER = np.uint64(2**32 - 1)
N_CODES = 10  # of a site: 2 * (its neighbours that are up, 0..4) + (1 if it is up itself)


def glauber(
    temperatures: Float[Tensor, " n"],
    rows: Int[Tensor, " n"],
    *,
    lattice: int,
    sweeps: int,
    seed: int,
) -> Int8[Tensor, "n lattice lattice"]:
    """Spins of +-1 after `sweeps` sweeps of Glauber dynamics from a uniformly random start.

    A sweep is lattice**2 updates. An update takes a uniformly random site and flips it with
    probability 1 / (1 + exp(dE / T)), dE = 2 s_i sum_j s_j over its four neighbours on the torus
    (J = k_B = 1), rounded to a multiple of 2**-32 (Glauber 1963, J. Math. Phys. 4, 294; the
    generation of Manning-Coe et al. 2025, arXiv 2502.01739, section 2.1, which does not state the
    number of sweeps). `rows` name the random streams: chain i depends only on `temperatures[i]`,
    `rows[i]` and the keyword arguments, and after s sweeps it is where a longer one was then.

    What it does not show: equilibrium. Few sweeps from a random start leave domain walls below
    the critical temperature that last far longer than equilibrium fluctuations do.

    Raises InputError for temperatures that are not positive, for rows that are negative or not as
    many, and for numbers that are not whole or outside `DYNAMICS_LIMITS`.

    >>> T, rows = torch.tensor([1.5, 3.0]).double(), torch.tensor([0, 7])
    >>> both = glauber(T, rows, lattice=4, sweeps=10, seed=0)
    >>> one = glauber(T[1:], rows[1:], lattice=4, sweeps=10, seed=0)
    >>> both.shape, torch.equal(both[1:], one)
    (torch.Size([2, 4, 4]), True)
    """
    lattice, sweeps, seed = (
        whole(name, x, *DYNAMICS_LIMITS[name])
        for name, x in (("lattice", lattice), ("sweeps", sweeps), ("seed", seed))
    )
    if len(rows) != len(temperatures) or (len(rows) and int(rows.min()) < 0):
        raise InputError(
            f"{len(rows)} rows do not name a stream for each of {len(temperatures)} temperatures; "
            "give as many rows, none below 0."
        )
    thresholds = flip_thresholds(temperatures)
    key = streams(rows, seed=seed)
    spins = np.empty((len(key), lattice, lattice), dtype=np.int8)
    for start in range(0, len(key), CHAINS):
        part = slice(start, start + CHAINS)
        spins[part] = _evolve(key[part], thresholds[part], lattice, sweeps)
    return torch.from_numpy(spins)


def whole(name: str, x: object, lowest: int, highest: int) -> int:
    """The int that `x` is, refused when it is none or outside these limits.

    >>> whole("lattice", np.int64(16), 3, 64)
    16
    """
    number = whole_number(x)
    if number is None or not lowest <= number <= highest:
        raise InputError(
            f"{name}={shown(x)} cannot be used; give an integer from {lowest} to {highest}."
        )
    return number


def flip_thresholds(temperatures: Float[Tensor, " n"]) -> UInt64[np.ndarray, "n 10"]:
    """Of the 2**32 equally likely draws, the number that flip a site of each code.

    Column 2 u + b is a site with u neighbours up that is itself up (b = 1) or down (b = 0).
    """
    if not bool((temperatures.isfinite() & (temperatures > 0)).all()):
        raise InputError("temperatures contain one that is not positive; give finite ones above 0.")
    code = torch.arange(N_CODES)
    spin, field = 2 * (code % 2) - 1, 2 * (code // 2) - 4
    exponent = (2 * spin * field).double() / temperatures.cpu().double()[:, None]
    return np.rint(expit(-exponent.numpy()) * 2.0**32).astype(np.uint64)


def streams(rows: Int[Tensor, " n"], *, seed: int) -> UInt64[np.ndarray, " n"]:
    """The key of the random stream of every row under this seed."""
    root = _mixed(np.array([seed], dtype=np.uint64))
    return draws(root, rows.cpu().numpy())[:, 0]


def draws(
    key: UInt64[np.ndarray, " n"], numbers: Int[np.ndarray, " k"]
) -> UInt64[np.ndarray, "k n"]:
    """The 64-bit random numbers of these numbers in every stream.

    mix(key + (number + 1) * gamma): the generator splitmix64, entered at any place (Steele, Lea
    and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA).

    >>> [hex(x) for x in draws(np.zeros(1, np.uint64), np.arange(2))[:, 0].tolist()]
    ['0xe220a8397b1dcdaf', '0x6e789e6aa1b965f4']
    """
    place = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(GAMMA)
    return _mixed(place[:, None] + key)


def _mixed(z: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """The mixing function of splitmix64: a permutation of the 64-bit numbers."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def neighbours(lattice: int) -> Int[np.ndarray, "sites 4"]:
    """Flat indices of the four neighbours of every site on the torus."""
    site = np.arange(lattice**2).reshape(lattice, lattice)
    shifts = [np.roll(site, by, axis) for axis in (0, 1) for by in (1, -1)]
    return np.stack(shifts, axis=-1).reshape(-1, 4)


def _evolve(
    key: UInt64[np.ndarray, " n"],
    thresholds: UInt64[np.ndarray, "n 10"],
    lattice: int,
    sweeps: int,
) -> Int8[np.ndarray, "n lattice lattice"]:
    """All chains of a block, side by side.

    What is stored is the code of every site, so that an attempt reads one number; only a flip,
    which is rarer, touches the neighbours.
    """
    n, sites = len(key), lattice**2
    near = neighbours(lattice)
    up = (draws(key, np.arange(sites)) >> np.uint64(63)).astype(np.int8).T
    codes = (2 * up[:, near].sum(-1, dtype=np.int8) + up).ravel()
    chain_start, row_start = np.arange(n) * sites, np.arange(n) * N_CODES
    for first in range(sites, sites * (sweeps + 1), DRAWS):
        bits = draws(key, np.arange(first, min(first + DRAWS, sites * (sweeps + 1))))
        chosen = ((bits >> HALF) * np.uint64(sites) >> HALF).astype(np.intp)
        for site, number in zip(chosen, bits & LOWER, strict=True):
            place = chain_start + site
            code = codes[place]
            flipped = np.flatnonzero(number < thresholds.take(row_start + code))
            old, place = code[flipped], place[flipped]
            codes[place] = old ^ 1
            around = near[site[flipped]] + chain_start[flipped, None]
            codes[around] += (2 - 4 * (old & 1))[:, None]  # four different sites: no lost addition
    return (2 * (codes & 1) - 1).reshape(n, lattice, lattice)
