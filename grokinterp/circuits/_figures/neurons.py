"""Neurons: by the frequency they depend on, over all pairs of operands, and as Fourier terms."""

import contextlib
from collections.abc import Sequence
from typing import Unpack

import numpy as np
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.checks import whole
from grokinterp.base.errors import InputError
from grokinterp.base.result import draws, found_by
from grokinterp.circuits.neurons import LEFTOVER, NeuronClusters, neuron_clusters
from grokinterp.figures._figure import COLOURS, Figure, at, checked, faded, figure, place
from grokinterp.figures.heat_maps import around_zero, checked_numbers, from_zero, images
from grokinterp.fourier._figures import FREQUENCY, ShownWithKeys, draw_steps, step_and_rest
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.basis import transform_2d
from grokinterp.fourier.spectra import neuron_powers, operand_orders
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot

KINDS = {"key": COLOURS["key"], "not key": COLOURS["test"], "leftover": COLOURS["other"]}
DOTS = 8  # const, cos, sin of a times the same of b, without const times const


@draws(NeuronClusters)
@found_by(neuron_clusters, NeuronClusters)
def plot_neuron_clusters(found: NeuronClusters) -> Figure:
    """A dot per neuron: its leading frequency, and the fraction of its variance this explains.

    The larger a dot, the more of the layer's variance is in its neuron; dotted is the threshold of
    a cluster. Above: the neurons of each cluster. Dead neurons have no fraction and are not drawn;
    the title counts them, and the leftover.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_neuron_clusters(gi.load("mod31-small"))
    >>> drawn.layout.title.text
    'Neurons of layer 0, step 10000<br><sup>73 of 160 neurons in no cluster</sup>'
    """
    checked(found, NeuronClusters, "circuits.neuron_clusters")
    table = found.table()
    kinds = table.key.map({True: "key", False: "not key"})
    kinds[table.cluster == LEFTOVER] = "leftover"
    counts = f"{found.sizes[LEFTOVER]} of {len(table)} neurons in no cluster"
    counts += f", {len(found.dead)} of them dead" if found.dead else ""
    drawn = figure(
        f"Neurons of layer {found.layer}{at(found.step)}<br><sup>{counts}</sup>",
        f"leading {FREQUENCY}",
        "fraction explained",
    )
    drawn.update_layout(  # the bars above the dots, on the same x axis
        xaxis={"range": [0, max(int(found.leading.max()), 1) + 2]},
        yaxis={"range": [-0.03, 1.03], "domain": [0, 0.7]},
        yaxis2={"title": {"text": "neurons"}, "rangemode": "tozero", "domain": [0.76, 1]},
    )
    summary = found.summary()
    for name in ("key", "not key"):
        chosen = summary[(summary.key == (name == "key")) & (summary.cluster != LEFTOVER)]
        drawn.add_bar(
            x=chosen.cluster,
            y=chosen.neurons,
            marker={"color": KINDS[name], "line": {"width": 0}},
            width=0.8,
            name=name,
            legendgroup=name,
            showlegend=False,
            customdata=chosen.variance_share,
            hovertemplate="cluster k = %{x}: %{y} neurons<br>"
            "share of variance %{customdata:.5g}<extra></extra>",
            yaxis="y2",
        )
    largest = max(float(table.variance_share.max()), 1e-30)
    for name, colour in KINDS.items():
        dots = table[(kinds == name) & ~table.dead]
        drawn.add_scatter(
            x=dots.leading,
            y=dots.fraction,
            mode="markers",
            marker={
                "color": faded(colour, 0.55),
                "opacity": 1,  # plotly would take 0.7 for dots of several sizes
                "size": dots.variance_share,
                "sizemode": "area",
                "sizeref": 2 * largest / 16**2,  # the largest dot is 16 px wide
                "sizemin": 2.5,
                "line": {"width": 0},
            },
            name=name,
            legendgroup=name,
            customdata=dots[["neuron", "quadratic_fraction", "variance_share"]],
            meta={"columns": ["neuron", "quadratic fraction", "share of variance"]},
            hovertemplate="neuron %{customdata[0]}, k = %{x}<br>fraction %{y:.5g}"
            "<br>quadratic fraction %{customdata[1]:.5g}"
            "<br>share of variance %{customdata[2]:.5g}<extra></extra>",
        )
    drawn.add_hline(found.threshold, line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]})
    return drawn.update_layout(
        height=560,
        barmode="overlay",
        legend={"itemsizing": "constant"},
        hovermode="closest",
        showlegend=True,
    )


