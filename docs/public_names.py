"""Which names are public, and which page of the site each has.

`conf.py` makes the pages of the API reference from these lists, and the tests look in them.
"""

import importlib
import inspect
from collections.abc import Mapping
from functools import cache
from types import ModuleType

import grokinterp as gi

BESIDE = ("circuits.hooks", "register", "viz")  # modules that are no rooms and are public too


@cache
def modules() -> dict[str, ModuleType]:
    """Every public module by the name that a reader writes, rooms in the order of the data."""
    found = {room: importlib.import_module(f"grokinterp.{room}") for room in gi.ROOMS}
    for name in BESIDE:
        found[name] = found["circuits"].hooks if name == "circuits.hooks" else getattr(gi, name)
    return {f"grokinterp.{name}": module for name, module in found.items()}


@cache
def names() -> dict[str, tuple[str, ...]]:
    """The names of each public module that have their pages there: its `__all__`.

    Not modules, which are in `modules`, nor what the room of its own name has already (`Figure`).
    """
    found: dict[str, tuple[str, ...]] = {}
    for full, module in modules().items():
        found[full] = tuple(
            name for name in module.__all__
            if not inspect.ismodule(thing := getattr(module, name))
            and not (inspect.isclass(thing) and _home(name, thing, found))
        )  # fmt: skip
    return found


def _home(name: str, thing: object, found: Mapping[str, tuple[str, ...]]) -> str | None:
    """The module among those found that offers this very thing under this name."""
    owners = (x for x, some in found.items() if name in some)
    return next((x for x in owners if getattr(modules()[x], name) is thing), None)


@cache
def pages() -> list[str]:
    """The full name of every module and of every public name in it: a page each."""
    return [
        page for full, some in names().items() for page in (full, *(f"{full}.{x}" for x in some))
    ]


def top() -> dict[str, str]:
    """Every name `gi.X`, and the full name whose page tells about it."""
    found = {}
    for name in gi.__all__:
        thing = getattr(gi, name)
        of_module = next((full for full, module in modules().items() if module is thing), None)
        found[name] = of_module or f"{_home(name, thing, names())}.{name}"
    return found


@cache
def files() -> dict[str, str]:
    """File names that differ from the full name: of those that differ in case alone, all but one.

    A file system may take `Attribution.rst` and `attribution.rst` for one.
    """
    lower = [page.lower() for page in pages()]
    shared = [page for page in pages() if lower.count(page.lower()) > 1]
    last = {page: page.rpartition(".")[2] for page in shared}
    return {
        page: f"{page}-{'constant' if name.isupper() else 'class'}"
        for page, name in last.items()
        if name[0].isupper()
    }


def kept() -> dict[str, dict[str, str]]:
    """What each public registry or table holds, by name with the first sentence about it."""
    found = {}
    for full, some in names().items():
        for name in some:
            value = getattr(modules()[full], name)
            if isinstance(value, Mapping):
                found[f"{full}.{name}"] = {str(x): first_sentence(y) for x, y in value.items()}
    return found


def first_sentence(thing: object) -> str:
    """The first sentence of what is said about a function, a class or a registered kind."""
    said = next((x for key in ("statement", "meaning") if (x := vars_of(thing).get(key))), None)
    if said is None:
        told = next(
            (
                x
                for key in ("compute", "function", "build")
                if callable(x := vars_of(thing).get(key))
            ),
            thing,
        )
        own = callable(told) or inspect.ismodule(told)
        said = (inspect.getdoc(told) or "") if own else ""
    said = " ".join(said.split("\n\n")[0].split())
    return said.partition(". ")[0].rstrip(".:").strip() + "." if said else ""


def vars_of(thing: object) -> dict:
    """The attributes that an object has itself, not those of its class."""
    return dict(getattr(thing, "__dict__", {})) if not inspect.isclass(thing) else {}
