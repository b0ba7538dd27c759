"""`gi.register`: the decorators that open every kind, ours and a stranger's.

A name that is taken is refused, unless module and qualified name are the same, as in a notebook's
cell that is run twice. How another process finds them: `grokinterp.base.plugins`.

>>> import grokinterp as gi
>>> print(*dir(gi.register))
claim constraint gradient_filter layout log_format measure model objective operation optimizer panel
task
>>> @gi.register.measure("norm_of_answers", default=False)
... def norm_of_answers(snapshot):
...     return snapshot.weights["unembed.W_U"].norm()
>>> row = gi.progress.measure_snapshot(gi.load("mod31-small"), measures=["norm_of_answers"])
>>> round(row["norm_of_answers"], 2)
8.51
>>> del gi.progress.MEASURES["norm_of_answers"]  # take it out again
"""

import importlib
from typing import Any

from grokinterp.base.names import unknown_name

_HOME = {  # where each decorator lies
    "claim": "claims.registry.claim",
    "layout": "models.foreign_names.register_layout",
    "log_format": "reading.logs.formats.log_format",
    "constraint": "updates.changes.register_constraint",
    "gradient_filter": "updates.changes.register_gradient_filter",
    "measure": "progress.measures.measure",
    "model": "models.architecture.register_model",
    "objective": "updates.objectives.register_objective",
    "operation": "tasks.operations.operation",
    "optimizer": "updates.optimizers.register_optimizer",
    "panel": "reporting.panels.panel",
    "task": "tasks.task.register_task",
}
__all__ = sorted(_HOME)


def __getattr__(kind: str) -> Any:
    if kind not in _HOME:
        raise unknown_name("grokinterp.register", kind, __all__)
    module, _, name = _HOME[kind].rpartition(".")
    return getattr(importlib.import_module(f"grokinterp.{module}"), name)


def __dir__() -> list[str]:
    return __all__
