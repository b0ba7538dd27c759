"""The path of a run's weights: does it wander or go somewhere, and in how many directions?

A path of k checkpoints is known by its k - 1 steps, and all that is asked here (distances, cosines,
principal components) follows from the inner products of the steps. Nothing is computed but weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit
from torch import Tensor

from grokinterp.base.checks import listed, refused
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.result import Result
from grokinterp.geometry.inputs import exact_weights
from grokinterp.geometry.metric import cosine_of
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import phases_of_metrics
from grokinterp.reading._load import Subject, progress_bar, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

HELD = 1 << 28  # bytes in memory at once; checkpoints that do not fit are read again
FEWEST = 4  # checkpoints of a power law: three displacements, so that a line can miss them
COVERAGE = 0.95
AWAY = ("displacement", "uncorrelated", "straight")

Window = tuple[int, int]  # from one step to another


@dataclass(frozen=True)
class PowerLaw:
    """size = C time^exponent, by least squares of log size on log time.

    `low` to `high` is the 95 % interval of the slope under independent residuals (Student's t with
    n - 2 degrees of freedom). Displacements of one path are not independent, so it says how well a
    power law fits, not what another seed would give. All are NaN where there is none.

    >>> import grokinterp as gi
    >>> fit = gi.geometry.drift(gi.load("mod31-small"), window=(2000, 5000)).displacement
    >>> fit.n, round(fit.exponent, 2), round(fit.low, 2), round(fit.high, 2)
    (8, 0.76, 0.69, 0.83)
    """

    n: int
    exponent: float
    standard_error: float
    low: float
    high: float


def power_law(times: Sequence[float], sizes: Sequence[float]) -> PowerLaw:
    """The exponent of sizes > 0 at times > 0; NaN for fewer than three, or a size of 0.

    >>> round(power_law([1, 2, 4, 8], [3, 6, 12, 24]).exponent, 12)
    1.0
    """
    n = len(times)
    if n < FEWEST - 1 or min(sizes) <= 0:
        return PowerLaw(n, math.nan, math.nan, math.nan, math.nan)
    x, y = np.log(np.asarray(times, float)), np.log(np.asarray(sizes, float))
    x, y = x - x.mean(), y - y.mean()
    slope = float(x @ y / (x @ x))
    missed = y - slope * x
    error = math.sqrt(float(missed @ missed) / (n - 2) / float(x @ x))
    around = float(stdtrit(n - 2, (1 + COVERAGE) / 2)) * error
    return PowerLaw(n, slope, error, slope - around, slope + around)


@dataclass(frozen=True)
class Components:
    """Principal components of a part of a path: shares of the variance of its centred checkpoints.

    Every checkpoint counts the same. `participation` is (sum v)^2 / sum v^2 of the variances v: so
    many equal components would share as much. `walk_shares` and `walk_participation` are those of a
    random walk in very many dimensions whose steps are as long as these: its steps are orthogonal,
    so its inner products are known exactly. With many steps of one length the first share tends to
    6 / pi^2 = 0.61 (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805) and the participation, by
    the same sums, to 5 / 2. No shares where nothing moves.

    >>> import grokinterp as gi
    >>> whole = gi.geometry.drift(gi.load("mod31-small")).whole
    >>> [round(share, 2) for share in whole.shares[:3]], round(whole.participation, 2)
    ([0.58, 0.34, 0.05], 2.22)
    >>> [round(share, 2) for share in whole.walk_shares[:3]], round(whole.walk_participation, 2)
    ([0.66, 0.14, 0.06], 2.16)
    """

    start: int
    end: int
    n_checkpoints: int
    shares: tuple[float, ...] = field(repr=False)
    participation: float
    walk_shares: tuple[float, ...] = field(repr=False)
    walk_participation: float


def principal_shares(gram: Float[Tensor, "m m"]) -> tuple[tuple[float, ...], float]:
    """Shares of variance of a path's components and their participation, from its m steps' gram.

    >>> shares, participation = principal_shares(torch.eye(1000, dtype=torch.float64))
    >>> round(shares[0], 3), round(participation, 3)  # a random walk: 6 / pi^2 and 5 / 2
    (0.608, 2.5)
    """
    m = len(gram)
    places = torch.ones(m + 1, m, dtype=gram.dtype).tril(-1)  # of the checkpoints, in steps
    return shares_of_variance(places @ gram @ places.T)


def centred(gram: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    """The inner products of k points less their mean, from those of the points.

    >>> centred(torch.tensor([[0.0, 0.0], [0.0, 4.0]])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    gram = gram - gram.mean(dim=0)
    return gram - gram.mean(dim=1, keepdim=True)


def shares_of_variance(gram: Float[Tensor, "k k"]) -> tuple[tuple[float, ...], float]:
    """Shares of variance of the components of k points and their participation, from their gram.

    >>> shares_of_variance(torch.diag(torch.tensor([0, 3, 3], dtype=torch.float64)))
    ((0.75, 0.25), 1.6)
    """
    variances = torch.linalg.eigvalsh(centred(gram)).flip(0)[: len(gram) - 1].clamp(min=0)
    total = float(variances.sum())
    if total == 0:
        return (), math.nan
    shares = variances / total
    return tuple(shares.tolist()), float(1 / shares.square().sum())


@dataclass(frozen=True, kw_only=True)
class Drift(Result):
    """The steps of a run's weights, and whether those on its plateau add up.

    `steps` are the k checkpoints; `gram` holds the inner products of the k - 1 steps between them,
    `norms` the norm of all weights at each, `cos_origin` the share of each step along -theta (1:
    all weights shrink alike), `cos_previous` its cosine with the step before (NaN for the first;
    near 0 in a random walk, 1 on a straight line).

    `window` is the plateau, from one checkpoint to another, None where there is none. On it
    `displacement` is the power law of the distance from its first checkpoint against the steps
    since, `uncorrelated` and `straight` those that steps of the same lengths would have if each
    were orthogonal to all others, or all went the same way; `plateau` and `whole` are `Components`.

    >>> import grokinterp as gi
    >>> found = gi.geometry.drift(gi.load("mod31-small"))
    >>> found.window, round(found.exponent, 2), round(found.directedness, 2)
    ((300, 2250), 0.61, 0.69)
    >>> found.table()[["step", "to", "length", "cos_origin", "displacement"]].round(2).loc[[5, 12]]
        step    to  length  cos_origin  displacement
    5    300   400    2.33       -0.15          2.33
    12  1750  2000    1.75        0.58         13.37
    """

    steps: tuple[int, ...]
    norms: tuple[float, ...] = field(repr=False)
    cos_origin: tuple[float, ...] = field(repr=False)
    gram: Float[Tensor, "m m"] = field(repr=False)
    n_weights: int
    window: Window | None
    displacement: PowerLaw
    uncorrelated: PowerLaw
    straight: PowerLaw
    plateau: Components | None
    whole: Components

    @property
    def exponent(self) -> float:
        """Of the displacement on the plateau: 1/2 in diffusion, 1 in drift, at one length of step.

        Where steps grow shorter with time, it is below both; `directedness` allows for that.
        """
        return self.displacement.exponent

    @property
    def directedness(self) -> float:
        """Where the exponent lies between that of uncorrelated (0) and straight (1) steps."""
        low, high = self.uncorrelated.exponent, self.straight.exponent
        return (self.exponent - low) / (high - low) if high > low else math.nan

    @property
    def lengths(self) -> tuple[float, ...]:
        """Of each step, in units of weight."""
        return tuple(self.gram.diagonal().sqrt().tolist())

    def table(self) -> pd.DataFrame:
        """One row per step, from checkpoint `step` to checkpoint `to`.

        `norm` is that of the weights at `step`; `displacement` how far `to` is from the start of
        the plateau, `uncorrelated` and `straight` how far it would be if the steps were so; all
        three are NaN off the plateau.
        """
        m = len(self.gram)
        away = torch.full((3, m), math.nan, dtype=torch.float64)
        if self.window is not None:
            first, last = map(self.steps.index, self.window)
            away[:, first:last] = _away(self.gram, first, last)
        previous = [math.nan, *(cosine_of(self.gram, i, i - 1) for i in range(1, m))]
        return pd.DataFrame(
            {
                "step": self.steps[:-1],
                "to": self.steps[1:],
                "norm": self.norms[:-1],
                "length": self.lengths,
                "cos_origin": self.cos_origin,
                "cos_previous": previous,
                **dict(zip(AWAY, away.tolist(), strict=True)),
            }
        )

    def components(self, most: int = 5) -> pd.DataFrame:
        """The first principal components of the plateau and of the whole run, with a random walk's.

        >>> import grokinterp as gi
        >>> gi.geometry.drift(gi.load("mod31-small")).components(2).round(2)
              part  component  share  share_of_random_walk
        0  plateau          1   0.86                  0.64
        1  plateau          2   0.12                  0.15
        2    whole          1   0.58                  0.66
        3    whole          2   0.34                  0.14
        """
        rows = [
            {"part": name, "component": i, "share": share, "share_of_random_walk": walk}
            for name, part in (("plateau", self.plateau), ("whole", self.whole))
            if part is not None
            for i, (share, walk) in enumerate(
                list(zip(part.shares, part.walk_shares, strict=True))[:most], start=1
            )
        ]
        return pd.DataFrame(rows, columns=["part", "component", "share", "share_of_random_walk"])

    def _lines(self) -> list[str]:
        lines = []
        if self.window is not None and not math.isnan(self.exponent):
            fit = self.displacement
            lines = [
                f"plateau {self.window[0]} to {self.window[1]}: displacement grows as time^"
                f"{fit.exponent:.3g} ({fit.low:.3g} to {fit.high:.3g})",
                f"steps of these lengths: {self.uncorrelated.exponent:.3g} if uncorrelated, "
                f"{self.straight.exponent:.3g} if straight",
            ]
        for name, part in (("plateau", self.plateau), ("whole run", self.whole)):
            if part is not None and part.shares:
                lines.append(
                    f"first component, {name}: {part.shares[0]:.1%} (random walk "
                    f"{part.walk_shares[0]:.1%})"
                )
        return lines


def drift(
    x: Subject,
    *,
    window: Window | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Drift:
    r"""Do the weights wander or go somewhere on the plateau, and in how many directions?

    r(t) = |theta_(s + t) - theta_s| from the first checkpoint s of the plateau, over all
    parameters; its exponent is the slope of log r on log t (`PowerLaw`). With steps of one length,
    diffusion has 1/2 and drift 1. Steps change their length as training goes on, and that alone
    moves the exponent, so those of the same step lengths are beside it: sqrt(sum |s_i|^2)
    (uncorrelated) and sum |s_i| (straight). `cos_origin` is cos(theta_i+1 - theta_i, -theta_i), 1
    where weight decay were all there is. The principal components are of the centred checkpoints.

    The plateau is (start, end) in steps, by default from `memorization_step` to the start of
    cleanup, both as the run's metrics tell them (of a run that never generalised, to its last
    checkpoint); the checkpoints within are looked at. All in float64, without a forward pass; a
    quarter of a GB of steps is held at once, and of longer runs checkpoints are read more often.

    Between checkpoints nothing is seen: a path that turns faster than they are spaced looks
    diffusive. Large first components are no sign of a low-dimensional path, as a random walk has
    them too. That weights move says nothing about outputs (`information_path`), and a flat region
    nothing about the loss (weights alone are looked at). The exponents of uncorrelated and straight
    steps and `directedness` are own definitions. InputError for one checkpoint, for weights that
    are not finite, and for a window without two checkpoints.

    >>> import grokinterp as gi
    >>> found = gi.geometry.drift(gi.load("mod31-small"), window=(2000, 5000))
    >>> round(found.exponent, 2), round(found.uncorrelated.exponent, 2)
    (0.76, 0.39)
    """
    run = run_of(x, task=task, train_mask=train_mask)
    if len(run.steps) < 2:
        raise InputError("one checkpoint is no path; give a run with several.")
    if window is None:
        asked, notes = _plateau(run)
    else:
        asked, notes = _given(window, run), []
    within = [i for i, step in enumerate(run.steps) if asked and asked[0] <= step <= asked[1]]
    seen = (within[0], within[-1]) if len(within) > 1 else None
    norms, along, gram, n_weights = _steps_of(run, progress=progress)
    fits = [power_law([], [])] * 3
    if seen is None:
        notes += ["no exponent: fewer than 2 checkpoints lie on the plateau"] if asked else []
    elif len(within) < FEWEST:
        notes.append(f"no exponent: {len(within)} checkpoints on the plateau, it takes {FEWEST}")
    elif not run.steps_known:
        notes.append("no exponent: nobody knows the steps of the checkpoints, so there is no time")
    else:
        start, *after = (run.steps[i] for i in within)
        times = [step - start for step in after]
        fits = [power_law(times, sizes) for sizes in _away(gram, *seen).tolist()]
        if math.isnan(fits[0].exponent):
            notes.append("no exponent: the weights do not move, or come back to where they were")
    return Drift(
        steps=run.steps,
        norms=tuple(norms),
        cos_origin=tuple(along),
        gram=gram,
        n_weights=n_weights,
        window=None if seen is None else (run.steps[seen[0]], run.steps[seen[1]]),
        displacement=fits[0],
        uncorrelated=fits[1],
        straight=fits[2],
        plateau=None if seen is None else _components(gram, run.steps, *seen),
        whole=_components(gram, run.steps, 0, len(gram)),
        notes=tuple(notes),
    )


def _given(window: object, run: Run) -> Window:
    """A window that was asked for; refused where it holds no step between checkpoints."""
    ends = [whole_number(each) for each in listed("window", window, such_as="(200, 5000)")]
    if len(ends) != 2 or ends[0] is None or ends[1] is None or ends[0] >= ends[1]:
        raise refused("window", window, "a pair of rising steps", "such as (200, 5000)")
    if (n := sum(ends[0] <= step <= ends[1] for step in run.steps)) < 2:
        raise InputError(
            f"window={shown(window)} holds {n} of the {len(run.steps)} checkpoints; give one that "
            "holds at least 2 of run.steps."
        )
    return ends[0], ends[1]


def _plateau(run: Run) -> tuple[Window | None, list[str]]:
    """From memorisation to the start of cleanup, as a run's metrics tell them, and how."""
    if not run.steps_known:
        return None, ["no plateau: nobody knows the steps of the checkpoints; give window="]
    try:
        phases = phases_of_metrics(run)
    except InputError as error:
        return None, [f"no plateau: {error}"]
    if phases.label not in ("grokked", "memorized"):
        return None, [f"no plateau: the label of the run is {phases.label}; give window="]
    start, until = phases.memorization_step, "the start of cleanup"
    end = next((x.start for x in phases.phases or () if x.name == "cleanup"), None)
    if phases.label == "memorized":
        end, until = run.steps[-1], "the last checkpoint, as it never generalised"
    if start is None or end is None or not start < end:
        dates = f"memorization_step is {start}, and cleanup begins at {end}"
        return None, [f"no plateau: {dates}; give window="]
    plateau = math.ceil(start), math.floor(end)
    return plateau, [f"the plateau is from memorization_step {start} to {until}, {end}"]


def _steps_of(
    run: Run, *, progress: bool
) -> tuple[list[float], list[float], Float[Tensor, "m m"], int]:
    """Norms of the weights, shares of the steps along -theta, the steps' gram, how many weights."""
    n_weights = sum(w.numel() for w in exact_weights(run, run.steps[0]).values())
    if not n_weights:
        raise InputError("the model has no parameters; there is nothing that could move.")
    m = len(run.steps) - 1
    norms, along = torch.zeros(m + 1, dtype=torch.float64), torch.zeros(m, dtype=torch.float64)

    def steps_in(block: Int[Tensor, " n"]) -> Float[Tensor, "n n_weights"]:
        theta = _flat(run, block)
        steps = theta.diff(dim=0)
        norms[block[0] : block[-1] + 2] = theta.norm(dim=1)
        along[block] = -(steps * theta[:-1]).sum(dim=1)
        return steps

    gram = gram_in_blocks(m, n_weights, steps_in, progress=progress)
    along = (along / (gram.diagonal().sqrt() * norms[:-1])).clamp(-1, 1)  # NaN without motion
    return norms.tolist(), along.tolist(), gram, n_weights


def gram_in_blocks(
    m: int,
    n_weights: int,
    rows_in: Callable[[Int[Tensor, " n"]], Float[Tensor, "n n_weights"]],
    *,
    progress: bool,
) -> Float[Tensor, "m m"]:
    """Inner products of m vectors, of which `rows_in` gives those of some numbers, in float64.

    As many are held at once as fit into memory; where that is not all, they are asked for again.
    """
    blocks = torch.arange(m).split(max(1, HELD // (4 * 8 * n_weights)))
    gram = torch.zeros(m, m, dtype=torch.float64)
    for n in progress_bar(range(len(blocks)), "weights", progress):
        block, rows = blocks[n], rows_in(blocks[n])
        gram[block[:, None], block] = rows @ rows.T
        for other in blocks[:n]:
            gram[block[:, None], other] = rows @ rows_in(other).T
    return gram.tril() + gram.tril(-1).T


def _flat(run: Run, steps: Int[Tensor, " n"]) -> Float[Tensor, "n_and_1 n_weights"]:
    """All weights of the checkpoints at the ends of these steps, one after the other."""
    ends = run.steps[int(steps[0]) : int(steps[-1]) + 2]
    return torch.stack(
        [torch.cat([w.flatten() for w in exact_weights(run, step).values()]) for step in ends]
    )


def _away(gram: Float[Tensor, "m m"], first: int, last: int) -> Float[Tensor, "3 n"]:
    """How far each later checkpoint is from the first: as it is, uncorrelated, and straight."""
    part = gram[first:last, first:last]
    squares = part.diagonal()
    return torch.stack(
        [
            part.cumsum(0).cumsum(1).diagonal().clamp(min=0).sqrt(),
            squares.cumsum(0).sqrt(),
            squares.sqrt().cumsum(0),
        ]
    )


def _components(
    gram: Float[Tensor, "m m"], steps: Sequence[int], first: int, last: int
) -> Components:
    part = gram[first:last, first:last]
    shares, participation = principal_shares(part)
    walk_shares, walk_participation = principal_shares(part.diagonal().diag())
    return Components(
        start=steps[first],
        end=steps[last],
        n_checkpoints=last - first + 1,
        shares=shares,
        participation=participation,
        walk_shares=walk_shares,
        walk_participation=walk_participation,
    )


@measure("drift", scope="run", default=False, prefix="drift_")
def _drift(run: Run) -> Columns:
    """How displacement grows on the plateau, and how much of a path lies along one direction."""
    found = drift(run)
    if found.plateau is None or math.isnan(found.exponent):
        raise InputError(f"{found.notes[-1]}.")
    return {
        "exponent": found.exponent,
        "exponent_uncorrelated": found.uncorrelated.exponent,
        "exponent_straight": found.straight.exponent,
        "first_component": found.plateau.shares[0],
        "first_component_of_walk": found.plateau.walk_shares[0],
        "first_component_of_run": found.whole.shares[0],
    }
