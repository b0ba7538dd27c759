"""What is the task of modular arithmetic? The full p-by-p table of operand pairs, its answers."""

from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.checks import truth, whole
from grokinterp.base.keys import key
from grokinterp.tasks.operations import (
    OPERATIONS,
    UNDEFINED,
    discrete_logs,
    get_operation,
    is_prime,
)
from grokinterp.tasks.task import AnswerGroup, Task, register_task

LARGEST_P = 10_000  # beyond it the table of p*p pairs fits into no memory


@register_task("modular")
@dataclass(frozen=True)
class ModularTask(Task):
    """One binary operation mod p, seen over all p*p inputs, a outer and b inner: row `a*p + b`.

    `equals_token` says whether inputs are `[a, b, "="]` (token p is "=") or only `[a, b]`. `seed`
    fixes the labels of a random operation and means nothing for the others.

    >>> task = ModularTask("add", p=5)
    >>> task.n_inputs, task.tokens[7].tolist(), task.labels[7].item()
    (25, [1, 2, 5], 3)
    """

    usual_model: ClassVar[str] = "transformer"

    operation: str = key(
        usual="add", help="what is learned", synonyms=("fn_name",), wanted="text",
        read=lambda given: get_operation(given).name,
    )  # fmt: skip
    p: int = key(usual=113, help="the modulus", most=LARGEST_P, synonyms=("modulus",))
    equals_token: bool = key(True, help='the inputs are [a, b, "="], otherwise [a, b]')
    _: KW_ONLY
    seed: int = key(
        0, name="data_seed", least=0, most=2**40,
        help="of the split, and of the labels of a random operation",
    )  # fmt: skip

    def __post_init__(self) -> None:
        p = whole("p", self.p, least=2, most=LARGEST_P, such_as="113")
        seed = whole("seed", self.seed, least=-(2**63), most=2**63 - 1, such_as="0")
        operation = get_operation(self.operation)
        operation.check(p, seed)
        equals = truth("equals_token", self.equals_token)
        given = {"p": p, "seed": seed, "equals_token": equals, "operation": operation.name}
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @property
    def modular(self) -> "ModularTask":
        """Itself."""
        return self

    @property
    def n_inputs(self) -> int:
        """Number of operand pairs, p*p."""
        return self.p * self.p

    @property
    def n_classes(self) -> int:
        """Number of answer classes, p: the "=" class of some models is not one of them."""
        return self.p

    @property
    def d_vocab(self) -> int:
        """Number of input tokens: p operands and, where there is one, "="."""
        return self.p + self.equals_token

    @cached_property
    def inputs(self) -> Int[Tensor, "n_inputs 2"]:
        """Operand pairs in table order."""
        return torch.cartesian_prod(torch.arange(self.p), torch.arange(self.p))

    @cached_property
    def tokens(self) -> Int[Tensor, "n_inputs n_ctx"]:
        """What a model reads: the operands, then "=" where the task has one."""
        if not self.equals_token:
            return self.inputs
        return torch.nn.functional.pad(self.inputs, (0, 1), value=self.p)

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return f"{self.operation} mod {self.p}"

    @property
    def model_inputs(self) -> Int[Tensor, "n_inputs n_ctx"]:
        """What a model reads: the tokens."""
        return self.tokens

    @cached_property
    def labels(self) -> Int[Tensor, " n_inputs"]:
        """The right answer of every pair."""
        return get_operation(self.operation).table(self.p, self.seed)

    @cached_property
    def mirrors(self) -> Int[Tensor, " n_inputs"] | None:
        """The row of (b, a), where (a, b) and (b, a) have the same label everywhere."""
        rows = torch.arange(self.n_inputs).view(self.p, self.p).T.flatten()
        return rows if torch.equal(self.labels, self.labels[rows]) else None

    @cached_property
    def answer_group(self) -> AnswerGroup | None:
        """The group that carries the answer, or None: see `no_group_reason`."""
        if self.no_group_reason is not None:
            return None
        kind = get_operation(self.operation).group
        _ = self.labels  # which refuses a group that they contradict
        of_token = discrete_logs(self.p) if kind == "multiply" else torch.arange(self.p)
        order = self.p - 1 if kind == "multiply" else self.p
        a, b = of_token[self.inputs].unbind(1)
        of_input = (a - b if kind == "subtract" else a + b) % order
        of_input[(a == UNDEFINED) | (b == UNDEFINED)] = UNDEFINED
        return AnswerGroup(order, of_token, of_input)

    @property
    def no_group_reason(self) -> str | None:
        """Why the answers have no Fourier directions, or None when they have."""
        kind = get_operation(self.operation).group
        if kind is None:
            return f"the operation {self.operation!r} is not a function of one group exponent"
        if kind == "multiply" and not is_prime(self.p):
            return f"multiplication mod {self.p} has no discrete logarithm ({self.p} is no prime)"
        return None

    def asks_the_same(self, other: Task) -> bool:
        """Whether another task has the same pairs with the same answers, however they are read."""
        other_p = other.modular and other.modular.p
        return self.p == other_p and torch.equal(self.labels, other.labels)

    def modules(self) -> set[str]:
        """That of its operation too."""
        return {type(self).__module__, OPERATIONS.home(self.operation)}
