"""The site without building it: every public name has a page, every link leads somewhere."""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from functools import reduce
from pathlib import Path

import jinja2
import pytest

import grokinterp as gi

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
COPIED = ("examples", "generated", "api/rooms", "checkpoints", "_build")  # made by a build
PAGES = sorted(
    path for path in DOCS.rglob("*.md")
    if not path.relative_to(DOCS).as_posix().startswith(COPIED)
    or path == DOCS / "examples.md"
)  # fmt: skip
INCLUDED = [ROOT / f"{name}.md" for name in ("CONTRIBUTING", "CHANGELOG", "README", "SECURITY")]
EXAMPLES = [ROOT / "examples" / x / "README.md" for x in (".", "encodings", "explanations")]
FENCE = re.compile(r"^(```+|~~~+)[^\n]*\n.*?^\1[ \t]*$", re.M | re.S)
PYTHON = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n(.*?)^```$", re.M | re.S)
QUOTED = re.compile(r"`([^`\n]+)`")
ROOMS = "|".join((*gi.ROOMS, "viz", "hooks"))
DOTTED = re.compile(rf"(?:grokinterp|gi)\.([A-Za-z_][\w.]*)|(?=(?:{ROOMS})\.)([A-Za-z_][\w.]*)")
NO_NAMES = ("grokinterp.plugins",)  # a group of entry points


def name(path):
    return path.relative_to(ROOT).as_posix()


def of_docs(module):
    """A module of the folder docs, which is no package."""
    spec = importlib.util.spec_from_file_location(module, DOCS / f"{module}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[module] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def names():
    return of_docs("public_names")


@pytest.fixture(scope="module")
def written(names):
    return of_docs("written_at_build")


class TestEveryPublicNameHasAPage:
    def test_what_rooms_offer(self, names):
        pages = set(names.pages())
        modules = {
            f"grokinterp.{room}": getattr(gi, room) for room in (*gi.ROOMS, "register", "viz")
        }
        modules["grokinterp.circuits.hooks"] = gi.hooks
        things = {id(reduce(getattr, page.split(".")[1:], gi)) for page in pages}
        for full, module in modules.items():
            assert full in pages
            for each in module.__all__:
                assert f"{full}.{each}" in pages or id(getattr(module, each)) in things, each

    def test_what_stands_at_the_top(self, names, written):
        assert set(names.top()) == set(gi.__all__)
        table = written.names()
        for each, full in names.top().items():
            assert full in names.pages()
            assert reduce(getattr, full.split(".")[1:], gi) is getattr(gi, each)
            assert f"| [`gi.{each}`](rooms/{names.files().get(full, full)}.rst) |" in table

    def test_the_index_leads_to_rooms_and_rooms_to_names(self, names):
        index = (DOCS / "api" / "index.md").read_text().split()
        template = jinja2.Template((DOCS / "_templates/autosummary/room.rst").read_text())
        for full, module in names.modules().items():
            assert full in index
            page = template.render(
                fullname=full, names=names.names(), modules={full: module.__name__}
            )
            listed = {line.strip() for line in page.partition(":template:")[2].splitlines()[1:]}
            assert set(names.names()[full]) <= listed

    def test_file_names_differ_in_more_than_case(self, names):
        files = [names.files().get(page, page).lower() for page in names.pages()]
        assert len(set(files)) == len(files)


def slug(heading):
    """The anchor of a heading, as GitHub and MyST make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")


def anchors(path):
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#{1,3} (.+)$", text, re.M)
    return {slug(heading) for heading in headings} | set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))


def links(path):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))
    return [x for x in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", x)]


@pytest.mark.parametrize("path", [*PAGES, *INCLUDED, *EXAMPLES], ids=name)
def test_links_lead_somewhere(path, names):
    generated = {f"{names.files().get(page, page)}.rst" for page in names.pages()}
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if target.parent == DOCS / "api" / "rooms":
            assert target.name in generated, link
            continue
        if target.is_relative_to(DOCS / "examples"):  # a copy
            target = ROOT / target.relative_to(DOCS)
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_a_table_of_contents():
    entries = set()
    for page in PAGES:
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(), re.M | re.S):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            entries |= {(page.parent / f"{line}.md").resolve() for line in lines}
    assert {page for page in PAGES if page != DOCS / "index.md"} <= entries


@pytest.mark.parametrize("path", PAGES, ids=name)
class TestPages:
    def test_examples_in_python_compile(self, path):
        for code in PYTHON.findall(path.read_text(encoding="utf-8")):
            ast.parse(re.sub(r"^:.*$", "", code, flags=re.M))

    def test_names_in_backticks_exist(self, path):
        if path.name == "migration.md":  # which tells names that are no more
            return
        text = FENCE.sub("", path.read_text(encoding="utf-8"))
        for word in QUOTED.findall(text):
            found = DOTTED.match(word)
            if found and word not in NO_NAMES and not word.endswith((".py", ".csv", ".toml")):
                assert exists((found[1] or found[2]).rstrip(".").split(".")), word

    def test_it_answers_one_question(self, path):
        text = path.read_text(encoding="utf-8")
        titles = re.findall(r"^# (.+)$", FENCE.sub("", text), re.M)
        assert len(titles) == 1 or text.startswith("```{include}")
        assert len(text.split()) <= 1600


def exists(parts):
    """Whether `gi` has it: an attribute, a module, or a field of a class."""
    thing = gi
    for part in parts:
        fields = getattr(thing, "__annotations__", {}) if inspect.isclass(thing) else {}
        if part in fields:
            return True
        if not hasattr(thing, part):
            try:
                thing = importlib.import_module(f"{thing.__name__}.{part}")
            except (AttributeError, ImportError):
                return False
        else:
            thing = getattr(thing, part)
    return True


class TestTerms:
    def test_the_glossary_has_every_term_that_pages_use(self):
        glossary = (DOCS / "concepts" / "glossary.md").read_text(encoding="utf-8")
        block = re.search(r"^```\{glossary\}\n(.*?)^```$", glossary, re.M | re.S)[1]
        terms = {line for line in block.splitlines() if line and not line.startswith(" ")}
        assert len(terms) >= 40
        used = {
            (inner := re.fullmatch(r"[^`<]*<([^`>]+)>|([^`<]+)", word))[1] or inner[2]
            for path in PAGES
            for word in re.findall(r"\{term\}`([^`]+)`", path.read_text(encoding="utf-8"))
        }
        assert {each.lower() for each in used} <= {term.lower() for term in terms}


class TestWhatTheCodeKnows:
    def test_every_command_is_told_with_its_help(self, written):
        from grokinterp.cli import COMMANDS

        helps = written.helps()
        page = written.commands(helps)
        table = (DOCS / "command_line.md").read_text(encoding="utf-8")
        for command in COMMANDS:
            assert f"## grokinterp {command}\n" in page
            assert helps[command].strip() in page
            assert f"| `grokinterp {command} " in table

    def test_every_claim_is_told_with_its_rule(self, written):
        from grokinterp.claims import CLAIMS

        pages = written.pages_of_claims()
        for claim in CLAIMS.every():
            page = written.claims() if claim.needs == "runs" else pages[claim.name]
            assert claim.rule in page
            for falsifier in claim.falsifiers:
                assert f"* {falsifier}" in page
        told = {path.stem for path in (DOCS / "claims").glob("*.md")}
        assert told == set(pages)
        for name in told:
            text = (DOCS / "claims" / f"{name}.md").read_text(encoding="utf-8")
            assert f"../generated/claim_{name}.md" in text
            assert text.startswith(f"# {name}: ")

    def test_every_figure_is_in_the_gallery_once(self):
        cells = PYTHON.findall((DOCS / "gallery.md").read_text(encoding="utf-8"))
        drawn = re.findall(r"gi\.viz\.(plot_\w+)\(", "".join(cells))
        assert sorted(drawn) == sorted(x for x in gi.viz.__all__ if x.startswith("plot_"))


def test_docstrings_keep_their_words_and_show_their_examples():
    docstrings = of_docs("docstrings")
    lines = [
        "What *it* does to x_ and |M|.", "", "    gi.load('a')", "", "Raises:",
        "    InputError: where `a` is no path.", "", ">>> 1 + 1", "2", "After it.",
    ]  # fmt: skip
    assert docstrings.rendered(lines) == [
        "What \\*it\\* does to x\\_ and \\|M\\|.", "",
        "", ".. code-block:: python", "", "   gi.load('a')", "",
        "", "**Raises**", "", "InputError: where `a` is no path.", "",
        "", ".. code-block:: pycon", "", "   >>> 1 + 1", "   2", "   After it.", "",
    ]  # fmt: skip
