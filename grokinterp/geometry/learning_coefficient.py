"""How much loss does random motion around a model's weights cost? The local learning coefficient.

A walk of `langevin_chain` around the weights of a checkpoint, on the loss of its rows; what it
costs, and everything by which one sees whether the number can be believed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, number, truth, whole
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.geometry.langevin import LangevinChain, langevin_chain
from grokinterp.geometry.loss_surface import LossSurface, loss_surface
from grokinterp.geometry.sampled_basin import SampledBasin
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import phases_of_metrics
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

RELAXING = 0.05  # epsilon gamma by default: the spring pulls home in 2 / 0.05 = 40 draws
PRODUCTS, PRODUCT_ROWS = 12, 1024  # of the Hessian, where a chain ended

Phase = tuple[str, float, float]  # name, start, end


@dataclass(frozen=True, kw_only=True)
class LearningCoefficient(Result):
    """The local learning coefficient at one or several checkpoints, and how it was sampled.

    `basins` has a `SampledBasin` per step; `value`, `spread` and `per_chain` are those of a single
    step. `rows`, `n_samples`, `n_rows` and `seed` say which inputs the loss is of. `phases` are
    those of the run, where several steps were asked for.

    >>> import grokinterp as gi
    >>> found = gi.geometry.local_learning_coefficient(
    ...     gi.load("mod31-small"), [300, 10000], n_draws=20, n_chains=1, halve=False
    ... )
    >>> found.table()[["step", "value", "end_accuracy"]].round(1)
        step  value  end_accuracy
    0    300   69.7           0.7
    1  10000    0.2           1.0
    """

    basins: tuple[SampledBasin, ...]
    rows: str
    n_samples: int
    n_rows: int
    batch_size: int
    seed: int
    phases: tuple[Phase, ...] = ()

    @property
    def steps(self) -> tuple[int | None, ...]:
        """The checkpoints."""
        return tuple(basin.step for basin in self.basins)

    @property
    def value(self) -> float:
        """The coefficient of the one step that was asked for."""
        return self._only.value

    @property
    def spread(self) -> float:
        """The standard deviation over the chains of the one step that was asked for."""
        return self._only.spread

    @property
    def per_chain(self) -> tuple[float, ...]:
        """The coefficient by each chain of the one step that was asked for."""
        return self._only.per_chain

    @property
    def warnings(self) -> tuple[str, ...]:
        """What speaks against the numbers, with the step where there are several."""
        several = len(self.basins) > 1
        return tuple(
            f"step {basin.step}: {warning}" if several else warning
            for basin in self.basins
            for warning in basin.warnings
        )

    @property
    def _only(self) -> SampledBasin:
        if len(self.basins) > 1:
            raise InputError(
                f"{len(self.basins)} steps have a value each; read .table(), or .basins[0]."
            )
        return self.basins[0]

    def table(self) -> pd.DataFrame:
        """One row per step: the value, its spread, and what to check it by.

        `value`, `spread` and `halved` (with half the step length) are nats times n_beta, without a
        unit. `loss` and `accuracy` are the weights' own, `distance` is how far the chains ended
        and `noise_distance` how far noise alone would take them, in units of weight;
        `end_accuracy`, `below`, `curvature` and `stability` as `SampledBasin` says.
        """
        return pd.DataFrame([basin.row() for basin in self.basins])

    def _short_table(self) -> pd.DataFrame:
        columns = ["step", "value", "spread", "halved", "distance", "end_accuracy", "stability"]
        return self.table()[columns]

    def _lines(self) -> list[str]:
        first = self.basins[0]
        return [
            f"{self.n_samples} {self.rows} rows, n_beta {first.n_beta:.4g}, "
            f"{len(first.per_chain)} chains of {first.losses.shape[1]} draws, batches of "
            f"{min(self.batch_size, self.n_samples)}"
        ]


def local_learning_coefficient(
    x: Subject,
    step: int | Sequence[int] | str = -1,
    *,
    radius: float = 0.3,
    gamma: float | None = None,
    n_beta: float | None = None,
    epsilon: float | None = None,
    n_draws: int = 200,
    n_chains: int = 2,
    batch_size: int = 1024,
    burn_in: float = 0.5,
    rows: str = "train",
    n_samples: int | None = None,
    halve: bool = True,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> LearningCoefficient:
    r"""How much loss does random motion around the weights cost? The local learning coefficient.

        n beta (E L(w) - L(w*)),  w distributed as exp(-n beta L(w) - gamma / 2 |w - w*|^2)

    The local learning coefficient as Lau et al. 2023 (arXiv 2308.12108, section 4) estimate it,
    with `langevin_chain` from the trained weights w*: E is the mean loss of the batches after the
    first `burn_in` of each chain. L is the mean cross-entropy in nats over n inputs: those that
    `rows`, `n_samples` and `seed` name, as in `fisher_diagonal`. `step` is one checkpoint, several,
    or "all"; every step starts from the same `seed`.

    Where gamma is small beside n beta h in all D directions of curvature h, a regular minimum has
    D / 2, a degenerate one less. In a quadratic bowl it is 1/2 sum_i n beta h_i / (n beta h_i +
    gamma): with a large gamma, no more than the trace of the Hessian times n beta / (2 gamma).
    A network of many weights has to be held by a large gamma.

    Choose the radius first. Noise alone takes D weights sqrt(D / gamma) away: gamma = D / (radius
    |w*|)^2, unless `gamma` is given. `n_beta` is n / ln n unless given. `epsilon` is 0.05 / gamma
    unless given, with which the spring relaxes in 40 draws. `halve` samples again with half of it
    and twice the draws, the same length in time. `n_chains` chains differ in noise and batches.

    Read the `warnings`, which are among the notes too: unstable, left the basin, negative (the
    weights are no minimum), saturated, not settled, spread large, step length. Their thresholds are
    own choices. The losses and L(w*) are exact; L(w*), the accuracies and the curvature are
    computed in float64, the walk's gradients in float32. A step of p = 113 takes 45 s of one core.

    Compare two numbers only at equal n_beta, n, and gamma or radius; they depend on all of them,
    and say nothing of weights farther away than the radius, nor whether a solution generalises.
    Packages differ. devinterp 1.3.2 has n_beta = batch / ln(batch) of its own accord, no
    localization, 10 chains, and averages over all draws; 2.0.1 has 4 chains, asks for n_beta and
    the step length, and averages over burn-in too. Its published example of a modular network (p =
    53) takes n_beta 2, gamma 5, epsilon 0.003, one chain of 500 draws: at 226,048 weights that
    gamma is a distance of 213, out of any basin. InputError for numbers out of range, weights that
    are not finite or all 0, and a model whose weights alone do not say what it computes.

    >>> import grokinterp as gi
    >>> found = gi.geometry.local_learning_coefficient(
    ...     "mod31-small", n_draws=40, n_chains=1, halve=False
    ... )
    >>> round(found.value, 1), round(found.basins[0].distance, 1)
    (0.7, 6.1)
    >>> found.warnings
    ('not settled: epsilon gamma times the draws of the burn-in is 1, and the spring takes 3; ...)
    """
    run = run_of(x, task=task, train_mask=train_mask)
    steps = rising_steps(run, step)
    whole("n_chains", n_chains, least=1, such_as="2")
    whole("n_draws", n_draws, least=5, such_as="200")
    whole("batch_size", batch_size, least=1, such_as="1024")
    whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    burn_in = number("burn_in", burn_in, least=0, most=0.9, such_as="0.5")
    halve = truth("halve", halve)
    radius = number("radius", radius, such_as="0.3")
    for name, given in (("gamma", gamma), ("n_beta", n_beta), ("epsilon", epsilon)):
        if given is not None:
            number(name, given, such_as="1e3")
    basins, surface = [], None
    for each in progress_bar(steps, "sample", progress):
        surface = loss_surface(run, step=each, rows=rows, n_samples=n_samples, seed=seed)
        norm = float(surface.theta.norm())
        if gamma is None and norm == 0:
            raise InputError(
                f"the weights at step {each} are all 0; give gamma= instead of radius=."
            )
        spring = surface.n_weights / (radius * norm) ** 2 if gamma is None else gamma
        sampling = _Sampling(
            surface=surface,
            n_beta=_usual_n_beta(len(surface.labels)) if n_beta is None else n_beta,
            gamma=spring,
            epsilon=RELAXING / spring if epsilon is None else epsilon,
            n_draws=n_draws,
            batch_size=batch_size,
        )
        basins.append(_basin(sampling, n_chains=n_chains, burn_in=burn_in, halve=halve, seed=seed))
    assert surface is not None  # there is at least one step
    phases, why = _phases(run) if len(steps) > 1 else ((), [])
    found = LearningCoefficient(
        basins=tuple(basins), **surface.record, batch_size=batch_size, phases=phases,
    )  # fmt: skip
    return replace(found, notes=(*found.warnings, *surface.notes, *why))


@dataclass(frozen=True, kw_only=True)
class _Sampling:
    """What all chains around one place have in common."""

    surface: LossSurface
    n_beta: float
    gamma: float
    epsilon: float
    n_draws: int
    batch_size: int

    def chains(self, seeds: Sequence[int], *, shorter: int = 1) -> list[LangevinChain]:
        """Chains of so many times shorter steps, and as many times more of them."""
        # Single precision halves the time; the loss is summed in float64, and exact to 1e-5 of it.
        at = replace(
            self.surface,
            theta=self.surface.theta.float(),
            fixed={name: weight.float() for name, weight in self.surface.fixed.items()},
        )
        return [
            langevin_chain(
                lambda theta, rows: at.gradient(theta.float(), rows),
                self.surface.theta,
                n_rows=len(self.surface.labels),
                n_beta=self.n_beta,
                gamma=self.gamma,
                epsilon=self.epsilon / shorter,
                n_draws=self.n_draws * shorter,
                batch_size=self.batch_size,
                seed=seed,
            )
            for seed in seeds
        ]


def _basin(
    sampling: _Sampling, *, n_chains: int, burn_in: float, halve: bool, seed: int
) -> SampledBasin:
    surface, generator = sampling.surface, torch.Generator().manual_seed(seed)
    seeds = torch.randint(LARGEST_SEED, (2, n_chains), generator=generator).tolist()
    chains = sampling.chains(seeds[0])
    halved = sampling.chains(seeds[1], shorter=2) if halve else []
    loss = surface.loss()
    estimates, of_halved = (
        tuple(chain.estimate(loss, burn_in=burn_in) for chain in some) for some in (chains, halved)
    )
    return SampledBasin(
        step=surface.step,
        loss=loss,
        accuracy=surface.accuracy(),
        n_rows=len(surface.labels),
        n_weights=surface.n_weights,
        n_beta=sampling.n_beta,
        gamma=sampling.gamma,
        epsilon=sampling.epsilon,
        burn_in=burn_in,
        radius=math.sqrt(surface.n_weights / sampling.gamma)
        / (float(surface.theta.norm()) or math.nan),
        per_chain=estimates,
        halved_per_chain=of_halved,
        losses=_stacked(chains, sampling.n_draws),
        halved_losses=_stacked(halved, 2 * sampling.n_draws) if halve else None,
        distances=tuple(float((chain.end - surface.theta).norm()) for chain in chains),
        end_accuracies=tuple(surface.accuracy(chain.end) for chain in chains),
        curvature=_curvature(surface, chains[0].end, generator) if chains[0].finite else math.nan,
    )


def _stacked(chains: Sequence[LangevinChain], n_draws: int) -> Float[Tensor, "chains draws"]:
    table = torch.full((len(chains), n_draws), math.nan, dtype=torch.float64)
    for row, chain in zip(table, chains, strict=True):
        row[: len(chain.losses)] = chain.losses
    return table


def _curvature(surface: LossSurface, theta: Tensor, generator: torch.Generator) -> float:
    """The largest absolute eigenvalue of the Hessian at a place; a lower bound that is near it."""
    some = torch.randperm(len(surface.labels), generator=generator)[:PRODUCT_ROWS]
    there = replace(surface, theta=theta, inputs=surface.inputs[some], labels=surface.labels[some])
    vector = torch.randn(len(theta), generator=generator, dtype=torch.float64)
    size = 0.0
    for _ in range(PRODUCTS):
        vector = vector / vector.norm()
        vector = there.hessian_product(vector)
        if (size := float(vector.norm())) == 0 or not math.isfinite(size):
            break
    return size


def _usual_n_beta(n: int) -> float:
    if n < 2:
        raise InputError("n / ln n needs at least 2 rows; give n_beta=.")
    return n / math.log(n)


def _phases(run: Run) -> tuple[tuple[Phase, ...], list[str]]:
    """The phases that a run's metrics tell, drawn behind the values; or why there are none."""
    if not run.steps_known:
        return (), ["no phases: nobody knows the steps of the checkpoints"]
    try:
        found = phases_of_metrics(run).phases or ()
    except InputError as error:
        return (), [f"no phases: {error}"]
    last = run.steps[-1]
    ends = ((x.name, x.start, last if x.end is None else x.end) for x in found)
    return tuple((name, start, end) for name, start, end in ends if start is not None), []


@measure("learning_coefficient", scope="run", default=False, prefix="llc_")
def _learning_coefficient(run: Run) -> Columns:
    """The local learning coefficient of the last checkpoint, at the usual setting."""
    (basin,) = local_learning_coefficient(run, halve=False).basins
    names = ("value", "spread", "distance", "end_accuracy", "stability")
    return {name: getattr(basin, name) for name in names}
