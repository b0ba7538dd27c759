"""What `.plot()` draws of the results of this room, a module for each."""

from grokinterp.claims._figures import held_norms, speed_ups, training_sizes, verdicts

__all__ = ["held_norms", "speed_ups", "training_sizes", "verdicts"]
