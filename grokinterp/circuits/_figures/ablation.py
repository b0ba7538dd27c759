"""What ablations cost, each beside its placebos, and what the circuit alone keeps of a model."""

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.base.result import draws, found_by
from grokinterp.circuits.ablation import ABOVE, NONE, UNKNOWN, WITHIN, Ablation, Row, Score, ablate
from grokinterp.circuits.circuit import Faithfulness, faithfulness
from grokinterp.figures._figure import COLOURS, SERIES, Figure, at, checked, faded, figure
from grokinterp.figures.slider import over_training

VERDICTS = {ABOVE: SERIES[0], WITHIN: SERIES[4], NONE: SERIES[5], UNKNOWN: SERIES[3]}
WIDTH = 26  # characters of a line of a row's name: beside it a phone still shows the bars
RowKey = tuple[str, int]  # of a row: its name, and how many before it have the same


class Mark(NamedTuple):
    """A bar's end or a dot: the loss or the ratio, the height, its hover text, and its kind."""

    x: float
    y: float
    hover: str
    kind: str


@draws(Ablation)
@found_by(ablate, Ablation)
def plot_ablation(found: Ablation) -> Figure:
    """Loss over that of the whole model: one bar per row from 1 (no change), placebos below it.

    Log axis, losses on all inputs; colours are verdicts. Placebos at harmonics of key frequencies,
    which do not count for a verdict, are hollow. Diamonds at an edge stand for ratios that a log
    axis does not have: 0, infinite, or not a number. Several checkpoints make a slider, with each
    row at the same height. InputError where nothing was ablated.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, [gi.hooks.mlp(0), gi.hooks.heads(0, 2)], placebos=5)
    >>> gi.viz.plot_ablation(found).layout.xaxis.title.text
    "loss / model's loss"
    >>> len(gi.viz.plot_ablation(run, step=[0, -1], placebos=0).frames)
    2
    """
    checked(found, Ablation, "gi.ablate")
    if not found.rows:
        raise InputError("nothing was ablated, so there is nothing to draw.")
    placed: dict[int | None, dict[RowKey, Row]] = {}
    for row in found.rows:
        rows = placed.setdefault(row.step, {})
        rows[row.name, sum(name == row.name for name, _ in rows)] = row
    # In the order of the last step: a cluster that has not formed yet keeps its row.
    places = list(dict.fromkeys(place for rows in reversed(placed.values()) for place in rows))
    return over_training(
        {-1 if step is None else step: _of_step(rows, places) for step, rows in placed.items()}
    )


@draws(Faithfulness)
@found_by(faithfulness, Faithfulness)
def plot_faithfulness(found: Faithfulness) -> Figure:
    """Loss on all inputs, in nats: model, circuit alone, without it, nothing, less each part.

    Log axis, so a bar's left end has no meaning; diamonds at an edge stand for losses that it does
    not have: 0, infinite, or not a number. Broken lines: the model and the circuit alone.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_faithfulness(gi.load("mod31-small"), placebos=5)
    >>> drawn.layout.xaxis.title.text, drawn.layout.yaxis.ticktext[:2]
    ('loss (nats)', ('the model', 'the circuit alone'))
    """
    checked(found, Faithfulness, "circuits.faithfulness")
    scores = found._scores()
    names = list(scores)
    whole, part = "with and without the circuit", "circuit alone, less a part"
    marks = [
        Mark(score.loss_all, y, _hover(name, score), part if y > 3 else whole)
        for y, (name, score) in enumerate(scores.items())
    ]
    shares = f"recovered {_near_1(found.recovered)}, lost {_near_1(found.lost)}"
    drawn = figure(f"Faithfulness{at(found.step)}<br>{shares}", "loss (nats)")
    for kind, colour in ((whole, COLOURS["key"]), (part, SERIES[0])):
        some = _placed([mark for mark in marks if mark.kind == kind])
        marker = {"color": colour, "line": {"width": 0}}
        drawn.add_bar(**some, name=kind, orientation="h", marker=marker)
    _log_axis(drawn, marks)
    for mark, name, dash in zip(marks, names[:2], ("dot", "dash"), strict=False):
        if 0 < mark.x < math.inf:
            line = {"dash": dash, "width": 1, "color": COLOURS["other"]}
            drawn.add_vline(x=mark.x, line=line, showlegend=True, name=f"loss of {name}")
    return _named_rows(drawn, names)


