"""How weights change: objectives, optimisers, gradient filters, constraints, batches.

What is registered has a name in recipes. `Objective`, `Optimizer`, `GradientFilter` and
`Constraint` show how one more is registered.

>>> import grokinterp as gi
>>> list(gi.updates.OPTIMIZERS)[:3], "cross_entropy" in gi.updates.OBJECTIVES
(['sgd', 'adamw', 'adam'], True)
>>> "none" in gi.updates.GRADIENT_FILTERS, "none" in gi.updates.CONSTRAINTS
(True, True)
>>> gi.Recipe(optimizer="adam", lr=0.01).build("optimizer")
Adam(lr=0.01, weight_decay=1.0, betas=(0.9, 0.98))
"""

from grokinterp.base.names import room_names
from grokinterp.updates.batches import Batches, warmup_share
from grokinterp.updates.changes import (
    CONSTRAINTS,
    GRADIENT_FILTERS,
    Constraint,
    GradientFilter,
    register_constraint,
    register_gradient_filter,
)
from grokinterp.updates.objectives import OBJECTIVES, CrossEntropy, Objective, register_objective
from grokinterp.updates.optimizers import OPTIMIZERS, Optimizer, register_optimizer

__all__ = [
    "CONSTRAINTS", "GRADIENT_FILTERS", "OBJECTIVES", "OPTIMIZERS", "Batches", "Constraint",
    "CrossEntropy", "GradientFilter", "Objective", "Optimizer", "register_constraint",
    "register_gradient_filter", "register_objective", "register_optimizer", "warmup_share",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
