"""Pictures of walks around the weights: what they cost, and over training how much less it gets."""

import math

from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    PHASES,
    SERIES,
    STEPS,
    Figure,
    at,
    checked,
    faded,
    figure,
)
from grokinterp.geometry.learning_coefficient import (
    LearningCoefficient,
    local_learning_coefficient,
)
from grokinterp.geometry.sampled_basin import SampledBasin

FULL, HALF = SERIES[0], SERIES[1]


@draws(LearningCoefficient)
@found_by(local_learning_coefficient, LearningCoefficient)
def plot_learning_coefficient(found: LearningCoefficient) -> Figure:
    """What the chains cost as they go, and the coefficient over training where there are steps.

    Of one step: n beta (loss of a draw's batch - L(w*)) of every chain against its length in time,
    the chains with half the step length beside them; 0 is L(w*), the draws to the left of the
    dotted line are not counted, and a dashed line is the value. Of several steps: the value of each
    with its spread over chains, that with half the step length, and the phases shaded; on a log
    axis, where values of 0 and less are missing.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_learning_coefficient(
    ...     gi.load("mod31-small"), n_draws=20, n_chains=1, halve=False
    ... )
    >>> [line.name for line in drawn.data]
    ['chain 1']
    """
    checked(found, LearningCoefficient, "geometry.local_learning_coefficient")
    return _chains(found.basins[0]) if len(found.basins) == 1 else _over_training(found)


def _chains(basin: SampledBasin) -> Figure:
    told = "a chain ran away" if math.isnan(basin.value) else f"{basin.value:.3g}"
    if len(basin.per_chain) > 1 and not math.isnan(basin.value):
        told += f" ± {basin.spread:.2g}"
    drawn = figure(
        f"Local learning coefficient{at(basin.step)}<br>{told}",
        "length of the chain (draws of the full step)",
        "nβ (loss - L(w*))",
    )
    kinds = [("chain", basin.losses, 1, FULL)]
    if basin.halved_losses is not None:
        kinds.append(("half the step", basin.halved_losses, 2, HALF))
    for name, losses, shorter, colour in kinds:
        for i, chain in enumerate(losses.tolist(), start=1):
            excess = [basin.n_beta * (loss - basin.loss) for loss in chain]
            drawn.add_scatter(
                x=[t / shorter for t in range(len(chain))], y=excess, name=f"{name} {i}",
                line={"color": faded(colour, 1 if i == 1 else 0.55), "width": 1.2}, mode="lines",
                hovertemplate="%{y:.4g}",
            )  # fmt: skip
    n_draws = basin.losses.shape[1]
    drawn.add_vline(
        x=math.floor(basin.burn_in * n_draws),
        line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]},
    )
    drawn.layout.shapes[-1].update(showlegend=True, name="counted from here")
    drawn.add_hline(y=0, line={"width": 1.5, "color": COLOURS["key"]})
    drawn.layout.shapes[-1].update(showlegend=True, name="L(w*)")
    if not math.isnan(basin.value):
        drawn.add_hline(y=basin.value, line={"dash": "dash", "width": 1.5, "color": FULL})
        drawn.layout.shapes[-1].update(showlegend=True, name="value")
    return drawn.update_layout(hovermode="x unified")


def _over_training(found: LearningCoefficient) -> Figure:
    table = found.table()
    logs = bool((table.value > 0).any())
    if logs:
        table[["value", "halved"]] = table[["value", "halved"]].where(
            table[["value", "halved"]] > 0
        )
    drawn = figure("Local learning coefficient", STEPS, "nβ (E loss - L(w*))")
    drawn.add_scatter(
        x=table.step, y=table.value, name="value", mode="lines+markers",
        error_y={"array": table.spread.fillna(0), "thickness": 1, "width": 3},
        line={"color": FULL}, hovertemplate="%{y:.4g}",
    )  # fmt: skip
    if table.halved.notna().any():
        drawn.add_scatter(
            x=table.step, y=table.halved, name="half the step", mode="lines+markers",
            line={"color": HALF, "dash": "dash"}, marker={"symbol": "circle-open"},
            hovertemplate="%{y:.4g}",
        )  # fmt: skip
    for name, start, end in found.phases:
        drawn.add_vrect(
            x0=start, x1=end, fillcolor=PHASES[name], opacity=0.2, line_width=0, layer="below"
        )
        drawn.layout.shapes[-1].update(showlegend=True, name=name.replace("_", " "))
    if logs:
        drawn.update_yaxes(type="log", dtick=1, exponentformat="power", minexponent=3)
    return drawn.update_layout(hovermode="x unified")
