"""Claims of Manning-Coe et al. 2025 (arXiv 2502.01739) about how models come to their end."""

import math

from grokinterp.encodings.comparison.claim import (
    Claim,
    Evidence,
    Verdict,
    known,
    more_seeds,
    span,
    too_few,
)
from grokinterp.encodings.comparison.outcome import RunProfile
from grokinterp.encodings.comparison.profile import COARSE, SOON
from grokinterp.encodings.comparison.statistics import contrast, more_than_half, spread

OVERSHOOT = 1.1  # c at its peak over c at the end
STRAIGHT = 0.9
HALF_CIRCLE = 2 / math.pi  # straightness of one, about which nobody would say straight


def peak_after_plateau(evidence: Evidence) -> Claim:
    """Whether c peaks soon after test is learned, above where it ends."""
    over, when = evidence.medians("c_peak_over_end"), evidence.medians("c_peak_over_t_test")
    counts: dict[str, tuple[int, int]] = {}
    numbers: dict[str, float] = {}
    for i, (regime, profiles) in enumerate(evidence.regimes.items()):
        held = [peaks for p in profiles if (peaks := _peaks(p)) is not None]
        counts[regime] = sum(held), len(held)
        numbers |= {
            f"{regime}_runs_that_peak": sum(held),
            f"{regime}_c_peak_over_end": over[i],
            f"{regime}_c_peak_over_t_test": when[i],
        }
    seeds = evidence.seeds("c_peak_over_end", "c_peak_over_t_test")
    said = ", ".join(f"{k} of {n} {regime} runs peak so" for regime, (k, n) in counts.items())
    verdict: Verdict = "undetermined"
    change = "more seeds"
    if short := too_few(seeds):
        said, change = f"{said}; {short}", more_seeds(seeds)
    elif all(more_than_half(k, n) for k, n in counts.values()):
        verdict, change = "supported", "runs whose c goes on rising, or never exceeds its end"
    elif any(more_than_half(n - k, n) for k, n in counts.values()):
        verdict, change = "contradicted", "runs whose c peaks soon after t_test"
    return Claim(
        "peak_after_plateau",
        "compressibility peaks right after the plateau and then declines",
        "section 6.2",
        verdict,
        said,
        numbers,
        seeds,
        f"a run peaks so if the largest c of the checkpoints looked at is at least {OVERSHOOT:g} "
        f"times that of the end and comes by {SOON:g} t_test; it is asked of runs that go on for "
        "longer and have two checkpoints by then. Supported if in both regimes more than half do "
        "(all of at least 3, or the binomial test at 5 %), contradicted if in one of them more "
        "than half do not",
        change,
    )


def _peaks(profile: RunProfile) -> bool | None:
    over, when = (profile.values.get(f"c_peak_over_{x}") for x in ("end", "t_test"))
    return None if over is None or when is None else over >= OVERSHOOT and when <= SOON


def straight_path(evidence: Evidence) -> Claim:
    """Whether a model that groks goes straight from train learned to test learned."""
    bounds = known(evidence.grokked, "delay_straightness_coarse")
    limits = known(evidence.grokked, "delay_straightness_limit")
    seeds = {"grokked": evidence.seeds("delay_straightness_coarse")["grokked"]}
    n = len(bounds)
    straight = sum(value >= STRAIGHT for value in limits)
    bent = sum(value < HALF_CIRCLE for value in bounds)
    whole = contrast(*evidence.values("straightness"))
    numbers = {
        "delay_straightness": evidence.medians("delay_straightness")[0],
        "delay_straightness_coarse": spread(bounds).median,
        "delay_straightness_limit": spread(limits).median,
        "runs_straight": straight,
        "runs_bent": bent,
        "delay_cos_consecutive": evidence.medians("delay_cos_consecutive")[0],
        "delay_cos_origin": evidence.medians("delay_cos_origin")[0],
        "whole_path_cliffs_delta_grokked_above_steady": whole.delta,
    }
    said = f"{straight} of {n} grokked runs are straight there, {bent} are not"
    if bounds:
        said += f" (geodesic / length at most {span(bounds, '.2g')})"
    verdict: Verdict = "undetermined"
    change = "more seeds: these are between both bounds"
    if len(limits) < n:
        change = "denser checkpoints between t_train and t_test, until the length stops growing"
    if short := too_few(seeds):
        said, change = f"{said}; {short}", more_seeds(seeds)
    elif more_than_half(straight, n):
        verdict, change = "supported", "runs that take a longer way"
    elif more_than_half(bent, n):
        verdict, change = "contradicted", "runs that come near the shortest way"
    return Claim(
        "straight_path",
        "a model that groks moves along a straight path in information space",
        "section 6.3, which looks at cosines of steps; length and geodesic are ours",
        verdict,
        said,
        numbers,
        seeds,
        "of the path of predictions from t_train to t_test: straight if geodesic / length, "
        f"extrapolated to spacing 0, is at least {STRAIGHT:g}; not straight if it is below "
        f"{HALF_CIRCLE:.2g} (a half circle) already over at most {COARSE} checkpoints, which "
        "bounds it from above and leaves the noise of the optimiser little room; supported or "
        "contradicted if more than half of the grokked runs are (all of at least 3, or the "
        "binomial test at 5 %)",
        change,
    )
