"""From which size of the training set on does a network generalise, and below which forget it?

What efficiency predicts for both, and what happens from the initial weights and from a network that
has generalised already.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.claims.control_runs import Runs, alike, budgets, dated, left_out, runs_in
from grokinterp.claims.evidence import FEWEST
from grokinterp.encodings.circuit_efficiency import (
    GENERALIZING,
    Efficiency,
    efficiency,
    efficiency_fit,
)
from grokinterp.fourier.heldout import FEWEST_ROWS
from grokinterp.models.cross_entropy import right_answers
from grokinterp.reading._load import load, progress_bar
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task, unmirrored_rows

OF_THE_SIZE = ("train_fraction", "n_train", "operation", "start", "start_step")
RANDOM = "random"
FORGETS, KEEPS = 0.2, 0.95  # accuracy on inputs that neither run was trained on
RISING = 0.02  # of test accuracy in the last tenth of the steps
Table = Literal["sizes", "runs", "ungrokking"]


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """Between which two sizes something comes about in all runs.

    At `none` and at all smaller sizes it does in no run, at `every` and at all larger ones in all;
    None where no size is such a one. `half` is where the share of runs, on straight lines over
    log D between the sizes, first stays at a half or above; NaN unless it comes from below.

    >>> import grokinterp as gi
    >>> found = gi.claims.Bracket.of({400: 0.0, 500: 0.5, 600: 1.0, 800: 1.0})
    >>> found.none, found.every, round(found.half, 6)
    (400, 600, 500.0)
    """

    none: int | None = None
    every: int | None = None
    half: float = math.nan

    @classmethod
    def of(cls, shares: Mapping[int, float]) -> "Bracket":
        """The bracket, by the share of runs at each size."""
        sizes = sorted(shares)
        lower = [x for i, x in enumerate(sizes) if not any(shares[y] for y in sizes[: i + 1])]
        upper = [x for i, x in enumerate(sizes) if all(shares[y] == 1 for y in sizes[i:])]
        return cls(
            none=max(lower, default=None), every=min(upper, default=None), half=_half(shares)
        )

    def __str__(self) -> str:
        low = "open below" if self.none is None else f"no run at {self.none}"
        return f"{low}, {'open above' if self.every is None else f'all from {self.every}'}"


def _half(shares: Mapping[int, float]) -> float:
    """The size from which on at least half of the runs do it."""
    below = [size for size, share in shares.items() if share < 0.5]
    if not below or max(below) == max(shares):
        return math.nan
    low = max(below)
    high = min(size for size in shares if size > low)
    part = (0.5 - shares[low]) / (shares[high] - shares[low])
    return math.exp((1 - part) * math.log(low) + part * math.log(high))


@dataclass(frozen=True, kw_only=True)
class CriticalSize(Result):
    """The critical size that efficiency predicts, and those of learning and of forgetting.

    `efficiency` has the prediction (`d_crit`, `d_crit_interval`), `observed` is the `Bracket` of
    runs from their initial weights that generalise, `ungrokking` that of runs from a network that
    has generalised which keep it. The tables are described at `critical_size`.

    >>> import grokinterp as gi
    >>> found = gi.claims.critical_size(gi.load("mod31-small"))
    >>> found.table()[["n_train", "n_seeds", "n_generalize", "t95"]]
       n_train  n_seeds  n_generalize     t95
    0      624        1             1  3530.0
    """

    sizes: tuple[dict[str, Any], ...] = field(repr=False)
    runs: tuple[dict[str, Any], ...] = field(repr=False)
    forgetting: tuple[dict[str, Any], ...] = field(repr=False)
    efficiency: Efficiency = field(repr=False)
    observed: Bracket
    ungrokking: Bracket
    budget: tuple[int, int] | None

    @property
    def d_crit(self) -> float:
        """The size at which memorising costs the norm of generalising; NaN where not known."""
        return self.efficiency.d_crit

    @property
    def d_crit_interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return self.efficiency.d_crit_interval

    @property
    def hysteresis(self) -> tuple[int, ...]:
        """Sizes at which no run finds it from its initial weights, most keep it, and none forgets.

        Most are more than half of the runs whose outcome is known.
        """
        never = {each["n_train"] for each in self.sizes if not each["n_generalize"]}
        kept, lost = _shares(self.forgetting, "keeps"), _shares(self.forgetting, "forgets")
        return tuple(size for size in kept if size in never and kept[size] > 0.5 and not lost[size])

    def table(self, of: Table = "sizes") -> pd.DataFrame:
        """A row per size of runs with true labels; or per run, per run that started from another.

        `of` is "sizes", "runs" or "ungrokking".
        """
        word("of", of, ("sizes", "runs", "ungrokking"))
        rows = {"sizes": self.sizes, "runs": self.runs, "ungrokking": self.forgetting}[of]
        return pd.DataFrame(list(rows))

    def _lines(self) -> list[str]:
        lines = []
        low, high = self.d_crit_interval
        if math.isfinite(self.d_crit):
            within = f" ({low:.0f} to {high:.0f})" * math.isfinite(low)
            lines.append(f"predicted: memorising gets dearer at D = {self.d_crit:.0f}{within}")
        if self.sizes:
            half = f"; half of them at {self.observed.half:.0f}"
            lines.append(
                f"generalise from their initial weights: {self.observed}"
                f"{half * math.isfinite(self.observed.half)}"
            )
        if self.forgetting:
            lines.append(f"keep it, once they have generalised: {self.ungrokking}")
        if self.hysteresis:
            sizes = ", ".join(map(str, self.hysteresis))
            lines.append(f"hysteresis: kept, but not found from the initial weights, at {sizes}")
        return lines


def critical_size(
    runs: Runs,
    *,
    exponent: float = 0.5,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> CriticalSize:
    r"""From which size D of the training set on do runs generalise, and below which forget it?

    `runs` are a list, a dict by name, or a folder of runs that differ in D (`train_fraction`), in
    their labels (true, or `operation="random"`), in seeds, in steps, and in whether they `start`
    from another run; what differs elsewhere is left out with a note. Varma et al. 2023 (arXiv
    2309.02390) predict one D_crit for two things: above it a network that memorised comes to
    generalise, since that costs less norm; and below it one that has generalised goes back to
    memorising ("ungrokking"). Here are

    - what is predicted: `gi.encodings.efficiency` of the runs from initial weights, with its
      `exponent` and `step`;
    - `observed`: true labels, from initial weights. `.table()`, a row per D: n_train, n_seeds,
      n_generalize (runs whose test accuracy comes to keep .95, at t95, within the steps they had,
      or has it at the end of a log that does not say since when), the median t95 (updates; null
      where half of the seeds or more have none), the median test_acc of the last checkpoint (or
      `step`) with its smallest and largest, the fewest and the most steps, and `rise`, the most
      that test accuracy rose in the last tenth of them;
    - `ungrokking`: runs that started from one that had generalised. `.table("ungrokking")`, a row
      per run: n_train, n_start (rows of the run it started from), start_acc and acc, before and
      after, on the `n_never` inputs that neither run was trained on, train_acc, and `outcome`:
      "forgets" below an accuracy of .2, "keeps" above .95, "neither" between, "unknown" where it
      cannot be said (`why`). Of a commutative operation these are inputs whose mirror neither was
      trained on, if there are 20 of them (`unmirrored`); acc_all is on all that neither was.

    `observed` and `ungrokking` are a `Bracket` each, `hysteresis` the sizes at which most runs
    keep, and none forgets, what no run finds from its initial weights. `.table("runs")`: a row per
    run of the first two, as `efficiency` has it, with t95.

    "Never" is within the steps of a run, and D_crit about which solution is cheaper: not whether
    training finds it. Inputs left to test on get fewer as D grows. InputError for a folder without
    a finished run.

    >>> import grokinterp as gi
    >>> found = gi.claims.critical_size(gi.load("mod31-small"))
    >>> found.observed.every, found.notes[0]
    (624, 'no power law: 0 sizes of memorising runs, which takes two')
    """
    given = runs_in(runs, task=task, train_mask=train_mask)
    usual, notes = _alike(given)
    again = {name: run for name, run in usual.items() if run.recipe and run.recipe.start}
    first = {name: run for name, run in usual.items() if name not in again}
    notes = [*given.notes, *notes]
    if first:
        found = efficiency(first, exponent=exponent, step=step, progress=progress)
    else:
        fit = efficiency_fit([], [], [])
        found = Efficiency(rows=(), fit=fit, exponent=exponent, notes=(fit.reason,))
    rows = tuple({**row, **_learned(first[str(row["run"])], row)} for row in found.rows)
    names = list(again)
    forgetting = tuple(
        {"run": names[i], **_after(again[names[i]], given)}
        for i in progress_bar(range(len(names)), "ungrokking", progress)
    )
    sizes = tuple(_of_size(size, those) for size, those in _true_rows(rows).items())
    observed = Bracket.of({each["n_train"]: each["n_generalize"] / each["n_seeds"]
                           for each in sizes})  # fmt: skip
    budget = budgets(first[str(row["run"])] for row in rows if row["labels"] == "true")
    return CriticalSize(
        sizes=sizes,
        runs=rows,
        forgetting=forgetting,
        efficiency=found,
        observed=observed,
        ungrokking=Bracket.of(_shares(forgetting, "keeps")),
        budget=budget,
        notes=(*found.notes, *notes, *_notes(sizes, forgetting, observed, budget)),
    )


def _alike(given: Mapping[str, Run]) -> tuple[dict[str, Run], list[str]]:
    """Runs that differ in nothing but what is asked about; of one operation, and of random ones."""
    kept, notes = alike(given, but=OF_THE_SIZE)
    operations = {name: getattr(run.task, "operation", None) for name, run in kept.items()}
    true = Counter(each for each in operations.values() if each != RANDOM)
    if len(true) > 1:
        usual = true.most_common(1)[0][0]
        odd = [name for name, each in operations.items() if each not in (usual, RANDOM)]
        notes.append(left_out(odd, f"another operation than {usual}"))
        kept = {name: run for name, run in kept.items() if name not in odd}
    return kept, notes


def _learned(run: Run, row: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a run generalised, when, and in how many steps it had to."""
    phases = dated(run)
    t95 = None if phases is None else phases.grok_step
    # What generalised before its log begins, or of which one checkpoint is known, has no t95.
    done = t95 is not None or row["stands_for"] == GENERALIZING
    found = {"steps": run.steps[-1], "t95": t95, "generalizes": done, "rise": math.nan}
    curve = run.metrics.reindex(columns=["step", "test_acc"]).dropna().to_numpy(float).T
    if run.steps_known and curve.shape[1] > 1:
        found["rise"] = float(np.diff(np.interp([0.9 * run.steps[-1], run.steps[-1]], *curve))[0])
    return found


