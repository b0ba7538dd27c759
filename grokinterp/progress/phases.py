"""When a run memorised, formed its circuit and cleaned up: its label, dates and phases."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import Result, card, plain_values, text_card
from grokinterp.progress.boundaries import Bend, boundaries_of, memorization_bend
from grokinterp.progress.curves import (
    CURVES,
    Curve,
    Curves,
    Step,
    read_curves,
    without_few_accuracies,
)
from grokinterp.progress.labels import Decision, Label, Margin, label_of
from grokinterp.progress.levels import (
    Crossing,
    Thresholds,
    crossing,
    unmirrored_crossing,
    unmirrored_of,
)
from grokinterp.progress.measures import progress_measures
from grokinterp.reading.logs.table import Log
from grokinterp.runs.manifest import missing_split
from grokinterp.runs.run import Run

CIRCUIT_FACTOR = 10.0  # rise of the excluded loss that confirms a circuit
PHASES = ("memorization", "circuit_formation", "cleanup")
CROSSINGS = ("memorization_step", "grok_step", "grok_step_unmirrored")
IN_JSON = (
    "label", *CROSSINGS, "phases", "key_frequencies", "reasons", "margin", "t_train", "t_test",
    "thresholds", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class Phase:
    """A phase with its bends in steps; None where the data cannot say.

    `end_interval` holds the logged steps that are as good an end as `end`, as far as 1 % noise
    on the losses, the scatter of the rows and the choice of logged steps can tell: the end found on
    a log with twice or five times as many rows lies in it (how often: `find_boundaries`). It is no
    confidence interval over seeds.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> gi.detect_phases(run.metrics.iloc[::5]).phases[0]
    Phase(name='memorization', start=0, end=1350, end_interval=(1100, 1650))
    """

    name: str
    start: Step | None
    end: Step | None
    end_interval: tuple[Step, Step] | None


@dataclass(frozen=True, kw_only=True)
class Phases(Result):
    """The label of a run, its threshold crossings and its phases, with the reasons for each.

    `memorization_step` and `grok_step` are the first logged steps from which a threshold is held
    (for 5 rows or 1 % of the log more, or to its end), of train and of all test pairs, on smoothed
    curves; `grok_step_unmirrored` is the same of the test pairs whose mirror is not trained on: of
    a run that has them at checkpoints alone, the first step at which it is certain. `t_train` and
    `t_test`, which the label rests on, are the first steps within 5 % of the run's own maximum
    accuracy (Definition 1 of Manning-Coe et al. 2025; with losses only, below the thresholds),
    however low that maximum is; `t_test` is of unmirrored test pairs where they are known. What
    came about before the log begins is None. A step is a float only where the log's own steps are
    fractions.

    The ends of `phases` are bends of the loss curves and differ from all of these; each carries an
    interval of steps that are as good (`Phase`). Where nobody knows the steps of the checkpoints
    (`run.steps_known`), `phases` and all dates are None. A boundary dates a change in a curve. It
    does not prove that a circuit exists: where measures were at hand, `reasons` says whether the
    excluded loss confirms one. `margin` is how many logged rows the label is away from another one.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.detect_phases(run.metrics)
    >>> found.label, found.t_train, found.t_test, found.grok_step
    ('grokked', 240, 4620, 3530)
    >>> found.table()
                    name  start   end   end_interval
    0       memorization      0  1390   (1160, 1620)
    1  circuit_formation   1390  2330   (1910, 2850)
    2            cleanup   2330  7150  (6900, 10000)
    >>> found.margin.intervals  # logged rows from another label
    414
    """

    label: Label
    memorization_step: Step | None
    grok_step: Step | None
    phases: tuple[Phase, ...] | None
    key_frequencies: tuple[int, ...] | None
    reasons: tuple[str, ...]
    margin: Margin
    t_train: Step | None = None
    t_test: Step | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    curves: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    grok_step_unmirrored: Step | None = None

    def _title(self) -> str:
        return f"Phases: {self.label}"

    def _lines(self) -> list[str]:
        steps = {name: getattr(self, name) for name in CROSSINGS}
        unknown = "not reached or not known"
        lines = [f"{name} {unknown if step is None else step}" for name, step in steps.items()]
        if self.key_frequencies is not None:
            lines.append(f"key frequencies {', '.join(map(str, self.key_frequencies)) or 'none'}")
        return lines

    def __str__(self) -> str:
        return text_card(self._title(), self._text(), notes=self.reasons)

    def _text(self) -> list[str]:
        """What a shell is shown: steps, key frequencies and phases."""
        keys, unmirrored = self.key_frequencies, self.grok_step_unmirrored
        listed = "null" if keys is None else ", ".join(map(str, keys)) or "none"
        of_unmirrored = "" if unmirrored is None else f"  ({unmirrored} on unmirrored pairs)"
        lines = {
            "memorization_step": _shown(self.memorization_step),
            "grok_step": _shown(self.grok_step) + of_unmirrored,
            "key frequencies": listed,
        }
        for phase in self.phases or ():
            lines[phase.name] = f"{_shown(phase.start)} to {_shown(phase.end)}"
            if phase.end_interval:
                first, last = phase.end_interval
                lines[phase.name] += f"  (end between {first} and {last})"
        return [f"{name:<19}{text}" for name, text in lines.items()]

    def _repr_html_(self) -> str:
        return card(self._title(), self._lines(), self.table(), notes=self.reasons)

    def table(self) -> pd.DataFrame:
        """One row per phase."""
        columns = [each.name for each in fields(Phase)]
        frame = pd.DataFrame([asdict(phase) for phase in self.phases or ()], columns=columns)
        ends = [x for row in self.phases or () for x in (row.start, row.end)]
        whole = not any(isinstance(x, float) for x in ends)
        return frame.astype(dict.fromkeys(("start", "end"), "Int64" if whole else "Float64"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `grokinterp phases --json` prints them."""
        return {key: plain_values(getattr(self, key)) for key in IN_JSON}


