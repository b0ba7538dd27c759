"""Norms over training of the neurons that end up in clusters, and of the rest."""

import torch

from grokinterp.base.result import draws, found_by
from grokinterp.circuits.neurons import LEFTOVER
from grokinterp.circuits.norms_of_clusters import ClusterNorms, cluster_norms
from grokinterp.figures._figure import COLOURS, STEPS, Figure, checked, faded, figure, known_alone

BAND = (0.1, 0.9)  # quantiles over neurons


@draws(ClusterNorms)
@found_by(cluster_norms, ClusterNorms)
def plot_cluster_norms(found: ClusterNorms) -> Figure:
    """Mean norm of the clustered neurons and of the rest against step, and their ratio below.

    Shaded are the 10 % to 90 % quantiles over neurons. Norms are of input and output weights
    together. At the dotted line both kinds are alike.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_cluster_norms(gi.load("mod31-small"))
    >>> [line.name for line in drawn.data if line.showlegend is not False]
    ['87 neurons in clusters', '73 others', 'ratio']
    """
    checked(found, ClusterNorms, "circuits.cluster_norms")
    drawn = figure(
        f"Norms of neurons of layer {found.layer}<br>by what they are at the last checkpoint", STEPS
    )
    drawn.set_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.65, 0.35]
    )
    drawn.update_xaxes(title_text=None)
    drawn.update_xaxes(title_text=STEPS, row=2, col=1)
    table = found.table()
    inside = found.cluster != LEFTOVER
    for column, name, rows, colour in (
        ("clustered", f"{found.n_clustered} neurons in clusters", inside, COLOURS["key"]),
        ("rest", f"{found.n_rest} others", ~inside, COLOURS["other"]),
    ):
        if not rows.any():
            continue
        low, high = found.both[:, rows].quantile(torch.tensor(BAND).double(), dim=1).tolist()
        drawn.add_scatter(
            x=[*table["step"], *table["step"][::-1]], y=[*high, *low[::-1]], fill="toself",
            fillcolor=faded(colour, 0.2), line={"width": 0}, mode="lines", hoverinfo="skip",
            showlegend=False, row=1, col=1,
        )  # fmt: skip
        drawn.add_scatter(
            x=table["step"], y=table[column], name=name, line={"color": colour},
            mode="lines+markers", marker={"size": 4}, hovertemplate="%{y:.5g}", row=1, col=1,
        )  # fmt: skip
    drawn.add_scatter(
        x=table["step"], y=table["ratio"], name="ratio", line={"color": COLOURS["test"]},
        mode="lines+markers", marker={"size": 4}, hovertemplate="%{y:.5g}", row=2, col=1,
    )  # fmt: skip
    drawn.add_hline(1, row=2, col=1, line={"dash": "dot", "width": 1.5, "color": COLOURS["other"]})
    drawn.update_yaxes(title_text="norm", rangemode="tozero", row=1, col=1)
    drawn.update_yaxes(title_text="ratio", row=2, col=1)
    if table["ratio"].max() > 10:  # where the others die
        drawn.update_yaxes(type="log", dtick=1, row=2, col=1)
    drawn.update_layout(hovermode="x unified", height=600, showlegend=True)
    return known_alone(drawn, found.notes)
