"""Critical sizes: the one that norms predict, and those of learning and of forgetting."""

from collections.abc import Iterable

from grokinterp.base.result import draws, found_by
from grokinterp.claims._critical_size import Bracket, CriticalSize, critical_size
from grokinterp.encodings._figures import MOST_SIZES, TICKS, plot_efficiency
from grokinterp.figures._figure import SERIES, Figure, checked, faded, figure, plain, says

CLOSE = 0.06  # sizes whose labels would run into each other
LEARNED, KEPT = SERIES[2], SERIES[3]


@draws(CriticalSize)
@found_by(critical_size, CriticalSize)
def plot_critical_size(found: CriticalSize) -> Figure:
    """Norm at a fixed logit over the number of training rows, and below it what generalises.

    Above, as `plot_efficiency` draws it: random labels and their power law, runs that generalise
    and their level, and where the two cross, with its 95 % interval shaded. Below, accuracy on
    inputs that were never trained on: of runs from their initial weights, and of runs that went on
    from one that had generalised. Shaded is between the size at which none does and the one from
    which on all do. The axis of sizes is logarithmic.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_critical_size(gi.load("mod31-small"))
    >>> [dots.name for dots in drawn.data]
    ['generalising', 'generalising: mean', 'from initial weights']
    """
    checked(found, CriticalSize, "claims.critical_size")
    above = plot_efficiency(found.efficiency)
    drawn = figure("Critical size of the training set")
    first = [x for x in found.runs if x["labels"] == "true" and x["test_acc"] == x["test_acc"]]
    again = [x for x in found.forgetting if x["acc"] == x["acc"]]
    if not above.data and not first and not again:
        return says(drawn, found.notes)
    drawn.set_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.5, 0.5]
    )
    drawn.add_traces(list(above.data), rows=1, cols=1)
    for shape in above.layout.shapes:
        of_axis = {"xref": "x", "yref": "y domain"}
        drawn.add_shape({**shape.to_plotly_json(), **of_axis})
    for rows, column, name, colour, symbol in (
        (first, "test_acc", "from initial weights", LEARNED, "circle"),
        (again, "acc", "from a network that generalised", KEPT, "diamond"),
    ):
        if rows:
            drawn.add_scatter(
                x=[x["n_train"] for x in rows], y=[x[column] for x in rows], mode="markers",
                name=name, marker={"size": 9, "color": colour, "symbol": symbol},
                customdata=[plain(str(x["run"])) for x in rows], row=2, col=1,
                hovertemplate="%{customdata}<br>D = %{x}, accuracy %{y:.3f}<extra></extra>",
            )  # fmt: skip
    _band(drawn, found.observed, LEARNED, "generalise: from none to all")
    _band(drawn, found.ungrokking, KEPT, "keep it: from none to all")
    sizes = _apart(x["n_train"] for x in (*found.runs, *again) if x["n_train"] > 0)
    ticks = sizes if len(sizes) <= MOST_SIZES else TICKS
    drawn.update_xaxes(type="log", tickvals=ticks, tickangle=0)
    drawn.update_xaxes(title_text="training rows (D)", row=2, col=1)
    drawn.update_yaxes(title_text=above.layout.yaxis.title.text, type="log", row=1, col=1)
    drawn.update_yaxes(title_text="accuracy, never trained", range=[-0.04, 1.04], row=2, col=1)
    return drawn.update_layout(hovermode="closest", showlegend=True, height=740)


def _band(drawn: Figure, found: Bracket, colour: str, name: str) -> None:
    """Between the size at which none does and the one from which on all do."""
    if found.none is not None and found.every is not None:
        drawn.add_vrect(
            found.none, found.every, fillcolor=faded(colour, 0.16), line_width=0, layer="below",
            row=2, col=1,
        )  # fmt: skip
        drawn.layout.shapes[-1].update(showlegend=True, name=name)


def _apart(sizes: Iterable[float]) -> list[float]:
    """Sizes whose labels do not run into each other."""
    found: list[float] = []
    for size in sorted(set(sizes)):
        if not found or size > found[-1] * (1 + CLOSE):
            found.append(size)
    return found