def _shown(step: Step | None) -> str:
    return "null" if step is None else str(step)


@dataclass(frozen=True, kw_only=True)
class PhasesOfRuns(Result):
    """The phases of every run of a log, by the names of the runs.

    Each is a `Phases` of its own; nothing is averaged over them.

    >>> import pandas as pd
    >>> import grokinterp as gi
    >>> log = gi.load("mod31-small").metrics.iloc[::10]
    >>> both = pd.concat([log.assign(seed=0), log.head(20).assign(seed=1)])  # one was stopped early
    >>> found = gi.detect_phases(both)
    >>> found.table()[["run", "label"]]
      run         label
    0   0       grokked
    1   1  undetermined
    >>> found["0"].grok_step
    3600
    """

    runs: Mapping[str, Phases]

    @property
    def labels(self) -> set[Label]:
        """The labels that its runs have."""
        return {found.label for found in self.runs.values()}

    def __getitem__(self, run: str) -> Phases:
        return self.runs[run]

    def __len__(self) -> int:
        return len(self.runs)

    def __str__(self) -> str:
        parts = (str(found).removeprefix("Phases: ") for found in self.runs.values())
        told = (f"run {name}: {text}" for name, text in zip(self.runs, parts, strict=True))
        return "\n".join(["Phases of runs", *told])

    def table(self) -> pd.DataFrame:
        """One row per run."""
        rows = []
        for name, found in self.runs.items():
            ends = {f"{phase.name}_end": phase.end for phase in found.phases or ()}
            steps = {step: getattr(found, step) for step in CROSSINGS[:2]}
            rows.append({"run": name, "label": found.label, **steps, **ends})
        columns = ["run", "label", *CROSSINGS[:2], *(f"{name}_end" for name in PHASES)]
        return pd.DataFrame(rows, columns=columns)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `grokinterp phases --json` prints them: {"runs": [...]}."""
        return {"runs": [{"run": name, **found.to_dict()} for name, found in self.runs.items()]}


def phases_of(
    found: Run | list[Log],
    source: str,
    *,
    measures: pd.DataFrame | None = None,
    limits: Thresholds | None = None,
    ceiling: float | None = None,
) -> Phases | PhasesOfRuns:
    """The phases of a run, or of the runs of a log that is called `source` in messages."""
    limits = limits or Thresholds()
    if isinstance(found, Run):
        return _of_run(found, measures, limits, ceiling)
    each = {
        log.run: _of_log(
            log, source if log.run is None else f"{source}, run {shown(log.run)}", measures,
            limits, ceiling,
        )
        for log in found
    }  # fmt: skip
    if None in each:
        return each[None]
    return PhasesOfRuns(runs={str(name): phases for name, phases in each.items()})


def phases_of_metrics(run: Run) -> Phases:
    """The phases that a run's metrics tell by themselves, without its weights."""
    log = Log(run.metrics, steps_known=run.steps_known)
    return _of_log(log, "the table", None, Thresholds(), run.task.ceiling)


