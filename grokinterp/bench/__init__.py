"""How fast training and measuring are on this machine, against the usual way to do the same."""

from grokinterp.base.names import room_names
from grokinterp.bench._bench import Bench, bench

__all__ = ["Bench", "bench"]
__getattr__, __dir__ = room_names(__name__, __all__)
