"""The claims of "Four Explanations for Grokking" that controls decide: A1, A4, C1 and C2.

A control is a run of the same network on the same inputs that differs in how it is trained. What
one is, is read from its recipe, never from its name.
"""

import math
from collections.abc import Sequence
from statistics import median

from grokinterp.claims.evidence import FEWEST
from grokinterp.claims.four_explanations import said, side
from grokinterp.claims.held_norms import NormLandscape
from grokinterp.claims.paired_dates import NO_DELAY
from grokinterp.claims.registry import Finding, Threshold, Undetermined, claim
from grokinterp.claims.run_evidence import ControlEvidence, ControlRun
from grokinterp.sweeps.statistics import power_law


@claim(
    "A1",
    statement="grokking needs weight decay",
    source=said("Liu et al. 2023 (Omnigrok, arXiv 2210.01117) and Nanda et al. 2023 (arXiv "
                "2301.05217). Power et al. 2022 (arXiv 2201.02177, figure 1) grokked without"),
    rule="over runs of the same network on the same inputs that train without weight decay, "
    "whatever else holds or turns their updates: contradicted if any of them comes to answer "
    f"95 % of the test inputs; supported if at least {FEWEST} seeds of plain training without "
    "decay fit the training inputs and none does",
    needs="controls",
    falsifiers=["any run that generalises with weight decay 0, such as the controls perpendicular "
                "and held_norm"],
)  # fmt: skip
def needs_decay(evidence: ControlEvidence) -> Finding:
    """Whether any run generalises without weight decay."""
    free = evidence.where(lambda run: not _decay(run) and run.same_lesson)
    plain = [run for run in free if run.only("weight_decay")]
    others = [run for run in free if not run.only("weight_decay")]
    fitted = [run for run in plain if run.t99 is not None]
    reached, elsewhere = (
        [run for run in those if run.t95 is not None] for those in (plain, others)
    )
    numbers = {
        "no_decay_runs": len(plain),
        "no_decay_fitted": len(fitted),
        "no_decay_generalised": len(reached),
        "other_decay_free_runs": len(others),
        "other_decay_free_generalised": len(elsewhere),
        "generalised_without_decay": len(reached) + len(elsewhere),
    }
    threshold = Threshold("generalised_without_decay", 1, "below")
    chance = 0.5 ** len(free)  # each generalises or not by the toss of a coin
    seeds = {"no_decay": _seeds(plain), "other decay-free": _seeds(others)}
    counted = f"{len(reached)} of {len(plain)} runs with plain decay 0 generalise"
    if others:
        counted += f", {len(elsewhere)} of {len(others)} whose updates are held or turned besides"
    if reached or elsewhere:
        named = ", ".join(run.name for run in (reached + elsewhere)[:4])
        return Finding("contradicted", f"{counted} ({named})", numbers, seeds,
                       "nothing: one run that generalises without decay is enough",
                       threshold=threshold, chance=chance)  # fmt: skip
    lacks = "the control no_decay"
    if _seeds(fitted) >= FEWEST:
        return Finding("supported", counted, numbers, seeds, threshold=threshold, chance=chance)
    why = counted if free else "no run without weight decay is here"
    raise Undetermined(
        f"{why}; it takes {FEWEST} seeds of {lacks} (and perpendicular or held_norm could "
        "contradict it)",
        needs=lacks, numbers=numbers, seeds=seeds,
    )  # fmt: skip


