"""How much of a model can be pruned, of what rank its matrices are, what norm its answers take."""

from collections.abc import Mapping
from itertools import cycle
from math import isnan
from typing import Any

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.base.result import draws, found_by
from grokinterp.encodings.circuit_efficiency import (
    GENERALIZING,
    MEMORIZING,
    NEITHER,
    Efficiency,
    efficiency,
)
from grokinterp.encodings.pruning_curves import PruningCurve, pruning_curve
from grokinterp.encodings.ranks_over_training import DEFINITIONS, Ranks, ranks
from grokinterp.figures._figure import (
    COLOURS,
    SERIES,
    STEPS,
    Figure,
    at,
    checked,
    figure,
    known_alone,
    plain,
    series,
)
from grokinterp.reading._load import Subject

MOST_SIZES = 10  # that all have a label on the axis
TICKS = [digit * 10**power for power in range(5) for digit in (1, 2, 5)]


@draws(PruningCurve)
def plot_pruning_curves(
    x: PruningCurve | Mapping[str, PruningCurve] | Subject, **options: Any
) -> Figure:
    """Accuracy against the fraction pruned; several curves each under its name, c after it.

    `x` is a curve, a dict of curves by name, or what `pruning_curve` takes, with its `options`.
    The accuracy is the one that c is of, on test or all inputs. Curves whose fractions are of
    different things, weights and singular values, are drawn on one axis, which then says so.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> curves = {f"step {at}": gi.encodings.pruning_curve(run, step=at) for at in (2000, 10000)}
    >>> [line.name for line in gi.viz.plot_pruning_curves(curves).data]
    ['step 2000, c = 1.61', 'step 10000, c = 2.05']
    """
    of_curves = isinstance(x, PruningCurve | Mapping)
    if of_curves and options:
        raise InputError(f"{next(iter(options))!r} is of pruning_curve; leave it out for a curve.")
    if isinstance(x, Mapping):
        named = dict(x)
    else:
        named = {"": x if isinstance(x, PruningCurve) else pruning_curve(x, **options)}
    for curve in named.values():
        checked(curve, PruningCurve, "encodings.pruning_curve")
    if not named:
        raise InputError("there are no curves to draw; give a pruning curve for each name.")
    first, *others = named.values()
    kinds = {"singular": "singular values"}
    rows = " or ".join(dict.fromkeys(each.rows for each in named.values()))
    pruned = " or ".join(dict.fromkeys(kinds.get(each.basis, "weights") for each in named.values()))
    where = at(first.step if all(each.step == first.step for each in others) else None)
    title = f"Pruning by {first.score}{where}<br>scope {first.scope}, basis {first.basis}"
    title = f"Pruning curves{where}" if others else title
    drawn = figure(title, f"fraction pruned<br>of {pruned}", f"accuracy ({rows} inputs)")
    drawn.update_yaxes(range=[-0.02, 1.02])
    for (name, curve), colour in zip(named.items(), cycle(SERIES), strict=False):
        drawn.add_scatter(
            x=curve.fractions.tolist(),
            y=curve.accuracy.tolist(),
            name=f"{plain(name)}, c = {curve.c:.3g}" if name else f"c = {curve.c:.3g}",
            line={"color": colour},
            mode="lines",
            showlegend=True,
        )
    return drawn


@draws(Ranks)
@found_by(ranks, Ranks)
def plot_ranks(found: Ranks, *, definition: str = "entropy_rank") -> Figure:
    """Effective rank of every matrix against step, on a log axis, by one of four definitions.

    `definition` is a name of `effective_ranks`, which say how many singular values count; the hover
    has min(m, n), the largest rank there could be. A matrix without a rank is not drawn.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_ranks(gi.load("mod31-small"), steps=[0, 2000, 10_000])
    >>> [line.name for line in drawn.data]
    ['W_E', 'W_U', 'W_in', 'W_out', 'W_out W_U']
    """
    checked(found, Ranks, "encodings.ranks")
    word("definition", definition, DEFINITIONS)
    drawn = figure("Effective ranks of the matrices", STEPS, definition.replace("_", " "))
    drawn.update_yaxes(type="log", tickvals=TICKS)  # powers of ten alone are too far apart
    for i, (name, rows) in enumerate(found.table().groupby("matrix", sort=False)):
        known = rows[rows[definition].notna()]
        if len(known):
            drawn.add_scatter(
                x=known["step"],
                y=known[definition],
                customdata=known["full_rank"],
                name=plain(str(name)),
                line=series(i),
                mode="lines+markers",
                marker={"size": 4},
                hovertemplate="%{y:.4g} of %{customdata}",
            )
    drawn.update_layout(hovermode="x unified", showlegend=True)
    return known_alone(drawn, found.notes)


@draws(Efficiency)
@found_by(efficiency, Efficiency)
def plot_efficiency(found: Efficiency) -> Figure:
    """Normalised norm of every run against its number of training rows, and the two fitted curves.

    Dots are the runs of random labels that are memorised, those of true labels that generalise, and
    those in neither fit. The vertical line is where the curves cross, shaded its 95 % interval.
    Runs whose size or norm is not known are not drawn. Both axes are logarithmic.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_efficiency(gi.load("mod31-small"))
    >>> [dots.name for dots in drawn.data]
    ['generalising', 'generalising: mean']
    """
    checked(found, Efficiency, "encodings.efficiency")
    fit, table = found.fit, found.table()
    known = table[table["normalized_norm"].notna() & table["n_train"].notna()]
    unit = f"norm / logit<sup>{found.exponent:g}</sup>"
    drawn = figure("Norm that memorising and generalising take", "training rows (D)", unit)
    sizes = sorted(known["n_train"].unique())
    drawn.update_xaxes(type="log", tickvals=sizes if len(sizes) <= MOST_SIZES else TICKS)
    drawn.update_yaxes(type="log")
    for kind, name, colour in (
        (MEMORIZING, "memorising random labels", COLOURS["train"]),
        (GENERALIZING, "generalising", COLOURS["key"]),
        (NEITHER, "in neither fit", COLOURS["other"]),
    ):
        if len(rows := known[known["stands_for"] == kind]):
            drawn.add_scatter(
                x=rows["n_train"],
                y=rows["normalized_norm"],
                mode="markers",
                marker={"size": 9, "color": colour},
                name=name,
                customdata=[plain(str(run)) for run in rows["run"]],
                hovertemplate="%{customdata}<br>D = %{x}, %{y:.4g}<extra></extra>",
            )
    ends = [sizes[0] / 1.1, sizes[-1] * 1.1] if sizes else []
    curves = (
        (f"memorising: D<sup>{fit.exponent:.2f}</sup>", fit.exponent, fit.p_mem, COLOURS["train"]),
        ("generalising: mean", fit.p_gen, lambda size: fit.p_gen, COLOURS["key"]),
    )
    for name, number, curve, colour in curves:
        if not isnan(number):
            drawn.add_scatter(
                x=ends, y=list(map(curve, ends)), mode="lines", name=name, line={"color": colour}
            )
    if not isnan(fit.d_crit):
        drawn.add_vline(fit.d_crit, line={"dash": "dot", "width": 1.5, "color": COLOURS["test"]})
        drawn.layout.shapes[-1].update(showlegend=True, name=f"crossing: D = {fit.d_crit:.0f}")
    if not isnan(fit.d_low):
        drawn.add_vrect(
            fit.d_low, fit.d_high, fillcolor=COLOURS["test"], opacity=0.12, line_width=0,
            layer="below",
        )  # fmt: skip
    drawn.update_layout(hovermode="closest", showlegend=True)
    return known_alone(drawn, found.notes)
