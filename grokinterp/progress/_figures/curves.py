"""Curves over training: losses with the phases of a run shaded, and how frequencies emerge."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import listed
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    PHASES,
    SERIES,
    STEPS,
    Figure,
    checked,
    figure,
    series,
)
from grokinterp.fourier._key_frequencies import frequency_shares
from grokinterp.progress._detect_phases import detect_phases
from grokinterp.progress.curves import Step
from grokinterp.progress.measures import progress_measures
from grokinterp.progress.phases import Phase, Phases
from grokinterp.reading._load import Subject, run_of
from grokinterp.tasks.task import Task

LOSS, ACCURACY, NORM = "loss (nats)", "accuracy", "L2 norm"  # the panels of `plot_progress`
SCALES: dict[str, dict[str, Any]] = {
    LOSS: {"type": "log"}, ACCURACY: {"range": [-0.03, 1.03]}, NORM: {"rangemode": "tozero"}
}  # fmt: skip
LINES = {  # of `gi.progress_measures`: the panel, name and line of each column
    "train_loss": (LOSS, "train loss", {"color": COLOURS["train"]}),
    "test_loss": (LOSS, "test loss", {"color": COLOURS["test"]}),
    "restricted_loss": (LOSS, "restricted loss", {"color": SERIES[2], "dash": "dash"}),
    "excluded_loss": (LOSS, "excluded loss", {"color": SERIES[3], "dash": "dash"}),
    "trig_loss": (LOSS, "trig loss", {"color": SERIES[4], "dash": "dot"}),
    "restricted_acc_heldout": (ACCURACY, "held-out restricted accuracy", {"color": COLOURS["key"]}),
    "restricted_acc_heldout_placebo": (
        ACCURACY, "best of its placebos", {"color": COLOURS["key"], "dash": "dot"}
    ),
    "test_acc_unmirrored": (ACCURACY, "accuracy on the same pairs", {"color": COLOURS["test"]}),
    "test_acc": (ACCURACY, "accuracy on the same pairs", {"color": COLOURS["test"]}),
    "sum_sq_weights": (NORM, "weight norm", {"color": COLOURS["other"]}),
}  # fmt: skip


@draws(Phases)
@found_by(detect_phases, Phases)
def plot_phases(phases: Phases) -> Figure:
    """Train and test loss (log axis; accuracy without losses) against step, each phase shaded.

    Dotted lines mark `memorization_step` and `grok_step`; an open phase is shaded to the end. With
    losses, the accuracy of the same row is told on hover. The legend names phases and lines.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_phases(gi.load("mod31-small"))
    >>> drawn.layout.title.text
    'Phases of training: grokked'
    >>> [shape.name for shape in drawn.layout.shapes]
    ['memorization', 'circuit formation', 'cleanup', 'memorization_step 260', 'grok_step 3530']
    """
    checked(phases, Phases, "gi.detect_phases")
    curves = phases.curves
    losses = any(f"{side}_loss" in curves for side in ("train", "test"))
    kind, quantity = ("loss", "cross-entropy (nats)") if losses else ("acc", "accuracy")
    drawn = figure(f"Phases of training: {phases.label}", STEPS, quantity)
    if losses:
        drawn.update_yaxes(type="log")
    for side in ("train", "test"):
        column = f"{side}_{kind}"
        if column not in curves:
            continue
        known = curves[curves[column].notna()]
        accuracy = f"{side}_acc" if losses and f"{side}_acc" in known else None
        drawn.add_scatter(
            x=known["step"],
            y=known[column],
            customdata=known[accuracy] if accuracy else None,
            hovertemplate="%{y:.5g}" + ", accuracy %{customdata:.4%}" * bool(accuracy),
            name=f"{side} {'loss' if losses else 'accuracy'}",
            line={"color": COLOURS[side]},
            mode="lines" if len(known) > 1 else "markers",
        )
    drawn.update_layout(hovermode="x unified")
    shade(drawn, phases, last=int(curves["step"].iloc[-1]))
    return drawn


def plot_progress(
    x: Subject | pd.DataFrame,
    *,
    phases: Phases | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Figure:
    """The losses of `gi.progress_measures` (log axis, nats), accuracies on unseen pairs, the norm.

    Restricted: the key frequencies of the logits alone; excluded: all but them, on train; trig: the
    best fit of cos w_k(f - c). The weight norm is the L2 norm of all parameters,
    sqrt(sum_sq_weights).

    The panel of accuracies, where there are key frequencies and a split, is about test pairs whose
    mirror is not trained on (all test pairs where there are no mirrors): how many of them the
    network answers, how many the fit of their logits by the key frequencies does
    (`restricted_acc_heldout`), and the best of its placebos. Where the fit is above the placebos
    and the network is not, a circuit is forming.

    `x` is the table of `gi.progress_measures`, or what it takes; of a run its phases are found too.
    A measure that is null at every step is left out. With `phases`, each is shaded as in
    `plot_phases`. InputError for a table without steps or without any of the measures.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_progress(gi.load("mod31-small"))
    >>> [line.name for line in drawn.data if "loss" in line.name]
    ['train loss', 'test loss', 'restricted loss', 'excluded loss', 'trig loss']
    >>> drawn.layout.yaxis2.title.text, drawn.layout.yaxis3.title.text
    ('accuracy', 'L2 norm')
    """
    if isinstance(x, pd.DataFrame):
        if task is not None or train_mask is not None:
            raise InputError("task= and train_mask= are for models; leave them out for a table.")
        measures = x
    else:
        run = run_of(x, task=task, train_mask=train_mask)
        measures = progress_measures(run)
        phases = detect_phases(run, measures=measures) if phases is None else phases
    if phases is not None:
        checked(phases, Phases, "gi.detect_phases")
    known = [c for c in LINES if _has(measures, c)]
    panels, heights = [LOSS, ACCURACY, NORM], [0.52, 0.24, 0.24]
    if "restricted_acc_heldout" not in known:
        panels, heights = [LOSS, NORM], [0.7, 0.3]
        known = [c for c in known if LINES[c][0] != ACCURACY]
    elif "test_acc_unmirrored" in known:
        known.remove("test_acc")
    if "step" not in measures or not known:
        raise InputError(
            "this is no table of progress measures with a value; give what gi.progress_measures "
            "found."
        )
    last = len(panels)
    drawn = figure("Progress measures", STEPS)
    drawn.set_subplots(
        rows=last, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=heights
    )
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=last, col=1)
    for row, panel in enumerate(panels, start=1):
        drawn.update_yaxes(title_text=panel, **SCALES[panel], row=row, col=1)
    for column in known:
        panel, name, line = LINES[column]
        drawn.add_scatter(
            x=measures["step"],
            y=np.sqrt(measures[column]) if panel == NORM else measures[column],
            name=name,
            hovertemplate="%{y:.5g}",
            line=line,
            mode="lines" if len(measures) > 1 else "markers",
            row=1 + panels.index(panel),
            col=1,
        )
    drawn.update_layout(hovermode="x unified", height=640 if last == 2 else 800)
    if phases is not None:
        shade(drawn, phases, last=int(measures["step"].iloc[-1]))
    return drawn


def _has(measures: pd.DataFrame, column: str) -> bool:
    if column not in measures:
        return False
    values = measures[column]
    if isinstance(values, pd.DataFrame):
        raise InputError(f"the table has several columns {column!r}; keep one.")
    if not pd.api.types.is_numeric_dtype(values.dtype):
        raise InputError(
            f"column {column!r} is of type {values.dtype}, and a curve is of numbers; give what "
            "gi.progress_measures found."
        )
    return bool(values.notna().any())


@found_by(frequency_shares, pd.DataFrame)
def plot_emergence(shares: pd.DataFrame, *, frequencies: Sequence[int] | None = None) -> Figure:
    """Share of the logits' variance along each frequency against step (`frequency_shares`).

    One line for each of `frequencies`, the key ones of the last checkpoint unless given, every
    other frequency in grey, and dashed what the others are together. InputError for another table,
    and for a frequency that it does not have.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_emergence(gi.load("mod31-small"), frequencies=[14, 1])
    >>> [line.name for line in drawn.data]
    ['each other k', 'all others together', 'k = 14', 'k = 1']
    """
    checked(shares, pd.DataFrame, "fourier.frequency_shares")
    if shares.index.name != "step" or shares.columns.name != "k":
        raise InputError("this is no table of shares; give what frequency_shares(run) found.")
    frequencies = shares.attrs.get("frequencies", ()) if frequencies is None else frequencies
    text = isinstance(frequencies, str)
    given = [frequencies] if text else listed("frequencies", frequencies, such_as="[1, 5]")
    if unknown := [k for k in given if whole_number(k) is None or k not in shares]:
        raise InputError(
            f"frequency {shown(unknown[0])} is not in the table; give some of its columns, numbers."
        )
    chosen = list(dict.fromkeys(given))
    others = shares.drop(columns=chosen)
    drawn = figure("Frequencies of the logits over training", STEPS, "share of variance")
    drawn.update_layout(hovermode="closest")
    hover = "k = %{customdata}<br>step %{x}<br>share %{y:.5g}<extra></extra>"
    # One trace, so that the legend has one entry: a NaN ends each line.
    drawn.add_scatter(
        x=np.tile([*shares.index, shares.index[-1]], others.shape[1]),
        y=np.vstack([others, np.full((1, others.shape[1]), np.nan)]).T.ravel(),
        customdata=np.repeat(others.columns, len(shares) + 1),
        hovertemplate=hover,
        name="each other k",
        mode="lines",
        line={"color": COLOURS["other"], "width": 0.7},
        opacity=0.6,
    )
    drawn.add_scatter(
        x=shares.index,
        y=others.sum(axis=1),
        hovertemplate="all others<br>step %{x}<br>share %{y:.5g}<extra></extra>",
        name="all others together",
        mode="lines",
        line={"color": COLOURS["other"], "dash": "dash"},
    )
    for i, k in enumerate(chosen):
        drawn.add_scatter(
            x=shares.index,
            y=shares[k],
            customdata=[k] * len(shares),
            hovertemplate=hover,
            name=f"k = {k}",
            mode="lines+markers",
            marker={"size": 4},
            line=series(i),
        )
    return drawn


class Dated(Protocol):
    """What has phases and crossings, as `Phases` and results that hold those of a run."""

    @property
    def phases(self) -> tuple[Phase, ...] | None:
        """Where they begin and end."""

    @property
    def memorization_step(self) -> Step | None:
        """When training inputs are memorised."""

    @property
    def grok_step(self) -> Step | None:
        """When test inputs are answered."""


def shade(drawn: Figure, phases: Dated, *, last: float) -> None:
    """Phases as areas and crossings as lines, named in the legend, where no name can overlap."""
    for phase in phases.phases or ():
        if phase.start is not None:
            drawn.add_vrect(
                x0=phase.start,
                x1=last if phase.end is None else phase.end,
                fillcolor=PHASES[phase.name],
                opacity=0.25,
                line_width=0,
                layer="below",
            )
            name = phase.name.replace("_", " ") + " (open)" * (phase.end is None)
            drawn.layout.shapes[-1].update(showlegend=True, name=name)  # of the last panel alone
    for name, dash in (("memorization_step", "dot"), ("grok_step", "dashdot")):
        if (step := getattr(phases, name)) is not None:
            drawn.add_vline(x=step, line={"dash": dash, "width": 1.5, "color": COLOURS["other"]})
            drawn.layout.shapes[-1].update(showlegend=True, name=f"{name} {step}")
