"""Is the memorising solution flat, and the generalising one a narrow valley? G4, by definition.

The claims of the essay "The geometry of grokking" on the shape of the loss: the Hessian as it is
(a), at one loss (b), and with the size of the weights (c), the noise that weights bear (d), and
random motion around them (e). Each has a rule of its own, as they need not agree.
"""

import math
from collections.abc import Callable

from grokinterp.claims.evidence import FEWEST
from grokinterp.claims.geometry_of_grokking import ESSAY, ONE, beside, steady_numbers
from grokinterp.claims.registry import Finding, Threshold, Undetermined, claim, side
from grokinterp.claims.run_evidence import RunEvidence

SHARPER, FLATTER = 1.25, 0.8  # a number of the generalising solution over the memorising one's
FLAT = "the memorising solution is flat and the generalising one a narrow valley: "
AT_ENDS = (
    "of the last checkpoint in the phase of memorisation and the last of all, the ratio of the "
    "later to the earlier"
)


def narrowing(
    name: str, what: str, how: str, published: str, *, falls: bool = False
) -> Callable[[Callable[[RunEvidence], Finding]], object]:
    """The parts of the claim that its definitions share."""
    narrow, flat = (FLATTER, SHARPER) if falls else (SHARPER, FLATTER)
    less, more = ("at most", "at least") if falls else ("at least", "at most")
    return claim(
        name,
        statement=FLAT + what,
        source=f"{ESSAY}; {published}",
        rule=f"{AT_ENDS} {how}: supported if {less} {narrow:g}, contradicted if {more} {flat:g}",
        needs="run",
        falsifiers=["a generalising solution that is flatter than the memorising one"],
        firm_from=FEWEST,
        slow=True,
    )


@narrowing("G4a", "the Hessian of the loss as it is", "of lambda_max and of the trace (both)",
           "a sharp generalising basin in lambda_max: Acharya and Dhakal 2026 (arXiv 2603.15492)",
           )  # fmt: skip
def narrow_raw(run: RunEvidence) -> Finding:
    """Whether the raw Hessian is larger in the generalising solution."""
    return compared(run, curvatures("raw", "lambda_max", "trace"))


@narrowing("G4b", "the Hessian at one loss for both", "of lambda_max and of the trace (both) at a "
           "training loss of 0.1", "own definition, as the raw Hessian falls by confidence alone",
           )  # fmt: skip
def narrow_matched(run: RunEvidence) -> Finding:
    """Whether the Hessian at matched loss is larger in the generalising solution."""
    return compared(run, curvatures("matched", "lambda_max", "trace"))


@narrowing("G4c", "the Hessian at one loss, times the squared norm of the weights", "of lambda_max "
           "|theta|^2 and of the trace per tensor times its squared norm (both) at a training loss "
           "of 0.1", "relative flatness improves when generalisation starts: Han et al. 2025 "
           "(arXiv 2509.17738)")  # fmt: skip
def narrow_scaled(run: RunEvidence) -> Finding:
    """Whether it is larger when the size of the weights is allowed for."""
    return compared(run, curvatures("matched", "lambda_max_scaled", "trace_per_tensor"))


@narrowing("G4d", "the noise that the weights bear", "of the relative noise radius on training "
           "inputs", "badly generalising neighbourhoods have less volume: arXiv 2501.18812",
           falls=True)  # fmt: skip
def narrow_in_noise(run: RunEvidence) -> Finding:
    """Whether the generalising solution bears less noise."""
    return compared(run, noise, falls=True)


@narrowing("G4e", "the local learning coefficient", "of the local learning coefficient at one "
           "n beta and one gamma", "that it falls after grokking: Panickssery and Vaintrob 2023, "
           "and Lau et al. 2023 (arXiv 2308.12108) for the coefficient")  # fmt: skip
def narrow_in_sampling(run: RunEvidence) -> Finding:
    """Whether motion around the generalising solution costs more."""
    return compared(run, coefficient)


