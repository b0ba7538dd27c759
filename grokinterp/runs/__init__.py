"""Runs on disk and what one model looks like over its whole task."""

from grokinterp.runs.recorder import Recorder
from grokinterp.runs.run import Run, load
from grokinterp.runs.snapshot import Snapshot, snapshot

__all__ = ["Recorder", "Run", "Snapshot", "load", "snapshot"]
