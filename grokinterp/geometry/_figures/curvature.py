"""Pictures of the loss around weights: how sharp it is over training, and all its curvatures."""

import math
from collections.abc import Sequence

import pandas as pd

from grokinterp.base.checks import number
from grokinterp.base.result import draws, found_by
from grokinterp.figures._figure import (
    COLOURS,
    SERIES,
    STEPS,
    Figure,
    at,
    checked,
    faded,
    figure,
    known_alone,
)
from grokinterp.geometry.density_of_eigenvalues import (
    BROADENING,
    SpectralDensity,
    spectral_density,
)
from grokinterp.geometry.loss_curvature import Curvature, curvature
from grokinterp.geometry.noise_in_weights import NoiseRadius, noise_radius
from grokinterp.progress._figures.curves import shade
from grokinterp.progress.phases import Phases

OF_LOSS = {"raw": "other", "matched": "key"}
OF_ROWS = {"train": "train", "test": "test", "all": "other"}


@draws(Curvature)
@found_by(curvature, Curvature)
def plot_curvature(
    found: Curvature, *, noise: NoiseRadius | None = None, phases: Phases | None = None
) -> Figure:
    """The largest eigenvalue and the trace of the Hessian against step, raw and at matched loss.

    On log axes, with the standard error of the trace; what is not above 0 is left out. Raw curves
    fall with the loss, whatever the basin. With `noise`, what `noise_radius` found is drawn below,
    and with `phases`, each is shaded as in `plot_phases`.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_curvature(
    ...     gi.load("mod31-small"), n_samples=64, n_lanczos=8, n_probes=2
    ... )
    >>> [line.name for line in drawn.data if line.showlegend is not False]
    ['raw loss', 'loss 0.1, by temperature']
    """
    checked(found, Curvature, "geometry.curvature")
    panels = 2 if noise is None else 3
    drawn = figure("How sharply the loss curves")
    drawn.set_subplots(rows=panels, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    table = found.table()
    for loss_is, rows in table.groupby("loss_is", sort=False):
        name = "raw loss" if loss_is == "raw" else f"loss {found.match_loss:g}, by temperature"
        colour = COLOURS[OF_LOSS[str(loss_is)]]
        for row, column in enumerate(("lambda_max", "trace"), start=1):
            known = rows[rows[column] > 0]
            drawn.add_scatter(
                x=_steps(known), y=known[column], name=name, legendgroup=name,
                showlegend=row == 1, mode="lines+markers", marker={"size": 5},
                line={"color": colour}, hovertemplate="%{y:.4g}",
                error_y={"array": known["trace_se"]} if column == "trace" else None,
                row=row, col=1,
            )  # fmt: skip
    for row, title in ((1, "largest eigenvalue"), (2, "trace")):
        drawn.update_yaxes(title_text=title, type="log", exponentformat="power", row=row, col=1)
    if noise is not None:
        checked(noise, NoiseRadius, "geometry.noise_radius")
        _radii(drawn, noise, row=3, col=1)
    return _over_training(drawn, phases, last=_steps(table).max(), panels=panels, notes=found.notes)


@draws(NoiseRadius)
@found_by(noise_radius, NoiseRadius)
def plot_noise_radius(found: NoiseRadius, *, phases: Phases | None = None) -> Figure:
    """The noise that the weights bear against step: the median over draws, least to most shaded.

    In parts of the weights' own norms, for trained and for test inputs. With `phases`, each is
    shaded as in `plot_phases`.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_noise_radius(gi.load("mod31-small"), n_draws=2)
    >>> [line.name for line in drawn.data if line.showlegend is not False]
    ['train inputs', 'test inputs']
    """
    checked(found, NoiseRadius, "geometry.noise_radius")
    drawn = figure(f"Noise in the weights that keeps {found.keep:.0%} of the accuracy")
    drawn.set_subplots(rows=1, cols=1)
    _radii(drawn, found, row=1, col=1)
    last = _steps(found.table()).max()
    return _over_training(drawn, phases, last=last, panels=1, notes=found.notes)


@draws(SpectralDensity)
@found_by(spectral_density, SpectralDensity)
def plot_spectral_density(found: SpectralDensity, *, broadening: float = BROADENING) -> Figure:
    """How many eigenvalues the Hessian has per unit of lambda, on a log axis.

    Each is a Gaussian whose standard deviation is `broadening` times the span of all. The dotted
    line is the height of a single eigenvalue, which few random starts miss by a factor of two.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_spectral_density(
    ...     gi.load("mod31-small"), n_samples=64, n_steps=8, n_starts=1
    ... )
    >>> drawn.layout.yaxis.type, len(drawn.data[0].x)
    ('log', 400)
    """
    checked(found, SpectralDensity, "geometry.spectral_density")
    share = number("broadening", broadening, such_as="0.01")
    where, density = found.curve(broadening=share)
    drawn = figure(
        f"Eigenvalues of the Hessian{at(found.step)}<br>loss {found.loss:.3g} at temperature "
        f"{found.temperature:.3g}, {found.n_samples} inputs",
        "eigenvalue (nats per squared unit of weight)",
        "eigenvalues per unit",
    )
    drawn.add_scatter(
        x=where, y=density * found.n_weights, mode="lines", line={"color": SERIES[0]},
        hovertemplate="%{x:.4g}: %{y:.4g}<extra></extra>",
    )  # fmt: skip
    single = 1 / (found.width(share) * math.sqrt(2 * math.pi))
    drawn.add_hline(single, line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]})
    top = math.log10(max(density.max() * found.n_weights, single))
    floor = math.log10(single / 30)  # the tails of Gaussians go on for ever
    drawn.update_yaxes(type="log", exponentformat="power", dtick=1, range=[floor, top + 0.3])
    return drawn.update_layout(showlegend=False)


def _radii(drawn: Figure, found: NoiseRadius, *, row: int, col: int) -> None:
    """The radii of each part of the inputs, in a panel."""
    for part, rows in found.table().groupby("rows", sort=False):
        colour, known = COLOURS[OF_ROWS[str(part)]], rows[rows.radius.notna()]
        steps, low, high = _steps(known), known.radius_least, known.radius_most
        drawn.add_scatter(
            x=[*steps, *steps[::-1]], y=[*high, *low[::-1]], fill="toself", mode="lines",
            fillcolor=faded(colour, 0.2), line={"width": 0}, hoverinfo="skip", showlegend=False,
            row=row, col=col,
        )  # fmt: skip
        drawn.add_scatter(
            x=steps, y=known.radius, name=f"{part} inputs", line={"color": colour},
            mode="lines+markers", marker={"size": 5}, hovertemplate="%{y:.4g}", row=row, col=col,
        )  # fmt: skip
    drawn.update_yaxes(title_text="noise / norm", rangemode="tozero", row=row, col=col)


def _steps(table: pd.DataFrame) -> "pd.Series[int]":
    """The steps of rows; 0 of a model that came without one."""
    return table["step"].astype("Int64").fillna(0).astype(int)


def _over_training(
    drawn: Figure, phases: Phases | None, *, last: int, panels: int, notes: Sequence[str]
) -> Figure:
    """The same with its axis of steps, its phases, and no empty lines."""
    drawn.update_xaxes(title_text=STEPS, row=panels, col=1)
    if phases is not None:
        checked(phases, Phases, "gi.detect_phases")
        shade(drawn, phases, last=last)
    drawn.update_layout(
        hovermode="x unified",
        height=max(500, 200 + 220 * panels),
        showlegend=True,
        meta={"x": "step"},
    )
    return known_alone(drawn, notes)
