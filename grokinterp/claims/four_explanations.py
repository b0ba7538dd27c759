"""The claims of the note "Four Explanations for Grokking", each as a test on a run.

A weight decay, B circuits, C the norm, D double descent, E how abrupt it is, F lazy and rich: A1 to
F1. Each says which published account the note's claim goes back to. The thresholds are this
package's own, and stand in the rules. Those that controls decide (A1, A4, C1, C2) are in
`four_explanations_by_controls`.
"""

import math

import numpy as np

from grokinterp.claims.registry import Finding, Threshold, Undetermined, claim, side
from grokinterp.claims.run_evidence import RunEvidence
from grokinterp.geometry.tangent_kernel import LAZY_BELOW, RICH_GROWTH, word_of
from grokinterp.progress._abruptness import FEWEST_BETWEEN
from grokinterp.progress.phases import CIRCUIT_FACTOR, excluded_rise

NOTE = 'the note "Four Explanations for Grokking"'
SHRUNK, FLAT = 0.95, 0.99  # of the norm at memorisation: a run that shrinks, and one that does not
UNOPPOSED, OPPOSED = 0.8, 0.5  # of the rate at which decay alone would shrink the norm
NO_RISE = 2.0  # of excluded loss
MOST_OF_RISE = 0.5
LOW_RANK = 0.5  # of the largest rank
FEWEST_RANKS = 8  # that a matrix could have, for half of them to say anything
SMOOTH, JUMP = 3.0, 6.0  # speed of the mean margin at the transition over its mean speed
SHARPENED, AS_ABRUPT = 1.25, 1.1  # width of the rise of probability over that of accuracy
ONE = {"run": 1}


def said(source: str) -> str:
    """Where a claim of the note comes from."""
    return f"{NOTE}, after {source}"


# A: weight decay


@claim(
    "A2",
    statement="weight decay keeps shrinking the norm while the training loss is zero",
    source=said("Liu et al. 2023 (Omnigrok, arXiv 2210.01117)"),
    rule="supported if the norm of the trained weights falls from memorization_step to grok_step "
    f"by at least {1 - SHRUNK:.0%} and shrinks in more than half of those updates; contradicted "
    f"if it does not fall by {1 - FLAT:.0%}",
    needs="run",
    falsifiers=["a norm that is flat or rises between memorising and grokking"],
)
def norm_keeps_shrinking(run: RunEvidence) -> Finding:
    """Whether the norm falls between memorising and grokking."""
    start, end = run.delay
    if run.weight_decay == 0:
        raise Undetermined("this run has no weight decay", needs="a run with weight decay")
    at = [start, *(s for s in run.checkpoints(start, end) if start < s < end), end]
    norms = [run.norm(step) for step in at]
    shrinking = sum(
        b - a for a, b, x, y in zip(at, at[1:], norms, norms[1:], strict=False) if y < x
    )
    ratio, share = norms[-1] / norms[0], shrinking / (end - start)
    peak = run.balance.peak_step
    numbers = {
        "norm_at_memorization": norms[0],
        "norm_at_grok": norms[-1],
        "norm_ratio": ratio,
        "share_of_updates_shrinking": share,
        "peak_norm": float(run.balance.norms[:, 0].max()),
        "peak_step": peak,
        "k": -math.log(ratio) / (end - start),
    }
    reason = (
        f"the norm goes from {norms[0]:.4g} at step {start:g} to {norms[-1]:.4g} at step {end:g} "
        f"(peak {numbers['peak_norm']:.4g} at step {peak}), shrinking in {share:.0%} of the updates"
    )
    verdict = side(ratio <= SHRUNK and share > 0.5, ratio > FLAT)
    # By chance it rises or falls.
    return Finding(verdict, reason, numbers, ONE,
                   "a norm that falls clearly",
                   threshold=Threshold("norm_ratio", SHRUNK, "below"), chance=0.5)  # fmt: skip


