"""The figures that `.plot()` returns, and how they look: plotly's with one theme, dark or light.

Their colours are ones that colour-blind readers can tell apart; the camera button saves SVG.
"""

import html
import importlib.util
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import plotly.graph_objects as go
import plotly.io as pio
from plotly.colors import hex_to_rgb, unlabel_rgb

from grokinterp.base.checks import whole
from grokinterp.base.errors import InputError, named
from grokinterp.base.files import write_whole
from grokinterp.base.paths import new_file
from grokinterp.figures.notebooks import forms, in_notebook

# Of the palette of Okabe and Ito, those that show on white and on near-black alike.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot")
COLOURS = {"train": "#0072B2", "test": "#D55E00", "key": "#009E73", "other": "#999999"}
PHASES = {"memorization": "#56B4E9", "circuit_formation": "#E69F00", "cleanup": "#009E73"}
LABEL_COLOURS = {  # of runs
    "grokked": COLOURS["test"],
    "steady": COLOURS["train"],
    "memorized": PHASES["memorization"],
    "not_learned": "#666666",
    "undetermined": "#AAAAAA",
}
FROM_ZERO = "Viridis"  # for values that start at 0
AROUND_ZERO = "RdBu_r"  # for values of both signs, with 0 in the middle
AROUND_CIRCLE = "Phase"  # for residues mod p

CONFIG = {
    "toImageButtonOptions": {"format": "svg"},
    "showSendToCloud": False,  # plotly 7 has a button that uploads the figure
    "displaylogo": False,
    "responsive": True,
}
STEPS = "step (optimiser updates)"  # the title of an axis of training steps
MOST_PIXELS = 20_000  # a side of a saved image
WIDTH = 900  # pixels, of a saved image unless given
ACROSS, DOWN = 0.16, 0.24  # gaps between panels: so much of the figure, over how many there are
STILL = ("svg", "png", "pdf")  # written by kaleido through a browser


