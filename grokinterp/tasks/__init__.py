"""What is learned: the full table of inputs, its labels and the train/test split."""

from grokinterp.base.names import room_names
from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.modular import AnswerGroup, ModularTask
from grokinterp.tasks.operations import OPERATIONS, Operation, operation
from grokinterp.tasks.splits import train_indices
from grokinterp.tasks.task import Task, has_mirrors, task_from_dict, unmirrored_rows

__all__ = [
    "OPERATIONS",
    "AnswerGroup",
    "IsingTask",
    "ModularTask",
    "Operation",
    "Task",
    "has_mirrors",
    "operation",
    "task_from_dict",
    "train_indices",
    "unmirrored_rows",
]
__getattr__, __dir__ = room_names(__name__, __all__)
