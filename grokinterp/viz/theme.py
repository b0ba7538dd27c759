"""How figures look: one layout in light and dark, in colours that colour-blind readers can tell."""

import plotly.graph_objects as go

# Of the palette of Okabe and Ito, those that show on white and on near-black alike.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot")
COLOURS = {
    "train": "#0072B2",
    "test": "#D55E00",
    "key": "#009E73",
    "other": "#999999",
}
PHASES = {
    "memorization": "#56B4E9",
    "circuit_formation": "#E69F00",
    "cleanup": "#009E73",
}
LABELS = {  # of a run
    "grokked": COLOURS["test"],
    "steady": COLOURS["train"],
    "memorized": PHASES["memorization"],
    "not_learned": "#666666",
    "undetermined": "#AAAAAA",
}
FROM_ZERO = "Viridis"  # for values that start at 0
AROUND_ZERO = "RdBu_r"  # for values of both signs, with 0 in the middle
AROUND_CIRCLE = "Phase"  # for residues mod p


def series(i: int) -> dict[str, str]:
    """The line of the i-th of several series: colours first, then the same colours dashed."""
    return {"color": SERIES[i % len(SERIES)], "dash": DASHES[i // len(SERIES) % len(DASHES)]}


def ink_on(colour: str) -> str:
    """Black or white, whichever has more contrast with a colour (WCAG's relative luminance).

    >>> ink_on("#0072B2"), ink_on("rgb(253, 231, 37)")
    ('#ffffff', '#000000')
    """
    if colour.startswith("#"):
        levels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    else:
        levels = [int(level) for level in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [
        level / 255 / 12.92 if level <= 10 else ((level / 255 + 0.055) / 1.055) ** 2.4
        for level in levels
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _template(ink: str, paper: str, grid: str) -> go.layout.Template:
    axis = {
        "showline": True,
        "linecolor": ink,
        "ticks": "outside",
        "tickcolor": ink,
        "gridcolor": grid,
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
        "exponentformat": "power",
        "minexponent": 6,
        "separatethousands": True,  # plotly alone writes 8000 beside 10,000
    }
    return go.layout.Template(
        layout={
            "font": {"family": "system-ui, 'Segoe UI', sans-serif", "size": 13, "color": ink},
            "title": {"font": {"size": 16}, "x": 0.01, "xanchor": "left"},
            "margin": {"t": 70, "l": 60, "r": 20, "b": 50},
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "colorway": list(SERIES),
            "colorscale": {"sequential": FROM_ZERO, "diverging": AROUND_ZERO},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": paper, "bordercolor": ink, "font": {"color": ink}},
            "legend": {"bgcolor": "rgba(0,0,0,0)"},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": grid, "activecolor": ink},
            "scene": {
                name: {"gridcolor": grid, "color": ink, "backgroundcolor": paper}
                for name in ("xaxis", "yaxis", "zaxis")
            },
        }
    )


LIGHT = _template("#222222", "#ffffff", "#dddddd")
DARK = _template("#e6e6e6", "#16191d", "#3a3f46")
