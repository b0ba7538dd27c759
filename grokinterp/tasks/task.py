"""What does every task offer? Inputs that a model reads, their labels, where the answers live."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import instance, mask, member, refused
from grokinterp.base.errors import InputError, shown
from grokinterp.base.keys import Kind, registers
from grokinterp.base.plugins import strangers
from grokinterp.base.registry import Registry
from grokinterp.tasks.answer_group import AnswerGroup

TASKS: Registry[type["Task"]] = Registry("task")


class Task(Kind):
    """A finite table of inputs with labels; everything this package analyses is one.

    A kind of task is a frozen dataclass that extends it, whose fields are keys of recipes. What
    differs between kinds is said here: a task without operands, mirrors, group or observables
    leaves them as they are.

    >>> import grokinterp as gi
    >>> task = gi.ModularTask("add", p=5)
    >>> isinstance(task, gi.tasks.Task), task.n_inputs, task.n_classes, task.commutative
    (True, 25, 5, True)
    >>> task.model_inputs[7].tolist(), task.labels[7].item()
    ([1, 2, 5], 3)
    >>> gi.tasks.task_from_dict(task.to_dict()) == task
    True
    """

    usual_model: ClassVar[str] = ""  # that a recipe takes where it names none
    own_split: ClassVar[str] = ""  # what its own split is called; without one, recipes draw it

    @property
    @abstractmethod
    def n_classes(self) -> int:
        """How many answers there are."""

    @property
    def ceiling(self) -> float:
        """The best accuracy that can be hoped for on test inputs."""
        return 1.0

    @property
    def modular(self) -> Any:
        """Itself, of a `ModularTask`: its rows are all pairs of operand tokens; None of others."""
        return None

    @property
    def mirrors(self) -> Int[Tensor, " n_inputs"] | None:
        """The row of (b, a) for every input (a, b), where both have one answer; else None."""
        return None

    @property
    def commutative(self) -> bool:
        """Whether every input has a mirror with the same answer."""
        return self.mirrors is not None

    @property
    def answer_group(self) -> AnswerGroup | None:
        """The group on which the answers live, where they are known to."""
        return None

    @property
    def no_group_reason(self) -> str | None:
        """Why there is none."""
        return None if self.answer_group else "its answers are not known to be those of a group"

    @property
    def train_indices(self) -> Tensor | None:
        """The training rows, of a task with a split of its own."""
        return None

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        settings = (f"{key}={value}" for key, value in self.fields_given().items())
        return f"{self.kind or type(self).__name__} {', '.join(settings)}".rstrip()

    @property
    @abstractmethod
    def model_inputs(self) -> Tensor:
        """What a model reads, [n_inputs, ...]."""

    @property
    @abstractmethod
    def labels(self) -> Int[Tensor, " n_inputs"]:
        """The right answer of every input, from 0 to n_classes - 1."""

    @property
    def n_inputs(self) -> int:
        """How many inputs there are."""
        return len(self.labels)

    @property
    def targets(self) -> Int[Tensor, " n_inputs"]:
        """The class of the right answer among all of a model: the label, but for answer ids."""
        return self.labels

    def of_answers(self, logits: Float[Tensor, "*n classes"]) -> Float[Tensor, "*n n_classes"]:
        """The logits of the answers among those of all classes: the first, but for answer ids."""
        return logits[..., : self.n_classes]

    def in_order(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights with operand tokens and answer classes first: themselves, but for other ids."""
        return weights

    def mirrored(self, train_mask: Bool[Tensor, " n_inputs"]) -> Bool[Tensor, " n_inputs"]:
        """Test inputs whose mirror is trained on: their answer can leak by symmetry."""
        train = mask("train_mask", train_mask, self.n_inputs)
        if (rows := self.mirrors) is None:
            return torch.zeros_like(train)
        every = torch.arange(self.n_inputs)
        known = isinstance(rows, Tensor) and rows.dtype == every.dtype and rows.shape == every.shape
        within = known and int(rows.min()) >= 0 and int(rows.max()) < self.n_inputs
        if not (within and torch.equal(rows[rows], every)):
            raise InputError(
                f"the mirrors of {self.title} are {shown(rows)}; give the row of (b, a) for every "
                "row, int64, where the mirror of a mirror is the row itself."
            )
        return ~train & train[rows]

    def observables(self) -> dict[str, Tensor]:
        """Numbers of every input that its activations may go with, [n_inputs] each, by name."""
        return {}

    def asks_the_same(self, other: "Task") -> bool:
        """Whether another task has the same inputs in the same rows, with the same answers."""
        return self == other

    def modules(self) -> set[str]:
        """The modules whose import registers what it is made of."""
        return {type(self).__module__}

    def to_dict(self) -> dict[str, object]:
        """What `task_from_dict` needs to build the same task again."""
        return {"task": self.registered_kind("task"), **self.fields_given()}