@claim(
    "A3",
    statement="the norm shrinks at the rate of weight decay, the loss hardly opposing it",
    source=said("Lyu et al. 2024 (arXiv 2311.18817) and Omnigrok's norm of w_0 exp(-decay t)"),
    rule="of k / (lr weight_decay), k = -d ln norm / d updates, from the largest norm between "
    "memorising and grokking to grok_step (from memorising on, if it grows all the way): supported "
    f"from {UNOPPOSED:g} on, contradicted below {OPPOSED:g}",
    needs="run",
    falsifiers=["a norm that falls at less than half the rate of decay alone"],
)
def gradient_is_negligible(run: RunEvidence) -> Finding:
    """Whether the norm falls as fast as decay alone would have it."""
    start, end = run.delay
    steps = run.checkpoints(start, end)
    ratios = run.balance.table().set_index("step")["ratio"]
    if len(steps) < 2:
        raise Undetermined("fewer than two checkpoints lie between memorising and grokking",
                           needs="checkpoints between memorising and grokking")  # fmt: skip
    first = max(steps[:-1], key=run.norm)
    if run.norm(first) <= run.norm(steps[-1]):
        first = steps[0]  # it grows all the way
    window = run.balance.over(first, steps[-1])
    ratio = window["ratio"]
    if not math.isfinite(ratio):
        why = "; ".join(run.balance.notes) or "the rate of weight decay is not known"
        raise Undetermined(why, needs="a run with decoupled weight decay (optimizer='adamw')")
    inside = ratios[(ratios.index >= first) & (ratios.index < steps[-1])]
    numbers = {
        "k_over_decay": ratio,
        "k_over_decay_least": float(inside.min()),
        "k_over_decay_most": float(inside.max()),
        "cancelled_share": 1 - ratio,
        "from_step": first,
        "to_step": steps[-1],
    }
    reason = (
        f"from step {first} to {steps[-1]} the norm {'falls' if ratio > 0 else 'grows'}, k = "
        f"{ratio:.3g} of the rate of decay alone ({inside.min():.2g} to {inside.max():.2g} between "
        f"checkpoints): the loss cancels {1 - ratio:.0%} of it"
    )
    verdict = side(ratio >= UNOPPOSED, ratio < OPPOSED)
    # By chance the loss cancels any share between none and all.
    return Finding(verdict, reason, numbers, ONE,
                   "a norm that falls nearer to the rate of decay alone",
                   threshold=Threshold("k_over_decay", UNOPPOSED, "above"),
                   chance=1 - UNOPPOSED)  # fmt: skip


@claim(
    "A5",
    statement="of what fits the training inputs, weight decay selects a solution of lower norm",
    source=said("Nanda et al. 2023 (arXiv 2301.05217) and Varma et al. 2023 (arXiv 2309.02390)"),
    rule="of the last checkpoint before a tenth of the rise of test accuracy, and the one after "
    "grok_step whose training loss is nearest below: supported if the norm of the later one is "
    f"at most {SHRUNK:g} of the earlier one's, contradicted if it is not below",
    needs="run",
    falsifiers=["a norm after the transition that is not below the one before it, at equal loss"],
)
def lower_norm_is_selected(run: RunEvidence) -> Finding:
    """Whether the norm at equal training loss is lower after the transition."""
    start, end = run.delay
    rise = run.abruptness.rise("accuracy")
    losses = run.measures.set_index("step").get("train_loss")
    plateau = [] if rise is None else run.checkpoints(start, rise.t10)
    if losses is None or losses.isna().all() or not plateau:
        raise Undetermined("no checkpoint with a training loss lies between memorising and the "
                           "transition", needs="checkpoints on the plateau")  # fmt: skip
    before = plateau[-1]
    end = max(end, run.phases.grok_step_unmirrored or 0)
    later = [s for s in run.checkpoints(end, math.inf) if losses[s] <= losses[before]]
    if not later:
        raise Undetermined(
            f"no checkpoint after step {end:g} fits the training inputs as well as step {before} "
            f"(loss {losses[before]:.3g})",
            needs="checkpoints after the transition with as low a training loss",
        )
    after = max(later, key=lambda step: losses[step])
    ratio = run.norm(after) / run.norm(before)
    numbers = {
        "norm_before": run.norm(before),
        "norm_after": run.norm(after),
        "norm_ratio": ratio,
        "train_loss_before": float(losses[before]),
        "train_loss_after": float(losses[after]),
        "norm_at_end": run.norm(run.run.steps[-1]),
        "train_loss_at_end": float(losses.iloc[-1]),
        "step_before": before,
        "step_after": after,
    }
    reason = (
        f"norm {run.norm(before):.4g} at step {before} (training loss {losses[before]:.2g}), "
        f"{run.norm(after):.4g} at step {after} ({losses[after]:.2g}), "
        f"{numbers['norm_at_end']:.4g} at the end ({losses.iloc[-1]:.2g})"
    )
    return Finding(side(ratio <= SHRUNK, ratio >= 1), reason, numbers, ONE,
                   "a clearly lower norm after the transition, at equal loss",
                   threshold=Threshold("norm_ratio", SHRUNK, "below"), chance=0.5)  # fmt: skip


