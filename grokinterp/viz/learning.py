"""Learning curves with the phases of a run shaded."""

import pandas as pd

from grokinterp.progress.phases import Phases
from grokinterp.viz.figure import STEPS, Figure, figure
from grokinterp.viz.theme import COLOURS, PHASES


def plot_phases(phases: Phases) -> Figure:
    """Train and test loss (log axis; accuracy without losses) against step, each phase shaded.

    Dotted lines mark `memorization_step` and `grok_step`; an open phase is shaded to the end.
    """
    curves = phases.curves
    losses = [c for c in ("train_loss", "test_loss") if c in curves]
    columns = losses or [c for c in ("train_acc", "test_acc") if c in curves]
    drawn = figure(f"Phases of training: {phases.label}", STEPS, _quantity(losses))
    if losses:
        drawn.update_yaxes(type="log", exponentformat="power")
    for column in columns:
        side, _, kind = column.partition("_")
        known = curves[curves[column].notna()]
        drawn.add_scatter(
            x=known["step"],
            y=known[column],
            name=f"{side} {kind.replace('acc', 'accuracy')}",
            line={"color": COLOURS[side]},
            mode="lines" if len(known) > 1 else "markers",
        )
    for phase in phases.phases:
        if phase.start is not None:
            drawn.add_vrect(
                x0=phase.start,
                x1=_last(curves) if phase.end is None else phase.end,
                fillcolor=PHASES[phase.name],
                opacity=0.2,
                line_width=0,
                annotation_text=phase.name.replace("_", " ") + (" (open)" * (phase.end is None)),
                annotation_position="top left",
            )
    for name in ("memorization_step", "grok_step"):
        if (step := getattr(phases, name)) is not None:
            drawn.add_vline(
                x=step,
                line={"dash": "dot", "width": 1},
                annotation_text=f"{name} {step}",
                annotation_position="bottom right",
            )
    return drawn


def _quantity(losses: list[str]) -> str:
    return "cross-entropy (nats)" if losses else "accuracy"


def _last(curves: pd.DataFrame) -> int:
    return int(curves["step"].iloc[-1])
