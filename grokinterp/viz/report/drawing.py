"""Draws the panels of a run: every step once, whatever many panels look at it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from grokinterp.errors import InputError
from grokinterp.viz.figure import Figure
from grokinterp.viz.over_training import over_training
from grokinterp.viz.report.about import About
from grokinterp.viz.report.panels import EVERY_STEP, MILESTONES, ONCE, PANELS, Panel


@dataclass(frozen=True)
class Drawn:
    """A panel with its figure and the table behind it, or the reason why there is none."""

    panel: Panel
    figure: Figure | None = field(default=None, repr=False)
    table: pd.DataFrame | None = field(default=None, repr=False)
    reason: str | None = None


def draw_panels(about: About, *, progress: bool = False) -> list[Drawn]:
    """All panels of one run, in their order."""
    figures: dict[str, dict[int, Figure]] = {name: {} for name in PANELS}
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in PANELS}
    reasons: dict[str, str] = {}

    def draw(panels: Iterable[Panel], step: int, *given: Any) -> None:
        for one in panels:
            if one.name in reasons:
                continue
            try:
                figure, table = _parts(one.draw(about, *given))
            except InputError as error:
                reasons[one.name] = str(error)
                continue
            figures[one.name][step] = figure
            if table is not None:
                tables[one.name].append(_with_step(table, step) if given else table)

    last = about.run.steps[-1]
    draw(_when(ONCE), last)
    for step in tqdm(
        sorted({*about.steps, *about.milestones}),
        desc="draw",
        unit="step",
        disable=None if progress else True,
    ):
        snapshot = about.run.snapshot(step)
        snapshot.compute()
        if step in about.steps:
            draw(_when(EVERY_STEP), step, snapshot)
        if step in about.milestones:
            draw(_when(MILESTONES), step, snapshot)
    return [
        Drawn(one, reason=reasons[name])
        if name in reasons
        else Drawn(one, over_training(figures[name]), _joined(tables[name]))
        for name, one in PANELS.items()
    ]


def _when(when: str) -> list[Panel]:
    return [one for one in PANELS.values() if one.when == when]


def _parts(found: Any) -> tuple[Figure, pd.DataFrame | None]:
    """The figure and the table of what a panel returned."""
    if isinstance(found, Figure):
        return found, None
    if isinstance(found, tuple):
        return found
    return found.plot(), found.table()


def _with_step(table: pd.DataFrame, step: int) -> pd.DataFrame:
    columns = {"step": step} if "step" not in table else {}
    return table.assign(**columns)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame | None:
    if not tables:
        return None
    joined = pd.concat(tables, ignore_index=True)
    first = ["step"] if "step" in joined else []
    return joined[[*first, *joined.columns.drop(first)]]
