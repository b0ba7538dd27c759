"""How the site is built: `sphinx-build -W -b html docs OUT` from the repository.

The notebooks are executed, which takes minutes. With GROKINTERP_EXECUTED_NOTEBOOKS=DIR those that
`jupyter nbconvert --to notebook --execute --output-dir DIR examples/*.ipynb` wrote take their
place; while you write, `-D nb_execution_mode=off` leaves all of it out. External links:
`sphinx-build -b linkcheck docs OUT`, where there is a network.
"""

import os
import shutil
import sys
from pathlib import Path

import plotly

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import docstrings  # noqa: E402  in this folder
import public_names  # noqa: E402
import written_at_build  # noqa: E402

import grokinterp as gi  # noqa: E402

shutil.rmtree(HERE / "examples", ignore_errors=True)  # a copy: pages have to lie in this folder
shutil.copytree(HERE.parent / "examples", HERE / "examples")
shutil.rmtree(HERE / "api" / "rooms", ignore_errors=True)  # pages of names that are no more
executed = []
if given := os.environ.get("GROKINTERP_EXECUTED_NOTEBOOKS"):
    for notebook in sorted((HERE / "examples").glob("*.ipynb")):
        if (Path(given) / notebook.name).is_file():
            shutil.copy(Path(given) / notebook.name, notebook)
            executed.append(f"examples/{notebook.name}")
if not (HERE / "checkpoints").exists():  # notebooks look for runs beside their folder
    (HERE / "checkpoints").symlink_to(HERE.parent / "checkpoints")
written_at_build.write(HERE / "generated")

project = "grokinterp"
author = "The grokinterp developers"
copyright = f"2026, {author}"
version = release = gi.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = [
    "_build", "_templates", "checkpoints", "generated", "examples/**/*.py", "examples/runs",
]  # fmt: skip
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
# "auto" executes a notebook again if any cell of it shows nothing, an import say: so each is
# executed, but for those that were.
nb_execution_mode = "force"
nb_execution_excludepatterns = executed
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
# Of a figure's forms this site shows the HTML; plotly's own is for notebooks.
suppress_warnings = ["mystnb.unknown_mime_type"]
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # bars are text where no widgets are

autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False  # what a room offers is its __all__
autosummary_filename_map = public_names.files()
autosummary_context = {
    "names": public_names.names(),
    "top": {full: name for name, full in public_names.top().items()},
    "kept": public_names.kept(),
    "modules": {full: module.__name__ for full, module in public_names.modules().items()},
}
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # a signature with them is longer than the page that explains it
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
default_role = "literal"  # `name` in a docstring is code

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_workers = 4
linkcheck_ignore = [
    r"https?://localhost.*",
    r"https://github\.com/grokinterp/grokinterp/(blob|tree|issues|security).*",  # not yet pushed
]
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]  # GitHub makes them in the browser
linkcheck_allowed_redirects = {r"https://arxiv\.org/abs/.*": r"https://arxiv\.org/.*"}

html_theme = "pydata_sphinx_theme"
html_title = "grokinterp"
html_show_sourcelink = False
# Figures of the gallery share one copy of plotly instead of carrying one each.
html_static_path = ["_static", str(Path(plotly.__file__).parent / "package_data" / "plotly.min.js")]
html_css_files = ["site.css"]
html_js_files = ["figures.js"]
ALONE = (
    "index", "start", "gallery", "claims", "command_line", "speed", "reliability", "house",
    "migration", "contributing", "changelog",
)  # fmt: skip
html_sidebars = {page: [] for page in ALONE}  # there is nothing beside them in their sections
html_theme_options = {
    "github_url": "https://github.com/grokinterp/grokinterp",
    "header_links_before_dropdown": 4,
    "navigation_depth": 2,
    "secondary_sidebar_items": ["page-toc"],
    "show_nav_level": 1,
    "show_prev_next": False,
    "show_toc_level": 2,
}


def setup(app):
    """Docstrings of this package are plain text, not reStructuredText."""
    app.connect("autodoc-process-docstring", docstrings.process)
