"""The label of a run: grokked, steady, memorized, not_learned or undetermined.

Definitions follow Manning-Coe et al. 2025 (arXiv 2502.01739, section 2): t_train and t_test are the
first logged steps within 5 % of the run's own maximum accuracy (Definition 1); a run groks when
t_test - t_train > t_train (Definition 2). Their definition would also call a run grokked that never
generalises, so generalisation is asked for first.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from grokinterp.progress.curves import CURVES, Curve, Curves

Label = Literal["grokked", "steady", "memorized", "not_learned", "undetermined"]
LABELS: tuple[Label, ...] = ("grokked", "steady", "memorized", "not_learned", "undetermined")
WITHIN = 0.95  # of the run's own maximum accuracy


@dataclass(frozen=True)
class Verdict:
    """A label with the reasons for it."""

    label: Label
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Side:
    """Train or test: when it was learned, and the logged step before that."""

    learned: int
    before: int


def label_of(curves: Curves, *, train_loss_below: float, test_loss_below: float) -> Verdict:
    """The label of cleaned curves; accuracies decide where there are any, otherwise losses."""
    train, test = curves.get("train_acc"), curves.get("test_acc")
    if train is not None and test is not None:
        return _from_accuracies(train, test)
    train, test = curves.get("train_loss"), curves.get("test_loss")
    if train is not None and test is not None:
        verdict = _from_losses(train, test, train_loss_below, test_loss_below)
        note = (
            f"no accuracies: learned means train loss below {train_loss_below:g} and test loss "
            f"below {test_loss_below:g}"
        )
        return Verdict(verdict.label, (*verdict.reasons, note))
    found = [column for column in CURVES if curves.get(column) is not None]
    return Verdict(
        "undetermined",
        (
            "a label compares train with test, by accuracies or by losses; there is only "
            + (", ".join(found) or "nothing"),
        ),
    )


def _from_accuracies(train: Curve, test: Curve) -> Verdict:
    best_train, best_test = float(train.values.max()), float(test.values.max())
    # A log that starts later does not show the accuracy of chance, which is small.
    first = float(train.values[0]) if train.steps[0] == 0 else 0.0
    halfway = (1 + first) / 2
    if best_train < halfway:
        return Verdict(
            "not_learned",
            (f"train accuracy never exceeds {best_train:.3f}, less than {halfway:.3f}, half of "
             f"the way from chance ({first:.3f}) to 1",),
        )  # fmt: skip
    if best_test < WITHIN * best_train:
        reached = f"test accuracy reaches {best_test:.3f}, train accuracy {best_train:.3f}"
        if best_train >= 0.99 and best_test < halfway:
            return Verdict("memorized", (f"{reached}: it fits train and does not generalise",))
        return Verdict(
            "undetermined",
            (f"{reached}: it generalises in part, or the run was cut off",),
        )
    verdict = _by_delay(
        _side(train, train.values >= WITHIN * best_train),
        _side(test, test.values >= WITHIN * best_test),
        "within 5 % of the run's own maximum accuracy",
    )
    return Verdict(verdict.label, verdict.reasons + _collapse(test, best_test))


def _from_losses(train: Curve, test: Curve, train_below: float, test_below: float) -> Verdict:
    first_train, best_train = float(train.values[0]), float(train.values.min())
    first_test, best_test = float(test.values[0]), float(test.values.min())
    if best_train >= train_below:
        if best_train > first_train / 2:
            return Verdict(
                "not_learned",
                (f"train loss never falls below half of its first value ({best_train:.3g} of "
                 f"{first_train:.3g})",),
            )  # fmt: skip
        return Verdict("undetermined", (f"train loss falls only to {best_train:.3g}",))
    if best_test >= test_below:
        reached = f"train loss falls to {best_train:.3g}, test loss to {best_test:.3g}"
        if best_test > first_test / 2:
            return Verdict("memorized", (f"{reached}: it fits train and does not generalise",))
        return Verdict(
            "undetermined", (f"{reached}: it generalises in part, or the run was cut off",)
        )
    return _by_delay(
        _side(train, train.values < train_below),
        _side(test, test.values < test_below),
        "below its loss threshold",
    )


def _by_delay(train: _Side, test: _Side, when: str) -> Verdict:
    """Definition 2; "grokked" only where the spacing of the log leaves no doubt."""
    facts = f"train is {when} from step {train.learned} on, test from step {test.learned} on"
    if test.before - train.learned >= train.learned and test.learned > train.learned:
        factor = (test.learned - train.learned) / max(train.learned, 1)
        return Verdict(
            "grokked",
            (f"{facts}: a delay of {factor:.3g} times the time to learn train",),
        )
    if test.learned - train.learned <= train.learned:
        reasons = [f"{facts}: the delay is no longer than the time to learn train"]
        if test.learned - train.before > train.before:
            reasons.append(
                f"steady as logged: train may have been learned soon after step {train.before}, "
                "which would make the delay the longer one; log more often to be certain"
            )
        return Verdict("steady", tuple(reasons))
    return Verdict(
        "undetermined",
        (f"{facts}: between logged steps the delay could be longer or shorter than the time to "
         "learn train; log more often there",),
    )  # fmt: skip


def _side(curve: Curve, learned: np.ndarray) -> _Side:
    position = curve.first(learned)
    assert position is not None
    return _Side(int(curve.steps[position]), curve.neighbours(position)[0])


def _collapse(test: Curve, best: float) -> tuple[str, ...]:
    """A reason when test accuracy is lost again for good; the label keeps what was reached."""
    fine = np.flatnonzero(test.values >= best / 2)
    if fine[-1] == len(test) - 1:
        return ()
    step = int(test.steps[fine[-1] + 1])
    return (f"test accuracy collapses at step {step}, to {test.values[-1]:.3f} at the end",)
