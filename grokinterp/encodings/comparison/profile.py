"""What is measured of one run before it is set beside others."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor

from grokinterp.circuits.subject import subject_of
from grokinterp.encodings.comparison.alignment import Clock
from grokinterp.encodings.features import observable_correlations
from grokinterp.encodings.geometry.paths import information_path, stages_of
from grokinterp.encodings.geometry.step_geometry import step_geometry
from grokinterp.encodings.pruning import weight_names
from grokinterp.encodings.pruning_curves import pruning_curve
from grokinterp.encodings.sizes import gini_of, mean_effective_rank
from grokinterp.errors import InputError
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.progress.detection import detect_phases
from grokinterp.progress.phases import Phases
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.ising import IsingTask

LEARNT = 0.9  # of the best test accuracy: before it, c is that of chance
METRICS = ("train_loss", "test_loss", "train_acc", "test_acc")
MEASURES: dict[str, str] = {
    "t_train": "first logged step within 5 % of the best train accuracy",
    "t_test": "first logged step within 5 % of the best test accuracy",
    "train_loss": "at the end, nats",
    "test_loss": "at the end, nats",
    "train_acc": "at the end",
    "test_acc": "at the end",
    "weight_norm_start": "L2 norm of all parameters at the first checkpoint",
    "weight_norm": "L2 norm of all parameters at the end",
    "ipr_input": "mean localisation of the neurons' input weights in frequency (0.75: one wave)",
    "ipr_output": "mean localisation of their output weights",
    "n_key_frequencies": "frequencies that carry the answer, 0 if no few of them do",
    "r_energy": "median |r| of the last hidden layer with the energy",
    "r_abs_magnetization": "median |r| of the last hidden layer with |M|",
    "r_magnetization": "median |r| of the last hidden layer with M",
    "c": "compressibility, magnitude pruning within each matrix",
    "prunable": "fraction of weights that can go at 95 % of the accuracy",
    "c_fourier": "compressibility in the tokens' Fourier basis",
    "c_singular": "compressibility in singular values",
    "c_peak": "largest c of the checkpoints looked at after learning",
    "c_peak_over_end": "c_peak / c",
    "c_peak_over_t_test": "step of the largest c / t_test",
    "gini_weights": "Gini coefficient of |weights|",
    "effective_rank": "mean over matrices",
    "path_length": "information length of the path between checkpoints, a lower bound",
    "straightness": "geodesic / length, start to end, an upper bound",
    "straightness_limit": "the same, length extrapolated to spacing 0",
    "length_growth": "what the last halving of the spacing added to the length, relative",
    "delay_length": "information length from t_train to t_test",
    "delay_straightness": "straightness from t_train to t_test, an upper bound",
    "delay_straightness_limit": "the same, extrapolated to spacing 0",
    "delay_checkpoints": "checkpoints from t_train to t_test, ends included",
    "delay_cos_consecutive": "median Fisher cosine of consecutive steps between checkpoints there",
    "delay_cos_origin": "median Fisher cosine of those steps with the direction to the origin",
}
HIDDEN = "hidden"  # the layer whose pre-activations the published correlations are of


@dataclass(frozen=True)
class RunProfile:
    """The outcome of a run, its measures at the end, and its course over training.

    `values` has the `MEASURES` that are defined for it, `course` a row per checkpoint looked at,
    `stages` a row per stretch of its path. `left_out` says why it does not count, if so.
    """

    name: str
    run: Run
    phases: Phases | None
    values: Mapping[str, float] = field(default_factory=dict)
    start: Mapping[str, float] = field(default_factory=dict)
    course: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    stages: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    notes: tuple[str, ...] = ()
    left_out: str | None = None

    @property
    def label(self) -> str | None:
        """The label of its curves, None for a run that does not count."""
        return None if self.phases is None or self.left_out else self.phases.label


def outcome(run: Run, name: str) -> RunProfile:
    """The label of a run and whether it can be measured; nothing is measured yet."""
    for step in run.steps:
        weights = run.weights(step)
        if not all(bool(weight.isfinite().all()) for weight in weights.values()):
            return RunProfile(name, run, None, left_out=f"its weights of step {step} hold NaN")
    if not run.finished:
        return RunProfile(name, run, None, left_out=f"unfinished, cut off at step {run.steps[-1]}")
    try:
        phases = detect_phases(run.metrics, ceiling=run.task.ceiling)
    except InputError as error:
        return RunProfile(name, run, None, left_out=f"it has no label: {error}")
    last = run.metrics.iloc[-1]
    if broken := [column for column in METRICS if not math.isfinite(last[column])]:
        reason = f"its {broken[0]} ends as {last[broken[0]]}"
        return RunProfile(name, run, phases, left_out=reason)
    if phases.t_train is None or phases.t_test is None:
        return RunProfile(name, run, phases, left_out="it has no accuracies to align it by")
    return RunProfile(name, run, phases)


def clock_of(profile: RunProfile) -> Clock:
    """What turns this run's steps into positions."""
    phases = profile.phases
    assert phases is not None
    assert phases.t_train is not None
    assert phases.t_test is not None
    return Clock(phases.t_train, max(phases.t_train, phases.t_test), profile.run.steps[-1])


