"""What does every task offer? Inputs that a model reads, their labels, where the answers live."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import instance, mask, member, refused, word
from grokinterp.base.errors import InputError
from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.modular import AnswerGroup, ModularTask


@runtime_checkable
class Task(Protocol):
    """A finite table of inputs with labels; everything this package analyses is one.

    `ModularTask` and `IsingTask` are the two kinds.
    """

    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def n_inputs(self) -> int: ...  # noqa: D102
    @property
    def n_classes(self) -> int: ...  # noqa: D102
    @property
    def model_inputs(self) -> Tensor: ...  # noqa: D102
    @property
    def labels(self) -> Int[Tensor, " n_inputs"]: ...  # noqa: D102
    @property
    def ceiling(self) -> float: ...  # noqa: D102
    @property
    def commutative(self) -> bool: ...  # noqa: D102
    @property
    def answer_group(self) -> AnswerGroup | None: ...  # noqa: D102
    @property
    def no_group_reason(self) -> str | None: ...  # noqa: D102
    def to_dict(self) -> dict[str, object]: ...  # noqa: D102


def has_mirrors(task: Task) -> bool:
    """Whether (b, a) has the answer of (a, b), so that a network can answer one from the other.

    >>> has_mirrors(ModularTask("add", p=5)), has_mirrors(ModularTask("subtract", p=5))
    (True, False)
    """
    return isinstance(task, ModularTask) and task.commutative


def unmirrored_rows(task: Task, train_mask: Bool[Tensor, " n_inputs"]) -> Bool[Tensor, " n_inputs"]:
    """Test inputs whose answer no symmetry of the task gives away: their mirror is no training row.

    Of a commutative operation, the pairs (a, b) where neither (a, b) nor (b, a) is trained on; of
    any other task, all test inputs. That a network is right on them is no proof of a circuit
    either: it rules out that it looked up the mirror, and nothing else.

    >>> import torch
    >>> task, mask = ModularTask("add", p=3), torch.zeros(9, dtype=torch.bool)
    >>> mask[1] = True  # (0, 1), the mirror of (1, 0), which is row 3
    >>> unmirrored_rows(task, mask).nonzero().flatten().tolist()
    [0, 2, 4, 5, 6, 7, 8]
    """
    check_task(task)
    test = ~mask("train_mask", train_mask, task.n_inputs)
    if isinstance(task, ModularTask) and has_mirrors(task):
        return test & ~task.mirrored(train_mask)
    return test


KINDS: dict[str, type[ModularTask | IsingTask]] = {"modular": ModularTask, "ising": IsingTask}


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The task that `task.to_dict()` describes.

    >>> task_from_dict({"task": "modular", "operation": "add", "p": 5}).title
    'add mod 5'
    """
    give = "what task.to_dict() returns"
    rest = dict(instance(values, Mapping, "description of a task", give=give))
    kind = KINDS[word("task", rest.pop("task", "modular"), KINDS)]
    known = {field.name: field for field in fields(kind) if field.init}
    for key in rest:
        member(key, known, "part of a task")
    for key, field in known.items():
        if key not in rest and field.default is MISSING:
            raise InputError(f"the task has no {key!r}; give it, as task.to_dict() does.")
    return kind(**rest)


def check_task(task: object) -> None:
    """Refuse what is not a task."""
    if not isinstance(task, Task) or isinstance(task, type):
        raise refused("task", task, "a task", "such as gi.ModularTask('add', p=113)")
