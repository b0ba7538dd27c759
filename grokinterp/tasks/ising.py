"""Is an Ising configuration ordered or disordered? The task, and the dynamics that make its inputs.

The labels are temperatures: below the critical one, or not. The dynamics flip single spins of the
two-dimensional model, with one random stream per chain. An update draws one 64-bit number: its
upper half is the site, its lower half decides about the flip. The number is a hash of (seed, row,
number of the draw), so a configuration is a function of its seed, row, temperature, lattice and
sweeps alone: which other rows are asked for, and in which order, changes no bit of it. All
comparisons are between integers.
"""

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int8, Int64, UInt64
from scipy.special import expit
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, number, tensor, whole
from grokinterp.base.errors import InputError
from grokinterp.base.keys import key
from grokinterp.tasks.splits import draw
from grokinterp.tasks.task import Task, register_task

LIMITS = {  # lowest, highest (beyond it, a mistake that eats hours or memory), and a usual value
    "lattice": (3, 64, 16),  # on a smaller torus the four neighbours of a site are not four sites
    "n_train": (1, 1_000_000, 300),
    "n_test": (1, 1_000_000, 1000),
    "n_temperatures": (2, 1_000, 50),
    "n_repeats": (1, 10_000, 1000),
    "sweeps": (0, 100_000, 300),
    "seed": (0, LARGEST_SEED, 0),
    "pool_seed": (0, LARGEST_SEED, 0),
}
LARGEST_N_SPINS = 100_000_000  # of all rows of a task: 0.5 GB with what a model reads
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
    many, and for numbers that are not whole or outside `LIMITS`.

    >>> T, rows = torch.tensor([1.5, 3.0]).double(), torch.tensor([0, 7])
    >>> both = glauber(T, rows, lattice=4, sweeps=10, seed=0)
    >>> one = glauber(T[1:], rows[1:], lattice=4, sweeps=10, seed=0)
    >>> both.shape, torch.equal(both[1:], one)
    (torch.Size([2, 4, 4]), True)
    """
    given = {"lattice": lattice, "sweeps": sweeps, "seed": seed}
    lattice, sweeps, seed = (_within_limits(name, x) for name, x in given.items())
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


def _within_limits(name: str, given: object) -> int:
    least, most, usual = LIMITS[name]
    return whole(name, given, least=least, most=most, such_as=str(usual))


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
    return random_draws(root, rows.cpu().numpy())[:, 0]


def random_draws(
    key: UInt64[np.ndarray, " n"], numbers: Int[np.ndarray, " k"]
) -> UInt64[np.ndarray, "k n"]:
    """The 64-bit random numbers of these numbers in every stream.

    mix(key + (number + 1) * gamma): the generator splitmix64, entered at any place (Steele, Lea
    and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA).

    >>> [hex(x) for x in random_draws(np.zeros(1, np.uint64), np.arange(2))[:, 0].tolist()]
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
    key: UInt64[np.ndarray, " n"], thresholds: UInt64[np.ndarray, "n 10"], lattice: int, sweeps: int
) -> Int8[np.ndarray, "n lattice lattice"]:
    """All chains of a block, side by side.

    What is stored is the code of every site, so that an attempt reads one number; only a flip,
    which is rarer, touches the neighbours.
    """
    n, sites = len(key), lattice**2
    near = neighbours(lattice)
    up = (random_draws(key, np.arange(sites)) >> np.uint64(63)).astype(np.int8).T
    codes = (2 * up[:, near].sum(-1, dtype=np.int8) + up).ravel()
    chain_start, row_start = np.arange(n) * sites, np.arange(n) * N_CODES
    for first in range(sites, sites * (sweeps + 1), DRAWS):
        bits = random_draws(key, np.arange(first, min(first + DRAWS, sites * (sweeps + 1))))
        chosen = ((bits >> HALF) * np.uint64(sites) >> HALF).astype(np.intp)
        for site, chance in zip(chosen, bits & LOWER, strict=True):
            place = chain_start + site
            code = codes[place]
            flipped = np.flatnonzero(chance < thresholds.take(row_start + code))
            old, place = code[flipped], place[flipped]
            codes[place] = old ^ 1
            around = near[site[flipped]] + chain_start[flipped, None]
            codes[around] += (2 - 4 * (old & 1))[:, None]  # four different sites: no lost addition
    return (2 * (codes & 1) - 1).reshape(n, lattice, lattice)