# B: circuits


@claim(
    "B1",
    statement="the generalising circuit is assembled before the transition",
    source=said("Nanda et al. 2023 (arXiv 2301.05217, section 5)"),
    rule="of excluded loss, from its least after memorising to the start of cleanup: supported if "
    f"it rises {CIRCUIT_FACTOR:g} times; contradicted if it does not double and is below that of "
    "a uniform answer there",
    needs="run",
    falsifiers=["an excluded loss that has not risen when cleanup starts"],
)
def circuit_before_transition(run: RunEvidence) -> Finding:
    """Whether excluded loss has risen when cleanup starts."""
    start, _ = run.delay
    ends = {phase.name: phase.end for phase in run.phases.phases or ()}
    cleanup, excluded = ends.get("circuit_formation"), run.curve("excluded_loss")
    rise = None if cleanup is None else excluded_rise(excluded, start, cleanup)
    if cleanup is None or excluded is None or rise is None:
        lacks = "the start of cleanup is" if cleanup is None else "excluded loss is"
        reason = str(run.measures.attrs.get("reason") or "")
        why = f": {reason}" if excluded is None and reason else ""
        raise Undetermined(f"{lacks} not known{why}", needs="a run with dated phases and key "
                           "frequencies")  # fmt: skip
    there = float(np.interp(cleanup, excluded.steps, excluded.values))
    uniform = math.log(run.run.task.n_classes)
    numbers = {
        "excluded_rise": rise,
        "excluded_loss_at_cleanup": there,
        "uniform_loss": uniform,
        "cleanup_start": cleanup,
    }
    reason = (
        f"excluded loss is {there:.3g} at step {cleanup:g}, {rise:.3g} times its least after "
        "memorising"
    )
    if rise < CIRCUIT_FACTOR and there > uniform:
        reason += f", and above a uniform answer's {uniform:.3g} all along" * (rise < NO_RISE)
    verdict = side(rise >= CIRCUIT_FACTOR, rise < NO_RISE and there < uniform)
    return Finding(verdict, reason, numbers, ONE,
                   "an excluded loss that rises between memorising and cleanup",
                   threshold=Threshold("excluded_rise", CIRCUIT_FACTOR, "above"))  # fmt: skip


