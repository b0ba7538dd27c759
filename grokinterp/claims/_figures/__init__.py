"""What `.plot()` draws of the results of this room: verdicts."""

from grokinterp.claims._figures import verdicts

__all__ = ["verdicts"]