def critical_temperature() -> float:
    """Temperature below which the infinite square lattice is ordered: 2 / ln(1 + sqrt 2).

    In units of J / k_B (Onsager 1944, Phys. Rev. 65, 117). A finite lattice has no transition:
    there, the temperature only names the two classes.

    >>> round(critical_temperature(), 6)
    2.269185
    """
    return 2 / math.log(1 + math.sqrt(2))


def energies(configurations: Int8[Tensor, "n lattice lattice"]) -> Float64[Tensor, " n"]:
    """Energy of every configuration over its largest size, E / (2 J L**2), from -1 to 1.

    E = -J sum of s_i s_j over the 2 L**2 pairs of neighbours on the torus; the scale is that of
    the released code of Manning-Coe et al. 2025 (arXiv 2502.01739). For odd L no configuration
    reaches +1. It does not tell a lattice from its mirror images, shifts or the flip of all spins.

    >>> energies(torch.ones(1, 4, 4, dtype=torch.int8)).tolist()
    [-1.0]
    """
    spins = _spins(configurations)
    bonds = spins * (spins.roll(1, dims=-1) + spins.roll(1, dims=-2))
    return -bonds.double().mean((-2, -1)) / 2


def magnetizations(configurations: Int8[Tensor, "n lattice lattice"]) -> Float64[Tensor, " n"]:
    """Mean spin of every configuration, M / L**2, from -1 to 1.

    Its sign is chance; and where domain walls have not died out, |M| is small in an ordered phase.

    >>> magnetizations(-torch.ones(1, 4, 4, dtype=torch.int8)).tolist()
    [-1.0]
    """
    return _spins(configurations).double().mean((-2, -1))


def _spins(configurations: Tensor) -> Int8[Tensor, "n lattice lattice"]:
    """The configurations, refused when they are no lattices of +-1."""
    shape = tuple(tensor("configurations", configurations).shape)
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < LIMITS["lattice"][0]:
        raise InputError(
            f"configurations of shape {shape} are no square lattices; give [n, L, L] with L >= 3."
        )
    if configurations.dtype != torch.int8 or not bool((configurations.abs() == 1).all()):
        raise InputError("configurations hold something else than spins; give int8 of +1 and -1.")
    return configurations


def _setting(name: str, about: str, *, called: str = "") -> Any:
    return key(LIMITS[name][2], name=called, help=about)