def plot_neurons(
    x: Subject,
    *,
    neurons: Sequence[int] | None = None,
    layer: int | str | None = None,
    **shown: Unpack[ShownWithKeys],
) -> Figure:
    """Post-activations of single neurons over all pairs (a, b), a panel per neuron.

    `neurons` are those of `chosen_neurons` (of a run's last checkpoint, so that they stay the same
    over steps) and `layer` the last one unless given; `shown` is `step`, `frequencies`, `task` and
    `train_mask` as in `gi.ablate`, with several steps or "all" for a slider. A panel's name has the
    frequency of the neuron's cluster at that step, "mixed" where no frequency reaches 85 % of its
    variance. One colour scale for all panels of a step. A clear pattern may still be unused.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_neurons(gi.load("mod31-small"), neurons=[0, 1])
    >>> drawn.layout.title.text, [panel.text for panel in drawn.layout.annotations]
    ('Neurons, step 10000', ['neuron 0 (k = 1)', 'neuron 1 (k = 14)'])
    """
    chosen = _chosen(x, neurons, layer, shown)
    return draw_steps(x, lambda snapshot, _: neuron_images(snapshot, chosen, layer), **shown)


def neuron_images(
    snapshot: Snapshot, neurons: Sequence[int], layer: int | str | None = None
) -> Figure:
    """The same of one snapshot."""
    names, grids, where = _seen(snapshot, neurons, layer)
    values = dict(zip(names, grids.float().numpy(), strict=True))
    return images(
        f"Neurons{where}",
        values,
        bar="activation, scale of this step",
        colours=from_zero(values.values()),
        hover="a = %{y}, b = %{x}<br>activation %{z:.5g}",
    )


def plot_neuron_fourier(
    x: Subject,
    *,
    neurons: Sequence[int] | None = None,
    layer: int | str | None = None,
    **shown: Unpack[ShownWithKeys],
) -> Figure:
    """The 2-D Fourier transform of single neurons, centred: rows are waves of a, columns of b.

    Terms of the real orthonormal basis (const, cos 1, sin 1, cos 2, ...) along both operands; their
    squares sum to p*p times the neuron's variance. The eight largest, of which a neuron of one
    frequency has no more, are dots in the same colours: a cell of so many is small. Multiplication
    is taken in discrete logarithms of its p - 1 tokens that are not 0; pairs with a 0 are left out,
    also from mean and variance: squares then sum to (p - 1)^2 times the variance over the other
    pairs. Arguments and panels as in `plot_neurons`.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_neuron_fourier(gi.load("mod31-small"), neurons=[0])
    >>> drawn.layout.title.text, drawn.data[0].y[:3]
    ('Fourier terms of neurons, step 10000', ('const', 'cos 1 a', 'sin 1 a'))
    >>> sorted({wave for wave in (*drawn.data[1].x, *drawn.data[1].y)})
    ['const', 'cos 1 a', 'cos 1 b', 'sin 1 a', 'sin 1 b']
    """
    chosen = _chosen(x, neurons, layer, shown)
    return draw_steps(x, lambda snapshot, _: neuron_fourier(snapshot, chosen, layer), **shown)


