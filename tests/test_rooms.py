"""The house: its rooms in their order, one way through, no circle, no module hidden by a name."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

import grokinterp as gi
from grokinterp.base.names import MOVED

PACKAGE = Path(gi.__file__).parent
# Where a module is imported by a computed name, and why that is no import of a later room.
COMPUTED = {
    "__init__": "names and rooms are resolved when they are first used",
    "base.names": "the old name of something that has moved",
    "_register": "decorators are resolved when they are first used",
    "base.plugins": "plug-ins are named by users",
    "base.registry": "modules of this package that register names in later rooms, as "
    "`grokinterp/__init__` lists them",
    "base.result": "the pictures of a result lie in the room of the result",
}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def literal(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def imports_of(name):
    """The modules of this package that a file imports, wherever in it and by whatever means."""
    path = FILES[name]
    package = path.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            given = literal(node.args[0])
            if given is None:
                assert name in COMPUTED, (name, ast.unparse(node))
            else:
                yield given


def modules_in(imported):
    """The file that an imported name lies in: the module itself, or that of a thing in it."""
    parts = imported.split(".")
    if parts[0] != "grokinterp":
        return None
    for end in (len(parts), len(parts) - 1):
        if (found := ".".join(parts[1:end])) in FILES:
            return found
    return "__init__"


EDGES = [
    (name, target)
    for name in FILES
    for target in map(modules_in, imports_of(name))
    if target is not None
]


def room_of(name):
    return name.split(".")[0]


def test_the_rooms_are_the_folders():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(gi.ROOMS) == folders
    others = {"__init__", "__main__", "_register", "viz"}
    assert {name for name in FILES if "." not in name} - folders == others


@pytest.mark.parametrize("room", gi.ROOMS)
def test_a_room_imports_only_rooms_before_it(room):
    before = {*gi.ROOMS[: gi.ROOMS.index(room)], room}
    if room == "cli":
        before.add("viz")  # no room: the names of figures, of rooms that all are before it
    for name, target in EDGES:
        if room_of(name) == room:
            assert room_of(target) in before, f"{name} imports {target}"


def test_no_circle_among_files():
    graph = nx.DiGraph((name, target) for name, target in EDGES if name != target)
    circles = [sorted(found) for found in nx.strongly_connected_components(graph) if len(found) > 1]
    assert circles == []


def test_no_module_is_hidden_by_a_name():
    for name in FILES:
        if name != "__init__" and not name.endswith("__main__"):
            importlib.import_module(f"grokinterp.{name}")
    for name in FILES:
        if name != "__init__" and not name.endswith("__main__"):
            parent, _, leaf = f"grokinterp.{name}".rpartition(".")
            assert getattr(sys.modules[parent], leaf) is sys.modules[f"grokinterp.{name}"], name


def test_a_file_is_one_screen_of_thought():
    for name, path in FILES.items():
        assert len(path.read_text().splitlines()) < 500, name
    sizes = [len(path.read_text().splitlines()) for path in FILES.values()]
    assert sum(sizes) / len(sizes) > 180  # not cut into pieces that only make sense together


@pytest.mark.parametrize("room", gi.ROOMS)
def test_tab_shows_what_a_room_offers(room):
    found = getattr(gi, room)
    assert dir(found) == sorted(found.__all__)
    assert all(hasattr(found, name) for name in found.__all__)
    assert found.__doc__.splitlines()[0].endswith(".")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        found.nothing  # noqa: B018


def test_tab_shows_names_and_rooms():
    assert set(dir(gi)) == {*gi.__all__, *gi.ROOMS, "ROOMS", "register", "viz", "__version__"}
    assert not set(gi.__all__) & set(gi.ROOMS)
    for name in dir(gi):
        assert getattr(gi, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gi.nothing  # noqa: B018
    assert gi.__all__ == sorted(gi.__all__)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["progress", "circuits", "geometry", "viz", "hooks", "verify"])
def test_a_room_works_at_once(name):
    """Without anything else imported before."""
    code = f"import grokinterp as gi; gi.{name}; assert gi.{name}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room, names in MOVED.items() for name in names]
)
def test_a_name_that_moved_works_and_says_what_to_write(room, name):
    home, _, new = MOVED[room][name].partition(".")
    new = new or name
    with pytest.warns(DeprecationWarning, match=rf"write gi\.{home}\.{new}\."):
        found = getattr(getattr(gi, room), name)
    assert found is getattr(getattr(gi, home), new)


def test_modules_that_the_documentation_of_0_2_0_names():
    from grokinterp.circuits import hooks
    from grokinterp.progress.curves import read_csv_curves
    from grokinterp.tasks import operation
    from grokinterp.viz import plot_embedding_circles, plot_neurons, plot_phase_diagram

    assert all((hooks.heads, read_csv_curves, operation))
    assert all((plot_embedding_circles, plot_neurons, plot_phase_diagram))