@register_task("ising")
@dataclass(frozen=True)
class IsingTask(Task):
    """Lattices of +-1 to be told apart: generated below (1) or above (0) the critical temperature.

    A pool of `n_temperatures` * `n_repeats` configurations, `sweeps` sweeps of Glauber dynamics
    from a uniformly random start each (`glauber`), at temperatures evenly spaced in Tc +-
    `half_width`, ends included. `seed` shuffles its rows as `torch.randperm` does: the first
    `n_test` are the test set, the next `n_train` the training set. Only these are generated, bit
    for bit what the whole pool would hold; `pool_seed` is the seed of the dynamics. The defaults
    are the setting of Manning-Coe et al. 2025 (arXiv 2502.01739, section 2.1 and released code);
    the paper does not state the number of sweeps. With 300 the best threshold on the energy
    (`ceiling`) is right on 95 to 97 % of the test set for seeds 0 to 2, and about 95 % is the best
    accuracy that the paper reports; with 100 it is 92 to 94 %.

    What a label does not say: whether the configuration looks ordered. Near Tc both classes hold
    the same configurations, so no classifier is always right.

    >>> task = IsingTask(lattice=4, n_train=3, n_test=5, sweeps=2)
    >>> task.n_inputs, task.train_indices.tolist(), task.model_inputs.shape
    (8, [5, 6, 7], torch.Size([8, 1, 4, 4]))
    """

    usual_model: ClassVar[str] = "cnn"
    own_split: ClassVar[str] = "shuffled pool"
    n_classes = 2  # ordered and disordered
    no_group_reason = "the phase of an Ising configuration is not a function of one group exponent"

    lattice: int = _setting("lattice", "side of the configurations")
    _: KW_ONLY
    n_train: int = _setting("n_train", "configurations to train on")
    n_test: int = _setting("n_test", "configurations to test on")
    n_temperatures: int = _setting("n_temperatures", "temperatures of the pool")
    half_width: float = key(1.0, help="temperatures reach so far below and above the critical one")
    n_repeats: int = _setting("n_repeats", "configurations in the pool at each temperature")
    sweeps: int = _setting("sweeps", "sweeps of Glauber dynamics from a random start")
    seed: int = _setting("seed", "shuffles the pool", called="data_seed")
    pool_seed: int = _setting("pool_seed", "of the dynamics")

    def __post_init__(self) -> None:
        for name in LIMITS:
            object.__setattr__(self, name, _within_limits(name, getattr(self, name)))
        most = math.nextafter(critical_temperature(), 0)  # so that all temperatures are positive
        width = number("half_width", self.half_width, most=most, such_as="1.0")
        object.__setattr__(self, "half_width", width)
        pool = self.n_temperatures * self.n_repeats
        if self.n_inputs > pool:
            raise InputError(
                f"n_train + n_test = {self.n_inputs} rows do not fit into a pool of {pool}; give "
                "fewer, or more n_repeats."
            )
        if self.n_inputs * self.lattice**2 > LARGEST_N_SPINS:
            raise InputError(
                f"{self.n_inputs} lattices of side {self.lattice} are too many; give at most "
                f"{LARGEST_N_SPINS // self.lattice**2} rows."
            )

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"Ising phases on {self.lattice} x {self.lattice}"

    @property
    def n_inputs(self) -> int:
        """Number of configurations: the test rows, then the training rows."""
        return self.n_test + self.n_train

    @cached_property
    def train_indices(self) -> Int64[Tensor, " n_train"]:
        """The rows that are trained on: all after the first `n_test`."""
        return torch.arange(self.n_test, self.n_inputs)

    @cached_property
    def pool_rows(self) -> Int64[Tensor, " n_inputs"]:
        """Row of the pool of every input: temperature number * n_repeats + repeat."""
        pool = self.n_temperatures * self.n_repeats
        return draw(pool, rule="torch", seed=self.seed)[: self.n_inputs].clone()

    @cached_property
    def temperatures(self) -> Float64[Tensor, " n_inputs"]:
        """Temperature at which every input was generated, in units of J / k_B."""
        step = self._offsets.double() / (self.n_temperatures - 1)
        return critical_temperature() + self.half_width * step

    @cached_property
    def labels(self) -> Int64[Tensor, " n_inputs"]:
        """1 (ordered) below the critical temperature, 0 (disordered) at and above it."""
        return (self._offsets < 0).long()

    @property
    def _offsets(self) -> Int64[Tensor, " n_inputs"]:
        """Twice the distance from Tc in grid steps, a whole number: no rounding decides a label."""
        return 2 * (self.pool_rows // self.n_repeats) - (self.n_temperatures - 1)

    @property
    def configurations(self) -> Int8[Tensor, "n_inputs lattice lattice"]:
        """The spins, +1 and -1; equal tasks share one tensor, so do not write into it."""
        return _configurations(self)

    @cached_property
    def model_inputs(self) -> Float32[Tensor, "n_inputs 1 lattice lattice"]:
        """What a model reads: the spins as one channel."""
        return self.configurations.float()[:, None]

    @cached_property
    def energy(self) -> Float64[Tensor, " n_inputs"]:
        """E / (2 J L**2) of every input, see `energies`."""
        return energies(self.configurations)

    @cached_property
    def magnetization(self) -> Float64[Tensor, " n_inputs"]:
        """M / L**2 of every input, see `magnetizations`."""
        return magnetizations(self.configurations)

    @cached_property
    def ceiling(self) -> float:
        """Accuracy of the best single threshold on the energy, over the test set.

        The labels are temperatures, so nothing that looks at configurations is always right; the
        energy is the sufficient statistic of the temperature in equilibrium.
        """
        energy, order = self.energy[: self.n_test].sort()
        ordered = self.labels[: self.n_test][order].double()
        below = torch.cat([torch.zeros(1, dtype=torch.float64), ordered.cumsum(0)])
        above = torch.cat([torch.zeros(1, dtype=torch.float64), (1 - ordered).cumsum(0)])
        right = below + (above[-1] - above)  # ordered up to a place, disordered after it
        apart = torch.ones(self.n_test + 1, dtype=torch.bool)
        apart[1:-1] = energy.diff() > 0  # no threshold between equal energies
        return float(right[apart].max() / self.n_test)

    def observables(self) -> dict[str, Float64[Tensor, " n_inputs"]]:
        """Energy, |magnetisation| and magnetisation of every lattice, per site."""
        return {
            "energy": self.energy,
            "abs_magnetization": self.magnetization.abs(),
            "magnetization": self.magnetization,
        }


@lru_cache(maxsize=4)
def _configurations(task: IsingTask) -> Int8[Tensor, "n lattice lattice"]:
    """Generated once a process for equal tasks, however many runs open them."""
    kinds = {"lattice": task.lattice, "sweeps": task.sweeps, "seed": task.pool_seed}
    return glauber(task.temperatures, task.pool_rows, **kinds)