@claim(
    "A4",
    statement="the delay is inversely proportional to the weight decay",
    source=said("Liu et al. 2023 (Omnigrok, arXiv 2210.01117) and Lyu et al. 2024 (arXiv "
                "2311.18817)"),
    rule=f"over at least 3 values of weight decay, {FEWEST} seeds each, at which every seed "
    "comes to answer the training and the test inputs: the exponent of the delay (t95 - t99) as a "
    "power law of the decay, by the bootstrap; supported if its 95 % interval holds -1 and not 0, "
    "contradicted if it does not hold -1",
    needs="controls",
    falsifiers=["an interval of the exponent without -1"],
)  # fmt: skip
def delay_by_decay(evidence: ControlEvidence) -> Finding:
    """Whether the delay falls as one over the weight decay."""
    by_decay: dict[float, list[ControlRun]] = {}
    for run in evidence.where(lambda run: run.only("weight_decay") and _decay(run) > 0):
        by_decay.setdefault(_decay(run), []).append(run)
    law = {decay: runs for decay, runs in sorted(by_decay.items())
           if all(run.delay is not None for run in runs)}  # fmt: skip
    left = [f"{decay:g}" for decay in by_decay if decay not in law]
    points = [(decay, run.delay) for decay, runs in law.items() for run in runs if run.delay]
    seeds = {f"decay {decay:g}": _seeds(runs) for decay, runs in sorted(by_decay.items())}
    numbers = {f"delay_at_{decay:g}": median(run.delay or math.nan for run in runs)
               for decay, runs in law.items()}  # fmt: skip
    if len(law) < 3 or min(_seeds(runs) for runs in law.values()) < FEWEST:
        told = ", ".join(f"{decay:g}" for decay in law) or "no value"
        without = f" (not every seed groks at {', '.join(left)})" if left else ""
        needs = "the controls decay_x0.3, decay_x0.6 and decay_x3"
        raise Undetermined(
            f"every seed has a delay at {told}{without}; it takes 3 values of the decay and "
            f"{FEWEST} seeds of each: {needs}",
            needs=needs, numbers=numbers, seeds=seeds,
        )  # fmt: skip
    found = power_law(*zip(*points, strict=True))
    numbers |= {"exponent": found.exponent, "exponent_low": found.low, "exponent_high": found.high}
    reason = (
        f"delay ~ decay^{found.exponent:.2f} [{found.low:.2f}, {found.high:.2f}] over "
        f"{', '.join(f'{decay:g}' for decay in law)}"
    )
    if left:
        reason += f" (at {', '.join(left)} not every seed groks: the law has an end)"
    holds = found.low <= -1 <= found.high
    verdict = side(holds and not found.low <= 0 <= found.high, not holds)
    # By chance the exponent is anywhere from -2 to 0.
    return Finding(verdict, reason, numbers, seeds, "more values of the decay, or more seeds",
                   threshold=Threshold("exponent_low", -1.0, "below"),
                   chance=min(1.0, (found.high - found.low) / 2))  # fmt: skip


@claim(
    "C1",
    statement="networks generalise in a narrow zone of weight norms",
    source=said("Liu et al. 2023 (Omnigrok, arXiv 2210.01117)"),
    rule="over norms that are held from the start without weight decay, at least 3 of them with "
    f"{FEWEST} seeds each; a norm succeeds if more than half of its seeds answer 95 % of the test "
    "inputs: supported if some succeed and some do not, contradicted if all do or none does",
    needs="controls",
    falsifiers=["held norms that all generalise, or of which none does"],
)
def narrow_zone(evidence: ControlEvidence) -> Finding:
    """Whether some held norms generalise and some do not."""
    found = _landscape(evidence)
    zone, shares = found.zone, {row["alpha"]: row["n_generalize"] / row["n_seeds"]
                                for row in found.norms}  # fmt: skip
    numbers = {f"share_at_{alpha:g}": share for alpha, share in shares.items()}
    good = [alpha for alpha, share in shares.items() if share > 0.5]
    bad = [alpha for alpha in shares if alpha not in good]
    names = [", ".join(f"{x:g}" for x in those) or "none" for those in (good, bad)]
    reason = f"held at {names[0]} times the initial norm it generalises, at {names[1]} not"
    if good and bad:
        ends = [end for end, at in (("below", zone.below), ("above", zone.above)) if at is None]
        reason += f" (the zone is open {' and '.join(ends)})" * bool(ends)
        reason += " (with a gap)" * bool(zone.gaps)
    # By chance each norm succeeds or not by the toss of a coin.
    return Finding(side(bool(good and bad), not (good and bad)), reason, numbers,
                   _seeds_of_norms(found), "held norms of which some generalise and some do not",
                   chance=1 - 2 * 0.5 ** len(shares))  # fmt: skip


