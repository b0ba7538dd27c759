"""What `.plot()` draws of the results of this room, a module for each."""

from grokinterp.claims._figures.speed_ups import plot_speed_ups

__all__ = ["plot_speed_ups"]
