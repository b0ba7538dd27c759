"""Runs on disk, and what one model looks like over its whole task."""

from grokinterp.base.names import room_names
from grokinterp.runs._snapshot import Snapshot, snapshot
from grokinterp.runs.recorder import Recorder
from grokinterp.runs.run import Run

__all__ = ["Recorder", "Run", "Snapshot", "snapshot"]
__getattr__, __dir__ = room_names(__name__, __all__)
