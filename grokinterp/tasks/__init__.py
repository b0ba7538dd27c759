"""What is learned: the full table of inputs, its labels and the train/test split."""

from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.modular import AnswerGroup, ModularTask
from grokinterp.tasks.operations import OPERATIONS, Operation, operation
from grokinterp.tasks.splits import train_indices

__all__ = [
    "OPERATIONS",
    "AnswerGroup",
    "IsingTask",
    "ModularTask",
    "Operation",
    "operation",
    "train_indices",
]
