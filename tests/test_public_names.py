import ast
from pathlib import Path

import pytest

import grokinterp as gi

PACKAGE = Path(gi.__file__).parent
ROOMS = [
    "errors", "arguments", "paths", "registry", "memory", "notebook", "tasks", "models", "recipe",
    "runs", "training", "fourier", "progress", "circuits", "encodings", "viz", "bench",
    "terminal", "cli",
]  # fmt: skip


def test_public_names_resolve_are_sorted_and_few():
    assert gi.__all__ == sorted(gi.__all__)
    assert len(gi.__all__) <= 25
    for name in gi.__all__:
        assert getattr(gi, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gi.nothing  # noqa: B018


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "path", [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.parent != PACKAGE],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)  # fmt: skip
def test_imports_go_one_way(path):
    own = ROOMS.index(room_of(path))
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("grokinterp.")
        ):
            other = node.module.split(".")[1]
            inside_a_method = other == "viz"  # `.plot()` is the stated exception
            assert ROOMS.index(other) <= own or inside_a_method, (path.name, node.module)


def test_modules_stay_small():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path.name