@claim(
    "B2",
    statement="the transition falls into cleanup, not into circuit formation",
    source=said("Nanda et al. 2023 (arXiv 2301.05217, section 5)"),
    rule="of the rise of test accuracy over the three phases (of unmirrored test pairs where the "
    f"operation is commutative): supported if more than {MOST_OF_RISE:.0%} and more than in "
    "circuit formation falls into cleanup, contradicted if the largest share falls into circuit "
    "formation",
    needs="run",
    falsifiers=["a rise of which the largest share falls into circuit formation"],
)
def transition_in_cleanup(run: RunEvidence) -> Finding:
    """Whether most of the rise of test accuracy falls into cleanup."""
    _ = run.delay
    found = run.shares
    known = {each.measure: each for each in found.shares}
    deciding = next((x for x in ("test_acc_unmirrored", "test_acc") if x in known), None)
    if deciding is None:
        raise Undetermined("; ".join(found.notes) or "there are no shares of test accuracy",
                           needs="a run with three phases that are over")  # fmt: skip
    share = known[deciding]
    numbers = {
        f"cleanup_share_{name}": each.cleanup for name, each in known.items()
    } | {"formation_share": share.circuit_formation, "cleanup_share": share.cleanup}  # fmt: skip
    cleanup, formation = share.cleanup, share.circuit_formation
    largest = max(share.memorization, formation, cleanup)
    others = ", ".join(f"{each.cleanup:.2f} of {name}" for name, each in known.items()
                       if name != deciding)  # fmt: skip
    reason = (
        f"{cleanup:.2f} of the rise of {deciding} falls into cleanup, {formation:.2f} into circuit "
        f"formation (by other measures cleanup has {others})"
    )
    verdict = side(cleanup > max(formation, MOST_OF_RISE), formation == largest)
    # By chance the three shares are any that add up to 1.
    return Finding(verdict, reason, numbers, ONE,
                   "a rise of test accuracy that falls into cleanup",
                   threshold=Threshold("cleanup_share", MOST_OF_RISE, "above"),
                   chance=0.25)  # fmt: skip


@claim(
    "B3",
    statement="the weights of a grokked network have low rank",
    source=said("Nanda et al. 2023 (arXiv 2301.05217)"),
    rule="of the entropic effective rank exp(H(s / sum s)) of every weight matrix over its largest "
    f"rank (of at least {FEWEST_RANKS}), at the last checkpoint: supported if all are at most "
    f"{LOW_RANK:g}, contradicted if one is larger",
    needs="run",
    falsifiers=["a matrix with more than half of its largest rank"],
)
def low_rank(run: RunEvidence) -> Finding:
    """Whether effective ranks are below half of the largest."""
    _, end = run.delay
    table = run.ranks.table()
    # Products of matrices have ranks of their own, and one of few columns has hardly any.
    table = table[~table["matrix"].str.contains(" ") & (table["full_rank"] >= FEWEST_RANKS)]
    table = table.assign(ratio=table["entropy_rank"] / table["full_rank"]).dropna(subset=["ratio"])
    if table.empty:
        raise Undetermined(f"no weight matrix has finite weights and a rank of {FEWEST_RANKS}",
                           needs="wide and finite weight matrices")  # fmt: skip
    last = table[table["step"] == table["step"].max()]
    at_grok = table[table["step"] == min(table["step"], key=lambda step: abs(step - end))]
    ratio, early = float(last["ratio"].max()), float(at_grok["ratio"].max())
    numbers = {"largest_ratio": ratio, "largest_ratio_at_grok": early}
    numbers |= {f"rank_{m}": r for m, r in zip(last["matrix"], last["entropy_rank"], strict=True)}
    widest = str(last.loc[last["ratio"].idxmax(), "matrix"])
    reason = (
        f"at the end {widest} has the largest share of its rank, {ratio:.2f}; near grok_step it "
        f"is {early:.2f}"
    )
    if ratio <= LOW_RANK < early:
        reason += ": low rank comes after the transition"
    # By chance each matrix has any share of its rank.
    return Finding(side(ratio <= LOW_RANK, ratio > LOW_RANK), reason, numbers, ONE,
                   "matrices with less than half of their ranks",
                   threshold=Threshold("largest_ratio", LOW_RANK, "below"),
                   chance=LOW_RANK ** len(last))  # fmt: skip


# D: double descent


