"""The circuit as a graph: embedding frequencies, heads, neuron clusters, logit frequencies."""

from grokinterp.base.result import draws, found_by
from grokinterp.circuits.circuit import CircuitGraph, Edge, circuit_graph
from grokinterp.figures._figure import COLOURS, Figure, at, checked, faded, figure, series

GRAPH_HEIGHT = 560  # of the figure, in pixels
PAD = 16  # least distance of two nodes, in pixels
ROOM = 0.94 * (GRAPH_HEIGHT - 70 - 20)  # pixels for the bands: without margins and headings
FAINT = 0.02  # smaller shares fade out: a band is drawn at least a pixel wide
COLUMNS = {"embedding": "W_E", "heads": "heads", "neurons": "neurons", "logits": "logits"}


@draws(CircuitGraph)
@found_by(circuit_graph, CircuitGraph)
def plot_circuit_graph(found: CircuitGraph) -> Figure:
    """Bands from the embedding's frequencies over heads and neuron clusters to the logits'.

    A band is as wide as its share, the part of the target's variance that goes when the edge is
    cut: the bands into a node need not be as wide as those out of it. Colours are those of the key
    frequencies, grey is everything else; a band has the colour of the frequency it comes from, from
    a head that of the one it goes to. A cluster that does not exist yet has no node, but its place
    is kept. Bands of shares below 0.02 fade out. Hovering shows shares and losses.

    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_circuit_graph(gi.load("mod31-small"))
    >>> drawn.layout.title.text.partition("<br>")[0], drawn.data[0].node.label[:3]
    ('Circuit, step 10000', ('k=1', 'k=8', 'k=14'))
    """
    checked(found, CircuitGraph, "circuits.circuit_graph")
    edges = [edge for edge in found.edges if edge.share > 0]  # plotly drops bands of width 0
    ends = {name for edge in edges for name in (edge.source, edge.target)}
    nodes = [(name, layer) for name, layer in found.nodes if name in ends]
    index = {name: i for i, (name, _) in enumerate(nodes)}
    of_key = {f"k={k}": series(i)["color"] for i, k in enumerate(found.frequencies)}
    colours = {name: of_key.get(name.split()[-1], COLOURS["other"]) for name, _ in nodes}
    y = _node_places(found)
    drawn = figure(f"Circuit{at(found.step)}<br><sup>model's loss {found.loss:.4g} nats</sup>")
    drawn.add_sankey(
        arrangement="fixed",
        domain={"y": [0, 0.94]},
        node={
            "label": [_short(name) for name, _ in nodes],
            "color": list(colours.values()),
            "x": [_across(layer) for _, layer in nodes],
            "y": [y[name] for name, _ in nodes],
            "pad": PAD,
            "thickness": 14,
            "line": {"width": 0},
            "customdata": [name for name, _ in nodes],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        link={
            "source": [index[edge.source] for edge in edges],
            "target": [index[edge.target] for edge in edges],
            "value": [edge.share for edge in edges],
            "color": [_of_band(colours, edge) for edge in edges],
            "customdata": [
                f"{edge.source} to {edge.target}<br>share {edge.share:.5g}<br>"
                f"loss when cut {edge.loss:.5g} nats, change {edge.change:+.5g}"
                for edge in edges
            ],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
    )
    for layer, heading in COLUMNS.items():
        drawn.add_annotation(
            text=heading, x=_across(layer), y=0.97, xref="paper", yref="paper", showarrow=False
        )
    return drawn.update_layout(height=GRAPH_HEIGHT, margin={"t": 70, "l": 20, "b": 20})


def _across(layer: str) -> float:
    """Where a column stands; plotly takes 0 and 1 for places to be chosen."""
    return 0.02 + 0.96 * list(COLUMNS).index(layer) / (len(COLUMNS) - 1)


def _node_places(found: CircuitGraph) -> dict[str, float]:
    """How far down the middle of each node is, so that no two overlap and none leaves the figure.

    A node is as high as the wider of what comes in and goes out, on the scale that the fullest
    column allows. What is left of a column stands around its nodes and the missing key clusters.
    """
    table = found.node_table().set_index("node")
    sizes = table[["share_in", "share_out"]].max(axis=1).fillna(0.0).to_dict()
    columns: dict[str, list[str]] = {layer: [] for layer in COLUMNS}
    columns["neurons"] = [f"neurons k={k}" for k in found.frequencies]
    for name, layer in found.nodes:
        columns[layer] += [name] * (name not in columns[layer])
    heights = {layer: [sizes.get(name, 0.0) for name in names] for layer, names in columns.items()}
    # As plotly scales the nodes, so that the places fit the heights it gives them.
    full = [own for own in heights.values() if any(own)]
    scales = [(1 - (sum(map(bool, own)) - 1) * PAD / ROOM) / sum(own) for own in full]
    scale = min(scales, default=0.0)
    places = {}
    for layer, names in columns.items():
        gap = (1 - scale * sum(heights[layer])) / len(names)
        top = 0.0
        for name, height in zip(names, heights[layer], strict=True):
            places[name] = top + gap / 2 + scale * height / 2
            top += gap + scale * height
    return places


def _short(name: str) -> str:
    """As a label below the heading of its column: "k=9", "other", "0" of "head 0.0"."""
    kind, rest = name.split()
    return kind if kind == "other" else rest.split(".")[-1]


def _of_band(colours: dict[str, str], edge: Edge) -> str:
    colour = colours[edge.target if edge.source.startswith("head ") else edge.source]
    return faded(colour, 0.45 * min(1.0, edge.share / FAINT))
