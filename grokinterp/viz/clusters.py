"""The neurons of a layer by the frequency they depend on."""

from grokinterp.circuits.neurons import LEFTOVER, NeuronClusters
from grokinterp.viz.checks import checked
from grokinterp.viz.figure import Figure, at, figure
from grokinterp.viz.theme import COLOURS

KINDS = {  # of a cluster: its colour
    "key": COLOURS["key"],
    "not key": COLOURS["test"],
    "leftover": COLOURS["other"],
}


def plot_neuron_clusters(found: NeuronClusters) -> Figure:
    """A dot a neuron: its leading frequency, and the fraction of its variance that this explains.

    The larger a dot, the more of the layer's variance is in its neuron; dotted is the threshold of
    a cluster. Above: the neurons of each cluster. Dead neurons have no fraction and are not drawn;
    the title counts them, and the leftover.
    """
    checked(found, NeuronClusters, "circuits.neuron_clusters")
    table = found.table()
    kinds = table.key.map({True: "key", False: "not key"}).where(
        table.cluster != LEFTOVER, "leftover"
    )
    counts = f"{found.sizes[LEFTOVER]} of {len(table)} neurons in no cluster"
    counts += f", {len(found.dead)} of them dead" if found.dead else ""
    drawn = figure(
        f"Neurons of layer {found.layer}{at(found.step)}<br><sup>{counts}</sup>",
        "leading frequency k (cycles per p)",
        "fraction explained",
    )
    drawn.update_layout(  # the bars above the dots, on the same x axis
        xaxis={"range": [0, max(int(found.leading.max()), 1) + 2]},
        yaxis={"range": [-0.03, 1.03], "domain": [0, 0.7]},
        yaxis2={"title": {"text": "neurons"}, "rangemode": "tozero", "domain": [0.76, 1]},
    )
    summary = found.summary()
    for name, key in (("key", True), ("not key", False)):
        chosen = summary[(summary.key == key) & (summary.cluster != LEFTOVER)]
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
                "color": colour,
                "opacity": 0.55,
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
    drawn.add_hline(
        y=found.threshold,
        line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]},
    )
    return drawn.update_layout(
        height=560,
        barmode="overlay",
        legend={"itemsizing": "constant"},
        hovermode="closest",
        showlegend=True,
    )
