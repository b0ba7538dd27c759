"""Registries of open kinds: names that a file can hold, that are free, and what they stand for.

Ours and a stranger's are registered alike, and found alike: a name that is not known is looked for
in the plug-ins (see `grokinterp.base.plugins`) before it is refused.
"""

import functools
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from grokinterp.base.errors import InputError, nearest, shown
from grokinterp.base.plugins import ADVICE, import_plugins, others_of

T = TypeVar("T")
# Modules of this package that register names in later rooms, by what is registered. Filled by
# `grokinterp/__init__.py`, which knows all rooms.
LATER: dict[str, tuple[str, ...]] = {}
_NAME = re.compile(r"[^\W_][^\s,;\"'=#|\\/]{0,59}")


class Registry(MutableMapping[str, T]):
    """What is registered under the names of one kind, in the order in which it was.

    >>> colours = Registry[str]("colour", aliases={"crimson": "red"})
    >>> _ = colours.add("red", "#ff0000", by=len)
    >>> colours.find("crimson"), list(colours)
    ('#ff0000', ['red'])
    """

    def __init__(
        self,
        what: str,
        *,
        aliases: Mapping[str, str] | None = None,
        reserved: Mapping[str, str] | None = None,
    ) -> None:
        self.what = what
        self.aliases = dict(aliases or {})
        self.reserved = dict(reserved or {})  # names that mean something else, and what
        self._entries: dict[str, T] = {}
        self._by: dict[str, object] = {}  # the function or class that each was registered with

    def add(self, name: object, entry: T, *, by: object) -> T:
        """Register an entry that a function or class stands for.

        InputError for what cannot be a name, and for a name that another has. One of the same
        module and qualified name replaces the former, since a cell of a notebook is run twice.
        """
        checked = self.named(name)
        if others_of([(_origin(by) or ("",))[0]]):
            self._import_ours()  # so that their names are taken
        taken = self._by.get(self.aliases.get(checked, checked))
        if taken is not None and (_origin(taken) is None or _origin(taken) != _origin(by)):
            owner = ".".join(_origin(taken) or ("somebody",))
            raise InputError(f"{self.what} {checked!r} is taken by {owner}; give another name.")
        self._entries[checked], self._by[checked] = entry, by
        return entry

    def named(self, name: object) -> str:
        """A name that an entry may have, were it free; InputError for any other."""
        checked = checked_name(self.what, name)
        if checked in self.reserved:
            raise InputError(
                f"{self.what} {checked!r} is {self.reserved[checked]}; give another name."
            )
        return checked

    def find(self, name: object) -> T:
        """The entry of a name or an alias, from a plug-in where need be; else an InputError."""
        return self._entries[self.canonical(name)]

    def canonical(self, name: object) -> str:
        """The name itself, of which an alias may have been given; InputError for no name."""
        for look_further in (lambda: None, self._import_ours, import_plugins):
            look_further()
            if isinstance(name, str) and (known := self.aliases.get(name, name)) in self._entries:
                return known
        raise InputError(
            f"{self.what}={shown(name)} is not known; "
            f"{nearest(name, self._entries, self.aliases)} {ADVICE}"
        )

    def every(self) -> list[T]:
        """All entries, those of plug-ins among them."""
        self._import_ours()
        import_plugins()
        return list(self._entries.values())

    def home(self, name: str) -> str:
        """The module whose import registers a name."""
        return (_origin(self._by[name]) or ("__main__",))[0]

    def _import_ours(self) -> None:
        for module in LATER.get(self.what, ()):
            importlib.import_module(module)

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __setitem__(self, name: str, entry: T) -> None:
        self._entries[name] = entry
        self._by.setdefault(name, entry)

    def __delitem__(self, name: str) -> None:
        del self._entries[name], self._by[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def checked_name(what: str, name: object) -> str:
    """A name of a kind, refused where no file or table could hold it.

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


def check_class(what: str, name: str, kind: object, base: type) -> None:
    """Refuse what is no frozen dataclass of the base that a kind has, or leaves out a method."""
    wanted = f"a frozen dataclass that extends {base.__name__}"
    if not isinstance(kind, type) or not issubclass(kind, base):
        raise InputError(f"{what} {name!r} is {shown(kind)}; give {wanted}.")
    if not getattr(vars(kind).get("__dataclass_params__"), "frozen", False):
        raise InputError(
            f"{what} {name!r} is no frozen dataclass; write @dataclass(frozen=True, kw_only=True) "
            "between the name and the class."
        )
    for part in dir(kind):
        if getattr(getattr(kind, part, None), "__isabstractmethod__", False):
            raise InputError(f"{what} {name!r} has no {part}; give {wanted} and defines it.")


def _origin(entry: Any) -> tuple[str, str] | None:
    """Where a function or class was written; None where that is not known."""
    while isinstance(entry, functools.partial):
        entry = entry.func
    if not hasattr(entry, "__qualname__"):
        entry = type(entry)
    module = getattr(entry, "__module__", None)
    return None if module is None else (module, entry.__qualname__)