@claim(
    "C2",
    statement="the delay is the time in which decay walks the norm into the zone",
    source=said("Liu et al. 2023 (Omnigrok, arXiv 2210.01117)"),
    rule=f"of the norms, held without weight decay, at which all of at least {FEWEST} seeds "
    "memorise and generalise, the one that does so first: supported if there is no delay left "
    f"(median t95 / t99 at most {NO_DELAY:g}), contradicted if there is one",
    needs="controls",
    falsifiers=["a delay that stays where the norm is held inside the zone"],
)
def walks_into_the_zone(evidence: ControlEvidence) -> Finding:
    """Whether a norm held inside the zone leaves no delay."""
    found = _landscape(evidence)
    inside = [row for row in found.norms if row["n_generalize"] == row["n_seeds"] == row["n_fit"]]
    if not inside:
        raise Undetermined("at no held norm do all seeds memorise and generalise",
                           needs="held norms inside the zone",
                           seeds=_seeds_of_norms(found))  # fmt: skip
    best = min(inside, key=lambda row: row["t95"])
    alpha, t99, t95 = best["alpha"], best["t99"], best["t95"]
    ratio = t95 / t99 if t99 else math.inf
    numbers = {"held": alpha, "t99": t99, "t95": t95, "t95_over_t99": ratio}
    reason = f"held at {alpha:g} times the initial norm, t99 is {t99:g} and t95 {t95:g}"
    free = [row for row in found.free if row["t95"] is not None]
    if free:
        for name in ("t95", "alpha_max", "alpha_t95"):
            numbers[f"free_{name}"] = median(row[name] for row in free)
        ways = dict.fromkeys(row["came_from"] for row in free if row["came_from"])
        reason += (
            f"; free, t95 is {numbers['free_t95']:g}, and the norm is at most "
            f"{numbers['free_alpha_max']:.2f} times the initial one, "
            f"{numbers['free_alpha_t95']:.2f} at t95"
        )
        reason += f" (to the zone from {', '.join(ways)})" * bool(ways)
    last = 0 if found.budget is None else found.budget[1]
    # By chance t95 lies anywhere (in its logarithm) between t99 and the last step.
    chance = math.log(NO_DELAY) / math.log(last / t99) if last > NO_DELAY * t99 > 0 else 1.0
    return Finding(side(ratio <= NO_DELAY, ratio > NO_DELAY), reason, numbers,
                   {f"held {alpha:g}": best["n_seeds"]}, "a held norm at which test follows train",
                   threshold=Threshold("t95_over_t99", NO_DELAY, "below"),
                   chance=chance)  # fmt: skip


def _decay(run: ControlRun) -> float:
    assert run.run.recipe is not None
    return float(run.run.recipe.weight_decay)


def _seeds(runs: Sequence[ControlRun]) -> int:
    return len({run.seed for run in runs})


def _landscape(evidence: ControlEvidence) -> NormLandscape:
    """What held norms come to, where there are enough of them, and enough seeds."""
    found = evidence.landscape
    rows = () if found is None else found.norms
    if found is None or len(rows) < 3 or min(row["n_seeds"] for row in rows) < FEWEST:
        there = ", ".join(f"{row['alpha']:g} ({row['n_seeds']})" for row in rows) or "none"
        raise Undetermined(
            f"held norms (seeds): {there}; it takes 3 norms and {FEWEST} seeds of each, the "
            "control held_norm",
            needs="the control held_norm",
            seeds={} if found is None else _seeds_of_norms(found),
        )
    return found


def _seeds_of_norms(found: NormLandscape) -> dict[str, int]:
    return {f"held {row['alpha']:g}": row["n_seeds"] for row in found.norms}
