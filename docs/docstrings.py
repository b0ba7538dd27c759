"""How a docstring becomes a page: plain text in which no sign is markup.

Examples (`>>>`) and what is indented are shown as they stand; `Raises:` and the like, alone on
their lines, are headings of what is indented below them.
"""

import itertools
import re

HEADING = re.compile(r"([A-Z][A-Za-z ]{2,40}):")
SECTIONS = {
    "args", "arguments", "errors", "example", "examples", "formula", "note", "notes", "raises",
    "returns", "shapes", "source", "sources", "yields", "attributes", "references",
    "what it does not show", "does not show",
}  # fmt: skip


def process(app, what, name, obj, options, lines):
    """The hook of autodoc."""
    lines[:] = rendered(lines)


def rendered(lines):
    """A docstring as reStructuredText.

    >>> rendered(["One *line*.", "", "After."])
    ['One \\\\*line\\\\*.', '', 'After.']
    """
    found, rest = [], list(lines)
    while rest:
        line = rest[0]
        if _is_table(_paragraph(rest)):
            found += _block("text", [rest.pop(0) for _ in _paragraph(rest)])
        elif line.startswith(">>>"):
            found += _block("pycon", _taken(rest, lambda next_line: bool(next_line.strip())))
        elif line.startswith(" "):
            found += _indented(_taken(rest, lambda x: x.startswith(" ") or not x.strip()))
        elif (heading := HEADING.fullmatch(line.strip())) and (
            heading[1].lower() in SECTIONS and len(rest) > 1 and rest[1].startswith(" ")
        ):
            rest.pop(0)
            below = _taken(rest, lambda x: x.startswith(" ") or not x.strip())
            found += ["", f"**{heading[1]}**", "", *rendered(_dedented(below)), ""]
        else:
            found.append(_literally(rest.pop(0)))
    return found


def _paragraph(rest):
    """The lines up to the next empty one."""
    return list(itertools.takewhile(str.strip, rest))


def _is_table(lines):
    """Whether two lines or more are words, a gap, and what they mean, set in columns."""
    gaps = [len(x) for x in lines if re.match(r"\S+( \S+)* {2,}\S", x)]
    return len(gaps) > 1 and not any(x.startswith(">>>") for x in lines)


def _taken(rest, goes_on):
    """The first lines, as long as they go on."""
    taken = [rest.pop(0)]
    while rest and goes_on(rest[0]):
        taken.append(rest.pop(0))
    return taken


def _dedented(lines):
    depth = min((len(x) - len(x.lstrip()) for x in lines if x.strip()), default=0)
    lines = [x[depth:] for x in lines]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _indented(lines):
    """A block that stands as it is: an example, Python, or a formula."""
    lines = _dedented(lines)
    if lines[0].startswith(">>>"):
        return rendered(lines)
    return _block("python" if _is_python("\n".join(lines)) else "text", lines)


def _is_python(text):
    try:
        compile(text, "docstring", "exec")
    except SyntaxError:
        return False
    return "(" in text or "import" in text


def _block(language, lines):
    return ["", f".. code-block:: {language}", "", *[f"   {x}".rstrip() for x in lines], ""]


def _literally(line):
    """No sign in it is markup, but for `code` and for the bullet of a list."""
    bullet = re.match(r"\s*[-*] ", line)
    start = bullet[0] if bullet else ""
    parts = re.split(r"(`[^`]*`)", line[len(start) :])
    parts[::2] = [re.sub(r"([*|]|_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    return start + "".join(parts)
