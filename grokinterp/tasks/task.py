"""What every task offers: inputs that a model reads, their labels, and where the answers live."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from grokinterp.errors import InputError
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


KINDS: dict[str, type[ModularTask] | type[IsingTask]] = {
    "modular": ModularTask,
    "ising": IsingTask,
}


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The task that `task.to_dict()` describes.

    >>> task_from_dict({"task": "modular", "operation": "add", "p": 5}).title
    'add mod 5'
    """
    rest = dict(values)
    kind = rest.pop("task", "modular")
    if kind not in KINDS:
        raise InputError(f"task {kind!r} is not known; valid are: {', '.join(KINDS)}.")
    return KINDS[kind](**rest)
