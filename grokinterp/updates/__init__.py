"""How weights change: objectives, optimisers, gradient filters, constraints, batches.

What is registered has a name in recipes. `Objective`, `Optimizer`, `GradientFilter` and
`Constraint` show how one more is registered.

>>> import grokinterp as gi
>>> list(gi.updates.OPTIMIZERS)[:3], "cross_entropy" in gi.updates.OBJECTIVES
(['sgd', 'adamw', 'adam'], True)
>>> list(gi.updates.OBJECTIVES)[:4], list(gi.updates.GRADIENT_FILTERS)[:3]
(['cross_entropy', 'mse', 'stablemax', 'hinge'], ['none', 'ema', 'ma'])
>>> gi.Recipe(optimizer="adam", lr=0.01).build("optimizer")
Adam(lr=0.01, weight_decay=1.0, decay_on='all', betas=(0.9, 0.98))
"""

from grokinterp.base.names import room_names
from grokinterp.updates.batches import Batches, rate_share, warmup_share
from grokinterp.updates.changes import (
    CONSTRAINTS,
    GRADIENT_FILTERS,
    Constraint,
    GradientFilter,
    clipped,
    perpendicular,
    register_constraint,
    register_gradient_filter,
)
from grokinterp.updates.grokfast import GrokfastEMA, GrokfastMA
from grokinterp.updates.held_norm import NormClamp
from grokinterp.updates.muon import Muon
from grokinterp.updates.objectives import (
    OBJECTIVES,
    CrossEntropy,
    Objective,
    objective_of,
    register_objective,
)
from grokinterp.updates.optimizers import OPTIMIZERS, Optimizer, register_optimizer
from grokinterp.updates.other_losses import Hinge, MeanSquaredError, StableMax

__all__ = [
    "CONSTRAINTS", "GRADIENT_FILTERS", "OBJECTIVES", "OPTIMIZERS", "Batches", "Constraint",
    "CrossEntropy", "GradientFilter", "GrokfastEMA", "GrokfastMA", "Hinge", "MeanSquaredError",
    "Muon", "NormClamp", "Objective", "Optimizer", "StableMax", "clipped", "objective_of",
    "perpendicular", "rate_share", "register_constraint", "register_gradient_filter",
    "register_objective", "register_optimizer", "warmup_share",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