class TableTask(Task):
    """A task of one's own: two methods that give the whole table.

    The fields are keys of recipes. Each method is called twice when its table is first used:
    InputError for what is no table, or is another one the second time.

    >>> from dataclasses import dataclass
    >>> import torch
    >>> import grokinterp as gi
    >>> @gi.register.task("parity-of-bits")
    ... @dataclass(frozen=True, kw_only=True)
    ... class ParityOfBits(gi.tasks.TableTask):
    ...     bits: int = 8
    ...     n_classes = 2
    ...     def inputs(self):
    ...         return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * self.bits)
    ...     def answers(self):
    ...         return self.inputs().sum(dim=1).long() % 2
    >>> task = ParityOfBits(bits=3)
    >>> task.title, task.model_inputs.shape, task.labels.tolist()
    ('parity-of-bits bits=3', torch.Size([8, 3]), [0, 1, 1, 0, 1, 0, 0, 1])
    >>> del gi.tasks.TASKS["parity-of-bits"]  # take it out again
    """

    @abstractmethod
    def inputs(self) -> Tensor:
        """What the model reads, [n_inputs, ...]."""

    @abstractmethod
    def answers(self) -> Int[Tensor, " n_inputs"]:
        """The class of every input, from 0 to n_classes - 1."""

    @cached_property
    def model_inputs(self) -> Tensor:  # noqa: D102
        found = _told(self.inputs, f"the inputs of {self.title}")
        if not isinstance(found, Tensor) or not found.ndim or len(found) != self.n_inputs:
            raise InputError(
                f"the inputs of {self.title} are {shown(found)}; give a tensor [n_inputs, ...] "
                f"with a row for each of the {self.n_inputs} answers."
            )
        return found.detach().cpu()

    @cached_property
    def labels(self) -> Int[Tensor, " n_inputs"]:  # noqa: D102
        found = _told(self.answers, f"the answers of {self.title}")
        whole = isinstance(found, Tensor) and found.ndim == 1 and len(found) > 1
        if whole and not (found.is_floating_point() or found.is_complex()):
            labels = found.detach().cpu().long()
            if bool(((labels >= 0) & (labels < self.n_classes)).all()):
                return labels
        raise InputError(
            f"the answers of {self.title} are {shown(found)}; give a tensor of whole numbers from "
            f"0 to {self.n_classes - 1}, one an input."
        )


def _told(table: Callable[[], object], what: str) -> Any:
    """A table of somebody's task; refused where it is another when it is asked for again."""
    with strangers(what, table):
        found, again = table(), table()
    tables = [x.nan_to_num() for x in (found, again) if isinstance(x, Tensor)]
    if len(tables) == 2 and not torch.equal(*tables):
        raise InputError(
            f"{what} are others when they are asked for again; draw them from a generator of their "
            "own: torch.Generator().manual_seed(self.seed)."
        )
    return found


register_task = registers(TASKS, Task)


def has_mirrors(task: Task) -> bool:
    """Whether (b, a) has the answer of (a, b), so that a network can answer one from the other.

    >>> from grokinterp.tasks import ModularTask
    >>> has_mirrors(ModularTask("add", p=5)), has_mirrors(ModularTask("subtract", p=5))
    (True, False)
    """
    return task.commutative


def unmirrored_rows(task: Task, train_mask: Bool[Tensor, " n_inputs"]) -> Bool[Tensor, " n_inputs"]:
    """Test inputs whose answer no symmetry of the task gives away: their mirror is no training row.

    Of a commutative operation, the pairs (a, b) where neither (a, b) nor (b, a) is trained on; of
    any other task, all test inputs. That a network is right on them is no proof of a circuit
    either: it rules out that it looked up the mirror, and nothing else.

    >>> from grokinterp.tasks import ModularTask
    >>> task, mask = ModularTask("add", p=3), torch.zeros(9, dtype=torch.bool)
    >>> mask[1] = True  # (0, 1), the mirror of (1, 0), which is row 3
    >>> unmirrored_rows(task, mask).nonzero().flatten().tolist()
    [0, 2, 4, 5, 6, 7, 8]
    """
    check_task(task)
    train = mask("train_mask", train_mask, task.n_inputs)
    return ~train & ~task.mirrored(train)


def task_from_dict(values: Mapping[str, Any]) -> Task:
    """The task that `task.to_dict()` describes.

    >>> task_from_dict({"task": "modular", "operation": "add", "p": 5}).title
    'add mod 5'
    """
    give = "what task.to_dict() returns"
    rest = dict(instance(values, Mapping, "description of a task", give=give))
    kind = TASKS.find(rest.pop("task", "modular"))
    known = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    for key in rest:
        member(key, known, "part of a task")
    for key, field in known.items():
        if key not in rest and field.default is field.default_factory is MISSING:
            raise InputError(f"the task has no {key!r}; give it, as task.to_dict() does.")
    lists = {key: tuple(value) for key, value in rest.items() if isinstance(value, list)}
    return kind(**rest | lists)


def check_task(task: object) -> None:
    """Refuse what is not a task."""
    if not isinstance(task, Task):
        raise refused("task", task, "a task", "such as gi.ModularTask('add', p=113)")