def _of_run(
    run: Run, measures: pd.DataFrame | None, limits: Thresholds, ceiling: float | None
) -> Phases:
    measures = progress_measures(run) if measures is None else measures
    found = measures.attrs.get("frequencies")
    key = None if found is None else tuple(found)
    reasons = []
    if not key:
        reasons.append(f"key frequencies: {measures.attrs.get('reason', 'not measured')}")
    elif note := measures.attrs.get("note"):
        reasons.append(f"key frequencies: {note}")
    curves = read_curves(run.metrics, str(run.path))
    ceiling = run.task.ceiling if ceiling is None else ceiling
    return _dated(
        curves, run, measures, limits, ceiling, reasons=reasons, key=key,
        steps_known=run.steps_known,
    )  # fmt: skip


def _of_log(
    log: Log,
    source: str,
    measures: pd.DataFrame | None,
    limits: Thresholds,
    ceiling: float | None,
) -> Phases:
    curves = read_curves(log.table, source)
    if all(curves.get(column) is None for column in CURVES):
        raise InputError(f"{source} has no finite value in {', '.join(CURVES)}.")
    reasons = ["key frequencies: none without weights"]
    notes = (*log.notes, *curves.notes)
    curves = replace(curves, notes=notes)
    found = _dated(
        curves, None, measures, limits, ceiling or 1.0, reasons=reasons, key=None,
        steps_known=log.steps_known,
    )  # fmt: skip
    return replace(found, notes=notes)


def _dated(
    curves: Curves,
    run: Run | None,
    measures: pd.DataFrame | None,
    limits: Thresholds,
    ceiling: float,
    *,
    reasons: list[str],
    key: tuple[int, ...] | None,
    steps_known: bool,
) -> Phases:
    """Label, crossings and phases of curves, those of a run with its measures."""
    if ceiling < 1:
        reasons.append(f"the task allows a test accuracy of {ceiling:.3f} at best")
    every, curves = curves, without_few_accuracies(curves)
    # Where losses decide, their mean over all test pairs bounds that over the unmirrored ones.
    unmirrored = unmirrored_of(curves, run, measures if curves is every else None)
    memorized = crossing(curves.get("train_acc"), curves.get("train_loss"), "train", limits)
    grokked = crossing(curves.get("test_acc"), curves.get("test_loss"), "test", limits)
    on_unmirrored = unmirrored_crossing(unmirrored, run, limits)
    labelled = label_of(curves, limits, ceiling=ceiling, unmirrored=unmirrored)
    decision = _in_order_of_events(labelled, memorized.step, grokked.step)
    why = list(decision.reasons)
    if run is not None and run.train_mask is None:
        if all(curves.get(column) is None for column in CURVES):
            why = []  # nothing is there to compare, and the split is why
        why.append(missing_split((run.manifest.source or {}).get("file")))
    reasons = [*why, *reasons, *curves.notes]
    crossings = (memorized, grokked, on_unmirrored)
    for name, crossed in zip(CROSSINGS, crossings, strict=True):
        if crossed.why is not None:
            reasons.append(f"{name} is null: {crossed.why}")
    excluded = (curves if measures is None else Curves(measures, ())).get("excluded_loss")
    phases: tuple[Phase, ...] = ()
    if decision.label == "grokked":
        dated = boundaries_of(curves, memorized, grokked.step)
        start = dated.cleanup_start
        begin = _beginning(curves, memorized)
        phases = _phases(begin, dated.memorization_end, start, dated.cleanup_end)
        reasons += [*dated.reasons, *_circuit(excluded, memorized.step, start, curves)]
    elif decision.label == "memorized":
        phases = _memorized_phases(curves, excluded, memorized)
    elif decision.label == "steady":
        reasons.append("no phases: test follows train, so there is nothing to tell apart")
    else:
        reasons.append("no phases: only a run that generalises late has all three")
    found = Phases(
        label=decision.label,
        memorization_step=memorized.step,
        grok_step=grokked.step,
        phases=phases,
        key_frequencies=key,
        reasons=tuple(reasons),
        margin=decision.margin,
        t_train=decision.t_train,
        t_test=decision.t_test,
        thresholds=limits,
        curves=curves.frame,
        grok_step_unmirrored=on_unmirrored.step,
    )
    return found if steps_known else _without_dates(found, decision)


