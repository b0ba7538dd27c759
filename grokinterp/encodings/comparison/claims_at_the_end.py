"""Claims of Manning-Coe et al. 2025 (arXiv 2502.01739) about what models have at the end.

Every rule is fixed here and stands in the result. Supported and contradicted are said of the runs
at hand; what they cannot decide is undetermined, with what would decide it.
"""

import math

from grokinterp.encodings.comparison.claim import (
    FEWEST,
    Claim,
    Evidence,
    Verdict,
    more_seeds,
    too_few,
)
from grokinterp.encodings.comparison.profile import RunProfile
from grokinterp.encodings.comparison.statistics import LEVEL, contrast, line, spread

SAME_WITHIN = 0.25  # of what training added to a feature
HALF_EXPLAINED = math.sqrt(0.5)  # |r| of a line that explains half of the variance


def same_features(evidence: Evidence) -> Claim:
    """Whether both regimes learn the same features to the same degree."""
    name, measures = "same_features", ("ipr_input", "ipr_output", "r_energy")
    rule = (
        "supported if in every pair of a grokked and a steady run each feature (mean IPR of input "
        "and output weights; for Ising |r| of the hidden layer with the energy) differs by at most "
        f"{SAME_WITHIN:.0%} of what training added to it (median end less median start), and for "
        "Ising |r| falls from energy to |M| to M in every run; contradicted if one feature differs "
        "by more in every pair, or no run keeps the order"
    )

    def claim(verdict: Verdict, reason: str, change: str) -> Claim:
        return Claim(
            name,
            "grokked and steady models learn the same features",
            "sections 3 and 4",
            verdict,
            reason,
            numbers,
            evidence.seeds,
            rule,
            change,
        )

    every = [*evidence.grokked, *evidence.steady]
    numbers: dict[str, float] = {}
    gaps: dict[str, tuple[float, float]] = {}
    for measure in measures:
        grokked, steady = evidence.values(measure)
        if not grokked or not steady:
            continue
        start = spread([p.start.get(measure, math.nan) for p in every]).median
        rise = spread(grokked + steady).median - start
        numbers |= {
            f"{measure}_grokked": spread(grokked).median,
            f"{measure}_steady": spread(steady).median,
            f"{measure}_untrained": start,
        }
        differences = [abs(a - b) / rise for a in grokked for b in steady] if rise > 0 else []
        if differences:
            gaps[measure] = min(differences), max(differences)
            numbers |= {
                f"{measure}_smallest_gap": min(differences),
                f"{measure}_largest_gap": max(differences),
            }
    if short := too_few(evidence):
        return claim("undetermined", short, more_seeds(evidence))
    if not gaps:
        return claim("undetermined", "no feature is defined or rose in training", "other models")
    ordered = [_keeps_order(p) for p in every]
    known = [o for o in ordered if o is not None]
    if known:
        numbers["runs_in_order"] = sum(known)
    worst = max(gaps, key=lambda measure: gaps[measure][1])
    said = f"{worst} differs by {gaps[worst][0]:.0%} to {gaps[worst][1]:.0%} of its rise"
    if any(low > SAME_WITHIN for low, _ in gaps.values()) or (known and not any(known)):
        return claim("contradicted", said, "one pair of runs with the same features")
    if all(high <= SAME_WITHIN for _, high in gaps.values()) and all(known):
        return claim("supported", f"at most: {said}", "one pair that differs by more")
    if known and not all(known):
        said += f"; the order of the observables holds in {sum(known)} of {len(known)} runs"
    return claim("undetermined", said, "more seeds, if the pairs that differ are exceptions")


def _keeps_order(profile: RunProfile) -> bool | None:
    found = [profile.values.get(f"r_{x}") for x in ("energy", "abs_magnetization", "magnetization")]
    if any(value is None for value in found):
        return None
    return bool(found[0] > found[1] > found[2])  # type: ignore[operator]


def grokked_less_efficient(evidence: Evidence) -> Claim:
    """Whether steady models compress better."""
    grokked, steady = evidence.values("c")
    found = contrast(steady, grokked)
    numbers = {
        "c_grokked": spread(grokked).median,
        "c_steady": spread(steady).median,
        "ratio_steady_to_grokked": found.ratio,
        "cliffs_delta": found.delta,
        "p_steady_above": found.p_above,
        "p_steady_below": found.p_below,
    }
    for basis in ("c_fourier", "c_singular"):
        there = contrast(*reversed(evidence.values(basis)))
        if math.isfinite(there.delta):
            numbers |= {f"{basis}_ratio": there.ratio, f"{basis}_cliffs_delta": there.delta}
    said = (
        f"c is {numbers['c_steady']:.3g} in steady and {numbers['c_grokked']:.3g} in grokked runs "
        f"(medians), p = {min(found.p_above, found.p_below):.3g}"
    )
    verdict: Verdict = "undetermined"
    change = "more seeds, if the difference stays as it is"
    if short := too_few(evidence):
        said, change = short, more_seeds(evidence)
    elif found.p_above <= LEVEL:
        verdict, change = "supported", "a steady run with a smaller c than the grokked ones"
    elif found.p_below <= LEVEL:
        verdict, change = "contradicted", "a steady run with a larger c than the grokked ones"
    return Claim(
        "grokked_less_efficient",
        "grokked models encode less efficiently than steady ones",
        "section 5",
        verdict,
        said,
        numbers,
        evidence.seeds,
        "supported if c (layer-wise magnitude pruning) is larger in steady runs by the exact "
        f"one-sided rank-sum test at {LEVEL:.0%}, contradicted if smaller; 3 against 3 seeds "
        "decide only without overlap. Other bases are told and do not decide",
        change,
    )


def compressive_regime(evidence: Evidence) -> Claim:
    """Whether steady models trade train loss for compressibility along a line."""
    steady = evidence.steady
    fitted, others = (
        line([p.values["train_loss"] for p in runs], [p.values["c"] for p in runs])
        for runs in (steady, evidence.grokked)
    )
    n_settings = len({evidence.settings[p.name] for p in steady})
    numbers = {
        "slope_c_per_nat": fitted.slope,
        "r": fitted.r,
        "r_low": fitted.low,
        "r_high": fitted.high,
        "steady_settings": n_settings,
        "r_grokked": others.r,
    }
    said = f"r = {fitted.r:.3g} [{fitted.low:.3g}, {fitted.high:.3g}] over {fitted.n} steady runs"
    verdict: Verdict = "undetermined"
    change = "more seeds or settings, to narrow the interval of r"
    if n_settings < 2 or fitted.n < 2 * FEWEST or not math.isfinite(fitted.r):
        said = f"{fitted.n} steady runs of {n_settings} settings; a line takes 6 of at least 2"
        change = "steady runs from other scales of the initial weights, three seeds each"
    elif fitted.r >= HALF_EXPLAINED and fitted.low > 0:
        verdict, change = "supported", "steady runs off the line"
    elif fitted.high < HALF_EXPLAINED:
        verdict, change = "contradicted", "steady runs on a rising line"
    return Claim(
        "compressive_regime",
        "among steady models compressibility rises linearly with the train loss at the end",
        "section 5 and appendix D",
        verdict,
        said,
        numbers,
        evidence.seeds,
        "over steady runs of at least two settings (six runs): supported if Pearson's r of c with "
        "the train loss at the end is at least 0.71 (half of the variance) and its 95 % interval "
        "above 0, contradicted if the interval is below 0.71. A line through two settings is no "
        "evidence that the relation is linear",
        change,
    )