def neuron_fourier(
    snapshot: Snapshot, neurons: Sequence[int], layer: int | str | None = None
) -> Figure:
    """The same of one snapshot."""
    names, grids, where = _seen(snapshot, neurons, layer)
    of_a, of_b = operand_orders(snapshot)
    grids = grids[:, of_a][:, :, of_b]
    centred = grids - grids.mean(dim=(1, 2), keepdim=True)
    terms = transform_2d(centred.permute(1, 2, 0)).permute(2, 0, 1)
    values = dict(zip(names, terms.float().numpy(), strict=True))
    colours = around_zero(values.values())
    drawn = images(
        f"Fourier terms of neurons{where}",
        values,
        x="frequency of b",
        y="frequency of a",
        bar="coefficient, scale of this step",
        colours=colours,
        hover="%{y} · %{x}: %{z:.5g}",
    )
    n = len(of_a)
    rows_of, columns_of = ([_wave(i, name) for i in range(n)] for name in "ab")
    drawn.update_traces(x=columns_of, y=rows_of)
    shown = range(0, n, 4 * max(1, n // 12))  # const, then cos k
    for axes, waves in ((drawn.update_xaxes, columns_of), (drawn.update_yaxes, rows_of)):
        ticks = [max(i - 1, 0) for i in shown]
        axes(tickvals=[waves[i] for i in ticks], ticktext=[(i + 1) // 2 for i in ticks])
        axes(range=[-0.5, n - 0.5])
    for i, (name, z) in enumerate(values.items()):
        rows, columns = _largest(z)
        drawn.add_scatter(
            x=[columns_of[column] for column in columns],
            y=[rows_of[row] for row in rows],
            mode="markers",
            meta={"marks": True},  # of what the image has
            marker={
                "color": z[rows, columns],
                "cmin": colours["zmin"],
                "cmax": colours["zmax"],
                "colorscale": colours["colorscale"],
                "size": 8,
                "line": {"color": COLOURS["other"], "width": 1},
            },
            hovertemplate=f"{name}<br>%{{y}} · %{{x}}: %{{marker.color:.5g}}<extra></extra>",
            showlegend=False,
            **place(i),
        )
    return drawn


def chosen_neurons(
    snapshot: Snapshot, keys: Sequence[int], *, most: int = 4, layer: int | str | None = None
) -> list[int]:
    """The neurons to look at: of each key frequency's cluster the one that varies most.

    Strongest clusters first, at most `most`; without key frequencies or clusters the neurons of the
    largest variance over (a, b), whatever they do.
    """
    layer, _ = _layer(snapshot, layer)
    try:
        powers = neuron_powers(snapshot, layer=layer).total
    except InputError:  # of a table that leaves pairs out: over those that are there
        post = snapshot.activation(snapshot.neurons_name(layer)).double()
        powers, keys = (post - post.mean(dim=0)).square().sum(dim=0), ()
    variance = powers.nan_to_num(0.0, 0.0, 0.0)
    chosen = variance.argsort(descending=True, stable=True).tolist()
    if keys and bool(powers.isfinite().all()):
        found = neuron_clusters(snapshot, layer=layer, frequencies=keys)
        members = [found.members(k) for k in keys if len(found.members(k))]
        members.sort(key=lambda of_one: -float(variance[of_one].sum()))
        chosen = [int(of_one[variance[of_one].argmax()]) for of_one in members] or chosen
    return chosen[:most]


def _chosen(
    x: Subject, neurons: Sequence[int] | None, layer: int | str | None, shown: ShownWithKeys
) -> Sequence[int]:
    """The neurons given, or those of the model at its last step."""
    if neurons is not None:
        return neurons
    last, keys = subject_of(x, **step_and_rest(shown)[1])
    return chosen_neurons(last, keys, layer=layer)


def _layer(snapshot: Snapshot, layer: int | str | None) -> tuple[int | str, str]:
    """The layer asked for, the last one unless given, and what a title says of it and the step."""
    _ = snapshot.modular_task  # refuses a task without operands
    _ = snapshot.neurons_name(layer)  # refuses to choose among layers with names of their own
    if isinstance(layer, str):
        return layer, f" of {layer}{at(snapshot.step)}"
    last = snapshot.n_layers - 1
    found = last if layer is None else whole("layer", layer, least=0, most=last, such_as="0")
    return found, f" of layer {found}" * (last > 0) + at(snapshot.step)


def _seen(
    snapshot: Snapshot, neurons: Sequence[int], layer: int | str | None
) -> tuple[list[str], Float[Tensor, "n_neurons p p"], str]:
    """Neurons' names with their clusters, activations over (a, b) (float64), and for the title."""
    (layer, where), task = _layer(snapshot, layer), snapshot.modular_task
    post = snapshot.activation(snapshot.neurons_name(layer))
    names = {i: f"neuron {i}" for i in checked_numbers(neurons, "neuron", below=post.shape[1])}
    powers = None
    with contextlib.suppress(InputError):  # of a table that leaves pairs out
        powers = neuron_powers(snapshot, layer=layer)
    if powers and powers.both.shape[1] and bool(powers.total.isfinite().all()):
        found = neuron_clusters(snapshot, layer=layer, frequencies=())
        for i in names:
            k = int(found.cluster[i])
            what = "dead" if i in found.dead else "mixed" if k == LEFTOVER else f"k = {k}"
            names[i] += f" ({what})"
    return [*names.values()], task.on_grid(post[:, [*names]].double()).permute(2, 0, 1), where


def _largest(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the largest terms, the largest last: it is drawn above the others."""
    order = np.argsort(-np.abs(z), axis=None, kind="stable")[:DOTS][::-1]
    there = order[np.abs(z.flat[order]) > 0]  # neither the zeros of a dead neuron nor NaN
    return np.unravel_index(there, z.shape)


def _wave(i: int, operand: str) -> str:
    """The name of a row of `fourier_basis`.

    >>> [_wave(i, "a") for i in range(4)]
    ['const', 'cos 1 a', 'sin 1 a', 'cos 2 a']
    """
    return f"{'sin' if i % 2 == 0 else 'cos'} {(i + 1) // 2} {operand}" if i else "const"
