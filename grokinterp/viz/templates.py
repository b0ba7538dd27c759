"""The pages' templates, styles and scripts, which lie in the package as files."""

from importlib.resources import files
from typing import Any

import jinja2

ASSETS = files("grokinterp.viz") / "assets"


def asset(name: str) -> str:
    """A file of the package as text."""
    return (ASSETS / name).read_text(encoding="utf-8")


_TEMPLATES = jinja2.Environment(
    loader=jinja2.FunctionLoader(asset),
    autoescape=True,  # names of runs and files come from others
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> str:
    """A template with these values in it, everything in them escaped."""
    return _TEMPLATES.get_template(template).render(**values)
