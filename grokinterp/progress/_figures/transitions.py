"""How a run generalises: how abruptly, in which phase, after which descents and slingshots."""

import textwrap

import numpy as np
import pandas as pd

from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    PHASES,
    SERIES,
    STEPS,
    Figure,
    checked,
    faded,
    figure,
    known_alone,
    plain,
    says,
)
from grokinterp.progress._abruptness import Abruptness, abruptness
from grokinterp.progress._descents import Descent, Descents, descents
from grokinterp.progress._phase_shares import PhaseShares, phase_shares
from grokinterp.progress._slingshots import Slingshots, slingshots

BAND = faded(COLOURS["test"], 0.2)
MEASURES = {  # of a phase share, as a label of its bars
    "test_acc": "test accuracy",
    "test_acc_unmirrored": "test accuracy,<br>unmirrored pairs",
    "test_loss": "test loss",
    "log_test_loss": "log test loss",
    "sum_sq_weights": "squared weights",
    "restricted_loss": "restricted loss",
    "trig_loss": "trig loss",
    "excluded_loss": "excluded loss",
}
CURVES = {
    "test_loss": ("test loss", "test loss (nats)"),
    "test_error": ("test error", "test error"),
    "test_error_unmirrored": ("test error, unmirrored pairs", "test error"),
}


@draws(Abruptness)
@found_by(abruptness, Abruptness)
def plot_abruptness(found: Abruptness) -> Figure:
    """Accuracy against step, the margins below it, and when each input's margin changes its sign.

    Shaded: from t10 to t90 of accuracy. Above, accuracy with the mean correct probability and the
    moment null; below, the mean margin (nats) with one standard deviation of inputs around it, and
    a histogram of last changes of sign. Accuracy is the part of the band that is above 0.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_abruptness(gi.load("mod31-small"))
    >>> [line.name for line in drawn.data if line.name]
    ['accuracy', 'mean correct probability', 'moment null', 'mean margin', '1 standard deviation',
     'last change of sign']
    """
    checked(found, Abruptness, "progress.abruptness")
    if not len(found.curves):
        return says(figure("How abrupt is generalisation?", STEPS), found.notes)
    if found.acceleration is not None:
        said = f"margins {found.acceleration:.3g} times as fast at t50 as on average"
    else:
        said = plain(textwrap.shorten(found.notes[-1] if found.notes else "", 90))
    drawn = figure(f"How abrupt is generalisation?<br>{said}", STEPS)
    flips = found.flip_steps[found.n_flips > 0].numpy()
    panels = ("share", "margin (nats)", "inputs")[: 2 + (len(flips) > 0)]
    drawn.set_subplots(
        rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.05,
        row_heights=[0.4, 0.4, 0.2][: len(panels)],
    )  # fmt: skip
    curves = found.curves
    mode, size = ("lines+markers", 4) if len(curves) > 1 else ("markers", 9)
    for column, name, line in (
        ("accuracy", "accuracy", {"color": COLOURS["test"]}),
        ("correct_probability", "mean correct probability", {"color": SERIES[0], "dash": "dash"}),
        ("moment_null", "moment null", {"color": COLOURS["other"], "dash": "dot"}),
        ("margin", "mean margin", {"color": SERIES[2]}),
    ):
        if column in curves:
            drawn.add_scatter(
                x=curves["step"], y=curves[column], name=name, line=line, mode=mode,
                marker={"size": size}, hovertemplate="%{y:.4g}",
                row=1 + (column == "margin"), col=1,
            )  # fmt: skip
    over, under = (curves["margin"] + sign * curves["spread"] for sign in (1, -1))
    drawn.add_scatter(
        x=[*curves["step"], *curves["step"][::-1]], y=[*over, *under[::-1]], fill="toself",
        fillcolor=faded(SERIES[2], 0.2), line={"width": 0}, mode="lines", hoverinfo="skip",
        name="1 standard deviation", row=2, col=1,
    )  # fmt: skip
    drawn.add_hline(y=0, line={"width": 1, "color": COLOURS["other"]}, row=2, col=1)
    if len(flips):
        edges = np.linspace(found.steps[0], found.steps[-1], 101)
        counts, _ = np.histogram(flips, edges)
        drawn.add_bar(
            x=(edges[:-1] + edges[1:]) / 2, y=counts, width=edges[1] - edges[0],
            name="last change of sign", marker={"color": SERIES[2], "line_width": 0}, row=3, col=1,
            hovertemplate="%{y} inputs",
        )  # fmt: skip
    rise = found.rise("accuracy")
    if rise is not None and rise.width > 0:
        drawn.add_vrect(
            x0=rise.t10, x1=rise.t90, fillcolor=BAND, line_width=0, layer="below", row="all", col=1
        )
        if (far := 3 * rise.t90) < found.steps[-1]:  # what comes later would squeeze it
            drawn.update_xaxes(range=[found.steps[0] - 0.02 * far, far])
    for row, title in enumerate(panels, start=1):
        drawn.update_yaxes(title_text=title, row=row, col=1)
    drawn.update_yaxes(range=[-0.03, 1.03], row=1, col=1)
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=len(panels), col=1)
    return drawn.update_layout(hovermode="x unified", height=760)


