"""A run in plain words: what became of it, when, with which frequencies, and what is not known."""

import math

import pandas as pd

from grokinterp.progress.phases import Phase, Phases
from grokinterp.viz.report.about import About

CROSSINGS = {"memorization_step": "train", "grok_step": "test"}
LABELS = {
    "grokked": "grokked: it fitted its training data first and generalised long after",
    "steady": "learned steadily: it generalised while it fitted its training data",
    "memorized": "memorized: it fits its training data and does not generalise",
    "not_learned": "has not learned: it does not even fit its training data",
    "undetermined": "has no label: the curves do not say which it is",
}


def headline(about: About) -> str:
    """One sentence for the label."""
    return f"{about.name} {LABELS[about.phases.label]}."


def findings(about: About) -> list[str]:
    """What was found: crossings, phases, frequencies, the circuit; a sentence each."""
    return [
        *_crossings(about.phases),
        *(_phase(phase) for phase in about.phases.phases if phase.start is not None),
        *_frequencies(about),
        *_circuit(about),
    ]


def undetermined(about: About) -> list[str]:
    """What is not known; `because` says why."""
    phases, found = about.phases, []
    if phases.label == "undetermined":
        found.append("The label.")
    for name, side in CROSSINGS.items():
        if getattr(phases, name) is None:
            crossed = _threshold(phases, side)
            found.append(
                f"{name}: {side} {crossed[0]} never {crossed[1]}."
                if crossed
                else f"{name}: there is no {side} curve."
            )
    for phase in phases.phases:
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


def because(about: About) -> list[str]:
    """What label and phases rest on."""
    return [_sentence(reason) for reason in about.phases.reasons]


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
    name = phase.name.replace("_", " ").capitalize()
    if phase.end is None:
        since = "a step that is not known" if phase.start is None else f"step {phase.start}"
        return f"{name}: from {since}, and its end is open or not known."
    sure = (
        ""
        if phase.end_interval is None
        else (f" (its end lies between {phase.end_interval[0]} and {phase.end_interval[1]})")
    )
    since = "not known when" if phase.start is None else f"steps {phase.start}"
    return f"{name}: {since} to {phase.end}{sure}."


def _frequencies(about: About) -> list[str]:
    keys = about.keys
    if _refused(about):
        return [_sentence(str(keys.reason))]
    if not keys:
        return []
    listed = ", ".join(map(str, keys))
    text = (
        f"Key frequencies: {listed}. They hold {keys.kept_share:.1%} of the variance of the logits"
    )
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