def _of_step(rows: dict[RowKey, Row], places: Sequence[RowKey]) -> Figure:
    first = next(iter(rows.values()))
    drawn = figure(
        f"Ablation{at(first.step)} (1 = no change)<br>model's loss {first.whole.loss_all:.4g} nats",
        "loss / model's loss",
    )
    heights = {place: float(y) for y, place in enumerate(places)}
    bars, dots = [], []
    for place, row in rows.items():
        bars.append(Mark(row.ratio, heights[place], _row_hover(row), row.verdict))
        for one in row.placebos:
            ratio, kind = row.over_whole(one.score), "placebo" + " at a harmonic" * one.harmonic
            hover = _hover(f"{one.name}<br>placebo of {row.name}", one.score)
            dots.append(Mark(ratio, heights[place] + 0.3, f"{hover}<br>ratio {ratio:.5g}", kind))
    for verdict, colour in VERDICTS.items():
        some = [mark for mark in bars if mark.kind == verdict and 0 < mark.x < math.inf]
        drawn.add_bar(
            **_placed(some, base=1),
            base=1,
            width=0.45,
            orientation="h",
            name=verdict,
            marker={"color": colour, "line": {"width": 2, "color": colour}},  # seen at 1 too
            showlegend=bool(some),
        )
    for name, symbol in (("placebo", "circle"), ("placebo at a harmonic", "circle-open")):
        some = [mark for mark in dots if mark.kind == name and 0 < mark.x < math.inf]
        drawn.add_scatter(
            **_placed(some),
            mode="markers",
            name=name,
            marker={"color": faded(COLOURS["other"], 0.7), "symbol": symbol, "size": 5},
            showlegend=bool(some),
        )
    _log_axis(drawn, bars + dots, 1.0)
    drawn.add_vline(x=1, line={"width": 1, "color": COLOURS["other"]})
    return _named_rows(drawn, [name for name, _ in places])


def _placed(marks: Sequence[Mark], base: float = 0) -> dict[str, Any]:
    """Where marks stand, from a base on, and their hover texts."""
    return {
        "x": [mark.x - base for mark in marks],
        "y": [mark.y for mark in marks],
        "hovertext": [mark.hover for mark in marks],
        "hoverinfo": "text",
    }


def _near_1(value: float) -> str:
    """Four digits, or how far from 1 where these would say 1.

    >>> _near_1(0.98765), _near_1(1 - 2.5e-7), _near_1(1.00001), _near_1(1.0)
    ('0.9877', '1 - 2.5e-07', '1 + 1e-05', '1')
    """
    far = abs(value - 1)
    return f"1 {'-' if value < 1 else '+'} {far:.2g}" if 0 < far < 5e-5 else f"{value:.4g}"


def _log_axis(drawn: Figure, marks: Sequence[Mark], *also: float) -> None:
    """An axis of marks and other values, with room at both ends for marks that it cannot show.

    They stand at its edge: 0 to the left, infinite or not a number to the right.
    """
    values = [*also, *(mark.x for mark in marks)]
    exponents = [math.log10(value) for value in values if 0 < value < math.inf] or [0.0]
    room = 0.06 * (max(exponents) - min(exponents)) + 0.1
    low, high = min(exponents) - room, max(exponents) + room
    drawn.update_xaxes(
        type="log", range=[low, high], dtick=math.ceil((high - low) / 4), tickangle=0
    )
    left, right = 10 ** (low + room / 3), 10 ** (high - room / 3)
    off = [
        Mark(left if x == 0 else right, y, f"{hover}<br>{x:g} is off the axis", kind)
        for x, y, hover, kind in marks
        if not 0 < x < math.inf
    ]
    marker = {"symbol": "diamond", "size": 9, "color": SERIES[1]}
    shown = {"mode": "markers", "name": "off the axis", "showlegend": bool(off)}
    drawn.add_scatter(**_placed(off), marker=marker, **shown)


def _named_rows(drawn: Figure, names: Sequence[str]) -> Figure:
    """Every row under its whole name, first at the top; the figure as high as that needs."""
    # "k = 9" stays in one line: the spaces in it do not break.
    wrapped = [wrap(name.replace(" = ", "\u00a0=\u00a0"), WIDTH) for name in names]
    drawn.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=["<br>".join(lines) for lines in wrapped],
        tickfont={"size": 11},
        range=[len(names) - 0.4, -0.6],
        ticks="",
    )
    height = 250 + len(names) * max(28, 16 * max(map(len, wrapped)) + 6)
    return drawn.update_layout(
        height=height, barmode="overlay", hovermode="closest", showlegend=True
    )


def _row_hover(row: Row) -> str:
    ratios = pd.Series(row.placebo_ratios, dtype=float)
    compared = row.no_placebo or "no placebos"
    if len(ratios):
        compared = f"{len(ratios)} placebos: median {ratios.median():.5g}, "
        compared += f"{ratios.min():.5g} to {ratios.max():.5g}"
    own = f"{_hover(row.name, row.score)}<br>ratio {row.ratio:.5g}: {row.verdict}"
    return f"{own}<br>{compared}<br>kind: {row.kind}"


def _hover(name: str, score: Score) -> str:
    return (
        f"<b>{name}</b><br>loss {score.loss_all:.5g} nats"
        f"{_sides(score.loss_train, score.loss_test, '.5g')}"
        f"<br>accuracy {score.acc_all:.4%}{_sides(score.acc_train, score.acc_test, '.4%')}"
    )


def _sides(train: float, test: float, form: str) -> str:
    """The value on train and on test, where known: there may be no split, or no test inputs."""
    sides = {"train": train, "test": test}
    known = [f"{side} {x:{form}}" for side, x in sides.items() if not math.isnan(x)]
    return f" ({', '.join(known)})" if known else ""
