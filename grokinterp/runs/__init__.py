"""Runs on disk and what one model looks like over its whole task."""

from grokinterp.runs.foreign.exporting import export
from grokinterp.runs.foreign.importing import import_run
from grokinterp.runs.opening import load
from grokinterp.runs.recorder import Recorder
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.runs.taking import snapshot

__all__ = ["Recorder", "Run", "Snapshot", "export", "import_run", "load", "snapshot"]
