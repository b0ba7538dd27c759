"""Runs on disk, and what one model looks like over its whole task.

What is counted over a whole table, however large, is counted by a `Tally`, block by block.

>>> import grokinterp as gi
>>> class Largest:
...     needs = ()
...     def __init__(self, snapshot):
...         self.logit = -float("inf")
...     def add(self, block):
...         self.logit = max(self.logit, block.logits.max().item())
>>> round(gi.load("mod31-small").snapshot().tally(Largest).logit, 1)
65.4
"""

from grokinterp.base.names import room_names
from grokinterp.runs._snapshot import Snapshot, snapshot
from grokinterp.runs.recorder import Recorder
from grokinterp.runs.run import Run

__all__ = ["Recorder", "Run", "Snapshot", "snapshot"]
__getattr__, __dir__ = room_names(__name__, __all__)
