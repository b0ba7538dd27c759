"""Which names a room shows, and which it still answers to though they have moved."""

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

# Room: name: the room that it moved to, and its new name there if that changed ("circuits.new").
# Filled by `grokinterp/__init__.py`, which knows all rooms.
MOVED: dict[str, dict[str, str]] = {}


def room_names(
    room: str, names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a room: its `__all__`, and old names with a warning.

        __getattr__, __dir__ = room_names(__name__, __all__)

    An old name works for one release; the DeprecationWarning says what to write.
    """
    own = room.rpartition(".")[2]

    def getattr_(name: str) -> Any:
        if name not in MOVED.get(own, {}):
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        home, _, new = MOVED[own][name].partition(".")
        new = new or name
        warnings.warn(
            f"gi.{own}.{name} has moved; write gi.{home}.{new}.", DeprecationWarning, stacklevel=2
        )
        return getattr(importlib.import_module(f"grokinterp.{home}"), new)

    return getattr_, lambda: list(names)
