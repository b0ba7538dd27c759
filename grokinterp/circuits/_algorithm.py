"""Which algorithm adds: the clock, the pizza, neither, or undetermined."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import real, refused
from grokinterp.base.result import Result
from grokinterp.circuits.circles import (
    CircleIsolation,
    Circularity,
    circularity,
    isolate_circles,
    no_circle_reason,
)
from grokinterp.circuits.clock_and_pizza import (
    DistanceIrrelevance,
    GradientSymmetricity,
    distance_irrelevance,
    gradient_symmetricity,
)
from grokinterp.fourier._key_frequencies import Keys, subject_of
from grokinterp.fourier.answers import no_frequencies_reason, usable_group
from grokinterp.models.cross_entropy import right_answers
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot, need_residual_stream
from grokinterp.tasks.modular import ModularTask


@dataclass(frozen=True)
class Cutoffs:
    """Where the measures change their meaning.

    `circular`, `symmetric` and `irrelevant` are those of Zhong et al. 2023 (arXiv 2306.17844):
    99.5 %, and a boundary of the phases at 98 % and 0.6. They keep models that answer every pair;
    `answers` leaves room for a few mistakes. `key_share` is ours: grokked networks (mod 31, 59
    and 113) have 0.995 and above, untrained ones 0.3 to 0.6.
    """

    answers: float = 0.99  # accuracy over all pairs, at least
    circular: float = 0.995  # circularity, at least
    key_share: float = 0.99  # or this share of the leading components in the key planes, at least
    symmetric: float = 0.98  # gradient symmetricity: pizza above, clock up to it
    irrelevant: float = 0.6  # distance irrelevance: pizza below, clock from it on

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if real(value) is None:
                usual = str(getattr(type(self), name))
                raise refused(f"threshold {name}", value, "a number", f"such as {usual}")


@dataclass(frozen=True)
class Indication:
    """One measure: its value, what it is held against, what it speaks for, and all that in words.

    `speaks_for` is "clock", "pizza", "neither", or None where the measure rules nothing out.
    """

    measure: str
    value: float | None
    threshold: float | None
    speaks_for: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Algorithm(Result):
    """A verdict with its reasons, and every measure it rests on (None: not looked at).

    >>> import grokinterp as gi
    >>> found = gi.circuits.algorithm(gi.load("mod31-small"))
    >>> found.verdict, round(found.circularity.key_share, 3)
    ('neither', 0.961)
    >>> print(found.reasons[4])
    distance irrelevance 0.9377 is not below 0.6, as in a clock
    >>> found.table()[["measure", "value", "threshold"]].iloc[2:5].round(2)
                     measure  value  threshold
    2            circularity   0.72       1.00
    3  gradient symmetricity  -0.15       0.98
    4   distance irrelevance   0.94       0.60
    """

    verdict: str  # "clock", "pizza", "neither" or "undetermined"
    readings: tuple[Indication, ...] = field(repr=False)
    frequencies: tuple[int, ...]
    thresholds: Cutoffs
    step: int | None
    circularity: Circularity | None = field(default=None, repr=False)
    gradient_symmetricity: GradientSymmetricity | None = field(default=None, repr=False)
    distance_irrelevance: DistanceIrrelevance | None = field(default=None, repr=False)
    circles: CircleIsolation | None = field(default=None, repr=False)

    @property
    def reasons(self) -> tuple[str, ...]:
        """A sentence per measure, in the order in which they were asked."""
        return tuple(reading.reason for reading in self.readings)

    def table(self) -> pd.DataFrame:
        """One row per measure."""
        frame = pd.DataFrame(map(vars, self.readings))
        names = ("verdict", "frequencies", "step")
        frame.attrs |= {x: getattr(self, x) for x in names} | {"thresholds": vars(self.thresholds)}
        return frame


def algorithm(
    x: Subject,
    *,
    thresholds: Cutoffs | None = None,
    n_samples: int = 100,
    seed: int = 42,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Algorithm:
    r"""Whether a model adds as a clock or as a pizza (Zhong et al. 2023, arXiv 2306.17844).

    "neither" where the task has no answer group, the model does not answer it, its logits have no
    key frequencies (`gi.key_frequencies`: none that reach inputs it was not trained on), or its
    embedding is not circular; "undetermined" where there are too few such inputs to tell. Otherwise
    gradient symmetricity and distance irrelevance each speak for one algorithm, or for none: where
    they are not defined, within two standard errors of the threshold, or (the gradients) for an
    operation that is not symmetric in a and b. Unless both speak for the same one: "undetermined".

    The circles taken one by one are reported and do not vote: a network with a clock can have a
    weak circle of the pizza's form. The verdict names the nearer of two idealised algorithms; the
    published networks lie on a line between them, and no measure here looks at how heads and
    neurons do it. InputError for a model without a table of embeddings `W_E` or `hook_embed`.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.circuits.algorithm(run)
    >>> found.verdict, found.frequencies
    ('neither', (1, 8, 14))
    >>> print(*found.reasons[3:5], sep="\n")
    gradient symmetricity -0.1451 (standard error 0.0438) is below 0.98, as in a clock
    distance irrelevance 0.9377 is not below 0.6, as in a clock
    >>> print(gi.circuits.algorithm(run, step=0).reasons[0])
    it answers 3.23% of all pairs, less than 99%
    """
    thresholds = Cutoffs() if thresholds is None else thresholds
    if not isinstance(thresholds, Cutoffs):
        example = "grokinterp.circuits._algorithm.Cutoffs(answers=0.95)"
        raise refused("thresholds", thresholds, "a set of cutoffs", f"such as {example}")
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    need_residual_stream(snapshot)
    reason = (
        no_frequencies_reason(snapshot)
        if usable_group(snapshot) is None
        else no_circle_reason(snapshot)
    )
    if reason is not None:
        reason = f"{reason}: there is no circle to add on"
        return Algorithm(
            verdict="neither",
            readings=(Indication("answer group", None, None, "neither", reason),),
            frequencies=keys,
            thresholds=thresholds,
            step=snapshot.step,
        )
    circular = circularity(snapshot, frequencies=keys)
    gradients = gradient_symmetricity(snapshot, n_samples=n_samples, seed=seed)
    distance = distance_irrelevance(snapshot)
    circles = isolate_circles(snapshot, frequencies=keys) if keys else None
    gates = [*_answers(snapshot, keys, thresholds), _circular(circular, thresholds, keys)]
    symmetric = _symmetric(gradients, snapshot.modular_task, thresholds)
    irrelevant = _irrelevant(distance, thresholds)
    agree = symmetric.speaks_for == irrelevant.speaks_for and not keys.undecided
    verdict = (symmetric.speaks_for if agree else None) or "undetermined"
    return Algorithm(
        verdict="neither" if any(gate.speaks_for for gate in gates) else verdict,
        readings=(*gates, symmetric, irrelevant, *_single_circles(circles)),
        frequencies=keys,
        thresholds=thresholds,
        step=snapshot.step,
        circularity=circular,
        gradient_symmetricity=gradients,
        distance_irrelevance=distance,
        circles=circles,
    )


def _answers(snapshot: Snapshot, keys: Keys, thresholds: Cutoffs) -> Iterator[Indication]:
    right = right_answers(snapshot.logits, snapshot.task.labels)
    value, least = float(right.double().mean()), thresholds.answers
    speaks_for, less = (None, "") if value >= least else ("neither", f", less than {least:.0%}")
    reason = f"it answers {value:.2%} of all pairs{less}"
    yield Indication("accuracy", value, least, speaks_for, reason)
    speaks_for = None if keys or keys.undecided else "neither"
    which = f"the key frequencies {', '.join(map(str, keys))}"
    reason = f"its logits have {which if keys else f'no key frequencies: {keys.reason}'}"
    yield Indication("key frequencies", len(keys), 1, speaks_for, reason)


def _circular(found: Circularity, thresholds: Cutoffs, keys: Keys) -> Indication:
    value, least, share = found.value, thresholds.circular, found.key_share
    speaks_for, below, in_keys = None, f"circularity {value:.4f} is below {least}", ""
    if share is not None:
        in_keys = f"the key planes hold {share:.2%} of what as many leading components hold"
    if value >= least:
        reason = f"its embedding is circular: circularity {value:.4f}, at least {least}"
    elif share is not None and share >= thresholds.key_share:
        reason = f"its embedding is circular with mixed or fewer components: {below}, but {in_keys}"
    elif share is None and keys.undecided:
        reason = f"{below}, and without key frequencies mixed circles cannot be told from none"
    else:
        speaks_for = "neither"
        reason = f"its embedding is not circular: {below}" + (in_keys and f", and {in_keys}")
    return Indication("circularity", value, least, speaks_for, reason)


def _symmetric(found: GradientSymmetricity, task: ModularTask, thresholds: Cutoffs) -> Indication:
    name, value, bound = "gradient symmetricity", found.value, thresholds.symmetric
    if value is None or found.standard_error is None:
        return Indication(name, None, bound, None, f"{name} is not defined: {found.reason}")
    speaks_for, measured = None, f"{name} {value:.4f} (standard error {found.standard_error:.4f})"
    if not task.commutative:
        reason = f"{measured} says nothing: {task.operation} is not symmetric in a and b"
    elif abs(value - bound) <= 2 * found.standard_error:
        reason = f"{measured} is too near to {bound} to tell; take more samples"
    else:
        speaks_for, side = ("pizza", "above") if value > bound else ("clock", "below")
        reason = f"{measured} is {side} {bound}, as in a {speaks_for}"
    return Indication(name, value, bound, speaks_for, reason)


def _irrelevant(found: DistanceIrrelevance, thresholds: Cutoffs) -> Indication:
    name, value, bound = "distance irrelevance", found.value, thresholds.irrelevant
    if value is None:
        return Indication(name, None, bound, None, f"{name} is not defined: {found.reason}")
    speaks_for, side = ("pizza", "below") if value < bound else ("clock", "not below")
    reason = f"{name} {value:.4f} is {side} {bound}, as in a {speaks_for}"
    return Indication(name, value, bound, speaks_for, reason)


def _single_circles(circles: CircleIsolation | None) -> Iterator[Indication]:
    """What each circle does alone; it does not vote."""
    for subset in circles.subsets if circles else ():
        if subset.fit is not None:
            k, fit = subset.frequencies[0], subset.fit
            explains = f"explains {fit.pizza:.1%} of the logits and the clock's {fit.clock:.1%}"
            reason = f"with the circle of {k} alone, the pizza's form {explains}"
            yield Indication(f"pizza form of circle {k}", fit.pizza, None, None, reason)
