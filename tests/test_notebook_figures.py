"""The forms in which a figure goes into a notebook."""

import sys
import types

import pytest
from plotly.offline import get_plotlyjs

from grokinterp.figures import notebooks
from grokinterp.figures._figure import figure

MIME = "application/vnd.plotly.v1+json"


@pytest.fixture
def drawn(monkeypatch):
    monkeypatch.setattr(notebooks, "_library", {})
    return figure("One<br>two", "x", "y").add_scatter(x=[1], y=[2])


def test_plotly_for_front_ends_and_html_for_exports(drawn):
    found = drawn._repr_mimebundle_()
    assert set(found) == {MIME, "text/html", "text/plain"}
    assert found[MIME]["data"][0]["type"] == "scatter"
    assert found[MIME]["config"]["toImageButtonOptions"] == {"format": "svg"}
    assert found["text/plain"] == "One, two"
    assert "Plotly.newPlot" in found["text/html"]


def test_the_library_comes_with_the_first_figure_alone(drawn):
    library = get_plotlyjs()
    first, second = (drawn._repr_mimebundle_()["text/html"] for _ in range(2))
    assert library in first
    assert library not in second
    assert "needs the plotly library" in second
    assert "https://cdn" not in second


def test_and_again_when_that_cell_is_run_again(drawn, monkeypatch):
    class Shell:
        cell = "a"

        def get_parent(self):
            return {"metadata": {"cellId": self.cell}}

    shell = Shell()
    running = types.ModuleType("IPython")  # which what the tests need does not install
    running.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", running)
    held = []
    for cell in "abab":
        shell.cell = cell
        held.append(get_plotlyjs() in drawn._repr_mimebundle_()["text/html"])
    assert held == [True, False, True, False]