def _true_rows(rows: Sequence[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The rows of true labels with a known size and something left to test on, by size."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row["labels"] == "true" and not math.isnan(row["n_train"] + row["test_acc"]):
            found.setdefault(int(row["n_train"]), []).append(row)
    return {size: found[size] for size in sorted(found)}


def _of_size(size: int, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One size of training set over its seeds."""
    late = [math.inf if row["t95"] is None else row["t95"] for row in rows]
    accuracies = [row["test_acc"] for row in rows]
    middle = float(np.median(late))
    return {
        "n_train": size,
        "n_seeds": len(rows),
        "n_generalize": sum(row["generalizes"] for row in rows),
        "t95": middle if math.isfinite(middle) else None,
        "test_acc": float(np.median(accuracies)),
        "test_acc_low": min(accuracies),
        "test_acc_high": max(accuracies),
        "steps_least": min(row["steps"] for row in rows),
        "steps_most": max(row["steps"] for row in rows),
        "rise": max(row["rise"] for row in rows),
    }


def _after(run: Run, given: Mapping[str, Run]) -> dict[str, Any]:
    """What became of a network that went on with another training set."""
    assert run.recipe is not None
    row: dict[str, Any] = {
        "seed": run.recipe.seed, "start": Path(run.recipe.start).name,
        "n_train": math.nan, "n_start": math.nan, "steps": run.steps[-1], "n_never": math.nan,
        "unmirrored": False, "train_acc": math.nan, "start_acc": math.nan, "acc": math.nan,
        "acc_all": math.nan, "outcome": "unknown", "why": "",
    }  # fmt: skip
    mask = run.train_mask
    if mask is None or run.architecture.missing:
        return row | {"why": "its split or its module is not known"}
    seen = run.snapshot()
    right = _right(seen)
    row |= {"n_train": int(mask.sum()), "train_acc": float(right[mask].mean())}
    start, why = _start_of(run, given)
    if start is None:
        return row | {"why": why}
    assert start.train_mask is not None
    either = mask | start.train_mask
    rows = unmirrored_rows(run.task, either)
    unmirrored = run.task.commutative and int(rows.sum()) >= FEWEST_ROWS
    rows = rows if unmirrored else ~either
    row |= {"n_start": int(start.train_mask.sum()), "n_never": int(rows.sum())}
    row["unmirrored"] = unmirrored
    if not row["n_never"]:
        return row | {"why": "no input is in neither training set"}
    before = _right(start.snapshot(run.recipe.start_step))
    row |= {"acc": float(right[rows].mean()), "start_acc": float(before[rows].mean())}
    row["acc_all"] = float(right[~either].mean())
    if row["start_acc"] <= KEEPS:
        return row | {"why": "the run it started from does not generalise"}
    outcome = "forgets" if row["acc"] < FORGETS else "keeps" if row["acc"] > KEEPS else "neither"
    return row | {"outcome": outcome}


def _right(seen: Snapshot) -> Any:
    return right_answers(seen.logits, seen.task.labels).double()


def _start_of(run: Run, given: Mapping[str, Run]) -> tuple[Run | None, str]:
    """The run that a run started from: where its recipe says, or one of that name among these."""
    assert run.recipe is not None
    path = run.recipe.start
    try:
        found = load(path)
    except InputError:
        same = [each for each in given.values() if each.path.name == Path(path).name]
        if len(same) != 1:
            return None, f"the run it started from, {Path(path).name}, is not here"
        found = same[0]
    if found.train_mask is None or found.architecture.missing:
        return None, "the split or the module of the run it started from is not known"
    if found.recipe is not None and found.recipe.start:
        return None, "it started from a run that started from another one"
    if found.task.labels.shape != run.task.labels.shape:
        return None, "it started from a run of another task"
    if not bool((found.task.labels == run.task.labels).all()):
        return None, "it started from a run with other labels"
    if run.recipe.start_step not in (-1, *found.steps):
        return None, f"step {run.recipe.start_step} of the run it started from is not saved"
    return found, ""


def _shares(rows: Sequence[dict[str, Any]], outcome: str) -> dict[int, float]:
    """By size, the share of the runs whose outcome is known that have this one."""
    found: dict[int, list[bool]] = {}
    for row in rows:
        if row["outcome"] != "unknown":
            found.setdefault(row["n_train"], []).append(row["outcome"] == outcome)
    return {size: sum(found[size]) / len(found[size]) for size in sorted(found)}


def _notes(
    sizes: Sequence[dict[str, Any]],
    forgetting: Sequence[dict[str, Any]],
    observed: Bracket,
    budget: tuple[int, int] | None,
) -> list[str]:
    """What to read with the numbers."""
    notes = []
    if not sizes:
        notes.append("no run with true labels from initial weights has a known size and test rows")
    else:
        if observed.none is None:
            notes.append("open below: at the smallest size that was tried, some run generalises")
        if observed.every is None:
            notes.append("open above: at the largest size that was tried, not all runs generalise")
        rising = [str(x["n_train"]) for x in sizes if x["rise"] > RISING and not x["n_generalize"]]
        if rising:
            notes.append(f"test accuracy still rises at {', '.join(rising)}: more steps may move "
                         "the size from which on runs generalise")  # fmt: skip
        if min(each["n_seeds"] for each in sizes) < FEWEST:
            notes.append(f"fewer than {FEWEST} seeds at some size")
    if budget and budget[0] < budget[1]:
        notes.append(f"not all runs are as long: {budget[0]:,} to {budget[1]:,} updates")
    if forgetting:
        notes.append("runs that started from another one have moments that start anew")
    for why in dict.fromkeys(row["why"] for row in forgetting if row["why"]):
        notes.append(left_out([row["run"] for row in forgetting if row["why"] == why], why))
    return notes
