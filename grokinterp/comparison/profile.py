"""What is measured of one run before it is compared with others."""

import contextlib
import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.comparison.lineup import METRICS, Clock, RunProfile, logged
from grokinterp.encodings._sizes import sizes_of
from grokinterp.encodings.pruning_curves import PruningCurve, learnt_steps, pruning_curve
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.geometry.metric import step_geometry
from grokinterp.geometry.paths import InformationPath, information_path, stages_of
from grokinterp.progress.measures import MEASURES
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run

PROFILED: dict[str, str] = {
    "memorization_step": "train accuracy is 0.99 from here on",
    "grok_step": "test accuracy is 0.95 from here on",
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
    "n_key_frequencies": "frequencies that carry the answer, to unseen pairs too; 0 if no few do",
    "neurons_in_clusters": "share of the last layer's neurons that belong to a key frequency",
    "gradient_symmetricity": "how alike the answers' slopes are in both operands; 1 of a pizza",
    "distance_irrelevance": "how little right logits depend on a - b; 1 of a clock",
    "r_energy": "median |r| of the last hidden layer with the energy",
    "r_abs_magnetization": "median |r| of the last hidden layer with |M|",
    "r_magnetization": "median |r| of the last hidden layer with M",
    "c": "compressibility, magnitude pruning within each matrix",
    "prunable": "fraction of weights that can go at 95 % of the accuracy",
    "c_fourier": "compressibility in the tokens' Fourier basis",
    "c_singular": "compressibility in singular values",
    "c_peak": "largest c of the checkpoints looked at, from 0.9 of the best accuracy on",
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
    "delay_straightness_coarse": "the same over at most nine checkpoints: noise adds little",
    "delay_straightness_limit": "the same, extrapolated to spacing 0",
    "delay_checkpoints": "checkpoints from t_train to t_test, ends included",
    "delay_cos_consecutive": "median Fisher cosine of consecutive steps between checkpoints there",
    "delay_cos_origin": "median Fisher cosine of those steps with the direction to the origin",
}
COARSE = 9  # points of a path seen coarsely, where the noise of an optimiser adds little
SOON = 3.0  # checkpoints up to three times t_test show a peak soon after


def measure_profile(profile: RunProfile, places: Mapping[float, int]) -> RunProfile:
    """The profile with everything measured, over training at the checkpoint of each place."""
    run, phases, clock = profile.run, profile.phases, profile.clock
    if phases is None or clock is None:
        return profile
    first, last, learnt = run.steps[0], run.steps[-1], set(learnt_steps(run))
    norms, features, curves = {}, {}, {}
    for step in sorted({first, last, *places.values()}):
        snapshot = run.snapshot(step)
        norms[step] = math.sqrt(MEASURES["sum_sq_weights"].function(snapshot))
        features[step] = _features(snapshot)
        if step == last or step in learnt:
            curves[step] = pruning_curve(snapshot, test_only=True)
    path = information_path(run)
    at_the_end, lacking = _at_the_end(run.snapshot(), curves[last], profile.name)
    stages = path.table(stages_of(phases, run.steps))
    parts = {row["part"]: row for row in stages.to_dict("records")}
    whole = parts["whole"]
    so_far = [0.0, *path.distances.diagonal(1).cumsum(dim=0).tolist()]
    lengths = dict(zip(path.steps, so_far, strict=True))
    metrics, rows = logged(run), []
    for place, step in places.items():
        row = {"place": place, "position": clock.position(step), "step": step}
        row |= {column: metrics[column].get(step, math.nan) for column in METRICS}
        row |= {"weight_norm": norms[step], "c": curves[step].c if step in learnt else math.nan}
        rows.append(row | features[step] | {"path_length": lengths[step]})
    course = pd.DataFrame(rows)
    delay, notes = _delay(run, path, parts.get("delay"), profile.name)
    values = {
        "t_train": phases.t_train,
        "t_test": phases.t_test,
        **metrics.loc[last, list(METRICS)],
        "weight_norm_start": norms[first],
        "weight_norm": norms[last],
        **features[last],
        **at_the_end,
        **_peak(course, curves[last].c, clock),
        "path_length": whole["length"],
        "straightness": whole["straightness"],
        "straightness_limit": whole["limit_straightness"],
        "length_growth": whole["growth"],
        **delay,
    }
    return replace(
        profile,
        values={name: float(values[name]) for name in PROFILED if name in values},
        start=features[first],
        course=course,
        stages=stages,
        notes=(*profile.notes, *lacking, *notes),
    )


def _delay(
    run: Run, path: InformationPath, row: Mapping[Hashable, Any] | None, name: str
) -> tuple[dict[str, float], list[str]]:
    """The stretch of the path from train learned to test learned, and what cannot be said of it."""
    if row is None or row["n_checkpoints"] < 3:  # two points are always on a shortest way
        why = "fewer than three checkpoints from learning train to learning test"
        return {}, [f"{name}: {why}; its path there is not measured"]
    part = path.between(row["start"], row["end"])
    found = {
        "delay_length": row["length"],
        "delay_straightness": row["straightness"],
        "delay_straightness_coarse": part.thinned(-(-len(part.steps) // COARSE)).straightness,
        "delay_straightness_limit": row["limit_straightness"],
        "delay_checkpoints": row["n_checkpoints"],
    }
    try:
        steps = step_geometry(run, steps=part.steps, form="exact", stiff_above=None)
    except InputError as error:
        return found, [f"{name}: no Fisher cosines ({error})"]
    cosines = {key: steps[key].median() for key in ("cos_consecutive", "cos_origin")}
    return found | {f"delay_{key}": value for key, value in cosines.items()}, []


def _at_the_end(
    snapshot: Snapshot, curve: PruningCurve, name: str
) -> tuple[dict[str, float], list[str]]:
    """Compressibility, sizes and key frequencies of the last model, and what it has none of."""
    found = {
        "c": curve.c,
        "prunable": curve.prunable,
        **sizes_of(snapshot),
        "c_singular": pruning_curve(snapshot, basis="singular", test_only=True).c,
    }
    if snapshot.task.answer_group is None:
        return found, []
    keys = subject_of(snapshot)[1]
    found["n_key_frequencies"] = math.nan if keys.undecided else len(keys)
    try:  # answers may have frequencies where an embedding of both operands has none: a*b + a
        found["c_fourier"] = pruning_curve(snapshot, basis="fourier", test_only=True).c
    except InputError as error:
        return found, [f"{name}: no compressibility in the Fourier basis ({error})"]
    return found, []


def _features(snapshot: Snapshot) -> dict[str, float]:
    with contextlib.suppress(InputError):  # of a model without neurons nothing is measured
        if snapshot.task.observables():
            found = MEASURES["observables"].function(snapshot)
            return {name.removeprefix("median_"): value for name, value in found.items()}
        return {x: MEASURES[x].function(snapshot) for x in ("ipr_input", "ipr_output")}
    return {}


def _peak(course: pd.DataFrame, end: float, clock: Clock) -> dict[str, float]:
    """The largest c, where checkpoints soon after learning and a later end can show a peak."""
    known = course[course.c.notna()].drop_duplicates("step")
    soon = known[(known.step <= SOON * clock.t_test) & (known.step < clock.last)]
    if len(soon) < 2 or clock.last <= SOON * clock.t_test:
        return {}
    best = known.iloc[int(known.c.argmax())]
    found = {"c_peak": best.c, "c_peak_over_end": best.c / end}
    return found | ({"c_peak_over_t_test": best.step / clock.t_test} if clock.t_test else {})
