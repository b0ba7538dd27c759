"""Where are the kinds of strangers found? In plug-ins: modules that register them when imported.

A plug-in is named by the entry point group `grokinterp.plugins` of an installed package, by the
environment variable `GROKINTERP_PLUGINS=module,module`, or by `grokinterp --plugin MODULE`, which
sets that variable, so that processes started later have it too. They are imported when a name is
not known or all names of a registry are wanted, never before. The current folder counts.
"""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from grokinterp.base.errors import InputError, one_line, shown

GROUP = "grokinterp.plugins"
VARIABLE = "GROKINTERP_PLUGINS"
ENTRY = "the entry point"
ADVICE = f"If a plug-in has it, name its module: {VARIABLE}=MODULE or --plugin MODULE."

_IMPORTED: set[str] = set()


def named_plugins() -> list[str]:
    """The modules that the environment variable names, each once."""
    given = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    return list(dict.fromkeys(name for name in given if name))


def name_plugins(modules: Iterable[str]) -> None:
    """Have this process, and those that it starts, find these modules too."""
    os.environ[VARIABLE] = ",".join(dict.fromkeys([*named_plugins(), *modules]))


def found_at(module: str) -> str:
    """The folder from which an imported module can be imported; "" where that is not known."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return ""
    within = module.count(".") + (Path(file).stem == "__init__")  # a package is a folder itself
    return str(Path(file).resolve().parents[within])


def others_of(modules: Iterable[str]) -> set[str]:
    """Those of these modules that are not of this package.

    >>> others_of(["grokinterp.tasks.modular", "mine"])
    {'mine'}
    """
    return {name for name in modules if name.partition(".")[0] != __name__.partition(".")[0]}


@contextlib.contextmanager
def strangers(what: str, code: object) -> Iterator[None]:
    """Run code of a kind: what it raises is an InputError that says whose it is, if not ours.

    >>> with strangers("objective 'mine'", type("Mine", (), {"__module__": "mine"})):
    ...     1 / 0
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: objective 'mine' raised ZeroDivisionError (division by
    zero); mend its code.
    """
    try:
        yield
    except InputError:
        raise  # in a line of its own
    except (Exception, SystemExit) as error:
        if not others_of([getattr(getattr(code, "func", code), "__module__", __name__)]):
            raise
        raised = f"{what} raised {type(error).__name__}"
        raise InputError(f"{raised} ({one_line(str(error), most=160)}); mend its code.") from error


def import_plugins() -> None:
    """Import all plug-ins that have not been yet."""
    for point in _installed():
        _import(point.module, f"{ENTRY} {point.name!r}")
    for module in named_plugins():
        _import(module, VARIABLE)


@cache
def _installed() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def look_in(folder: str) -> None:
    """Have modules of a folder found too, after all others."""
    if folder and folder not in sys.path:
        sys.path.append(folder)


def plugin(module: str, named_by: str) -> ModuleType:
    """A module of a user's, imported; InputError, with what it raised, where that fails."""
    _import(module, named_by)
    return sys.modules[module]


def _import(module: str, named_by: str) -> None:
    """Import a module once; InputError, with what it raised, where that fails."""
    if module in _IMPORTED:
        return
    if "" not in sys.path:
        look_in(os.getcwd())
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where a command prints JSON alone
            found = importlib.import_module(module)
    except InputError:
        raise  # what it registers is refused, in a line of its own
    except (Exception, SystemExit) as error:
        told = one_line(f"{type(error).__name__}: {error}", most=120)
        there = isinstance(error, ImportError) and (error.name or module) in module
        advice = "give modules as Python imports them, from here or installed"
        raise InputError(
            f"the plug-in {shown(module)}, which {named_by} names, cannot be imported ({told}); "
            f"{advice if there else 'mend its code'}."
        ) from error
    here, file = Path(*module.split(".")), getattr(found, "__file__", None) or "built in"
    mine = [path for path in (here.with_suffix(".py"), here / "__init__.py") if path.is_file()]
    if mine and ENTRY not in named_by and not (Path(file).exists() and mine[0].samefile(file)):
        raise InputError(
            f"the plug-in {shown(module)} is {mine[0]} here, but another module of that name is "
            f"found first ({file}); rename yours."
        )
    _IMPORTED.add(module)
