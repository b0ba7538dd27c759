"""Claims of Manning-Coe et al. 2025 (arXiv 2502.01739) about grokked and steady models.

Every rule is fixed here and stands in the result: three are about what models have at the end, two
about how they come there. Supported and contradicted are said of the runs at hand; what they cannot
decide is undetermined, with what would decide it.
"""

import math

from grokinterp.claims.evidence import FEWEST, Evidence, known, span
from grokinterp.claims.registry import Finding, claim, decided
from grokinterp.comparison.lineup import RunProfile
from grokinterp.comparison.profile import COARSE, SOON
from grokinterp.sweeps.statistics import LEVEL, contrast, line, median_interval, more_than_half

SAME_WITHIN = 0.25  # of what training changed in a feature
CHANGED = 0.05  # IPRs and correlations lie between 0 and 1
FEATURES = ("ipr_input", "ipr_output", "r_energy")
OBSERVABLES = ("energy", "abs_magnetization", "magnetization")
HALF_EXPLAINED = math.sqrt(0.5)  # |r| of a line that explains half of the variance
OVERSHOOT = 1.1  # c at its peak over c at the end
STRAIGHT = 0.9
HALF_CIRCLE = 2 / math.pi  # straightness of one, about which nobody would say straight


@claim(
    "same_features",
    statement="grokked and steady models learn the same features",
    source="sections 3 and 4",
    rule="of each feature (mean IPR of input and output weights; for Ising |r| of the hidden layer "
    f"with the energy) that training changed by more than {CHANGED:g} in the median of one "
    "regime: supported if in every pair of a grokked and a steady run it differs by at most "
    f"{SAME_WITHIN:.0%} of the larger change, and for Ising |r| falls from energy to |M| to M "
    "in every run; contradicted if one feature differs by more in every pair, or no run keeps "
    "the order",
    slow=True,
    falsifiers=["a pair of runs that differs by more"],
)
def same_features(evidence: Evidence) -> Finding:
    """Whether both regimes learn the same features to the same degree."""
    found = {name: _gap(evidence, name) for name in FEATURES if all(evidence.values(name))}
    gaps = {name: gap for name, (_, gap) in found.items() if gap}
    numbers = {key: value for values, _ in found.values() for key, value in values.items()}
    ordered = [o for p in evidence.profiles if (o := _keeps_order(p)) is not None]
    if ordered:
        numbers["runs_in_order"] = sum(ordered)
    differing = [name for name, (low, _) in gaps.items() if low > SAME_WITHIN]
    reason = "no feature is defined for these models, or training changed none"
    if gaps:
        worst = max(differing or gaps, key=lambda name: gaps[name][0 if differing else 1])
        reason = f"{worst} differs most, by {span(gaps[worst], '.0%')} of what training changed"
    if ordered and not all(ordered):
        reason += f"; the order of the observables holds in {sum(ordered)} of {len(ordered)} runs"
    alike = bool(gaps) and all(high <= SAME_WITHIN for _, high in gaps.values())
    return decided(
        reason,
        numbers,
        evidence.seeds(*found, *(f"r_{name}" for name in OBSERVABLES if ordered)),
        supported=alike and all(ordered),
        contradicted=bool(differing) or (bool(ordered) and not any(ordered)),
        would_support="a pair of runs with the same features",
        would_decide="more seeds, if the pairs that differ are exceptions"
        if gaps
        else "models that learn a feature that is defined for them",
    )