@claim(
    "D1",
    statement="grokking is double descent in time",
    source=said("Davies, Langosco and Krueger 2023 (arXiv 2303.06173). Power et al. 2022 (arXiv "
                "2201.02177, appendix) hold them to be distinct"),
    rule="of test loss and test error over training: supported if there is a first descent to "
    "below a uniform answer, an ascent, a second descent below the first, a peak within half to "
    "twice the step of interpolation, and all of it in the error as well; contradicted if one of "
    "the five is missing",
    needs="run",
    falsifiers=["no first descent", "a peak that is far from interpolation",
                "a test error that does not rise"],
)  # fmt: skip
def double_descent(run: RunEvidence) -> Finding:
    """Whether test loss and error fall, rise near interpolation, and fall further."""
    _ = run.delay
    found = run.descents
    numbers = {name: _number(held) for name, held in found.conditions.items()}
    loss = found.loss
    if loss is not None:
        numbers["t_peak_over_t_interp"] = _number(loss.ratio)
        for name in ("min1", "peak"):
            extreme = getattr(loss, name)
            if extreme is not None:
                numbers |= {name: extreme.value, f"{name}_step": extreme.step}
    words = {True: "yes", False: "no", None: "unknown"}
    met = list(found.conditions.values())
    numbers["conditions_met"] = sum(held is True for held in met)
    reason = ", ".join(f"{x.replace('_', ' ')}: {words[y]}" for x, y in found.conditions.items())
    if "peak" in numbers:
        reason += (
            f"; test loss has its peak, {numbers['peak']:.4g}, at step {numbers['peak_step']:g}"
        )
        if numbers["t_peak_over_t_interp"] > 0:
            reason += f", {numbers['t_peak_over_t_interp']:.2g} times that of interpolation"
    verdict = side(found.double_descent is True, found.double_descent is False)
    # By chance each of the five holds or not by the toss of a coin.
    return Finding(verdict, reason, numbers, ONE,
                   "a test loss and error that fall, rise near interpolation and fall further",
                   threshold=Threshold("conditions_met", len(met), "above"),
                   chance=0.5 ** len(met))  # fmt: skip


# E: how abrupt it is


@claim(
    "E1",
    statement="the abruptness of grokking is an artefact of its measure",
    source=said("Schaeffer et al. 2023 (arXiv 2304.15004)"),
    rule="of the speed of the mean margin of test inputs where half of the rise of accuracy is "
    f"reached, over its mean speed: supported below {SMOOTH:g}, contradicted above {JUMP:g}; it "
    f"takes {FEWEST_BETWEEN} checkpoints within 10 and 90 % of the rise",
    needs="run",
    falsifiers=["margins that jump themselves"],
)
def measure_makes_it_abrupt(run: RunEvidence) -> Finding:
    """Whether margins move smoothly through the transition."""
    _ = run.delay
    found = run.abruptness
    if found.acceleration is None:
        raise _too_coarse(run)
    widths = {name: rise.width for name in ("accuracy", "margin") if (rise := found.rise(name))}
    numbers = {
        "acceleration": found.acceleration,
        "width_of_accuracy": widths["accuracy"],
        "width_of_margin": widths["margin"],
        "threshold_share": _number(found.threshold_share),
        "moment_null_rmse": _number(found.moment_null_rmse),
        "one_flip_share": _number(found.one_flip),
    }
    reason = (
        f"the mean margin is {found.acceleration:.2f} times as fast at the transition as on "
        f"average; accuracy rises within {widths['accuracy']:.4g} updates, the mean margin within "
        f"{widths['margin']:.4g}"
    )
    verdict = side(found.acceleration < SMOOTH, found.acceleration > JUMP)
    return Finding(verdict, reason, numbers, ONE,
                   "margins that move smoothly through the transition",
                   threshold=Threshold("acceleration", SMOOTH, "below"))  # fmt: skip


