"""Is one way to train sooner than another? Dates of runs, paired by their seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from grokinterp.claims.acceleration_methods import BASELINE, METHODS

GROKS, NEVER, FAILED, UNKNOWN = "groks", "never", "failed", "unknown"  # outcomes of a run
NO_DELAY = 2.0  # t95 <= 2 t99
SEEDS = ("seed", "data_seed")  # what paired runs have in common

Verdict = Literal["baseline", "sooner", "later", "mixed", "never", "failed", "unpaired", "unknown"]


@dataclass(frozen=True, kw_only=True)
class SpeedUp:
    """One way to train beside the baseline, over the seeds that both have.

    `t99`, `t95` and `delay` are medians over its runs that fit the training data, in updates:
    infinite where most never get there, NaN where they are not known. `ratio` is the median t95 of
    the baseline over that of the method, in the `pairs` of equal seeds: above 1 is sooner;
    `ratio_low` to `ratio_high` are the ratios of single pairs. 0 stands for a method that never
    generalises, infinity for a baseline that does not, NaN for both, and for a method that failed.
    `sooner` counts the pairs above 1; `p` is the probability of as many, and `p_later` that of as
    many below 1, if both are as likely (ties left out). `ratio_tuned` is against the tuned
    baseline, `seconds` are to t95, `test_acc` is of unmirrored pairs where they are known, norms
    are of all trained weights; all are medians over runs. `changes` are the keys that differ
    from the baseline's; `source`, `published` and `caveat` those of `METHODS`.

    >>> import grokinterp as gi
    >>> found = gi.claims.speed_ups(gi.load("mod31-small"))["baseline"]
    >>> found.verdict, found.t95, found.delay, found.no_delay
    ('baseline', 3530.0, 3270.0, False)
    """

    method: str
    verdict: Verdict
    runs: int
    failed: int
    never: int
    t99: float
    t95: float
    delay: float
    no_delay: bool | None
    pairs: int
    ratio: float
    ratio_low: float
    ratio_high: float
    sooner: int
    p: float
    p_later: float
    ratio_tuned: float
    seconds: float
    ratio_seconds: float
    test_acc: float
    norm_start: float
    norm_max: float
    norm: float
    changes: str = field(default="", repr=False)
    source: str = field(default="", repr=False)
    published: str = field(default="", repr=False)
    caveat: str = field(default="", repr=False)


def speed_up(
    name: str, its: pd.DataFrame, base: pd.DataFrame, tuned: pd.DataFrame, *, changes: str
) -> SpeedUp:
    """A method's runs beside those of the baseline and of the tuned one, a row each."""
    outcomes = its["outcome"].tolist()
    failed, never = outcomes.count(FAILED), outcomes.count(NEVER)
    fitting = its[its["outcome"] != FAILED]
    pairs = paired(base, its, "t95")
    ratios = [r for r in (_over(*pair) for pair in pairs) if not math.isnan(r)]
    sooner, later = sum(r > 1 for r in ratios), sum(r < 1 for r in ratios)
    told = sooner + later + sum(math.isnan(t) for _, t in pairs)  # ties tell nothing
    verdict = _verdict(name, outcomes, sooner=sooner, later=later, pairs=len(pairs))
    dated = verdict != FAILED  # failed is not slow: it has no ratio
    method = METHODS.get(name)
    return SpeedUp(
        method=name,
        verdict=verdict,
        runs=len(its),
        failed=failed,
        never=never,
        t99=middle(fitting["t99"]),
        t95=middle(fitting["t95"]) if dated else math.nan,
        delay=middle(fitting["delay"]) if dated else math.nan,
        no_delay=_no_delay(its),
        pairs=len(pairs),
        ratio=_of_medians(pairs) if dated else math.nan,
        ratio_low=min(ratios, default=math.nan),
        ratio_high=max(ratios, default=math.nan),
        sooner=sooner,
        p=sign_test(sooner, told),
        p_later=sign_test(later, told),
        ratio_tuned=_of_medians(paired(tuned, its, "t95")) if dated else math.nan,
        seconds=middle(fitting["seconds"]) if dated else math.nan,
        ratio_seconds=_of_medians(paired(base, its, "seconds")) if dated else math.nan,
        test_acc=middle(its["test_acc_unmirrored"].fillna(its["test_acc"])),
        norm_start=middle(its["norm_start"]),
        norm_max=middle(its["norm_max"]),
        norm=middle(its["norm"]),
        changes=changes,
        source="" if method is None else method.source,
        published="" if method is None else method.published,
        caveat="" if method is None else method.caveat,
    )


def _verdict(name: str, outcomes: Sequence[str], *, sooner: int, later: int, pairs: int) -> Verdict:
    n = len(outcomes)
    if 2 * outcomes.count(FAILED) >= n:
        return "failed"
    if 2 * outcomes.count(NEVER) >= n:
        return "never"
    if outcomes.count(UNKNOWN) == n:
        return "unknown"
    if name == BASELINE:
        return "baseline"
    if not pairs:
        return "unpaired"
    return "sooner" if sooner == pairs else "later" if later == pairs else "mixed"


def paired(base: pd.DataFrame, its: pd.DataFrame, column: str) -> list[tuple[float, float]]:
    """A column of both, in pairs of equal seeds of which the baseline's is known.

    Of several runs of one setting with the same seeds the longest counts.
    """
    of_base, of_its = (_by_seeds(rows, column) for rows in (base, its))
    return [
        (value, of_its[seeds])
        for seeds, value in of_base.items()
        if seeds in of_its and not math.isnan(value)
    ]


def _by_seeds(rows: pd.DataFrame, column: str) -> dict[tuple[Any, ...], float]:
    longest_last = rows.sort_values("steps", kind="stable").to_dict("records")
    return {tuple(row[key] for key in SEEDS): float(row[column]) for row in longest_last}


def middle(values: Sequence[float] | pd.Series) -> float:
    """The median of what is known; infinite where half are.

    >>> middle([3.0, math.inf, math.nan]), middle([math.nan])
    (inf, nan)
    """
    known = sorted(float(x) for x in values if not math.isnan(x))
    return float(np.median(known)) if known else math.nan


def _over(base: float, its: float) -> float:
    """The ratio; NaN where neither is finite, as of two that never get there."""
    if math.isinf(base) and math.isinf(its):
        return math.nan
    return base / its if its else math.nan


def _of_medians(pairs: Sequence[tuple[float, float]]) -> float:
    known = [(base, its) for base, its in pairs if not math.isnan(its)]
    if not known:
        return math.nan
    base, its = (middle(values) for values in zip(*known, strict=True))
    return _over(base, its)


def _no_delay(its: pd.DataFrame) -> bool | None:
    """Whether t95 <= 2 t99 in every run; None unless all have both."""
    if its[["t99", "t95"]].isna().any(axis=None):
        return None
    return bool((its["t95"] <= NO_DELAY * its["t99"]).all())


def sign_test(successes: int, n: int) -> float:
    """The probability of so many successes or more in n pairs, if each is as likely as not.

    >>> sign_test(3, 3), sign_test(0, 0)
    (0.125, 1.0)
    """
    return float(stats.binom.sf(successes - 1, n, 0.5)) if n else 1.0
