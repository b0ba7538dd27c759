"""What is learned: the full table of inputs, its labels and the train/test split.

`TASKS` and `OPERATIONS` have what is registered, by name; a task of one's own is a class more.

>>> from dataclasses import dataclass
>>> import torch
>>> import grokinterp as gi
>>> gi.tasks.TASKS.find("modular") is gi.ModularTask, "ising" in gi.tasks.TASKS
(True, True)
>>> gi.tasks.OPERATIONS.find("/").name, list(gi.tasks.OPERATIONS)[:3]
('divide', ['add', 'subtract', 'multiply'])
>>> @gi.tasks.register_task("sign-of-sum")  # gi.register.task is the same
... @dataclass(frozen=True, kw_only=True)
... class SignOfSum(gi.tasks.TableTask):
...     n_numbers: int = 3
...     n_classes = 2
...     def inputs(self):
...         return torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * self.n_numbers)
...     def answers(self):
...         return (self.inputs().sum(dim=1) > 0).long()
>>> gi.tasks.task_from_dict({"task": "sign-of-sum", "n_numbers": 5}).n_inputs
32
>>> del gi.tasks.TASKS["sign-of-sum"]  # take it out again
"""

from grokinterp.base.names import room_names
from grokinterp.tasks.answer_group import AnswerGroup
from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.label_noise import with_label_noise
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.operations import OPERATIONS, Operation, operation
from grokinterp.tasks.splits import train_indices
from grokinterp.tasks.task import (
    TASKS,
    TableTask,
    Task,
    has_mirrors,
    register_task,
    task_from_dict,
    unmirrored_rows,
)

__all__ = [
    "OPERATIONS", "TASKS", "AnswerGroup", "IsingTask", "ModularTask", "Operation", "TableTask",
    "Task", "has_mirrors", "operation", "register_task", "task_from_dict", "train_indices",
    "unmirrored_rows", "with_label_noise",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
