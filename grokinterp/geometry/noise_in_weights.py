"""How much noise do the weights bear before answers go wrong?

Nothing here knows the size of a loss: a network that is merely more certain bears more noise only
as far as its answers do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, number, whole
from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import Result
from grokinterp.geometry.loss_surface import LossSurface, loss_surface
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.scored_checkpoints import choose_rows
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

FIRST, FARTHEST = 0.1, 100.0  # relative sizes of noise: tried first, and at the most
PRECISION = 0.005  # of a radius, as a share of it

Parts = dict[str, Int[Tensor, " n"]]  # the numbers of the inputs, by their name


@dataclass(frozen=True, kw_only=True)
class NoiseRadius(Result):
    """How far noise may move the weights, at steps, for the inputs of each of `parts`.

    `radii` [steps, parts, draws] are relative to the norm of each tensor; `sizes` says how many
    inputs a part has, `norms` is that of the trained weights at each step. NaN where the
    accuracy to be kept is no more than one answer for all would have, and where no noise changes
    enough answers.

    >>> import grokinterp as gi
    >>> found = gi.geometry.noise_radius(gi.load("mod31-small"), [300, 10000], n_draws=3)
    >>> found.parts, found.sizes
    (('train', 'test'), (624, 122))
    >>> found.table()[["step", "rows", "accuracy", "radius", "radius_most"]].round(2)
        step   rows  accuracy  radius  radius_most
    0    300  train      1.00    0.08         0.08
    1    300   test      0.11     NaN          NaN
    2  10000  train      1.00    0.28         0.28
    3  10000   test      0.98    0.21         0.23
    """

    steps: tuple[int | None, ...]
    parts: tuple[str, ...]
    sizes: tuple[int, ...]
    accuracies: Float[Tensor, "k parts"] = field(repr=False)
    radii: Float[Tensor, "k parts draws"] = field(repr=False)
    norms: tuple[float, ...] = field(repr=False)
    keep: float
    n_draws: int
    seed: int

    def table(self) -> pd.DataFrame:
        """One row per step and part of the inputs: the median over draws, least and most.

        `radius` is relative, `radius_absolute` is times the norm of the trained weights: the length
        of the noise.
        """
        rows = [
            {
                "step": step,
                "rows": part,
                "n": size,
                "accuracy": float(self.accuracies[i, j]),
                "radius": float(self.radii[i, j].quantile(0.5)),
                "radius_least": float(self.radii[i, j].min()),
                "radius_most": float(self.radii[i, j].max()),
                "radius_absolute": float(self.radii[i, j].quantile(0.5)) * norm,
            }
            for i, (step, norm) in enumerate(zip(self.steps, self.norms, strict=True))
            for j, (part, size) in enumerate(zip(self.parts, self.sizes, strict=True))
        ]
        return pd.DataFrame(rows)

    def _lines(self) -> list[str]:
        return [f"{self.n_draws} draws; accuracy kept: {self.keep:.0%} of the network's own"]


def noise_radius(
    x: Subject,
    step: int | Sequence[int] | str = -1,
    *,
    n_draws: int = 8,
    keep: float = 0.9,
    n_samples: int | None = None,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> NoiseRadius:
    r"""How large is the noise in the weights at which the network still answers as it did?

    A draw is a normal direction d whose part d_l has the norm of each trained tensor theta_l. Its
    radius is the sigma at which

        accuracy(theta + sigma d) = keep * accuracy(theta)

    is crossed: the noise is doubled until accuracy is below, and the crossing is then found by
    bisection, to 0.5 %. `n_draws` directions are the same ones at every step, and for all inputs.
    Sigma 1 is noise as large as the weights, in every tensor; its length is |theta|.

    Inputs are those trained on, and apart from them the test rows whose mirror is not trained on
    either (all, where there are no mirrors); without a split, all of the table. Of each more than
    `n_samples`, so many are drawn by `seed`. `x` is a run (`step` is one checkpoint, -1 the last,
    several in order, or "all"), a path, a snapshot, or a model with `task`.

    The measure is our own, after the noise that sharpness of a neighbourhood is judged by (Keskar
    et al. 2017, arXiv 1609.04836) with directions scaled by tensor as Li et al. 2018 (arXiv
    1712.09913, section 4) do by filter; there is no scale of the loss in it. A random direction of
    many weights is close to no sharp one: this is the basin in the mean, not at its narrowest.
    Where accuracy does not fall steadily there are several crossings, and this is one of them.
    Radii of networks of different shapes are not to be compared.

    >>> import grokinterp as gi
    >>> found = gi.geometry.noise_radius(gi.load("mod31-small"), n_draws=2)
    >>> found.table()[["rows", "accuracy", "radius", "radius_absolute"]].round(2)
        rows  accuracy  radius  radius_absolute
    0  train      1.00    0.28             6.02
    1   test      0.98    0.22             4.74
    """
    run = run_of(x, task=task, train_mask=train_mask)
    steps = rising_steps(run, step)
    n_draws = whole("n_draws", n_draws, least=1, such_as="8")
    keep = number("keep", keep, most=1, such_as="0.9")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    parts, notes = _parts(run, n_samples, seed)
    shape = len(steps), len(parts)
    accuracies = torch.empty(*shape, dtype=torch.float64)
    radii = torch.full((*shape, n_draws), math.nan, dtype=torch.float64)
    norms: list[float] = []
    numbers: list[int | None] = []
    guesses: dict[str, list[int]] = {}
    for i, each in enumerate(progress_bar(steps, "noise", progress)):
        surface = loss_surface(run, step=each, rows="all")
        norms.append(float(surface.theta.norm()))
        numbers.append(surface.step)
        for j, (part, rows) in enumerate(parts.items()):
            of = replace(surface, inputs=surface.inputs[rows], labels=surface.labels[rows])
            accuracies[i, j] = own = of.accuracy()
            commonest = float(of.labels.bincount().max() / len(rows))
            if keep * own <= commonest:
                guesses.setdefault(part, []).append(each)
                continue
            generator = torch.Generator().manual_seed(seed)
            for draw in range(n_draws):
                direction = _direction(of, generator)
                radii[i, j, draw] = _crossing(of, direction, keep * own)
        notes += surface.notes
    for part, at in guesses.items():
        notes.append(
            f"no radius of {part} inputs at {shown(at)}, where {keep:.0%} of the accuracy is no "
            "more than one answer for all would have"
        )
    if bool(radii.isinf().any()):
        notes.append(f"no radius where noise of {FARTHEST:g} times the weights changes too little")
        radii[radii.isinf()] = math.nan
    return NoiseRadius(
        steps=tuple(numbers),
        parts=tuple(parts),
        sizes=tuple(len(rows) for rows in parts.values()),
        accuracies=accuracies,
        radii=radii,
        norms=tuple(norms),
        keep=keep,
        n_draws=n_draws,
        seed=seed,
        notes=tuple(dict.fromkeys(notes)),
    )


def _parts(run: Run, n_samples: int | None, seed: int) -> tuple[Parts, list[str]]:
    """The inputs to answer, and what is to be said of them."""
    if run.train_mask is None:
        parts = {"all": torch.arange(run.task.n_inputs)}
        notes = ["the split is not known, so all inputs are answered together"]
    else:
        test = choose_rows(run, "unmirrored")
        parts = {"train": run.train_mask.nonzero().flatten(), "test": test.numbers}
        notes = [f"test: {test.note or test.reason}"]
    parts = {name: rows for name, rows in parts.items() if len(rows)}
    if not parts:
        raise InputError("there is no input to answer.")
    if n_samples is None:
        return parts, notes
    n = whole("n_samples", n_samples, least=1, such_as="2000")
    for name, rows in parts.items():
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        parts[name] = rows[order[:n]]
    return parts, notes


def _direction(surface: LossSurface, generator: torch.Generator) -> Float[Tensor, " n_weights"]:
    """Normal noise, in every tensor of the tensor's norm."""
    noise = torch.randn(surface.n_weights, generator=generator, dtype=torch.float64)
    for part in surface.parts.values():
        noise[part] *= surface.theta[part].norm() / noise[part].norm()
    return noise


def _crossing(surface: LossSurface, direction: Tensor, least: float) -> float:
    """How far accuracy is at least that along a direction; infinite where nothing changes it."""

    def holds(sigma: float) -> bool:
        return surface.accuracy(surface.theta + sigma * direction) >= least

    low, high = 0.0, FIRST
    while holds(high):
        if high >= FARTHEST:
            return math.inf
        low, high = high, min(2 * high, FARTHEST)
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


@measure("noise_radius", scope="run", default=False, prefix="noise_radius_")
def _noise_radius(run: Run) -> Columns:
    """How much noise in the weights the last checkpoint bears, relative to their norms."""
    found = noise_radius(run)
    return dict(zip(found.parts, found.table().radius, strict=True))
