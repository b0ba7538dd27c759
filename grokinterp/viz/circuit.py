"""The circuit as a graph: embedding frequencies, heads, neuron clusters, logit frequencies."""

import re

from grokinterp.circuits.graph import CircuitGraph
from grokinterp.viz.figure import Figure, figure
from grokinterp.viz.theme import COLOURS, series

SMALLEST = 0.02  # share of a band that can still be seen
COLUMNS = {"embedding": 0.01, "heads": 0.35, "neurons": 0.7, "logits": 0.99}


def plot_circuit_graph(found: CircuitGraph, *, smallest: float = SMALLEST) -> Figure:
    """Bands from the embedding's frequencies over heads and neuron clusters to the logits'.

    A band is as wide as its share, the part of the target's variance that goes when the edge is
    cut; bands of shares below `smallest` are left out, as are nodes without any. Colours are those
    of the key frequencies, grey is everything else; a band has the colour of the frequency at
    either end, of the source first. Bands into a node need not be as wide as those out of it.
    """
    nodes = [*found.nodes]
    missing = [f"neurons k={k}" for k in found.frequencies]  # no cluster yet: keeps its place
    nodes += [(name, "neurons") for name in missing if (name, "neurons") not in nodes]
    colours = {f"{k}": series(i)["color"] for i, k in enumerate(found.frequencies)}
    colour = {name: colours.get(name.partition("k=")[2], COLOURS["other"]) for name, _ in nodes}
    index = {name: i for i, (name, _) in enumerate(nodes)}
    layers = {layer: [name for name, own in nodes if own == layer] for layer in COLUMNS}
    drawn_edges = [edge for edge in found.edges if edge.share >= smallest]
    at = "" if found.step is None else f", step {found.step}"
    drawn = figure(
        f"Circuit{at}, model's loss {found.loss:.4g} nats<br>"
        f"<sup>bands: share of the target's variance, from {smallest:g} on</sup>"
    )
    drawn.add_sankey(
        arrangement="fixed",
        node={
            "label": [_short(name) for name, _ in nodes],
            "color": [colour[name] for name, _ in nodes],
            "x": [COLUMNS[layer] for _, layer in nodes],
            "y": [(layers[own].index(name) + 0.5) / len(layers[own]) for name, own in nodes],
            "pad": 12,
            "thickness": 14,
            "line": {"width": 0},
            "customdata": [name for name, _ in nodes],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        link={
            "source": [index[edge.source] for edge in drawn_edges],
            "target": [index[edge.target] for edge in drawn_edges],
            "value": [edge.share for edge in drawn_edges],
            "color": [_faint(_of_edge(colour, edge.source, edge.target)) for edge in drawn_edges],
            "customdata": [
                f"{edge.source} -> {edge.target}<br>share {edge.share:.5g}<br>"
                f"cut: loss {edge.loss:.5g} nats, change {edge.change:+.5g}"
                for edge in drawn_edges
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
    )
    return drawn.update_layout(height=560, margin={"b": 30})


def _short(name: str) -> str:
    """As a label: the embedding by its matrix, a head of the last layer by its number."""
    return re.sub(r"^head \d+\.", "head ", name.replace("embedding", "W_E"))


def _of_edge(colour: dict[str, str], source: str, target: str) -> str:
    return colour[target] if colour[source] == COLOURS["other"] else colour[source]


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.45)"
