"""One HTML file that tells of a run, or of several side by side, and needs no network."""

from grokinterp.base.names import room_names
from grokinterp.reporting._report import report

__all__ = ["report"]
__getattr__, __dir__ = room_names(__name__, __all__)
