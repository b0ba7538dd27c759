"""How is a figure shown in a notebook, and still there when the notebook is exported?

In two forms at once, of which a front end takes the first that it knows: plotly's own, for
JupyterLab, Notebook and VS Code; and HTML with a script, for `nbconvert --to html` and pages made
of notebooks, which know no plotly and would show nothing. The plotly library (5 MB) comes with the
first figure of a notebook, and again when that cell is run again; nothing is fetched.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio
from plotly.offline import get_plotlyjs

# What plotly itself chooses where a front end takes several forms. Elsewhere (Colab shows each
# output in a page of its own, a terminal opens a browser), and where somebody has chosen otherwise,
# plotly knows better.
OF_NOTEBOOKS = ("plotly_mimetype", "plotly_mimetype+notebook", "vscode")
NO_LIBRARY = (
    "This figure needs the plotly library, which came with the first figure of this notebook: run "
    "that cell again, or all cells."
)
_library: dict[str, object] = {}  # the cell whose output has it, once there is one


def in_notebook() -> bool:
    """Whether what shows figures here takes several forms of them."""
    return bool(pio.renderers.render_on_display) and pio.renderers.default in OF_NOTEBOOKS


def forms(drawn: go.Figure, config: Mapping[str, Any]) -> dict[str, Any]:
    """A figure by the MIME types of its forms; `config` is plotly's, of the figure's buttons."""
    chart = drawn.to_html(full_html=False, include_plotlyjs=False)
    missing = (
        "<script>if (!window.Plotly && document.currentScript) document.currentScript."
        f"insertAdjacentText('afterend', {NO_LIBRARY!r});</script>"
    )
    before = f"<script>{get_plotlyjs()}</script>" if _library_belongs_here() else missing
    bundle = pio.renderers["plotly_mimetype"].to_mimebundle(drawn.to_dict())
    for content in bundle.values():
        content["config"] = {**content.get("config", {}), **config}
    title = (drawn.layout.title.text or "Figure").replace("<br>", ", ")
    return {**bundle, "text/html": before + chart, "text/plain": title}


def _library_belongs_here() -> bool:
    """Whether the cell that runs now is the first with a figure, or was."""
    cell: object = None
    with contextlib.suppress(Exception):  # of other kernels, and front ends that name no cells
        from IPython import get_ipython

        cell = get_ipython().get_parent()["metadata"].get("cellId")
    first = "cell" not in _library
    if first:
        _library["cell"] = cell
    return first or (cell is not None and _library["cell"] == cell)