def _without_dates(found: Phases, decision: Decision) -> Phases:
    """What holds of checkpoints whose steps nobody knows: what was learned, and no date.

    Their order is known: whether test was learned at all is the same on any axis, and whether it
    was learned late is not.
    """
    by_dates = found.label in ("grokked", "steady")
    margin = Margin(None, "the steps of its checkpoints are not known")
    kept = "" if by_dates else f"; that it is {found.label} does not rest on them"
    reasons = [
        "memorization_step, grok_step and phases are null: nobody knows the steps of its "
        f"checkpoints, which stand at their positions{kept}"
    ]
    if by_dates:
        reasons.append("test is learned; whether late or with training, only steps could tell")
    else:
        reasons += [reason for reason in decision.reasons if reason != decision.margin.reason()]
    reasons += [reason for reason in found.reasons if reason.startswith("key frequencies")]
    return replace(
        found, label="undetermined" if by_dates else found.label, reasons=tuple(reasons),
        margin=margin, phases=None, t_train=None, t_test=None, memorization_step=None,
        grok_step=None, grok_step_unmirrored=None,
    )  # fmt: skip


def _in_order_of_events(
    decision: Decision, memorized: Step | None, grokked: Step | None
) -> Decision:
    """No run groks before it memorises, whatever the shares of its own maxima say."""
    if decision.label != "grokked" or memorized is None or grokked is None or grokked >= memorized:
        return decision
    reason = (
        f"test reaches its threshold at step {grokked}, before train does at {memorized}: neither "
        "late nor with training"
    )
    margin = Margin(None, "the order of the two thresholds decides")
    reasons = (reason, margin.reason(), *decision.reasons)
    return replace(decision, label="undetermined", margin=margin, reasons=reasons)


def _memorized_phases(
    curves: Curves, excluded: Curve | None, memorized: Crossing
) -> tuple[Phase, ...]:
    """Memorisation, and an open circuit formation where the excluded loss has risen."""
    train = curves.get("train_loss")
    begin = _beginning(curves, memorized)
    end = None if train is None or begin is None else memorization_bend(train)
    rise = excluded_rise(excluded, memorized.step, None)
    if rise is None or rise < CIRCUIT_FACTOR:
        return _phases(begin, end)
    return _phases(begin, end, None)


def _phases(begin: Step | None, *ends: Bend | None) -> tuple[Phase, ...]:
    """The first phases, each from the end of the one before on."""
    found = []
    for name, end in zip(PHASES, ends, strict=False):
        step, interval = (None, None) if end is None else (end.step, end.interval)
        found.append(Phase(name, begin, step, interval))
        begin = step
    return tuple(found)


def _beginning(curves: Curves, memorized: Crossing) -> Step | None:
    """The first logged step, unless the log begins after train was learned."""
    return None if memorized.unseen and curves.log.starts_late else curves.log.step(0)


def _circuit(
    excluded: Curve | None, memorized: Step | None, start: Bend | None, curves: Curves
) -> tuple[str, ...]:
    """Whether the excluded loss confirms that a circuit stood at the start of cleanup."""
    if start is None:
        return ()
    rise = excluded_rise(excluded, memorized, start.step)
    if rise is None:
        return ("no circuit is confirmed: there is no excluded loss to look at",)
    grown = (
        f"excluded loss at the start of cleanup is {rise:.3g} times its minimum after memorising"
    )
    if rise >= CIRCUIT_FACTOR:
        fell = "test loss fell" if curves.get("test_loss") else "test accuracy rose"
        return (f"{grown}: the circuit stood before {fell}",)
    return (f"no circuit is confirmed: {grown}, less than {CIRCUIT_FACTOR:g}",)


def excluded_rise(excluded: Curve | None, memorized: Step | None, at: Step | None) -> float | None:
    """Excluded loss at a step (None: the last) over its least from memorising on, interpolated.

    None where it is not known, or not above 0.
    """
    if excluded is None or memorized is None or (excluded.values <= 0).any():
        return None
    at = excluded.step(-1) if at is None else at
    logs = np.log(excluded.values)
    between = (excluded.steps >= memorized) & (excluded.steps <= at)
    there = float(np.interp(at, excluded.steps, logs))
    lowest = min([there, *logs[between]])
    return math.exp(min(there - lowest, 700))  # beyond it a float overflows
