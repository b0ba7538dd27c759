"""What is learned: the full table of inputs, its labels and the train/test split."""

from grokinterp.base.names import room_names
from grokinterp.tasks.answer_group import AnswerGroup
from grokinterp.tasks.ising import IsingTask
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
    "unmirrored_rows",
]  # fmt: skip
__getattr__, __dir__ = room_names(__name__, __all__)
