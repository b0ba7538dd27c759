"""What every room stands on: errors, checks of arguments, results, registries, paths."""

from grokinterp.base.errors import InputError, Interrupted
from grokinterp.base.names import room_names

__all__ = ["InputError", "Interrupted"]
__getattr__, __dir__ = room_names(__name__, __all__)
