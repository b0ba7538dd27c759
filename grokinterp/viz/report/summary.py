"""A run in plain words: what became of it, when, with which frequencies, and what is not known."""

from grokinterp.progress.phases import Phase, Phases
from grokinterp.viz.report.about import About

LABELS = {
    "grokked": "grokked: it fitted its training pairs first and generalised long after",
    "steady": "learned steadily: it generalised while it fitted its training pairs",
    "memorized": "memorized: it fits its training pairs and does not generalise",
    "not_learned": "has not learned: it fits not even its training pairs",
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
    bounds = phases.thresholds
    if phases.label == "undetermined":
        found.append("The label.")
    if phases.memorization_step is None:
        found.append(f"memorization_step: train accuracy never reached {bounds.train_acc:.0%}.")
    if phases.grok_step is None:
        found.append(f"grok_step: test accuracy never reached {bounds.test_acc:.0%}.")
    for phase in phases.phases:
        name = phase.name.replace("_", " ")
        if phase.start is None:
            found.append(f"When {name} began.")
        if phase.end is None:
            found.append(f"When {name} ended.")
    if not about.keys:
        found.append(f"Key frequencies: {about.keys.reason}.")
    if about.no_circuit:
        found.append(f"Faithfulness: {about.no_circuit}")
    return found


def because(about: About) -> list[str]:
    """What label and phases rest on."""
    return [reason[0].upper() + reason[1:] + "." for reason in about.phases.reasons]


def _crossings(phases: Phases) -> list[str]:
    bounds, found = phases.thresholds, []
    if phases.memorization_step is not None:
        found.append(
            f"Train accuracy first reached {bounds.train_acc:.0%} at step "
            f"{phases.memorization_step} (memorization_step)."
        )
    if phases.grok_step is not None:
        found.append(
            f"Test accuracy first reached {bounds.test_acc:.0%} at step "
            f"{phases.grok_step} (grok_step)."
        )
    return found


def _phase(phase: Phase) -> str:
    name = phase.name.replace("_", " ").capitalize()
    if phase.end is None:
        return f"{name}: from step {phase.start}, still open at the end."
    sure = (
        ""
        if phase.end_interval is None
        else (f" (its end lies between {phase.end_interval[0]} and {phase.end_interval[1]})")
    )
    return f"{name}: steps {phase.start} to {phase.end}{sure}."


def _frequencies(about: About) -> list[str]:
    keys = about.keys
    if not keys:
        return []
    listed = ", ".join(map(str, keys))
    text = (
        f"Key frequencies: {listed}. They hold {keys.kept_share:.1%} of the variance of the logits"
    )
    if keys.cut_ratio is not None:
        text += f"; the weakest of them has {keys.cut_ratio:.3g} times the share of any other"
    return [text + "."]


def _circuit(about: About) -> list[str]:
    found = about.faithfulness
    if found is None:
        return []
    alone, whole = found.alone.score.loss_all, found.alone.whole.loss_all
    needed = (
        "every part of it is needed"
        if not found.not_needed
        else "not needed are: " + ", ".join(found.not_needed)
    )
    return [
        f"The claimed circuit alone (key frequencies of the embedding, all heads, the neurons of "
        f"key frequencies and what they write) has loss {alone:.3g} nats on all pairs, the model "
        f"{whole:.3g}, the model without the key frequencies {found.without.score.loss_all:.3g}; "
        f"{needed}.",
    ]
