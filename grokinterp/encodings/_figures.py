"""How much of a model can be pruned: accuracy against the fraction pruned."""

from collections.abc import Mapping
from itertools import cycle

from grokinterp.base.errors import InputError
from grokinterp.base.result import draws
from grokinterp.encodings.pruning_curves import PruningCurve
from grokinterp.figures._figure import SERIES, Figure, at, checked, figure, plain


@draws(PruningCurve)
def plot_pruning_curves(curves: PruningCurve | Mapping[str, PruningCurve]) -> Figure:
    """Accuracy against the fraction pruned; several curves each under its name, c after it.

    The accuracy is the one that c is of, on test or all inputs. Curves whose fractions are of
    different things, weights and singular values, are drawn on one axis, which then says so.
    """
    named = dict(curves) if isinstance(curves, Mapping) else {"": curves}
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
