"""How figures look and move: a theme, small multiples, heat maps, a slider through training."""

from grokinterp.base.names import room_names
from grokinterp.figures._figure import Figure

__all__ = ["Figure"]
__getattr__, __dir__ = room_names(__name__, __all__)
