"""What do numbers over seeds say? Medians with intervals, how far two regimes are apart, slopes.

Seeds are few, so medians and contrasts are by ranks, and exact up to ten against ten: no normal
distribution is assumed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

MIXED = "mixed"  # the label of runs where no label has more than half
CONFIDENCE = 0.95
LEVEL = 0.05  # of one-sided tests; 3 against 3 seeds reach 1/20 at best
FEWEST_POINTS, FEWEST_PLACES = 6, 3  # of a power law
RESAMPLES = 4999
MOST_DEALS = 200_000  # ways to deal seeds to two regimes are all tried, up to 10 against 10


@dataclass(frozen=True)
class MedianInterval:
    """The median over seeds, and an interval of order statistics for that of all seeds.

    `low` to `high` holds the median of the distribution with probability `coverage`: the narrowest
    pair of order statistics with 95 %, or else (fewer than six seeds) the smallest and the largest
    value, which have 1 - 2^(1 - n), 75 % for three. One seed has no interval (NaN, coverage 0).

    >>> import grokinterp as gi
    >>> found = gi.sweeps.median_interval([1, 2, 3, 4, 5, 6, 7])
    >>> found.median, found.low, found.high, round(found.coverage, 3)
    (4.0, 1.0, 7.0, 0.984)
    >>> gi.sweeps.median_interval([2.0]).coverage
    0.0
    """

    n: int
    median: float
    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float]) -> MedianInterval:
    """Median and interval of the values that are not NaN; NaN where there are none.

    >>> median_interval([3.0, 1.0, 2.0])
    MedianInterval(n=3, median=2.0, low=1.0, high=3.0, coverage=0.75)
    """
    found = np.sort([value for value in values if not math.isnan(value)])
    n = len(found)
    if n < 2:
        return MedianInterval(n, float(found[0]) if n else math.nan, math.nan, math.nan, 0.0)
    k = max((k for k in range(1, n // 2 + 1) if _coverage(n, k) >= CONFIDENCE), default=1)
    return MedianInterval(
        n, float(np.median(found)), float(found[k - 1]), float(found[n - k]), _coverage(n, k)
    )


def _coverage(n: int, k: int) -> float:
    """Probability that the median lies between the k-th smallest and the k-th largest of n."""
    return float(1 - 2 * stats.binom.cdf(k - 1, n, 0.5))


@dataclass(frozen=True)
class Contrast:
    """How far the values of one regime are above those of another, by ranks.

    `shift` is the median of all pairwise differences (Hodges-Lehmann), `ratio` that of the medians
    (NaN unless both are positive), `delta` is Cliff's, P(above) - P(below) over pairs: 1 if every
    value is above every one of the other regime. `p_above` and `p_below` are one-sided p-values of
    the rank-sum test, over all ways of dealing the values to the regimes: exact up to ten against
    ten, and beyond where no values are tied, else by the normal approximation. They assume
    independent values, and are not corrected for the number of measures looked at.

    >>> import grokinterp as gi
    >>> found = gi.sweeps.contrast([0.9, 1.1, 1.4], [0.5, 0.8, 1.0])
    >>> round(found.shift, 2), round(found.ratio, 2), round(found.delta, 2), round(found.p_above, 2)
    (0.4, 1.38, 0.78, 0.1)
    """

    n: int
    n_other: int
    shift: float
    ratio: float
    delta: float
    p_above: float
    p_below: float


def contrast(values: Sequence[float], others: Sequence[float]) -> Contrast:
    """The first regime against the second; NaN where one has no value.

    >>> found = contrast([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    >>> found.shift, found.ratio, found.delta, round(found.p_above, 3)
    (3.0, 2.5, 1.0, 0.05)
    """
    a, b = (np.array([v for v in given if not math.isnan(v)]) for given in (values, others))
    if not len(a) or not len(b):
        return Contrast(len(a), len(b), *[math.nan] * 5)
    above, below = (a[:, None] > b).mean(), (a[:, None] < b).mean()
    with np.errstate(invalid="ignore"):  # infinity less infinity
        differences = a[:, None] - b
    middle, other = float(np.median(a)), float(np.median(b))
    return Contrast(
        n=len(a),
        n_other=len(b),
        shift=float(np.median(differences)),
        ratio=middle / other if middle > 0 and 0 < other < math.inf else math.nan,
        delta=float(above - below),
        p_above=_p_above(a, b),
        p_below=_p_above(b, a),
    )


def _p_above(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the ways to deal the pooled values that put a as high by its rank sum, or higher."""
    ranks = stats.rankdata(np.concatenate([a, b]))
    if math.comb(len(ranks), len(a)) > MOST_DEALS:
        method = "exact" if len(set(ranks)) == len(ranks) else "asymptotic"
        return float(stats.mannwhitneyu(a, b, alternative="greater", method=method).pvalue)
    found = ranks[: len(a)].sum()
    sums = np.array([sum(deal) for deal in combinations(ranks.tolist(), len(a))])
    return float((sums >= found - 1e-9).mean())


@dataclass(frozen=True)
class Line:
    """A straight line through points, and how well it does: Pearson r with its interval.

    `low` to `high` is the 95 % interval of r by Fisher's transform, NaN for fewer than four points.
    All are NaN for fewer than three, or where an axis does not vary.
    """

    n: int
    slope: float
    r: float
    low: float
    high: float


def line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The least-squares line of y on x over the pairs that are finite."""
    pairs = np.array([(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a + b)])
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return Line(len(pairs), *[math.nan] * 4)
    fitted = stats.linregress(*pairs.T)
    low = high = math.nan
    if len(pairs) > 3:
        low, high = stats.pearsonr(*pairs.T).confidence_interval(CONFIDENCE)
    return Line(len(pairs), float(fitted.slope), float(fitted.rvalue), float(low), float(high))


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x^exponent through points, and a 95 % interval for the exponent.

    `low` to `high` are percentiles of the exponents of resampled points. With 3 points at each of
    3 to 8 values of x they held the exponent in 89 to 95 % of 400 simulated sweeps. All are NaN for
    fewer than six points or three values of x, and where a value is not above 0. They do not show
    that a power law holds.
    """

    n: int
    exponent: float
    factor: float
    low: float
    high: float


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """The power law with the least squares of log y, by the bootstrap over points.

    >>> found = power_law([1, 1, 2, 2, 4, 4], [3, 3, 12, 12, 48, 48])
    >>> found.n, round(found.exponent, 9), round(found.factor, 9)
    (6, 2.0, 3.0)
    """
    n = len(x)
    if n < FEWEST_POINTS or len(set(x)) < FEWEST_PLACES or not all(value > 0 for value in (*x, *y)):
        return PowerLaw(n, *[math.nan] * 4)
    logs = np.log(np.array(x, float)), np.log(np.array(y, float))
    exponent = float(_slope(*logs))

    def resampled(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        # Resamples with all points at one x (at most 0.4 % of them) have no slope.
        return np.nan_to_num(_slope(a, b, axis), nan=exponent, posinf=exponent, neginf=exponent)

    found = stats.bootstrap(
        logs, resampled, paired=True, vectorized=True, n_resamples=RESAMPLES, batch=500,
        method="percentile", confidence_level=CONFIDENCE, rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    factor = math.exp(float(logs[1].mean() - exponent * logs[0].mean()))
    return PowerLaw(n, exponent, factor, float(found.low), float(found.high))


def _slope(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
    a = a - a.mean(axis=axis, keepdims=True)
    spread_of_a = (a**2).sum(axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread_of_a > 1e-12, (a * b).sum(axis=axis) / spread_of_a, math.nan)


def more_than_half(successes: int, n: int) -> bool:
    """All of at least three, or more than half by the exact one-sided binomial test at 5 %.

    All of three is the most that three seeds can show: by chance 1 time in 8 if each is even.

    >>> more_than_half(3, 3), more_than_half(2, 2), more_than_half(9, 10), more_than_half(7, 10)
    (True, False, True, False)
    """
    if n >= 3 and successes == n:
        return True
    return n > 0 and bool(stats.binomtest(successes, n, alternative="greater").pvalue <= LEVEL)
