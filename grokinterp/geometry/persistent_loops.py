"""Has a cloud a hole that it goes around? Bars of persistent homology, beside a Gaussian cloud's.

Points are joined as their distance allows (Vietoris-Rips), and a loop lives from the distance at
which it closes to that at which it is filled in. ripser computes these bars (Bauer 2021, arXiv
1908.02518; Tralie, Saul and Bar-On 2018). A cloud without a hole has bars too, so the longest is
compared with those of Gaussian clouds of the same covariance.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, whole
from grokinterp.base.checks import cloud as checked_cloud
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result

MOST_POINTS = 300  # the work grows with the cube of their number
FEWEST_POINTS = 4  # of a loop that is not filled in at once
LEVEL = 0.95
MISSING = "loops need ripser; pip install 'grokinterp[topology]'"


@dataclass(frozen=True, kw_only=True)
class Persistence(Result):
    """The loops of a cloud (H1), longest first, and the longest of every null cloud.

    `bars` [m, 2] are birth and death, distances over `scale`, the RMS distance of the points from
    their mean. `null` are the longest bars of `len(null)` Gaussian clouds, each over its own scale.

    >>> import math, torch
    >>> import grokinterp as gi
    >>> angles = 2 * math.pi * torch.arange(30) / 30
    >>> circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    >>> found = gi.geometry.persistence(circle, n_null=19)
    >>> [round(x, 3) for x in found.bars[0].tolist()], round(found.longest, 3), found.p
    ([0.209, 1.732], 1.523, 0.05)
    """

    bars: Float[Tensor, "m 2"] = field(repr=False)
    scale: float
    n_points: int  # that were looked at
    null: Float[Tensor, " n_null"] = field(repr=False)
    seed: int

    @property
    def lengths(self) -> Float[Tensor, " m"]:
        """How long each bar is, death minus birth."""
        return self.bars[:, 1] - self.bars[:, 0]

    @property
    def longest(self) -> float:
        """The longest bar, 0 without any; at most sqrt(3) of points on a circle."""
        return float(self.lengths[0]) if len(self.bars) else 0.0

    @property
    def second(self) -> float:
        """The second longest bar: two are long where the cloud is a torus."""
        return float(self.lengths[1]) if len(self.bars) > 1 else 0.0

    @property
    def total(self) -> float:
        """The sum of all bars."""
        return float(self.lengths.sum())

    @property
    def null95(self) -> float:
        """The length that chance alone passes in 5 % of clouds; NaN with fewer than 19 nulls."""
        return upper_quantile(self.null)

    @property
    def p(self) -> float:
        """(1 + the null clouds with as long a bar) / (1 + all of them); NaN without nulls."""
        n = len(self.null)
        return (1 + int((self.null >= self.longest).sum())) / (1 + n) if n else math.nan

    def table(self) -> pd.DataFrame:
        """One row per loop: birth, death and length, in units of `scale`."""
        frame = pd.DataFrame(self.bars.numpy(), columns=["birth", "death"])
        frame["length"] = frame["death"] - frame["birth"]
        return frame

    def _lines(self) -> list[str]:
        null = "" if math.isnan(self.null95) else f", chance passes {self.null95:.3g} in 5 %"
        return [f"longest loop {self.longest:.3g} RMS radii{null}"]


def persistence(points: Float[Tensor, "n d"], *, n_null: int = 99, seed: int = 0) -> Persistence:
    r"""Does a cloud of points go around a hole, more than a cloud without one would?

    Persistent homology H1 (Vietoris-Rips, coefficients mod 2) of the points [n, d], in units of
    their RMS distance from the mean, without which shrinking weights would look like topology.
    Null: `n_null` clouds of as many points, drawn from the normal distribution with the cloud's
    covariance, so that dimension and scale are the same and nothing else is; permuting each
    coordinate by itself would be weaker, as it spreads the cloud over more directions.
    p = (1 + #{null >= longest}) / (1 + n_null).

    More than 300 points are thinned to 300 that are drawn at random, and `notes` say so. `seed`
    is that of both. ripser keeps distances in float32. InputError without ripser
    (`pip install 'grokinterp[topology]'`), for fewer than 4 points, for points that are all equal,
    and for what is not finite.

    A long bar does not say what runs around the hole, in which order, or that the network uses it;
    and a cloud that winds around several circles at once need not have one.

    >>> import torch
    >>> import grokinterp as gi
    >>> cloud = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> found = gi.geometry.persistence(cloud, n_null=19)
    >>> round(found.longest, 2), round(found.null95, 2), found.p
    (0.25, 0.28, 0.25)
    """
    cloud = checked_cloud("points", points)
    n_null = whole("n_null", n_null, least=0, such_as="99")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    generator = torch.Generator().manual_seed(seed)
    notes = []
    if (n := len(cloud)) > MOST_POINTS:
        cloud = cloud[torch.randperm(n, generator=generator)[:MOST_POINTS].sort().values]
        notes.append(f"loops are those of {MOST_POINTS} of the {n} points, drawn with seed {seed}")
    if n < FEWEST_POINTS:
        raise InputError(f"points are {n}, too few to go around a hole; give at least 4.")
    largest = float(cloud.abs().max()) or 1.0  # out of the way, so that no square overflows
    cloud = cloud / largest
    centred = cloud - cloud.mean(dim=0)
    scale = _radius(centred)
    if not scale > 1e-12:
        raise InputError("the points are all equal, so they go around nothing; leave them out.")
    # The distances of a Gaussian cloud need its variances alone, not their directions.
    spread = torch.linalg.svdvals(centred)
    null = torch.empty(n_null, dtype=torch.float64)
    for i in range(n_null):
        noise = torch.randn(len(cloud), len(spread), dtype=torch.float64, generator=generator)
        drawn = noise * spread
        drawn -= drawn.mean(dim=0)
        bars = _bars(drawn / _radius(drawn))
        null[i] = (bars[:, 1] - bars[:, 0]).max() if len(bars) else 0.0
    bars = _bars(centred / scale)
    order = (bars[:, 1] - bars[:, 0]).argsort(descending=True, stable=True)
    return Persistence(
        bars=bars[order],
        scale=scale * largest,
        n_points=len(cloud),
        null=null,
        seed=seed,
        notes=tuple(notes),
    )


def upper_quantile(null: Float[Tensor, " n_null"]) -> float:
    """What one more draw passes in 5 % of cases at most: the k-th smallest, k = .95 (n + 1).

    NaN for fewer than 19 draws, of which even the largest is passed more often.

    >>> upper_quantile(torch.arange(19.0)), upper_quantile(torch.arange(99.0))
    (18.0, 94.0)
    """
    k = math.ceil(LEVEL * (len(null) + 1) - 1e-9)
    return float(null.sort().values[k - 1]) if k <= len(null) else math.nan


def _radius(centred: Float[Tensor, "n d"]) -> float:
    return float(centred.square().sum(dim=1).mean().sqrt())


def _bars(points: Float[Tensor, "n d"]) -> Float[Tensor, "m 2"]:
    try:
        from ripser import ripser
    except ImportError:
        raise InputError(f"{MISSING}.") from None
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    found = ripser(distances.numpy(), distance_matrix=True, maxdim=1)["dgms"][1]
    return torch.from_numpy(np.asarray(found, dtype=np.float64).reshape(-1, 2))
