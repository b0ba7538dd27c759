"""The claims of the essay "The geometry of grokking", each as a test on a run.

A cloud turns into a circle (G1), before the accuracy rises (G2) and more sharply (G3); the
memorising solution is flat and the generalising one a narrow valley (G4, by five definitions, in
`flat_or_narrow`); the weights wander until they fall into it (G5); what is found is low-dimensional
and mirrors the task (G6); and for a while the answer is known and not used (G7). The thresholds are
this package's own, and stand in the rules. One run says what is so in it; a firm word takes three
seeds.

The first steady run among the controls that has the numbers is looked at in the same way: what it
shows too is no mark of grokking. Its numbers begin with `steady_`, and the reason names them; the
verdict is about the run.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

from grokinterp.base.errors import InputError
from grokinterp.claims.evidence import FEWEST
from grokinterp.claims.registry import Finding, Threshold, Undetermined, claim, side
from grokinterp.claims.run_evidence import RunEvidence
from grokinterp.geometry._representations import RELIABLE, Representations
from grokinterp.geometry.transition_steps import Transition

ESSAY = 'the essay "The geometry of grokking"'
ORDER = ("answers", "unembedding", "embedding")
NO_ORDER, ORDERED = 0.5, 0.9  # of symmetry: a cloud, and an arrangement that mirrors the task
WANDERS, HEADS = 0.25, 0.5  # of directedness: 0 for uncorrelated steps, 1 for a straight line
PER_FREQUENCY = 2.5  # dimensions, of which an exact circle takes 2
UNUSED, USED = 0.1, 0.05  # gaps in accuracy
NOT_LEARNED = 0.5  # of the answers: with more, random features do the task
ONE = {"run": 1}


def steady_numbers(
    run: RunEvidence, measure: Callable[[RunEvidence], Mapping[str, float]]
) -> dict[str, float]:
    """The same numbers of the first steady control that has them, under names of their own."""
    for control in run.steady:
        try:
            found = measure(control)
        except (InputError, Undetermined):
            continue
        known = {f"steady_{name}": x for name, x in found.items() if math.isfinite(x)}
        if known:
            return known
    return {}


def beside(numbers: Mapping[str, float], *names: str) -> str:
    """What a steady control has, to be said after a reason."""
    known = {n: numbers[f"steady_{n}"] for n in names if f"steady_{n}" in numbers}
    if not known:
        return ""
    told = ", ".join(f"{name} {value:.3g}" for name, value in known.items())
    return f"; a steady run beside it: {told}"


def clouds(run: RunEvidence) -> Representations:
    """The representations of a run whose clouds have a symmetry; `Undetermined` without."""
    found = run.representations
    if found.table()["symmetry"].isna().all():
        why = "; ".join(found.notes[:2]) or "no cloud has a group that moves its points"
        raise Undetermined(why, needs="a task whose operands and answers have a group")
    return found


def memorising(run: RunEvidence, n: int = 1) -> tuple[int, ...]:
    """The checkpoints from memorization_step on and before grok_step; `Undetermined` below n."""
    start, grokked = run.delay
    found = tuple(step for step in run.run.steps if start <= step < grokked)
    if len(found) < n or run.run.steps[-1] < grokked:
        raise Undetermined(
            f"it memorised at {start:g} and grokked at {grokked:g}, and of its checkpoints "
            f"{len(found)} lie between and {'one' if run.run.steps[-1] >= grokked else 'none'} "
            "after",
            needs=f"{n} or more checkpoints between memorising and grokking, and one after",
        )
    return found


def symmetries(run: RunEvidence, step: int) -> dict[str, float]:
    """The symmetry of each cloud at a checkpoint."""
    table = clouds(run).table()
    rows = table[table["step"] == step].set_index("cloud")["symmetry"].dropna()
    return {str(name): float(value) for name, value in rows.items()}


def at_the_end(run: RunEvidence) -> dict[str, float]:
    """The least symmetry of any cloud at the last checkpoint."""
    return {"least_after": min(symmetries(run, run.run.steps[-1]).values())}


def reliable(run: RunEvidence) -> list[str]:
    """The clouds whose symmetry at the end is not hidden by how few inputs they are means of."""
    table = clouds(run).table()
    last = table[(table["step"] == run.run.steps[-1]) & table["symmetry"].notna()]
    return [str(x) for x in last.loc[~(last["reliability"] < RELIABLE), "cloud"]]


@claim(
    "G1",
    statement="representations are clouds while the network memorises, and circles after",
    source=f"{ESSAY}, after Nanda et al. 2023 (arXiv 2301.05217) and Liu et al. 2022 "
    "(arXiv 2205.10343)",
    rule="of the group symmetry of every cloud (embedding, unembedding, answers): supported if "
    f"each is below {NO_ORDER:g} at the first checkpoint from memorization_step on and at least "
    f"{ORDERED:g} at the last checkpoint; contradicted if one is {ORDERED:g} already when it "
    "memorises, or below "
    f"{NO_ORDER:g} at the end, unless it is that of answers with a reliability below {RELIABLE:g}",
    needs="run",
    falsifiers=["a cloud that has the symmetry of the task while it memorises", "one that never "
                "gets it"],
    firm_from=FEWEST,
)  # fmt: skip
def cloud_to_circle(run: RunEvidence) -> Finding:
    """Whether every cloud goes from no symmetry to that of the task."""
    before, after = (symmetries(run, x) for x in (memorising(run)[0], run.run.steps[-1]))
    names = [name for name in before if name in after]
    numbers = {f"{name}_at_memorization": before[name] for name in names}
    numbers |= {f"{name}_at_end": after[name] for name in names}
    numbers |= {"largest_before": max(before.values()), "least_after": min(after.values())}
    low, high = numbers["largest_before"], numbers["least_after"]
    never = any(after[name] < NO_ORDER for name in reliable(run))
    numbers |= steady_numbers(run, at_the_end)
    told = ", ".join(f"{name} {before[name]:.2g} to {after[name]:.3g}" for name in names)
    reason = f"group symmetry goes from memorising to the end: {told}"
    return Finding(
        side(low < NO_ORDER and high >= ORDERED, low >= ORDERED or never),
        reason + beside(numbers, "least_after"), numbers, ONE,
        "clouds without symmetry at memorisation, and with nearly all of it at the end",
    )  # fmt: skip


@claim(
    "G2",
    statement="geometry changes before accuracy: answers, then unembedding, then embedding",
    source=f"{ESSAY}; that the classifier orders itself before the embedding: arXiv 2606.08985",
    rule="of the transitions of the symmetry of answers, unembedding and embedding, and grok_step: "
    "supported if they come in this order and no two of their intervals between checkpoints "
    "overlap; contradicted if one comes later than the next by more than their intervals",
    needs="run",
    falsifiers=["a cloud whose symmetry changes after grok_step", "an embedding that is ordered "
                "before the answers are"],
    firm_from=FEWEST,
)  # fmt: skip
def geometry_before_accuracy(run: RunEvidence) -> Finding:
    """Whether clouds order themselves before test accuracy rises, and in which order."""
    _, grokked = run.delay
    dates = [dated(clouds(run), name) for name in ORDER]
    # The interval of grok_step: from the last logged row that is not yet there.
    logged = run.run.metrics["step"]
    earlier = logged[logged < grokked]
    last = (float(earlier.max()) if len(earlier) else grokked, grokked)
    intervals = [*(date.interval or (math.nan, math.nan) for date in dates), last]
    inside = all(a[1] <= b[0] for a, b in pairwise(intervals))
    against = any(a[0] >= b[1] for a, b in pairwise(intervals))
    numbers = {f"{date.cloud}_step": float(date.step or math.nan) for date in dates}
    numbers["grok_step"] = grokked
    numbers |= {f"{name}_leads_by": grokked - numbers[f"{name}_step"] for name in ORDER}
    numbers |= steady_numbers(run, leads)
    told = ", ".join(f"{name} {numbers[f'{name}_step']:g}" for name in ORDER)
    reason = (
        f"symmetry changes at steps: {told}; grok_step is {grokked:g}: they lead by "
        + ", ".join(f"{numbers[f'{name}_leads_by']:g}" for name in ORDER)
    )
    # Four dates have 24 orders.
    return Finding(
        side(inside, against), reason + beside(numbers, *(f"{x}_leads_by" for x in ORDER)), numbers,
        ONE, "changes in this order that do not lie between the same checkpoints", chance=1 / 24,
    )  # fmt: skip


@claim(
    "G3",
    statement="the transition is sharper in geometry than in fit",
    source=ESSAY,
    rule="of the steps from .1 to .9 of the rise of each cloud's symmetry and of test accuracy: "
    "supported if every cloud's rise takes fewer, contradicted if every one takes more",
    needs="run",
    falsifiers=["a cloud whose symmetry takes longer to rise than accuracy does"],
    firm_from=FEWEST,
)
def sharper_than_fit(run: RunEvidence) -> Finding:
    """Whether symmetry rises in fewer steps than accuracy."""
    _ = run.delay
    numbers = widths(run)
    fit, shapes = numbers["test_accuracy_width"], [numbers[f"{x}_width"] for x in ORDER]
    numbers |= {"least_ratio": min(shapes) / fit, "largest_ratio": max(shapes) / fit}
    numbers |= steady_numbers(run, widths)
    told = ", ".join(f"{name} {numbers[f'{name}_width']:.4g}" for name in ORDER)
    # By chance accuracy takes the most steps of the four.
    reason = f"from .1 to .9 test accuracy takes {fit:.4g} steps, the symmetry of {told}"
    return Finding(
        side(max(shapes) < fit, min(shapes) > fit),
        reason + beside(numbers, "test_accuracy_width", "answers_width"), numbers, ONE,
        "clouds that all change in fewer steps than accuracy, or all in more", chance=1 / 4,
    )  # fmt: skip


def dated(found: Representations, cloud: str) -> Transition:
    """The transition of a cloud; `Undetermined` where it has none."""
    date = found.transition(cloud)
    if date is None or date.step is None:
        why = f"no cloud is called {cloud}" if date is None else date.reason
        raise Undetermined(f"the transition of {cloud} is not dated: {why}",
                           needs="a run with dated transitions of all three clouds")  # fmt: skip
    return date


def leads(run: RunEvidence) -> dict[str, float]:
    """By how many steps each cloud changes before grok_step, of a steady run too."""
    grokked = run.phases.grok_step
    if grokked is None:
        raise Undetermined("nobody knows when it generalised")
    return {f"{x}_leads_by": grokked - float(dated(clouds(run), x).step or 0) for x in ORDER}


def widths(run: RunEvidence) -> dict[str, float]:
    """How many steps the rises take, from a tenth to nine tenths."""
    found: dict[str, float] = {}
    for name in ("test_accuracy", *ORDER):
        width = dated(clouds(run), name).width
        if width is None or not width > 0:
            raise Undetermined(f"checkpoints are too far apart to see how {name} rises",
                               needs="denser checkpoints around the transition")  # fmt: skip
        found[f"{name}_width"] = float(width)
    return found


# The path, what is found, and how it is used.


@claim(
    "G5",
    statement="the weights wander on the plateau until they fall into the solution",
    source=ESSAY,
    rule="of directedness, where the exponent of the displacement on the plateau lies between that "
    f"of uncorrelated steps (0) and of a straight line (1): supported up to {WANDERS:g}, "
    f"contradicted from {HEADS:g} on",
    needs="run",
    falsifiers=["weights that head somewhere while the accuracy stands still"],
    firm_from=FEWEST,
)
def wanders(run: RunEvidence) -> Finding:
    """Whether steps on the plateau are as good as uncorrelated."""
    _ = run.delay
    found = run.drift
    if found.window is None or math.isnan(found.directedness):
        raise Undetermined("; ".join(found.notes) or "the plateau has no exponent",
                           needs="four checkpoints between memorising and cleanup")  # fmt: skip
    numbers = {
        "directedness": found.directedness,
        "exponent": found.exponent,
        "exponent_uncorrelated": found.uncorrelated.exponent,
        "exponent_straight": found.straight.exponent,
        "first_component": found.plateau.shares[0] if found.plateau else math.nan,
    }
    reason = (
        f"from step {found.window[0]} to {found.window[1]} displacement grows as time^"
        f"{found.exponent:.3g}, {found.uncorrelated.exponent:.3g} if steps were uncorrelated and "
        f"{found.straight.exponent:.3g} if straight: directedness {found.directedness:.2g}"
    )
    return Finding(
        side(found.directedness <= WANDERS, found.directedness >= HEADS), reason, numbers, ONE,
        "a path that is clearly one or the other",
        threshold=Threshold("directedness", WANDERS, "below"), chance=WANDERS,
    )  # fmt: skip


@claim(
    "G6",
    statement="the solution is low-dimensional and mirrors the task",
    source=f"{ESSAY}, after Nanda et al. 2023 (arXiv 2301.05217, section 4)",
    rule="of the embedding at the last checkpoint: supported if its participation ratio is at most "
    f"{PER_FREQUENCY:g} dimensions per key frequency and half of the first checkpoint's, and its "
    f"group symmetry at least {ORDERED:g}; contradicted if the ratio is above half of the first, "
    f"or the symmetry below {NO_ORDER:g}",
    needs="run",
    falsifiers=["a generalising network whose embedding keeps most of its dimensions", "one "
                "without the symmetry of the task"],
    firm_from=FEWEST,
)  # fmt: skip
def low_dimensional(run: RunEvidence) -> Finding:
    """Whether the embedding ends with two dimensions per key frequency, and symmetric."""
    memorised, grokked = run.delay
    if run.run.steps[0] > memorised or run.run.steps[-1] < grokked:
        raise Undetermined(
            f"it memorised at {memorised:g} and grokked at {grokked:g}, and its checkpoints are of "
            f"steps {run.run.steps[0]} to {run.run.steps[-1]}",
            needs="a checkpoint from before it memorised, and one after it grokked",
        )
    numbers = embedding_at_the_end(run)
    per_key, symmetry = numbers["dimensions_per_frequency"], numbers["symmetry"]
    ratio = numbers["participation_ratio"] / numbers["participation_ratio_at_start"]
    numbers |= steady_numbers(run, embedding_at_the_end)
    reason = (
        f"the participation ratio of the embedding goes from "
        f"{numbers['participation_ratio_at_start']:.3g} to {numbers['participation_ratio']:.3g}, "
        f"{per_key:.2g} per key frequency, and its symmetry is {symmetry:.3g} at the end"
    )
    return Finding(
        side(per_key <= PER_FREQUENCY and ratio <= 0.5 and symmetry >= ORDERED,
             ratio > 0.5 or symmetry < NO_ORDER),
        reason + beside(numbers, "dimensions_per_frequency", "symmetry"), numbers, ONE,
        "an embedding of two dimensions per key frequency with the symmetry of the task",
    )  # fmt: skip


def embedding_at_the_end(run: RunEvidence) -> dict[str, float]:
    """Dimensions and symmetry of the embedding (the first operand's, where they differ)."""
    found = clouds(run)
    table = found.table()
    of = table[table["cloud"].isin(("embedding", "embedding_a"))]
    if not len(of) or not found.key_frequencies:
        raise Undetermined("there is no embedding, or there are no key frequencies",
                           needs="a network with an embedding and a sparse circuit")  # fmt: skip
    first, last = of.iloc[0], of.iloc[-1]
    ratio = float(last["participation_ratio"])
    return {
        "participation_ratio_at_start": float(first["participation_ratio"]),
        "participation_ratio": ratio,
        "dimensions_per_frequency": ratio / len(found.key_frequencies),
        "symmetry": float(last["symmetry"]),
        "key_share": float(last["key_share"]),
    }


@claim(
    "G7",
    statement="for a while the answer to unseen inputs is known and not used",
    source=f"{ESSAY}; of facts in language models, Biran et al. 2024 (arXiv 2406.12775)",
    rule="of the gap, the accuracy of a linear decoder of what the unembedding reads less the "
    "network's own on the same unseen inputs, and no more than the decoder reads beyond what it "
    f"reads of the untrained network: supported if it is at least {UNUSED:g} at two checkpoints in "
    f"a row with the decoder above all of its placebos, contradicted if it stays below {USED:g}",
    needs="run",
    falsifiers=["a network that answers as soon as a decoder can"],
    firm_from=FEWEST,
)
def known_but_not_used(run: RunEvidence) -> Finding:
    """Whether a decoder answers unseen inputs clearly before the network does."""
    memorising(run, 2)
    numbers = gaps(run)
    numbers |= steady_numbers(run, gaps)
    interference = numbers["interference_there"]
    reason = (
        f"the largest gap is {numbers['largest_gap']:.2g} at step {numbers['largest_gap_step']:g}, "
        f"where a decoder reads {numbers['presence_there']:.2g} and the network answers "
        f"{numbers['accuracy_there']:.2g} (placebos at most {numbers['largest_placebo']:.2g}, "
        f"{numbers['presence_untrained']:.2g} of the untrained network)"
        + ("" if math.isnan(interference) else f", {interference:.2g} of it interference")
        + f"; at the end it is {numbers['gap_at_end']:.2g}"
    )
    held, most = numbers["largest_gap_held"], numbers["largest_gap"]
    return Finding(
        side(held >= UNUSED, most < USED), reason + beside(numbers, "largest_gap"), numbers, ONE,
        "a gap that is clearly there at two checkpoints, or nowhere",
        threshold=Threshold("largest_gap_held", UNUSED, "above"),
    )  # fmt: skip


def gaps(run: RunEvidence) -> dict[str, float]:
    """The largest gap of a run, and the largest that two checkpoints in a row reach.

    Random features may do the task: what a decoder reads of them is no knowledge of the network.
    """
    found = run.routing
    table = found.table()
    table = table[table["hook"] == found.hooks[-1]].reset_index(drop=True)
    known = table.dropna(subset=["gap", "placebo_max"])
    if len(known) < 2:
        raise Undetermined("; ".join(found.notes) or "the gap is not known",
                           needs="checkpoints with a decoder and its placebos")  # fmt: skip
    first = known.iloc[0]
    if first["step"] != 0:
        raise Undetermined("nobody knows what a decoder reads of the untrained network",
                           needs="a checkpoint of step 0")  # fmt: skip
    untrained = float(first["presence"])
    if untrained > NOT_LEARNED:
        raise Undetermined(f"a decoder reads {untrained:.2g} of the untrained network",
                           needs="a task that random features do not do")  # fmt: skip
    known = known.assign(gap=known["gap"].clip(upper=known["presence"] - untrained))
    above = known["gap"].where(known["presence"] > known["placebo_max"], -math.inf).tolist()
    peak = known.iloc[int(known["gap"].argmax())]
    split = found.split()
    interference = split.loc[split["step"] == peak["step"], "interference"]
    return {
        "largest_gap": float(peak["gap"]),
        "largest_gap_step": float(peak["step"]),
        "largest_gap_held": max(map(min, above, above[1:])),
        "presence_there": float(peak["presence"]),
        "accuracy_there": float(peak["accuracy"]),
        "presence_untrained": untrained,
        "interference_there": float(interference.iloc[0]),
        "largest_placebo": float(known["placebo_max"].max()),
        "gap_at_end": float(known["gap"].iloc[-1]),
    }