@claim(
    "E2",
    statement="the abruptness comes from the argmax of accuracy",
    source=said("Schaeffer et al. 2023 (arXiv 2304.15004)"),
    rule="of the width of the rise of the mean correct probability over that of accuracy: "
    f"supported from {SHARPENED:g} on, contradicted up to {AS_ABRUPT:g}; it takes "
    f"{FEWEST_BETWEEN} checkpoints within 10 and 90 % of the rise of accuracy",
    needs="run",
    falsifiers=["a mean correct probability that is as abrupt as accuracy"],
)
def argmax_makes_it_abrupt(run: RunEvidence) -> Finding:
    """Whether accuracy is more abrupt than the probability of the right answer."""
    _ = run.delay
    found = run.abruptness
    ratio = found.probability_ratio
    if ratio is None or found.n_between < FEWEST_BETWEEN:
        raise _too_coarse(run)
    numbers = {"probability_ratio": ratio}
    for name in ("accuracy", "correct_probability"):
        rise = found.rise(name)
        numbers[f"width_of_{name}"] = _number(None if rise is None else rise.width)
    reason = (
        f"accuracy rises within {numbers['width_of_accuracy']:.4g} updates, the mean correct "
        f"probability within {numbers['width_of_correct_probability']:.4g}: {ratio:.2f} times that"
    )
    # By chance one or the other is wider.
    return Finding(side(ratio >= SHARPENED, ratio <= AS_ABRUPT), reason, numbers, ONE,
                   "a mean correct probability that rises more slowly than accuracy",
                   threshold=Threshold("probability_ratio", SHARPENED, "above"),
                   chance=0.5)  # fmt: skip


# F: lazy and rich


@claim(
    "F1",
    statement="grokking is the transition from lazy to rich learning",
    source=said("Kumar et al. 2024 (arXiv 2310.06110)"),
    rule="of the tangent kernel on test inputs: supported if it has hardly moved when the run has "
    f"memorised (1 - alignment with the first below {LAZY_BELOW:g}) and moves in the transition (a "
    f"quarter of the way, its alignment with the labels {RICH_GROWTH:g} times); contradicted if "
    "one of them fails in all sets of probes",
    needs="run",
    slow=True,
    falsifiers=["a kernel that moves before the run has memorised",
                "a kernel that stays in the transition"],
)  # fmt: skip
def lazy_then_rich(run: RunEvidence) -> Finding:
    """Whether the kernel stays while memorising, and moves in the transition."""
    _ = run.delay
    found = run.kernel
    numbers = {
        "distance_at_memorization": found.distance_at_memorization,
        "share_in_transition": found.share_in_transition,
        "growth_in_transition": found.growth_in_transition,
    }
    reason = (
        f"lazy at memorisation: {word_of(found.lazy)} (distance "
        f"{found.distance_at_memorization:.3g}); rich at the transition: {word_of(found.rich)} "
        f"({found.share_in_transition:.0%} of the way, alignment times "
        f"{found.growth_in_transition:.3g})"
    )
    verdict = side(found.lazy_then_rich is True, found.lazy_then_rich is False)
    return Finding(verdict, reason, numbers, ONE,
                   "a kernel that stays until the run has memorised, and moves later",
                   threshold=Threshold("distance_at_memorization", LAZY_BELOW,
                                       "below"))  # fmt: skip


def _number(x: float | None) -> float:
    return math.nan if x is None else float(x)


def _too_coarse(run: RunEvidence) -> Undetermined:
    found = run.abruptness
    why = "; ".join(found.notes) or "test accuracy does not rise"
    if found.rises and found.n_between < FEWEST_BETWEEN:
        why = (f"of the {FEWEST_BETWEEN} checkpoints that it takes within the rise of accuracy, "
               f"there are {found.n_between}")  # fmt: skip
    ratio = found.probability_ratio
    numbers = {"checkpoints_within_rise": found.n_between, "probability_ratio": _number(ratio)}
    return Undetermined(why, needs="denser checkpoints in the transition", numbers=numbers,
                        seeds=ONE)  # fmt: skip
