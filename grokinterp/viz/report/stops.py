"""Where the report's slider can stop: at steps, or at what the runs had learned."""

from collections.abc import Sequence
from typing import Any

from grokinterp.encodings.comparison.alignment import PLACES, Clock
from grokinterp.viz.report.about import About

PARTS = 8  # between two places


def stops_of(abouts: Sequence[About]) -> dict[str, list[dict[str, Any]]]:
    """By "step", and of several runs that learned test also by "phase".

    A stop has a key (the step, or the position of `alignment`), a label, and the checkpoint of each
    run that is nearest to it.
    """
    found = {"step": [_at_step(abouts, step) for step in _all_steps(abouts)]}
    clocks = [_clock(about) for about in abouts]
    if len(abouts) > 1 and all(clocks):
        found["phase"] = [_at_position(abouts, clocks, i / PARTS) for i in range(3 * PARTS + 1)]
    return found


def _all_steps(abouts: Sequence[About]) -> list[int]:
    return sorted({step for about in abouts for step in about.steps})


def _at_step(abouts: Sequence[About], step: int) -> dict[str, Any]:
    steps = [min(about.steps, key=lambda own: abs(own - step)) for about in abouts]
    label = f"step {step}"
    if len(abouts) == 1 and (phase := _phase(abouts[0], step)):
        label += f" · {phase}"
    return {"key": step, "label": label, "steps": steps}


def _at_position(
    abouts: Sequence[About], clocks: Sequence[Clock | None], position: float
) -> dict[str, Any]:
    steps = [
        min(about.steps, key=lambda own: abs(clock.position(own) - position))
        for about, clock in zip(abouts, clocks, strict=True)
        if clock
    ]
    before = int(position)
    label = PLACES[before]
    if position > before:
        label += f" → {PLACES[before + 1]}, {position - before:.0%}"
    return {"key": position, "label": label, "steps": steps}


def _clock(about: About) -> Clock | None:
    t_train, t_test, last = about.phases.t_train, about.phases.t_test, about.run.steps[-1]
    if t_train is None or t_test is None or t_test > last:
        return None
    return Clock(t_train, max(t_train, t_test), last)


def _phase(about: About, step: int) -> str | None:
    """The phase that a step is in; an open one goes on to the end."""
    for phase in about.phases.phases:
        if (
            phase.start is not None
            and phase.start <= step
            and (phase.end is None or step < phase.end)
        ):
            return phase.name.replace("_", " ")
    return None
