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
    span,
    too_few,
)
from grokinterp.encodings.comparison.profile import RunProfile
from grokinterp.encodings.comparison.statistics import LEVEL, contrast, line, spread

SAME_WITHIN = 0.25  # of what training added to a feature
FEATURES = ("ipr_input", "ipr_output", "r_energy")
OBSERVABLES = ("energy", "abs_magnetization", "magnetization")
HALF_EXPLAINED = math.sqrt(0.5)  # |r| of a line that explains half of the variance


def same_features(evidence: Evidence) -> Claim:
    """Whether both regimes learn the same features to the same degree."""
    numbers: dict[str, float] = {}
    gaps: dict[str, tuple[float, float]] = {}
    for feature in FEATURES:
        found, gap = _gap(evidence, feature)
        numbers |= found
        if gap:
            gaps[feature] = gap
    ordered = [o for p in evidence.profiles if (o := _keeps_order(p)) is not None]
    if ordered:
        numbers["runs_in_order"] = sum(ordered)
    verdict: Verdict = "undetermined"
    said = "no feature is defined, or none rose in training"
    change = "models that learn a feature that is defined for them"
    if gaps:
        worst = max(gaps, key=lambda feature: gaps[feature][1])
        said = f"{worst} differs most, by {span(gaps[worst], '.0%')} of what training added to it"
        change = "more seeds, if the pairs that differ are exceptions"
    if ordered and not all(ordered):
        said += f"; the order of the observables holds in {sum(ordered)} of {len(ordered)} runs"
    if short := too_few(evidence):
        said, change = f"{said}; {short}", more_seeds(evidence)
    elif any(low > SAME_WITHIN for low, _ in gaps.values()) or (ordered and not any(ordered)):
        verdict, change = "contradicted", "a pair of runs with the same features"
    elif gaps and all(high <= SAME_WITHIN for _, high in gaps.values()) and all(ordered):
        verdict, change = "supported", "a pair of runs that differs by more"
    return Claim(
        "same_features",
        "grokked and steady models learn the same features",
        "sections 3 and 4",
        verdict,
        said,
        numbers,
        evidence.seeds,
        "supported if in every pair of a grokked and a steady run each feature (mean IPR of input "
        "and output weights; for Ising |r| of the hidden layer with the energy) differs by at most "
        f"{SAME_WITHIN:.0%} of what training added to it (median end less median start), and for "
        "Ising |r| falls from energy to |M| to M in every run; contradicted if one feature differs "
        "by more in every pair, or no run keeps the order",
        change,
    )


def _gap(evidence: Evidence, feature: str) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Numbers of a feature, and its smallest and largest difference over pairs of runs."""
    grokked, steady = evidence.values(feature)
    if not grokked or not steady:
        return {}, None
    untrained = spread([p.start.get(feature, math.nan) for p in evidence.profiles]).median
    rise = spread(grokked + steady).median - untrained
    middles = evidence.medians(feature)
    numbers = dict(zip(("grokked", "steady", "untrained"), (*middles, untrained), strict=True))
    gap = None
    if rise > 0:
        differences = [abs(a - b) / rise for a in grokked for b in steady]
        gap = min(differences), max(differences)
        numbers |= {"smallest_gap": gap[0], "largest_gap": gap[1]}
    return {f"{feature}_{key}": value for key, value in numbers.items()}, gap


def _keeps_order(profile: RunProfile) -> bool | None:
    """Whether |r| falls from energy to |M| to M; None for a task without observables."""
    found = [profile.values.get(f"r_{name}", math.nan) for name in OBSERVABLES]
    return None if any(map(math.isnan, found)) else found == sorted(found, reverse=True)


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
        said, change = f"{said}; {short}", more_seeds(evidence)
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
        line(*([p.values.get(name, math.nan) for p in runs] for name in ("train_loss", "c")))
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
        said = f"steady runs: {fitted.n}, settings: {n_settings}; a line takes 6 of at least 2"
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
