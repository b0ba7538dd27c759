"""Registries of functions: names that a file can hold, that are free, and functions that fit."""

import functools
import inspect
import re
from collections.abc import Mapping

from grokinterp.base.errors import InputError, shown

_NAME = re.compile(r"[^\W_][^\s,;\"'=#|\\/]{0,59}")


def checked_name(what: str, name: object) -> str:
    """A name for an operation or a measure, refused where no file or table could hold it.

    >>> checked_name("operation", "x^2+xy")
    'x^2+xy'
    """
    if not isinstance(name, str):
        advice = f'write @{what}("name") above it' if callable(name) else "give text"
        raise InputError(f"{what} name {shown(name)} is no text; {advice}.")
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise InputError(
            f"{what} name {shown(name)} cannot be used; give up to 60 letters, digits and signs, a "
            "letter or digit first, without spaces, commas, quotes, slashes, '=', '#', ';' or '|'."
        )
    return name


def check_free(what: str, name: str, function: object, taken: Mapping[str, object]) -> None:
    """Refuse a name that is taken by a function of another module or qualified name.

    A function may replace itself, since a cell of a notebook is run twice.
    """
    if name not in taken:
        return
    old = _origin(taken[name])
    if old is None or old != _origin(function):
        where = "somebody" if old is None else ".".join(old)
        raise InputError(f"{what} {name!r} is taken by {where}; give another name.")


def check_function(what: str, name: str, function: object, arguments: tuple[str, ...]) -> None:
    """Refuse what cannot be called with these arguments."""
    wanted = f"a function of ({', '.join(arguments)})"
    if not callable(function):
        raise InputError(f"{what} {name!r} is {shown(function)}; give {wanted}.")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise InputError(
            f"{what} {name!r} does not take its arguments ({error}); give {wanted}."
        ) from None
    except ValueError:  # a function without a signature, such as some in C
        return


def _origin(function: object) -> tuple[str, str] | None:
    """Where a function was written; None where that is not known."""
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__qualname__"):
        function = type(function)
    module = getattr(function, "__module__", None)
    return None if module is None else (module, function.__qualname__)
