"""Which names a room shows, which it still answers to, and what it says to one it does not know."""

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from typing import Any, get_args, get_type_hints

from grokinterp.base.errors import InputError, nearest

# Room: name: the room that it moved to, and its new name there if that changed ("circuits.new").
# Filled by `grokinterp/__init__.py`, which knows all rooms.
MOVED: dict[str, dict[str, str]] = {}


def room_names(
    room: str, names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a room: its `__all__`, and old names with a warning.

        __getattr__, __dir__ = room_names(__name__, __all__)

    An old name works for one release; the DeprecationWarning says what to write. A name that is not
    known gets the nearest one, and so does an argument that a function of the room does not have.
    """
    own = room.rpartition(".")[2]
    module = sys.modules[room]
    for name in names:
        if inspect.isfunction(function := getattr(module, name)):
            setattr(module, name, _naming_arguments(function, room))

    def getattr_(name: str) -> Any:
        if name not in MOVED.get(own, {}):
            raise unknown_name(room, name, names)
        home, _, new = MOVED[own][name].partition(".")
        new = new or name
        warnings.warn(
            f"gi.{own}.{name} has moved; write gi.{home}.{new}.", DeprecationWarning, stacklevel=2
        )
        return getattr(importlib.import_module(f"grokinterp.{home}"), new)

    return getattr_, lambda: list(names)


def unknown_name(module: str, name: str, names: Iterable[str]) -> AttributeError:
    """The error about a name that a module does not have, with the nearest one that it has.

    >>> print(unknown_name("grokinterp", "key_frequncies", ["key_frequencies", "load"]))
    module 'grokinterp' has no attribute 'key_frequncies'; did you mean 'key_frequencies'?
    """
    told = f"module {module!r} has no attribute {name!r}"
    asked = not name.startswith("_")  # what Python and its tools look for by themselves
    return AttributeError(f"{told}; {nearest(name, names)}" if asked else told)


def unknown_argument(
    function: Callable[..., Any], given: Iterable[str], known: Iterable[str]
) -> InputError:
    """The error about the first argument that a function does not have, with the nearest one."""
    names = list(known)
    wrong = next(name for name in given if name not in names)
    advice = nearest(wrong, names) if names else "it takes none."
    return InputError(f"{function.__name__} has no argument {wrong!r}; {advice}")


@cache  # when it is first called: a room has many functions, and importing it looks at none
def _arguments(function: Callable[..., Any]) -> dict[str, None] | None:
    """The names of a function's arguments; None where it takes any, and looks for itself."""
    known: dict[str, None] = {}
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.VAR_KEYWORD:
            options = get_args(each.annotation)  # Unpack[...] of a TypedDict names them
            if not options or not hasattr(options[0], "__annotations__"):
                return None
            known |= dict.fromkeys(get_type_hints(options[0]))
        else:
            known[each.name] = None
    return known


def _naming_arguments(function: Callable[..., Any], room: str) -> Callable[..., Any]:
    """A function that refuses an argument it does not have with the nearest one that it has."""

    @wraps(function)
    def named(*args: Any, **options: Any) -> Any:
        known = _arguments(function) if options else None
        if known is not None and not options.keys() <= known.keys():
            raise unknown_argument(function, options, known)
        return function(*args, **options)

    named.__module__ = room  # where pickle looks for it by its name
    return named