def _gap(evidence: Evidence, feature: str) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Numbers of a feature, and its smallest and largest difference over pairs of runs."""
    untrained = median_interval([p.start.get(feature, math.nan) for p in evidence.profiles]).median
    middles = evidence.medians(feature)
    change = max(abs(middle - untrained) for middle in middles)
    numbers = dict(zip(("grokked", "steady", "untrained"), (*middles, untrained), strict=True))
    gap = None
    if change > CHANGED:
        grokked, steady = evidence.values(feature)
        differences = [abs(a - b) / change for a in grokked for b in steady]
        gap = min(differences), max(differences)
        numbers |= {"smallest_gap": gap[0], "largest_gap": gap[1]}
    return {f"{feature}_{key}": value for key, value in numbers.items()}, gap


def _keeps_order(profile: RunProfile) -> bool | None:
    """Whether |r| falls from energy to |M| to M; None for a task without observables."""
    found = [profile.values.get(f"r_{name}", math.nan) for name in OBSERVABLES]
    return None if any(map(math.isnan, found)) else found == sorted(found, reverse=True)


@claim(
    "grokked_less_efficient",
    statement="grokked models encode less efficiently than steady ones",
    source="section 5",
    rule="supported if c (layer-wise magnitude pruning) is larger in steady runs by the one-sided "
    f"rank-sum test at {LEVEL:.0%}, contradicted if smaller by the same (so that of equal "
    "regimes one comparison in ten is decided); 3 against 3 seeds decide only without overlap. "
    "Other bases are told and do not decide",
    slow=True,
    falsifiers=["a steady run with a smaller c than the grokked ones"],
)
def grokked_less_efficient(evidence: Evidence) -> Finding:
    """Whether steady models compress better."""
    grokked, steady = evidence.values("c")
    found = contrast(steady, grokked)
    numbers = {
        "c_grokked": median_interval(grokked).median,
        "c_steady": median_interval(steady).median,
        "ratio_steady_to_grokked": found.ratio,
        "cliffs_delta": found.delta,
        "p_steady_above": found.p_above,
        "p_steady_below": found.p_below,
    }
    for basis in ("c_fourier", "c_singular"):
        there = contrast(*reversed(evidence.values(basis)))
        if math.isfinite(there.delta):
            numbers |= {f"{basis}_ratio": there.ratio, f"{basis}_cliffs_delta": there.delta}
    medians = [
        f"{median:.3g} in {regime}"
        for regime in ("steady", "grokked")
        if not math.isnan(median := numbers[f"c_{regime}"])
    ]
    reason = "no run that counts has a c"
    if medians:
        reason = f"c is {' and '.join(medians)} runs (medians)"
    if not math.isnan(p := min(found.p_above, found.p_below)):
        reason += f", p = {p:.3g}"
    return decided(
        reason,
        numbers,
        evidence.seeds("c"),
        supported=found.p_above <= LEVEL,
        contradicted=found.p_below <= LEVEL,
        would_support="a steady run with a larger c than the grokked ones",
        would_decide="more seeds, if the difference stays as it is",
    )


@claim(
    "compressive_regime",
    statement="among steady models compressibility rises linearly with the train loss at the end",
    source="section 5 and appendix D",
    rule="over steady runs of at least three settings and three seeds: supported if Pearson's r of "
    "c with the train loss at the end is at least 0.71 (half of the variance), over runs and "
    "over the settings' medians, and its 95 % interval over runs above 0; contradicted if that "
    "interval is below 0.71. The interval takes the runs for independent. Three settings can "
    "show that c rises; that it does so along a line takes more",
    slow=True,
    falsifiers=["steady runs off the line"],
)
def compressive_regime(evidence: Evidence) -> Finding:
    """Whether steady models trade train loss for compressibility along a line."""
    axes = ("train_loss", "c")
    by_setting: dict[str, list[RunProfile]] = {}
    for profile in evidence.steady:
        if profile.run.recipe is not None:
            by_setting.setdefault(evidence.settings[profile.name], []).append(profile)
    fitted = line(*([p.values.get(name, math.nan) for p in evidence.steady] for name in axes))
    middles = [
        [median_interval(known(profiles, name)).median for profiles in by_setting.values()]
        for name in axes
    ]
    n_settings, r_settings = len(by_setting), line(*middles).r
    seeds = {"steady": evidence.seeds(*axes)["steady"]}
    numbers = {
        "slope_c_per_nat": fitted.slope,
        "r": fitted.r,
        "r_low": fitted.low,
        "r_high": fitted.high,
        "steady_runs": fitted.n,
        "steady_settings": n_settings,
        "r_of_settings": r_settings,
    }
    if min(n_settings, seeds["steady"]) < FEWEST:
        counts = f"steady settings: {n_settings}, seeds: {seeds['steady']}"
        reason = f"{counts}; a line takes {FEWEST} of each"
        more = "steady runs from other scales of the initial weights, three seeds each"
        return Finding("undetermined", reason, numbers, seeds, more)
    if math.isnan(fitted.r):
        reason = "train loss or c does not vary among the steady runs"
        return Finding("undetermined", reason, numbers, seeds, "runs that differ")
    interval = "" if math.isnan(fitted.low) else f" [{fitted.low:.3g}, {fitted.high:.3g}]"
    over_settings = (
        f"the medians of {n_settings} settings do not differ"
        if math.isnan(r_settings)
        else f"{r_settings:.3g} over the medians of {n_settings} settings"
    )
    return decided(
        f"r = {fitted.r:.3g}{interval} over {fitted.n} steady runs, {over_settings}",
        numbers,
        seeds,
        supported=min(fitted.r, r_settings) >= HALF_EXPLAINED and fitted.low > 0,
        contradicted=fitted.high < HALF_EXPLAINED,
        would_support="steady runs on a rising line",
        would_decide="more seeds or settings, to narrow the interval of r",
    )


@claim(
    "peak_after_plateau",
    statement="compressibility peaks right after the plateau and then declines",
    source="section 6.2",
    rule=f"a run peaks so if the largest c of the checkpoints looked at is at least {OVERSHOOT:g} "
    f"times that of the end and comes by {SOON:g} t_test; it is asked of runs that go on for "
    "longer and have two checkpoints by then. Supported if in both regimes more than half do "
    "(all of at least 3, or the binomial test at 5 %), contradicted if in one of them more "
    "than half do not",
    slow=True,
    falsifiers=["runs whose c goes on rising, or never exceeds its end"],
)
def peak_after_plateau(evidence: Evidence) -> Finding:
    """Whether c peaks soon after test is learned, above where it ends."""
    measures = ("c_peak_over_end", "c_peak_over_t_test")
    over, when = map(evidence.medians, measures)
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
    return decided(
        ", ".join(f"{k} of {n} {regime} runs peak so" for regime, (k, n) in counts.items()),
        numbers,
        evidence.seeds(*measures),
        supported=all(more_than_half(k, n) for k, n in counts.values()),
        contradicted=any(more_than_half(n - k, n) for k, n in counts.values()),
        would_support="runs whose c peaks soon after t_test",
        would_decide="more seeds",
    )


def _peaks(profile: RunProfile) -> bool | None:
    over, when = (profile.values.get(f"c_peak_over_{x}") for x in ("end", "t_test"))
    return None if over is None or when is None else over >= OVERSHOOT and when <= SOON


@claim(
    "straight_path",
    statement="a model that groks moves along a straight path in information space",
    source="section 6.3, which looks at cosines of steps; length and geodesic are ours",
    rule="of the path of predictions from t_train to t_test: straight if geodesic / length, "
    f"extrapolated to spacing 0, is at least {STRAIGHT:g}; not straight if it is below "
    f"{HALF_CIRCLE:.2g} (a half circle) already over at most {COARSE} checkpoints, which "
    "bounds it from above and leaves the noise of the optimiser little room; supported or "
    "contradicted if more than half of the grokked runs are (all of at least 3, or the "
    "binomial test at 5 %)",
    slow=True,
    falsifiers=["runs that take a longer way"],
)
def straight_path(evidence: Evidence) -> Finding:
    """Whether a model that groks goes straight from train learned to test learned."""
    bounds = known(evidence.grokked, "delay_straightness_coarse")
    limits = known(evidence.grokked, "delay_straightness_limit")
    n = len(bounds)
    straight = sum(value >= STRAIGHT for value in limits)
    bent = sum(value < HALF_CIRCLE for value in bounds)
    reason = f"{straight} of {n} grokked runs are straight there, {bent} are not"
    if bounds:
        reason += f" (geodesic / length at most {span(bounds, '.2g')})"
    return decided(
        reason,
        {
            "delay_straightness": evidence.medians("delay_straightness")[0],
            "delay_straightness_coarse": median_interval(bounds).median,
            "delay_straightness_limit": median_interval(limits).median,
            "runs_straight": straight,
            "runs_bent": bent,
            "delay_cos_consecutive": evidence.medians("delay_cos_consecutive")[0],
            "delay_cos_origin": evidence.medians("delay_cos_origin")[0],
            "whole_path_cliffs_delta_grokked_above_steady": contrast(
                *evidence.values("straightness")
            ).delta,
        },
        {"grokked": evidence.seeds("delay_straightness_coarse")["grokked"]},
        supported=more_than_half(straight, n),
        contradicted=more_than_half(bent, n),
        would_support="runs that come near the shortest way",
        would_decide="denser checkpoints between t_train and t_test, until the length stops growing"
        if len(limits) < n
        else "more seeds: these are between both bounds",
    )
