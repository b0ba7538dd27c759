"""How the documentation is built: `sphinx-build -W -b html docs OUT` from the repository."""

import re
import shutil
from pathlib import Path

import grokinterp as gi

HERE = Path(__file__).parent
shutil.rmtree(HERE / "examples", ignore_errors=True)  # a copy: pages have to lie in this folder
shutil.copytree(HERE.parent / "examples", HERE / "examples", dirs_exist_ok=True)

project = "grokinterp"
author = "The grokinterp developers"
copyright = f"2026, {author}"
version = release = gi.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
nb_execution_mode = "off"  # the notebooks are run by the tests, top to bottom
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 2
exclude_patterns = ["_build", "examples/**/*.py"]
templates_path = ["_templates"]

autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False  # what a room offers is its __all__
autodoc_typehints = "none"  # signatures have them
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
default_role = "literal"  # `name` in a docstring is code

html_theme = "pydata_sphinx_theme"
html_title = "grokinterp"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}


def plain(app, what, name, obj, options, lines):
    """Docstrings are plain text: what is indented is shown as it stands, and no sign is markup."""
    found, block = [], False
    for line in lines:
        indented = line.startswith(" ")
        if indented and not block:
            found += ["", "::", ""]
        if block and not indented and line:
            found.append("")
        block = indented or (block and not line)
        if not indented and not line.startswith(">>>"):
            parts = re.split(r"(`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
            line = "".join(parts)
        found.append(line)
    lines[:] = found


def setup(app):
    """The hook above, on every docstring."""
    app.connect("autodoc-process-docstring", plain)
