"""Figures in executed pages: an HTML that draws itself with the one plotly of the site."""

from IPython import get_ipython
from IPython.display import HTML, display

from grokinterp.figures import Figure


def show(figure: Figure) -> None:
    """Show a figure without a plotly.js of its own; the page loads `_static/plotly.min.js`."""
    display(HTML(figure.to_html(full_html=False, include_plotlyjs=False)))


get_ipython().display_formatter.ipython_display_formatter.for_type(Figure, show)
