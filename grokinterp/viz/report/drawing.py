"""Draws the panels of a run: every step once, whatever many panels look at it."""

from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from grokinterp.circuits.attention_inputs import AttentionPatterns
from grokinterp.errors import InputError
from grokinterp.runs.snapshot import Snapshot
from grokinterp.viz.figure import Figure
from grokinterp.viz.over_training import over_training
from grokinterp.viz.report.about import About
from grokinterp.viz.report.panels import EVERY_STEP, MILESTONES, ONCE, PANELS, Panel


@dataclass(frozen=True)
class Drawn:
    """A panel: a figure, or patterns by step for CircuitsVis; or the reason why there is neither.

    `table` is the data behind it, where the figure does not hold all.
    """

    panel: Panel
    figure: Figure | None = field(default=None, repr=False)
    patterns: dict[int, AttentionPatterns] = field(default_factory=dict, repr=False)
    table: pd.DataFrame | None = field(default=None, repr=False)
    steps: tuple[int, ...] = ()  # that it is drawn of, where these are few
    only: int | None = None  # the step that it is a picture of, where there is no other
    reason: str | None = None  # also why it is missing at some steps


def draw_panels(about: About, *, progress: bool = False) -> list[Drawn]:
    """All panels of one run, in their order."""
    found: dict[str, dict[int, Any]] = {name: {} for name in PANELS}
    reasons: dict[str, str] = {}

    def draw(when: str, step: int, *given: Snapshot) -> None:
        for name, panel in PANELS.items():
            if panel.when == when and panel.draw:
                try:
                    found[name][step] = panel.draw(about, *given)
                except InputError as error:
                    reasons[name] = str(error)

    draw(ONCE, about.run.steps[-1])
    steps = sorted({*about.steps, *about.milestones})
    for step in tqdm(steps, desc="draw", unit="step", disable=None if progress else True):
        snapshot = about.run.snapshot(step)
        snapshot.compute()
        if step in about.steps:
            draw(EVERY_STEP, step, snapshot)
        if step in about.milestones:
            draw(MILESTONES, step, snapshot)
    return [
        replace(
            _drawn(panel, found[name]) if found[name] else Drawn(panel),
            steps=tuple(found[name]) if panel.when == MILESTONES else (),
            only=next(iter(found[name])) if panel.when != ONCE and len(found[name]) == 1 else None,
            reason=reasons.get(name),
        )
        for name, panel in PANELS.items()
    ]


def _drawn(panel: Panel, found: dict[int, Any]) -> Drawn:
    first = next(iter(found.values()))
    if isinstance(first, AttentionPatterns):
        return Drawn(panel, patterns=found, table=_joined(found))
    if isinstance(first, Figure):
        return Drawn(panel, over_training(found))
    if isinstance(first, tuple):  # drawn once: a figure, and its table
        return Drawn(panel, figure=first[0], table=first[1])
    figure = over_training({step: result.plot() for step, result in found.items()})
    return Drawn(panel, figure, table=_joined(found))


def _joined(found: dict[int, Any]) -> pd.DataFrame:
    """The tables of all steps under each other, the step first."""
    tables = [result.table().assign(step=step) for step, result in found.items()]
    joined = pd.concat(tables, ignore_index=True)
    return joined[["step", *joined.columns.drop("step")]]