@draws(PhaseShares)
@found_by(phase_shares, PhaseShares)
def plot_phase_shares(found: PhaseShares) -> Figure:
    """One bar per measure, cut into the shares of the phases in its change, which add up to 1.

    A share below 0, to the left of the axis, went backwards in its phase.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_phase_shares(gi.load("mod31-small"))
    >>> [bar.name for bar in drawn.data]
    ['memorization', 'circuit formation', 'cleanup']
    """
    checked(found, PhaseShares, "progress.phase_shares")
    drawn = figure("In which phase does it change?", "share of the change")
    shown = found.shares[::-1]  # plotly counts from below
    for phase, colour in PHASES.items():
        drawn.add_bar(
            x=[getattr(each, phase) for each in shown],
            y=[MEASURES[each.measure] for each in shown],
            customdata=[each.change for each in shown],
            hovertemplate="%{x:.3f} of the change %{customdata}",
            name=phase.replace("_", " "),
            marker={"color": colour},
            orientation="h",
        )
    drawn.add_vline(x=0, line={"width": 1, "color": COLOURS["other"]})
    drawn.update_layout(
        barmode="relative", legend_traceorder="normal", height=220 + 46 * len(shown)
    )
    return known_alone(drawn, found.notes)


@draws(Descents)
@found_by(descents, Descents)
def plot_descents(found: Descents) -> Figure:
    """Test loss (nats) and test error against step, their extremes marked, chance as a dashed line.

    The dotted line is where the training inputs are fitted: where double descent has its peak.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_descents(gi.load("mod31-small"))
    >>> [line.name for line in drawn.data]
    ['test loss', 'its extremes', 'test error, unmirrored pairs', 'its extremes']
    """
    checked(found, Descents, "progress.descents")
    words = {True: "double descent", False: "no double descent", None: "undecided"}
    drawn = figure(f"Descents of the test loss and error: {words[found.double_descent]}", STEPS)
    known = [each for each in (found.loss, found.error) if each is not None]
    if not known:
        return says(drawn, found.notes)
    drawn.set_subplots(rows=len(known), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, (each, colour) in enumerate(zip(known, (SERIES[1], SERIES[3]), strict=False), start=1):
        _descent(drawn, each, colour, row)
    if found.t_interp is not None:
        drawn.add_vline(
            x=found.t_interp, line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]}
        )
        name = f"train fitted at {found.t_interp}"
        drawn.layout.shapes[-1].update(showlegend=True, name=name)
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=len(known), col=1)
    drawn.update_layout(hovermode="x unified", height=280 + 200 * len(known))
    return known_alone(drawn, found.notes)


def _descent(drawn: Figure, found: Descent, colour: str, row: int) -> None:
    """One curve with its extremes and the level of chance."""
    name, title = CURVES[found.curve]
    curve = found.values
    drawn.add_scatter(
        x=curve["step"], y=curve["value"], name=name, line={"color": colour}, row=row, col=1,
        mode="lines" if len(curve) > 1 else "markers", hovertemplate="%{y:.4g}",
    )  # fmt: skip
    drawn.add_scatter(
        x=[each.step for each in found.extremes], y=[each.value for each in found.extremes],
        customdata=[each.kind for each in found.extremes], mode="markers", name="its extremes",
        marker={
            "color": colour, "size": 10,
            "symbol": [f"triangle-{'up' if x.kind == 'max' else 'down'}" for x in found.extremes],
        },
        hovertemplate="%{customdata} %{y:.4g}", showlegend=False, cliponaxis=False, row=row, col=1,
    )  # fmt: skip
    if found.chance is not None:
        dashed = {"dash": "dash", "width": 1, "color": COLOURS["other"]}
        drawn.add_hline(y=found.chance, line=dashed, row=row, col=1)
        drawn.layout.shapes[-1].update(showlegend=row == 1, name="a uniform answer")
    drawn.update_yaxes(title_text=title, rangemode="tozero", row=row, col=1)


@draws(Slingshots)
@found_by(slingshots, Slingshots)
def plot_slingshots(found: Slingshots) -> Figure:
    """Train loss against step (log axis), what counts as a spike dashed, slingshots marked.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_slingshots(gi.load("mod31-small"))
    >>> drawn.layout.title.text, [line.name for line in drawn.data]
    ('Slingshots: none', ['train loss', '10 times its running median'])
    """
    checked(found, Slingshots, "progress.slingshots")
    many = {None: "unknown", 0: "none"}.get(found.n, str(found.n))
    drawn = figure(f"Slingshots: {many}", STEPS, "train loss (nats)")
    curve: pd.DataFrame = found.curve
    if not len(curve):
        return says(drawn, found.notes)
    drawn.update_yaxes(type="log")
    drawn.add_scatter(
        x=curve["step"], y=curve["train_loss"], name="train loss", hovertemplate="%{y:.4g}",
        line={"color": COLOURS["train"]}, mode="lines" if len(curve) > 1 else "markers",
    )  # fmt: skip
    if found.begin is not None:
        late = curve[curve["step"] >= found.begin]
        drawn.add_scatter(
            x=late["step"], y=found.times * late["median"], mode="lines",
            name=f"{found.times:g} times its running median", hovertemplate="%{y:.4g}",
            line={"color": COLOURS["other"], "dash": "dash"},
        )  # fmt: skip
    if found.slingshots:
        drawn.add_scatter(
            x=[each.step for each in found.slingshots],
            y=[each.train_loss for each in found.slingshots],
            customdata=[each.ratio for each in found.slingshots],
            hovertemplate="%{customdata:.4g} times the median",
            name="slingshots", mode="markers",
            marker={"color": COLOURS["test"], "size": 10, "symbol": "triangle-up"},
        )  # fmt: skip
    return known_alone(drawn.update_layout(hovermode="x unified"), found.notes)