def measure(profile: RunProfile, places: Mapping[float, int]) -> RunProfile:
    """The profile with everything measured, over training at the checkpoint of each place."""
    run, phases = profile.run, profile.phases
    assert phases is not None
    notes = list(profile.notes)
    rows = "test"
    if run.train_mask is None or bool(run.train_mask.all()):
        rows = "all"
        notes.append(f"{profile.name} has no test inputs: its path is over all inputs")
    path = information_path(run, rows=rows)
    stages = stages_of(phases, run.steps)
    course = _course(run, places, clock_of(profile))
    lengths = dict(zip(path.steps, _cumulative(path.distances), strict=True))
    course["path_length"] = [lengths[step] for step in course.step]
    end = _at(run.snapshot())
    values = {
        "t_train": phases.t_train,
        "t_test": phases.t_test,
        **{column: run.metrics.iloc[-1][column] for column in METRICS},
        "weight_norm_start": _norm(run.weights(run.steps[0])),
        **end,
        **_peak(course, end["c"], phases.t_test),
        "path_length": path.length,
        "straightness": path.straightness,
        "straightness_limit": _number(path.limit.straightness),
        "length_growth": path.growth,
    }
    delay = path.between(*stages["delay"]) if "delay" in stages else None
    if delay is not None and len(delay.steps) > 2:  # two points are always on a shortest way
        values |= {
            "delay_length": delay.length,
            "delay_straightness": delay.straightness,
            "delay_straightness_limit": _number(delay.limit.straightness),
            "delay_checkpoints": len(delay.steps),
        }
        try:
            found = step_geometry(run, steps=delay.steps, form="exact", rows=rows, stiff_above=None)
            values["delay_cos_consecutive"] = found.cos_consecutive.median()
            values["delay_cos_origin"] = found.cos_origin.median()
        except InputError as error:
            notes.append(f"{profile.name}: no Fisher cosines ({error})")
    else:
        notes.append(
            f"{profile.name}: fewer than three checkpoints from t_train ({phases.t_train}) to "
            f"t_test ({phases.t_test}); its path there is not measured"
        )
    return RunProfile(
        profile.name,
        run,
        phases,
        {name: float(values[name]) for name in MEASURES if name in values},
        _features(run.snapshot(run.steps[0])),
        course,
        path.table(stages),
        tuple(notes),
    )


def _course(run: Run, places: Mapping[float, int], clock: Clock) -> pd.DataFrame:
    metrics = run.metrics.drop_duplicates("step", keep="last").set_index("step")
    learnt = LEARNT * metrics.test_acc.max()
    rows = []
    seen: dict[int, dict[str, float]] = {}
    for place, step in places.items():
        if step not in seen:
            snapshot = run.snapshot(step)
            row = {"position": clock.position(step), "step": step}
            row |= {column: metrics[column].get(step, math.nan) for column in METRICS}
            row |= {"weight_norm": _norm(snapshot.weights), "c": math.nan} | _features(snapshot)
            if row["test_acc"] >= learnt:
                row["c"] = pruning_curve(snapshot, test_only=True).c
            seen[step] = row
        rows.append({"place": place} | seen[step])
    return pd.DataFrame(rows)


def _at(snapshot: Snapshot) -> dict[str, float]:
    """Features, compressibility and sizes of a model."""
    weights = {name: snapshot.weights[name] for name in weight_names(snapshot.weights)}
    curve = pruning_curve(snapshot, test_only=True)
    found = _features(snapshot) | {
        "weight_norm": _norm(snapshot.weights),
        "c": curve.c,
        "prunable": curve.prunable,
        "gini_weights": gini_of(weights),
        "effective_rank": mean_effective_rank(weights),
    }
    found["c_singular"] = pruning_curve(snapshot, basis="singular", test_only=True).c
    if snapshot.task.answer_group is not None:
        found["c_fourier"] = pruning_curve(snapshot, basis="fourier", test_only=True).c
        found["n_key_frequencies"] = len(subject_of(snapshot)[1])
    return found


def _features(snapshot: Snapshot) -> dict[str, float]:
    if isinstance(snapshot.task, IsingTask):
        table = observable_correlations(snapshot)
        hidden = table[table.layer == HIDDEN].set_index("observable").median_r
        return {f"r_{observable}": float(value) for observable, value in hidden.items()}
    try:
        means = neuron_ipr(snapshot).means
    except (
        InputError
    ):  # a transformer without an MLP: its claims then say that nothing was measured
        means = {}
    return {name: mean for name, mean in means.items() if name in MEASURES}


def _peak(course: pd.DataFrame, end: float, t_test: int | None) -> dict[str, float]:
    if not course.c.notna().any() or not t_test:
        return {}
    best = int(course.c.argmax())
    peak, step = course.c.iloc[best], course.step.iloc[best]
    return {"c_peak": peak, "c_peak_over_end": peak / end, "c_peak_over_t_test": step / t_test}


def _cumulative(distances: Tensor) -> list[float]:
    return [0.0, *distances.diagonal(1).cumsum(dim=0).tolist()]


def _norm(weights: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(w.double().square().sum()) for w in weights.values()))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