NO_ESTIMATE = ("unstable", "left the basin")  # warnings with which a coefficient is none
Pairs = dict[str, tuple[float, float]]  # a number of the memorising and of the generalising network


def curvatures(loss_is: str, *names: str) -> Callable[[RunEvidence], Pairs]:
    """Columns of the curvature at both ends."""

    def of(run: RunEvidence) -> Pairs:
        table = run.curvature.table()
        rows = table[table["loss_is"] == loss_is]  # the earlier step, then the later
        return {name: (float(rows[name].iloc[0]), float(rows[name].iloc[1])) for name in names}

    return of


def noise(run: RunEvidence) -> Pairs:
    """The noise radius on training inputs at both ends."""
    table = run.noise_radius.table()
    of_train = table.loc[table["rows"] == "train", "radius"]
    if len(of_train) != 2:
        raise Undetermined("no input is known to be trained on", needs="a run with its split")
    return {"radius": (float(of_train.iloc[0]), float(of_train.iloc[1]))}


def coefficient(run: RunEvidence) -> Pairs:
    """The local learning coefficient at both ends."""
    values = [basin.value for basin in run.learning_coefficient.basins]
    refused = [
        f"step {basin.step}: {why}"
        for basin in run.learning_coefficient.basins
        for why in basin.warnings
        if why.startswith(NO_ESTIMATE)
    ]
    far = max(basin.radius for basin in run.learning_coefficient.basins)
    if far > 1:
        refused.append(f"noise alone goes {far:.2g} times as far as the weights are from 0")
    if refused:
        raise Undetermined(
            "the coefficient is not to be trusted: " + "; ".join(refused),
            needs="gi.geometry.local_learning_coefficient with a gamma that suits both ends",
        )
    return {"learning_coefficient": (values[0], values[1])}


def compared(
    run: RunEvidence, measured: Callable[[RunEvidence], Pairs], *, falls: bool = False
) -> Finding:
    """Whether all numbers rise from the memorising to the generalising network, or all fall."""
    _ = run.delay
    first, last = run.ends
    pairs = measured(run)
    if not all(math.isfinite(x) and x > 0 for pair in pairs.values() for x in pair):
        known = ", ".join(f"{name} {a:.3g} and {b:.3g}" for name, (a, b) in pairs.items())
        raise Undetermined(
            f"there is no ratio of {known} at steps {first} and {last}",
            needs="a memorising and a generalising checkpoint with these numbers",
        )
    numbers: dict[str, float] = {"memorising_step": first, "generalising_step": last}
    ratios = {name: after / before for name, (before, after) in pairs.items()}
    for name, (before, after) in pairs.items():
        numbers |= {f"{name}_memorising": before, f"{name}_generalising": after}
        numbers[f"{name}_ratio"] = ratios[name]

    def of_steady(control: RunEvidence) -> dict[str, float]:
        return {f"{name}_ratio": b / a for name, (a, b) in measured(control).items()}

    numbers |= steady_numbers(run, of_steady)
    told = "; ".join(
        f"{name} {before:.3g} at step {first}, {after:.3g} at step {last} (x{ratios[name]:.2g})"
        for name, (before, after) in pairs.items()
    )
    narrower = [1 / x if falls else x for x in ratios.values()]
    only = next(iter(ratios)) if len(ratios) == 1 else None
    edge = only and Threshold(
        f"{only}_ratio", FLATTER if falls else SHARPER, "below" if falls else "above"
    )
    # By chance it grows or falls, and what grows by one definition mostly does by the others.
    return Finding(
        side(min(narrower) >= SHARPER, max(narrower) <= FLATTER),
        told + beside(numbers, *(f"{name}_ratio" for name in pairs)), numbers, ONE,
        "a generalising solution that is narrower than the memorising one", threshold=edge or None,
        chance=0.5,
    )  # fmt: skip
