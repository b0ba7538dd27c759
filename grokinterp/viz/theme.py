"""How figures look: one layout, in colours that colour-blind readers can tell apart."""

import plotly.graph_objects as go

# Of the palette of Okabe and Ito.
COLOURS = {
    "train": "#0072B2",
    "test": "#D55E00",
    "key": "#009E73",
    "other": "#999999",
}
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PHASES = {
    "memorization": "#56B4E9",
    "circuit_formation": "#F0E442",
    "cleanup": "#009E73",
}


def figure(title: str, x: str, y: str) -> go.Figure:
    """An empty figure with its title and axis titles (units included), downloadable as SVG."""
    return go.Figure(
        layout={
            "title": title,
            "xaxis": {"title": x},
            "yaxis": {"title": y},
            "template": "simple_white",
            "hovermode": "x unified",
            "legend": {"orientation": "h", "y": -0.2},
        }
    )
