"""How weights change in training: optimisers, warm-up, the order of mini-batches."""

from grokinterp.base.names import room_names
from grokinterp.updates.optimizers import Batches, build_optimizer, learning_rate

__all__ = ["Batches", "build_optimizer", "learning_rate"]
__getattr__, __dir__ = room_names(__name__, __all__)