def series(i: int) -> dict[str, str]:
    """The line of the i-th of several series: colours first, then the same colours dashed."""
    return {"color": SERIES[i % len(SERIES)], "dash": DASHES[i // len(SERIES) % len(DASHES)]}


def faded(colour: str, opacity: float) -> str:
    """A colour "#rrggbb" through which so much of what lies below is not seen.

    For marks of which there are many: each with an `opacity` of its own is a layer for a browser.

    >>> faded("#0072B2", 0.2)
    'rgba(0,114,178,0.200)'
    """
    red, green, blue = hex_to_rgb(colour)
    return f"rgba({red},{green},{blue},{opacity:.3f})"


def ink_on(colour: str) -> str:
    """Black or white, whichever has more contrast with a colour (WCAG's relative luminance).

    >>> ink_on("#0072B2"), ink_on("rgb(253, 231, 37)")
    ('#ffffff', '#000000')
    """
    levels = hex_to_rgb(colour) if colour.startswith("#") else unlabel_rgb(colour)
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


def checked(found: object, kind: type, example: str) -> None:
    """InputError unless `found` is of a kind; `example` is what gives such a thing.

    >>> checked("a", dict, "gi.ablate(run)")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: 'a' cannot be drawn here; give what gi.ablate(run) returns.
    """
    if not isinstance(found, kind):
        raise InputError(f"{named(found)} cannot be drawn here; give what {example} returns.")


class Figure(go.Figure):
    """A plotly figure whose camera button saves SVG; nothing else of plotly is changed.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> drawn = gi.viz.plot_key_frequencies(gi.load("mod31-small"))
    >>> drawn.layout.title.text
    'Key frequencies, step 10000<br>logits rule: 1, 8, 14'
    >>> drawn.dark().layout.template.layout.paper_bgcolor
    '#16191d'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     drawn.save(f"{folder}/keys.html").name
    'keys.html'
    """

    def dark(self) -> Self:
        """A copy on a dark ground."""
        return type(self)(self).update_layout(template=DARK)

    def save(self, path: str | Path, *, width: int = WIDTH, height: int | None = None) -> Path:
        """Write .html (interactive, needs no network), or .svg, .png or .pdf as it stands now.

        `width` and `height` are in pixels; unless given, the height is what fits the width. Still
        images need kaleido (`pip install 'grokinterp[export]'`) and Chrome or Chromium; where one
        is missing, an InputError of one line says so.
        """
        path = new_file("path", path, such_as="figure.html")
        width = whole("width", width, least=1, most=MOST_PIXELS, such_as=str(WIDTH))
        if height is not None:
            height = whole("height", height, least=1, most=MOST_PIXELS, such_as="500")
        kind = path.suffix.lstrip(".").lower()
        if kind == "html":
            write_whole(path, self.to_html(include_plotlyjs=True).encode())
        elif kind in STILL:
            write_whole(path, self._still(kind, width, height))
        else:
            raise InputError(f"{path.name} has no kind; end it in .html, .svg, .png or .pdf.")
        return path

    def _still(self, kind: str, width: int, height: int | None) -> bytes:
        """The image; of a figure over training, what it shows at first, without its slider."""
        if importlib.util.find_spec("kaleido") is None:
            raise InputError(
                f"a .{kind} is written by kaleido, which is not installed: "
                "pip install 'grokinterp[export]', or save an .html."
            )
        drawn = go.Figure(self.data, self.layout)
        drawn.layout.sliders = drawn.layout.updatemenus = None  # an update would keep them
        height = height or height_for(self, width)
        try:
            return bytes(drawn.to_image(kind, width=width, height=height))
        except RuntimeError as error:  # what plotly makes of a missing browser
            if "Chrome" not in str(error):
                raise
            raise InputError(
                f"a .{kind} needs Chrome or Chromium, and none was found; install one (or run "
                "plotly_get_chrome), or save an .html."
            ) from None

    def _ipython_display_(self) -> None:
        if pio.renderers.render_on_display and pio.renderers.default:
            self.show()
        else:
            print(repr(self))  # noqa: T201  as plotly does where nothing can be drawn

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return forms(self, CONFIG)

    def show(self, *args: Any, **kwargs: Any) -> None:
        """As plotly's; in a notebook also as HTML, which exported notebooks show."""
        if not args and not kwargs and in_notebook():
            from IPython.display import display

            display(forms(self, CONFIG), raw=True)
            return
        kwargs["config"] = CONFIG | kwargs.get("config", {})
        super().show(*args, **kwargs)

    def to_html(self, *args: Any, **kwargs: Any) -> str:
        """As plotly's."""
        kwargs["config"] = CONFIG | (kwargs.get("config") or {})
        kwargs = {"auto_play": False} | kwargs
        return str(super().to_html(*args, **kwargs))


def figure(title: str, x: str = "", y: str = "") -> Figure:
    """An empty figure with its title and axis titles (units included).

    One whose x axes are training steps (`STEPS`) says so in `layout.meta`: a report marks the
    current step in it.
    """
    return Figure(
        layout={
            "meta": {"x": "step"} if x == STEPS else None,
            "title": {"text": title},
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": y}},
            "template": LIGHT,
            "legend": {"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        }
    )


def known_alone(drawn: Figure, notes: Sequence[str]) -> Figure:
    """The same figure without traces that have nothing to show; where none has, it says why."""
    drawn.data = [each for each in drawn.data if _is_seen(each)]
    return drawn if drawn.data else says(drawn, notes)


def says(drawn: Figure, notes: Sequence[str]) -> Figure:
    """A figure of what could not be found, with its notes in place of axes."""
    said = "<br>".join(plain(line) for note in notes for line in textwrap.wrap(note, 70))
    drawn.update_xaxes(visible=False).update_yaxes(visible=False)
    drawn.layout.shapes = ()  # an update with none would keep them
    return drawn.add_annotation(
        text=said or "nothing to draw", showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper"
    )


def _is_seen(trace: Any) -> bool:
    """Whether a point of a trace has both its coordinates (None and NaN are not equal to it)."""
    x, y = ([] if axis is None else list(axis) for axis in (trace.x, trace.y))
    return any(None not in (a, b) and a == a and b == b for a, b in zip(x, y, strict=False))


def at(step: int | None) -> str:
    """What a title says about the step: nothing for a model that came without one.

    >>> "Logits" + at(100)
    'Logits, step 100'
    """
    return "" if step is None else f", step {step}"


def small_multiples(title: str, names: Sequence[str], x: str, y: str) -> Figure:
    """An empty figure of square panels in two columns, each under its name, with the same axes.

    The i-th panel is at `place(i)`. Above them all there is space for a colour bar. `layout.meta`
    has the numbers of rows and columns, so that a report can keep the panels square at any width.
    """
    drawn = Figure(_squares(len(names), x, y))
    drawn.layout.title.text = title
    for annotation, name in zip(drawn.layout.annotations, names, strict=True):
        annotation.text = name
    return drawn


@lru_cache(maxsize=16)
def _squares(n: int, x: str, y: str) -> Figure:
    """`small_multiples` without names: copying one is several times as quick as making one."""
    columns = max(1, min(2, n))
    rows = -(-n // columns)
    drawn = figure("")
    drawn.set_subplots(
        rows=rows, cols=columns, subplot_titles=["name"] * n,
        horizontal_spacing=ACROSS / columns, vertical_spacing=DOWN / rows,
    )  # fmt: skip
    for i in range(n):
        left, low = i % columns == 0, i + columns >= n
        drawn.update_yaxes(title_text=y if left else None, showticklabels=left, **place(i))
        drawn.update_xaxes(title_text=x if low else None, showticklabels=low, **place(i))
    drawn.update_xaxes(tickangle=0)
    square(drawn)
    drawn.update_annotations(font_size=13)
    drawn.update_yaxes(constraintoward="top")  # squares stay at their names when it is narrow
    # plotly puts the title half way up the margin, then higher by the bar: 30 pixels from the top
    drawn.update_layout(meta={"rows": rows, "columns": columns}, margin={"t": 160})
    return drawn.update_layout(height=height_for(drawn, WIDTH))


def height_for(drawn: Figure, width: int) -> int:
    """The height in pixels at which a figure of this width has no empty space.

    The panels of `small_multiples` are squares, each with 70 pixels of labels below it.
    """
    meta = drawn.layout.meta or {}
    if "rows" not in meta:
        return int(drawn.layout.height or 500)
    rows, columns = meta["rows"], meta["columns"]
    side = (width - 90) * (1 - ACROSS * (columns - 1) / columns) / columns
    gap = DOWN / rows if rows > 1 else 0.0
    pitch = (1 - gap * (rows - 1)) / rows + gap
    return round((drawn.layout.margin.t or 70) + 70 + (side + 70) / pitch)


def plain(name: str) -> str:
    """Somebody else's name so that plotly shows it letter by letter: its texts may hold tags."""
    return html.escape(name, quote=False)


def place(i: int) -> dict[str, int]:
    """Where the i-th of several panels stands, for `add_trace`: in two columns, row by row.

    >>> place(2)
    {'row': 2, 'col': 1}
    """
    return {"row": i // 2 + 1, "col": i % 2 + 1}


def square(drawn: Figure) -> Figure:
    """One unit of x as long as one unit of y, in every panel; axes end where the data do."""
    drawn.update_xaxes(constrain="domain").update_yaxes(constrain="domain")
    for axis in drawn.select_yaxes():
        axis.scaleanchor = "x" + axis.plotly_name.removeprefix("yaxis")
    return drawn
