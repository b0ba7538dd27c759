"""How the weights move between checkpoints: their norm, the balance of decay and loss, cosines."""

import math
from typing import Any

import pandas as pd

from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import COLOURS, SERIES, STEPS, Figure, checked, figure, known_alone
from grokinterp.training.decay_balance import Balance, balance

COSINES = {  # columns of the table: name, colour
    "cos_shrinking": ("displacement with -weights", SERIES[2]),
    "cos_gradient": ("gradient with weights", SERIES[3]),
    "cos_updates": ("the two parts of an update (logged)", SERIES[4]),
}
NORM = {"rangemode": "tozero", "title_text": "L2 norm"}


@draws(Balance)
@found_by(balance, Balance)
def plot_balance(found: Balance, *, matrix: str = "all") -> Figure:
    """The norm of the trained parameters, k / (lr x weight decay) between checkpoints, and cosines.

    At the upper dotted line decay shrinks the norm unopposed, at the lower one the norm stands
    still. What is below, where the norm grows, is cut off and told on hover; where there is no
    ratio, k itself is drawn. `matrix` is one of `Balance.matrices`, or all together.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_balance(gi.load("mod31-small"))
    >>> [line.name for line in drawn.data]
    ['norm', 'k / (lr x weight decay)', 'cos: displacement with -weights']
    """
    checked(found, Balance, "training.balance")
    table = found.table(matrix)
    drawn = figure(f"Balance of weight decay and loss<br>{_of(matrix)}", STEPS)
    drawn.set_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.3, 0.4, 0.3]
    )
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=3, col=1)
    line: dict[str, Any] = {"mode": "lines+markers", "marker": {"size": 4}}
    hover = {"hovertemplate": "%{y:.5g}"}
    drawn.add_scatter(
        x=table.step, y=table.norm, name="norm", line={"color": COLOURS["train"]},
        row=1, col=1, **line, **hover,
    )  # fmt: skip
    ratio = bool(table.ratio.notna().any())
    drawn.add_scatter(  # a value between two checkpoints holds from the first to the second
        x=table.step, y=_held(table.ratio if ratio else table.k), **hover, mode="lines",
        name="k / (lr x weight decay)" if ratio else "k",
        line={"color": COLOURS["test"], "shape": "hv"}, row=2, col=1,
    )  # fmt: skip
    for column, (name, colour) in COSINES.items():
        if column not in table or table[column].isna().all():
            continue
        at_checkpoints = column == "cos_gradient"
        drawn.add_scatter(
            x=table.step, y=table[column] if at_checkpoints else _held(table[column]),
            name=f"cos: {name}", row=3, col=1, **hover,
            **(line if at_checkpoints else {"mode": "lines"}),
            line={"color": colour, "shape": "linear" if at_checkpoints else "hv"},
        )  # fmt: skip
    drawn.update_yaxes(**NORM, row=1, col=1)
    drawn.update_yaxes(title_text="share of full decay" if ratio else "k per update", row=2, col=1)
    if ratio:
        after = table.ratio[table.step >= found.peak_step].dropna()
        low, high = min([0.0, *after]), max([1.0, *after])
        drawn.update_yaxes(range=[low - 0.05, high + 0.05], row=2, col=1)
    for level in (0, 1) if ratio else (0,):
        drawn.add_hline(
            level, row=2, col=1, line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]}
        )
    drawn.update_yaxes(title_text="cosine", range=[-1.05, 1.05], row=3, col=1)
    drawn.update_layout(hovermode="x unified", height=720, showlegend=True)
    return known_alone(drawn, found.notes)


def _of(matrix: str) -> str:
    return "all trained parameters" if matrix == "all" else matrix


def _held(values: "pd.Series[float]") -> list[float]:
    """Values of intervals, the last one once more at the end of the last interval."""
    known = values.tolist()[:-1]
    return [*known, known[-1] if known else math.nan]
