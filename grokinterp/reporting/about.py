"""What a report says of one run in plain words, and the measures behind it, taken once.

What became of the run, when, with which frequencies and which circuit, and what is not known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.circuits._figures.neurons import chosen_neurons
from grokinterp.circuits.circuit import Faithfulness, faithfulness
from grokinterp.fourier._key_frequencies import (
    KeyFrequencies,
    Keys,
    frequency_shares,
    key_frequencies,
)
from grokinterp.geometry.predictions import TrajectoryEmbedding, evenly, trajectory_embedding
from grokinterp.progress._detect_phases import detect_phases
from grokinterp.progress.measures import progress_measures
from grokinterp.progress.phases import Phase, Phases
from grokinterp.reporting.geometry_of_run import Geometry, geometry_of
from grokinterp.runs.run import Run, nearest_step

T = TypeVar("T")
IMAGES = 14  # of all pairs at one step, of a model with four heads and as many neurons drawn
BYTES = 10e6  # for images before they are compressed, two bytes per number
FEWEST_IMAGED, MOST_IMAGED = 12, 30  # steps that images are drawn of
CROSSINGS = {"memorization_step": "train", "grok_step": "test"}
HEADLINES = {  # by label
    "grokked": "grokked: it fitted its training data first and generalised long after",
    "steady": "learned steadily: it generalised while it fitted its training data",
    "memorized": "memorized: it fits its training data and does not generalise",
    "not_learned": "has not learned: it does not even fit its training data",
    "undetermined": "has no label: the curves do not say which it is",
}


@dataclass(frozen=True)
class About:
    """A run, its name in the report, and what was measured of all its checkpoints.

    `steps` are those that images are drawn of, `milestones` the few for what takes long. The
    field after `trajectory` and `faithfulness` says why it is None, if so.
    """

    run: Run
    name: str
    measures: pd.DataFrame = field(repr=False)
    phases: Phases = field(repr=False)
    keys: KeyFrequencies
    shares: pd.DataFrame | None = field(repr=False)  # of every frequency at every checkpoint
    neurons: tuple[int, ...]
    steps: tuple[int, ...]
    milestones: tuple[int, ...]
    trajectory: TrajectoryEmbedding | None = field(repr=False)  # of the same steps
    no_trajectory: str | None
    faithfulness: Faithfulness | None
    no_circuit: str | None
    geometry: Geometry = field(repr=False)

    @property
    def frequencies(self) -> Keys:
        """The key frequencies; () with the reason where there are none."""
        return Keys(self.keys, reason=self.keys.reason, notes=self.keys.notes)


def about_run(run: Run, name: str, *, n_runs: int = 1, progress: bool = False) -> About:
    """Measure what the report needs of a run before anything is drawn."""
    measures = progress_measures(run, progress=progress)
    phases = detect_phases(run, measures=measures)
    last = run.snapshot()
    keys = key_frequencies(last)
    steps = tuple(evenly(run.steps, _most_steps(run, n_runs)))
    found, no_circuit = None, keys.reason
    if keys:
        found, no_circuit = _or_reason(faithfulness, last, frequencies=tuple(keys), placebos=0)
    neurons, _ = _or_reason(chosen_neurons, last, tuple(keys))
    trajectory, no_trajectory = _or_reason(
        trajectory_embedding, {name: run}, steps=steps, dimensions=2
    )
    return About(
        run=run,
        name=name,
        measures=measures,
        phases=phases,
        keys=keys,
        shares=None if keys.frequencies is None else frequency_shares(run),
        neurons=tuple(neurons or ()),
        steps=steps,
        milestones=milestones(run.steps, phases),
        trajectory=trajectory,
        no_trajectory=no_trajectory,
        faithfulness=found,
        no_circuit=no_circuit,
        geometry=geometry_of(run, name, steps=steps, phases=phases, progress=progress),
    )


def milestones(steps: tuple[int, ...], phases: Phases) -> tuple[int, ...]:
    """The checkpoint nearest to the end of memorization (of learning train), and the last one."""
    ends = {phase.name: phase.end for phase in phases.phases or ()}
    date = ends.get("memorization", phases.t_train)
    near = [] if date is None else [nearest_step(steps, date)]
    return tuple(sorted({*near, steps[-1]}))


def _or_reason(
    measure: Callable[..., T], *given: Any, **options: Any
) -> tuple[T | None, str | None]:
    """What is measured and None, or None and the reason why it is not defined."""
    try:
        return measure(*given, **options), None
    except InputError as error:
        return None, str(error)


def _most_steps(run: Run, n_runs: int) -> int:
    if run.task.modular is None:
        return MOST_IMAGED
    affordable = BYTES / n_runs / (IMAGES * 2 * run.task.n_inputs)
    return int(min(MOST_IMAGED, max(FEWEST_IMAGED, affordable)))


def in_words(about: About) -> dict[str, Any]:
    """A sentence for the label, what was found, what is not known, and what phases rest on."""
    return {
        "headline": f"{about.name} {HEADLINES[about.phases.label]}.",
        "findings": findings(about),
        "undetermined": undetermined(about),
        "because": [_sentence(reason) for reason in about.phases.reasons],
    }


def findings(about: About) -> list[str]:
    """What was found, in sentences: crossings, phases, frequencies, the circuit."""
    return [
        *_crossings(about.phases),
        *(_phase(phase) for phase in about.phases.phases or () if phase.start is not None),
        *_frequencies(about),
        *_circuit(about),
    ]


def undetermined(about: About) -> list[str]:
    """What is not known."""
    phases, found = about.phases, []
    if phases.label == "undetermined":
        found.append("The label.")
    if not about.run.steps_known:
        found.append("All dates: nobody knows the steps of its checkpoints.")
    for name, side in CROSSINGS.items() if about.run.steps_known else ():
        if getattr(phases, name) is None:
            crossed = _threshold(phases, side)
            found.append(
                f"{name}: {side} {crossed[0]} never {crossed[1]}."
                if crossed
                else f"{name}: there is no {side} curve."
            )
    for phase in phases.phases or ():
        name = phase.name.replace("_", " ")
        if phase.start is None:
            found.append(f"When {name} began.")
        if phase.end is None:
            found.append(f"When {name} ended.")
    if not about.keys and not _refused(about):
        found.append(f"Key frequencies: {about.keys.reason}.")
    if about.keys and about.no_circuit:
        found.append(f"Faithfulness: {about.no_circuit}")
    found += [_sentence(note) for note in about.keys.notes]
    return found


def _sentence(reason: str) -> str:
    return f"{reason[0].upper()}{reason[1:]}."


def _refused(about: About) -> bool:
    """Whether it is known that what the logits vary along does not reach unseen inputs."""
    fit = about.keys.heldout
    return fit is not None and fit.decides and not fit.passes


def _crossings(phases: Phases) -> list[str]:
    found = []
    for name, side in CROSSINGS.items():
        step, crossed = getattr(phases, name), _threshold(phases, side)
        if step is not None and crossed:
            what, past = crossed
            found.append(f"{side.capitalize()} {what} first {past} at step {step} ({name}).")
    if (step := phases.grok_step_unmirrored) is not None:
        found.append(
            "On test pairs whose mirror is not trained on that is certain from step "
            f"{step} on (grok_step_unmirrored)."
        )
    return found


def _threshold(phases: Phases, side: str) -> tuple[str, str] | None:
    """The curve that a crossing is of, and the bound it passes; None without a curve."""
    bounds, curves = phases.thresholds, phases.curves
    if curves.get(f"{side}_acc", pd.Series()).notna().any():
        return "accuracy", f"reached {getattr(bounds, f'{side}_acc'):.0%}"
    if curves.get(f"{side}_loss", pd.Series()).notna().any():
        return "loss", f"fell below {getattr(bounds, f'{side}_loss'):g} nats"
    return None


def _phase(phase: Phase) -> str:
    """A phase whose start is known."""
    name = phase.name.replace("_", " ").capitalize()
    if phase.end is None:
        return f"{name}: from step {phase.start}, and its end is open or not known."
    sure = ""
    if phase.end_interval is not None:
        sure = " (its end lies between {} and {})".format(*phase.end_interval)
    return f"{name}: steps {phase.start} to {phase.end}{sure}."


def _frequencies(about: About) -> list[str]:
    keys = about.keys
    if _refused(about):
        return [_sentence(str(keys.reason))]
    if not keys:
        return []
    listed = ", ".join(map(str, keys))
    share = f"{keys.kept_share:.1%}"
    text = f"Key frequencies: {listed}. They hold {share} of the variance of the logits"
    if keys.cut_ratio == math.inf:
        text += "; the next one has none"
    elif keys.cut_ratio is not None:
        text += f"; the weakest of them has {keys.cut_ratio:.3g} times the share of the next one"
    return [text + "."]


def _circuit(about: About) -> list[str]:
    found = about.faithfulness
    if found is None:
        return []
    alone, whole = found.alone.score.loss_all, found.alone.whole.loss_all
    needed = (
        "without any part of it the loss is higher"
        if not found.not_needed
        else "without these the loss is no higher: " + ", ".join(found.not_needed)
    )
    return [
        f"The claimed circuit alone (key frequencies of the embedding, all heads, the neurons of "
        f"key frequencies and what they write) has loss {alone:.3g} nats on all pairs, the model "
        f"{whole:.3g}, the model without the key frequencies {found.without.score.loss_all:.3g}; "
        f"{needed}.",
    ]
