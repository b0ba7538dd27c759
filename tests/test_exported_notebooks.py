"""Do notebooks, run and exported as HTML, show all their figures to somebody without a network?

`GROKINTERP_EXECUTED_NOTEBOOKS` may name a folder with notebooks that were executed already, as by
`jupyter nbconvert --to notebook --execute --output-dir DIR examples/*.ipynb`: these are exported
as they are. Any other notebook is executed first.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

import grokinterp as gi
from tests.browser import Page, until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
FIGURE = "application/vnd.plotly.v1+json"
SUBJECT = 'subject = "mod113-grokked"'
SECONDS = 900  # of a machine that is busy; each takes about one minute

# Of each figure, how many traces are drawn: marks in a picture that has a size, or canvases.
DRAWN = """
const marks = ".trace, .heatmaplayer image, .scatterlayer path, .barlayer path, .sankey-link";
return [...document.querySelectorAll(".js-plotly-plot")].map(figure => {
  const pictures = [...figure.querySelectorAll("svg.main-svg")].filter(each => each.clientWidth);
  const drawn = pictures.flatMap(each => [...each.querySelectorAll(marks)]);
  return drawn.length + figure.querySelectorAll(".gl-container canvas").length;
});
"""


def convert(book, to, folder, *arguments):
    """What `jupyter nbconvert` makes of a notebook, run on one thread in a folder of its own."""
    packages = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [
            sys.executable, "-m", "nbconvert", "--to", to, "--output-dir", str(folder), *arguments,
            str(book),
        ],
        cwd=folder, timeout=SECONDS, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": packages, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    suffix = {"notebook": ".ipynb", "html": ".html"}[to]
    return folder / f"{Path(book).stem}{suffix}"


def executed(book, folder):
    """The notebook with its outputs, made here unless they are there."""
    there = Path(os.environ.get("GROKINTERP_EXECUTED_NOTEBOOKS") or folder) / book.name
    if there.exists():
        return there
    return convert(book, "notebook", folder, "--execute")


def outputs(book):
    """All outputs of the code cells, cell by cell."""
    cells = nbformat.read(book, as_version=4).cells
    return [cell.outputs for cell in cells if cell.cell_type == "code"]


def said(book):
    """What the cells printed, as one text."""
    every = [one for cell in outputs(book) for one in cell]
    return "".join(one.text for one in every if one.output_type == "stream")


def run_with(subject, folder):
    """Notebook 02, executed with another subject in its one line."""
    text = (ROOT / "examples" / "02_reverse_engineer.ipynb").read_text(encoding="utf-8")
    book = nbformat.reads(text, as_version=4)
    changed = [cell for cell in book.cells if SUBJECT in cell.source]
    assert len(changed) == 1
    changed[0].source = changed[0].source.replace(SUBJECT, f"subject = {str(subject)!r}")
    nbformat.write(book, folder / "changed.ipynb")
    out = folder / "executed"
    out.mkdir()
    return convert(folder / "changed.ipynb", "notebook", out, "--execute")


@pytest.mark.parametrize("book", NOTEBOOKS, ids=lambda book: book.stem)
def test_an_exported_notebook_shows_every_figure(book, tmp_path):
    done = executed(book, tmp_path)
    every = [one for cell in outputs(done) for one in cell]
    assert every, "the notebook was not executed"
    assert [one for one in every if one.output_type == "error"] == []
    figures = [one for one in every if FIGURE in one.get("data", {})]
    assert figures
    page = Page(1100, 900, tmp_path)
    try:
        page.open(convert(done, "html", tmp_path))
        until(lambda: len(page.js(DRAWN)) == len(figures) and all(page.js(DRAWN)), seconds=60)
        assert "needs the plotly library" not in page.js("return document.body.innerText")
    finally:
        page.close()


def test_02_takes_a_file_of_somebody_else(tmp_path):
    torch.save(gi.load("mod31-small").model().state_dict(), tmp_path / "theirs.pt")
    done = run_with(tmp_path / "theirs.pt", tmp_path)
    every = [one for cell in outputs(done) for one in cell]
    assert len([one for one in every if FIGURE in one.get("data", {})]) >= 15
    assert "operation=add" in "".join(
        one.data["text/plain"] for one in every if "data" in one and "text/plain" in one.data
    )


def test_02_says_what_a_network_does_not_have(tmp_path):
    """A multilayer perceptron, which has no attention."""
    recipe = gi.Recipe(model="mlp", p=13, widths=(16,), steps=20, checkpoints="every:10")
    gi.train(recipe, tmp_path / "mlp", progress=False)
    done = run_with(tmp_path / "mlp", tmp_path)
    assert "has no attention" in said(done)
    assert "Error" not in said(done)
