"""Which part of a change falls into which phase? Accuracy, losses and norm, each by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.progress._detect_phases import detect_phases
from grokinterp.progress.curves import Curve, read_curves, read_measures
from grokinterp.progress.phases import PHASES, Phases
from grokinterp.progress.scored_checkpoints import unseen_measures
from grokinterp.reading._load import Subject, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

Change = Literal["from start", "from peak", "after memorization", "trough to peak"]
# What is looked at: the name of the row, its column, and from where the change is counted.
LOOKED_AT: tuple[tuple[str, str, Change], ...] = (
    ("test_acc", "test_acc", "from start"),
    ("test_acc_unmirrored", "test_acc_unmirrored", "from start"),
    ("test_loss", "test_loss", "from peak"),
    ("log_test_loss", "test_loss", "from peak"),
    ("sum_sq_weights", "sum_sq_weights", "after memorization"),
    ("restricted_loss", "restricted_loss", "from peak"),
    ("trig_loss", "trig_loss", "from peak"),
    ("excluded_loss", "excluded_loss", "trough to peak"),
)


@dataclass(frozen=True, kw_only=True)
class PhaseShare:
    """The change of one measure, and the shares of the phases in it, which add up to 1."""

    measure: str
    change: Change
    before: float  # the value from which the change is counted,
    after: float  # and that up to which it is: at the end of cleanup, but for "trough to peak"
    memorization: float
    circuit_formation: float
    cleanup: float


@dataclass(frozen=True, kw_only=True)
class PhaseShares(Result):
    """Shares of the phases in what changes over them, a row per measure.

    `ends` are the start of the first phase and the ends of all three, in steps; None, with the
    reason in `notes`, for a run without three phases that are over. Then there are no rows.

    >>> import grokinterp as gi
    >>> found = gi.progress.phase_shares(gi.load("mod31-small"))
    >>> found.ends, round(found["test_acc_unmirrored"].cleanup, 2)
    ((0, 1390, 2330, 7150), 0.37)
    """

    label: str
    ends: tuple[int | float, int | float, int | float, int | float] | None
    shares: tuple[PhaseShare, ...]

    def __getitem__(self, measure: str) -> PhaseShare:
        for each in self.shares:
            if each.measure == measure:
                return each
        known = ", ".join(each.measure for each in self.shares) or "none"
        raise InputError(f"there are no shares of {measure!r}; there are those of {known}.")

    def table(self) -> pd.DataFrame:
        """One row per measure: from which value to which, and the share of each phase in it."""
        columns = ["measure", "change", "before", "after", *PHASES]
        return pd.DataFrame([vars(each) for each in self.shares], columns=columns)

    def _lines(self) -> list[str]:
        if self.ends is None:
            return [f"label {self.label}"]
        named = zip(PHASES, pairwise(self.ends), strict=True)
        return ["; ".join(f"{name} {first} to {last}" for name, (first, last) in named)]


def phase_shares(
    x: Subject,
    *,
    measures: pd.DataFrame | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> PhaseShares:
    r"""Does the transition fall into circuit formation or into cleanup? A share per phase.

    With the phases of `gi.detect_phases` ending at e_1, e_2, e_3 and beginning at e_0, the share of
    phase i in measure m is (m(e_i) - m(e_{i-1})) / (m(e_3) - m(e_0)), m on straight lines between
    logged steps (test accuracy and losses, smoothed as phases read them) or checkpoints. Test loss
    and its natural logarithm are counted from their peak within the phases, the sum of squared
    weights from e_1 on: what lies before has share 0. The shares of a measure add up to 1; one
    below 0 went backwards in that phase.

    With `measures`, the table of `gi.progress_measures(run)`, there are shares of restricted and
    trig loss from their peaks, and of excluded loss from its trough to its next peak; and nothing
    is computed again. Nanda et al. 2023 (arXiv 2301.05217, section 5) name the phases; shares of
    them are this package's own.

    The boundaries are bends of the loss curves, so log test loss agrees with them by construction.
    Unmirrored accuracy does not, and measures disagree: none of them is "the" transition. For a run
    without three complete phases there are no shares, and `notes` say why.

    >>> import grokinterp as gi
    >>> found = gi.progress.phase_shares(gi.load("mod31-small"))
    >>> found.table().drop(columns=["change", "before", "after"]).round(2)
                   measure  memorization  circuit_formation  cleanup
    0             test_acc          0.83               0.04     0.13
    1  test_acc_unmirrored          0.53               0.10     0.37
    2            test_loss          0.54               0.19     0.27
    3        log_test_loss          0.11               0.08     0.81
    4       sum_sq_weights          0.00               0.50     0.50
    """
    run = run_of(x, task=task, train_mask=train_mask)
    known = unseen_measures(run, progress=progress) if measures is None else read_all(measures)
    phases = detect_phases(run, measures=known)
    ends, reason = _ends(run, phases)
    if ends is None:
        why = [x for x in phases.reasons if not x.startswith("key freq") and x not in reason]
        return PhaseShares(label=phases.label, ends=None, shares=(), notes=(reason, *why))
    curves = read_curves(run.metrics, str(run.path))
    shares, notes = [], []
    for measure, column, change in LOOKED_AT:
        curve = curves.smooth(column) or _column(known, column)
        if curve is None:
            continue
        if measure.startswith("log_"):
            positive = curve.values > 0
            curve = Curve(curve.steps[positive], np.log(curve.values[positive]))
        share = _share(measure, change, curve, ends)
        if share is None:
            notes.append(f"no shares of {measure}: it is not known from {ends[0]} to {ends[-1]}")
        else:
            shares.append(share)
    return PhaseShares(label=phases.label, ends=ends, shares=tuple(shares), notes=tuple(notes))


def read_all(given: pd.DataFrame) -> pd.DataFrame:
    """Progress measures that were given: those that phases read, checked, and the others here."""
    found = read_measures(given)
    further = [c for _, c, _ in LOOKED_AT if c in given and c not in found]
    by_step = given.drop_duplicates("step", keep="last").set_index("step")[further]
    joined = found.join(by_step.apply(pd.to_numeric, errors="coerce"), on="step")
    joined.attrs = found.attrs
    return joined


def _column(frame: pd.DataFrame, column: str) -> Curve | None:
    """The finite values of a measure at checkpoints."""
    if column not in frame:
        return None
    known = frame[np.isfinite(frame[column].to_numpy(float))]
    return Curve(known["step"].to_numpy(), known[column].to_numpy(float)) if len(known) else None


def _ends(
    run: Run, phases: Phases
) -> tuple[tuple[int | float, int | float, int | float, int | float] | None, str]:
    """Where three phases begin and end, or why that is not known."""
    if phases.phases is None:
        return None, next((x for x in phases.reasons if "null" in x), "the phases are not dated")
    if len(phases.phases) < len(PHASES):
        return None, f"no shares: the run is {phases.label}, without three phases"
    first, second, third = phases.phases
    ends = (first.start, first.end, second.end, third.end)
    begin, one, two, three = ends
    if begin is None or one is None or two is None or three is None:
        open_ones = [each.name for each in phases.phases if each.end is None]
        which = ", ".join(open_ones) or "the first phase's beginning"
        return None, f"no shares: the end of {which} is not dated"
    return (begin, one, two, three), ""


def _share(
    measure: str, change: Change, curve: Curve, ends: Sequence[int | float]
) -> PhaseShare | None:
    """The shares of the phases in a curve; None where it does not cover them or does not change."""
    first, memorized, _, last = ends
    steps, values = curve.steps, curve.values
    inside = (steps >= first) & (steps <= last)
    if steps[0] > memorized or steps[-1] < last or not inside.any():
        return None
    begin, end = float(first), float(last)
    steps, values = steps[inside], values[inside]
    if change == "after memorization":
        begin = float(memorized)
    elif change == "from peak":
        begin = float(steps[values.argmax()])
    elif change == "trough to peak":
        trough = values.argmin()
        begin = float(steps[trough])
        end = float(steps[trough + values[trough:].argmax()])
    before, after, *at = np.interp(
        [begin, end, *np.clip(ends, begin, end)], curve.steps, curve.values
    ).tolist()
    if after == before:
        return None
    memorization, formation, cleanup = (
        (later - earlier) / (after - before) + 0.0 for earlier, later in pairwise(at)
    )  # + 0.0: no share is written as -0
    return PhaseShare(
        measure=measure, change=change, before=before, after=after,
        memorization=memorization, circuit_formation=formation, cleanup=cleanup,
    )  # fmt: skip
