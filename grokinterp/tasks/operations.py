"""What is the label of a pair (a, b)? The operations of modular arithmetic, in a registry.

A formula is an operation as it stands (`grokinterp.tasks.expressions`): `"a*b + a"`. One more under
a name of its own is one decorated function: given operand columns and p it returns the label of
every pair, whole numbers from 0 to p-1:

    @operation("larger")
    def _larger(a, b, p):
        return a.maximum(b)

What the labels are is checked when a task is made of the operation. Whether they have Fourier
directions is seen from them (`grokinterp.tasks.answer_group`); an operation that names its group,
`"add"`, `"subtract"` or `"multiply"`, says that its labels are (a + b) % p, (a - b) % p or
(a * b) % p, however they are computed, and is refused where they are not. A `partial` one gives -1
for pairs that it has no answer to; they are left out of the table.

Those of Power et al. 2022 (arXiv 2201.02177, appendix A.1.1, and `grok/data.py` of their code) are
`divide`, `mix1`, `add_or_multiply` (their `+*`), `add_or_subtract` (`+-`), and formulas:
`a**2 + b` (`**2+`), `a**3 + b` (`**3+`), `a**2 + b**2`, `a**2 + a*b + b**2 + a`, `a**3 + a*b`,
`a**3 + a*b**2 + b`. A division of theirs is a list of the p (p - 1) pairs with b != 0.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.checks import truth, word
from grokinterp.base.errors import InputError, shown
from grokinterp.base.registry import Registry, check_function
from grokinterp.tasks.answer_group import UNDEFINED
from grokinterp.tasks.expressions import Expression, parse_expression

Group = Literal["add", "subtract", "multiply"]
LabelFunction = Callable[..., Tensor]  # (a, b, p) or, seeded, (a, b, p, seed)
CHECKED_P = 1500  # up to it, making a task checks its labels; beyond it, using them does


@dataclass(frozen=True, eq=False)
class Operation:
    """A named operation, its label function, and the group that somebody declares for it.

    >>> import grokinterp as gi
    >>> subtract = gi.tasks.OPERATIONS.find("subtract")
    >>> subtract.group, subtract.table(p=3, seed=0).view(3, 3).tolist()
    ('subtract', [[0, 2, 1], [1, 0, 2], [2, 1, 0]])
    """

    name: str
    labels: LabelFunction
    group: Group | None = None
    seeded: bool = False
    partial: bool = False
    no_group: str = ""  # why its labels are those of none, where that can be said in words

    @property
    def built_in(self) -> bool:
        """Whether it is one of this package, which the tests of this package vouch for."""
        ours = getattr(self.labels, "__module__", None) == __name__
        return ours or isinstance(self.labels, Expression)

    def table(self, p: int, seed: int) -> Int[Tensor, " n_inputs"]:
        """The label of every pair, entry `a*p + b`, refused where they are not what is declared.

        -1 for a pair that a partial operation leaves out.
        """
        labels = self._called(p, seed)
        a, b = _operands(p)
        if not self.built_in:
            labels = self._checked(labels, a, b, p)
        if self.partial and bool((labels == UNDEFINED).all()):
            raise InputError(
                f"operation {self.name!r} leaves out all pairs of p={p}; give one with an answer."
            )
        if self.built_in:
            return labels
        if (group := self.group) is not None:
            declared = OPERATIONS[group].labels(a, b, p)
            _refuse_first(
                labels != declared,
                lambda row: (
                    f"operation {self.name!r} declares group={group!r}, but at p={p} its label of "
                    f"({a[row]}, {b[row]}) is {labels[row]}, not {declared[row]} = "
                    f"{FORMULAS[group]}; leave group out or mend the function."
                ),
            )
        return labels

    def check(self, p: int, seed: int) -> None:
        """Refuse labels that are not what is declared, and labels that are others every time."""
        if (self.partial or not self.built_in) and p <= CHECKED_P:
            _check_once(self, p, seed if self.seeded else 0)

    def _called(self, p: int, seed: int) -> Any:
        """What the function returns for operands of its own, which it may change."""
        given = (*_operands(p), p, seed) if self.seeded else (*_operands(p), p)
        try:
            return self.labels(*given)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"operation {self.name!r} raised {type(error).__name__} at p={p} "
                f"({shown(str(error))}); mend its function."
            ) from error

    def _checked(
        self, found: Any, a: Int[Tensor, " n"], b: Int[Tensor, " n"], p: int
    ) -> Int[Tensor, " n"]:
        """The labels as a tensor of this package's own."""
        n = p * p
        gives = f"operation {self.name!r} gives"
        wanted = f"give the {n} labels of a and b, a tensor of whole numbers from 0 to {p - 1}"
        labels = None
        if isinstance(found, Tensor | np.ndarray | list | tuple):
            with suppress(Exception):  # torch knows many ways to say that it is no tensor
                labels = torch.as_tensor(found).detach().to_dense().cpu().clone()
        if labels is None or tuple(labels.shape) != (n,):
            of = f"labels of shape {tuple(labels.shape)}" if labels is not None else shown(found)
            raise InputError(f"{gives} {of} at p={p}; {wanted}.")
        if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
            raise InputError(
                f"{gives} {labels.dtype} at p={p}, {labels[0].item()} for (0, 0); {wanted}, such "
                "as .long() makes."
            )
        labels = labels.long()
        _refuse_first(
            (labels < (UNDEFINED if self.partial else 0)) | (labels >= p),
            lambda row: f"{gives} label {labels[row]} for ({a[row]}, {b[row]}) at p={p}; {wanted}.",
        )
        return labels


FORMULAS = {"add": "(a + b) % p", "subtract": "(a - b) % p", "multiply": "(a * b) % p"}
ALIASES = {
    "addition": "add", "subtraction": "subtract", "sub": "subtract", "multiplication": "multiply",
    "mul": "multiply", "division": "divide", "div": "divide", "x^2+xy+y^2": "x2xyy2",
    "random_labels": "random", "rand": "random",
    "+": "add", "-": "subtract", "*": "multiply", "/": "divide",  # of Power et al. 2022
    "+*": "add_or_multiply", "+-": "add_or_subtract",
}  # fmt: skip
_POWERS = {"**2+": "a**2 + b", "**3+": "a**3 + b"}  # theirs too, which are formulas
_NAMED = {  # formulas that have a name
    "a + b": "add", "a - b": "subtract", "a*b": "multiply", "a/b": "divide",
    "a**2 + a*b + b**2": "x2xyy2", "a**2 + b**2 + a*b": "x2xyy2",
}  # fmt: skip
OPERATIONS: Registry[Operation] = Registry("operation", aliases=ALIASES)


def operation(
    name: str, *, group: Group | None = None, seeded: bool = False, partial: bool = False
) -> Callable[[LabelFunction], LabelFunction]:
    """Register a label function `(a, b, p) -> labels` under `name`.

    A `seeded` operation is called with `(a, b, p, seed)`: its labels are fixed by the seed. `group`
    declares that the labels are those of the group (see the module's docstring). A `partial` one
    gives -1 for pairs that it leaves out of the table.

    InputError for a name that is taken (a notebook cell run twice replaces its own), for what is
    no name, no group or no function of these arguments; and when a task is made of it, for labels
    that are not whole numbers from 0 to p-1, one per pair, that contradict the group, or that
    differ from call to call.

    >>> import grokinterp as gi
    >>> @gi.tasks.operation("largest-of-both")  # gi.register.operation is the same
    ... def largest_of_both(a, b, p):
    ...     return a.maximum(b)
    >>> task = gi.ModularTask("largest-of-both", p=3)
    >>> task.labels.view(3, 3).tolist()
    [[0, 1, 2], [1, 1, 2], [2, 2, 2]]
    >>> task.no_group_reason
    "the operation 'largest-of-both' is not a function of one group exponent: its answers mod 3 are
    no sum u(a) + v(b) and no product u(a) v(b) that takes every value"
    >>> del gi.tasks.OPERATIONS["largest-of-both"]  # take it out again
    """
    OPERATIONS.named(name)
    if group is not None:
        word("group", group, get_args(Group))
    truth("seeded", seeded)
    truth("partial", partial)

    def register(function: LabelFunction) -> LabelFunction:
        given = ("a", "b", "p", "seed") if seeded else ("a", "b", "p")
        check_function("operation", name, function, given)
        OPERATIONS.add(name, Operation(name, function, group, seeded, partial), by=function)
        return function

    return register


def get_operation(name: str) -> Operation:
    """The operation of that name, of that common alias (`"mul"`, `"+*"`, ...), or that formula.

    >>> [get_operation(x).name for x in ("mul", "x/y", "**2+", "(a*b + a) % p")]
    ['multiply', 'divide', 'a**2 + b', 'a*b + a']
    """
    if not isinstance(name, str) or OPERATIONS.aliases.get(name, name) in OPERATIONS:
        return OPERATIONS.find(name)
    formula = _of_formula(_POWERS.get(name, name))
    if formula is None or formula.name in _NAMED:
        return OPERATIONS.find(name if formula is None else _NAMED[formula.name])
    return formula


@lru_cache(maxsize=256)
def _of_formula(text: str) -> Operation | None:
    """The operation that a formula is, the same each time: it is parsed and checked once."""
    formula = parse_expression(text)
    return None if formula is None else Operation(formula.name, formula, partial=True)


def _operands(p: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Both operands of every pair, a outer and b inner."""
    each = torch.arange(p)
    return each.repeat_interleave(p), each.repeat(p)


def _refuse_first(wrong: Tensor, message: Callable[[int], str]) -> None:
    """InputError about the first row that is wrong, where there is one."""
    if bool(wrong.any()):
        raise InputError(message(int(wrong.nonzero()[0])))


@lru_cache(maxsize=4096)
def _check_once(of: Operation, p: int, seed: int) -> None:
    first, again = of.table(p, seed), of.table(p, seed)
    a, b = _operands(p)
    _refuse_first(
        first != again,
        lambda row: (
            f"operation {of.name!r} gives {first[row]} for ({a[row]}, {b[row]}) at p={p}, and "
            f"{again[row]} when it is asked again; draw what is random from a seed (seeded=True)."
        ),
    )


@operation("add", group="add")
def _add(a: Int[Tensor, " n"], b: Int[Tensor, " n"], p: int) -> Int[Tensor, " n"]:
    return (a + b) % p


@operation("subtract", group="subtract")
def _subtract(a: Int[Tensor, " n"], b: Int[Tensor, " n"], p: int) -> Int[Tensor, " n"]:
    return (a - b) % p


@operation("multiply", group="multiply")
def _multiply(a: Int[Tensor, " n"], b: Int[Tensor, " n"], p: int) -> Int[Tensor, " n"]:
    return (a * b) % p


@operation("x2xyy2")
def _x2xyy2(a: Int[Tensor, " n"], b: Int[Tensor, " n"], p: int) -> Int[Tensor, " n"]:
    return (a * a + a * b + b * b) % p


@operation("random", seeded=True)
def _random(a: Int[Tensor, " n"], b: Int[Tensor, " n"], p: int, seed: int) -> Int[Tensor, " n"]:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(p, (p, p), generator=generator)
    return table[a, b]


def _formula(name: str, formula: str, no_group: str = "") -> None:
    """Register a formula under a name of its own."""
    expression = parse_expression(formula)
    assert expression is not None
    entry = Operation(name, expression, partial=True, no_group=no_group)
    OPERATIONS.add(name, entry, by=_formula)


_formula("divide", "a/b")
_formula(
    "mix1", "a/b if b % 2 else a - b",
    "it is a / b where b is odd, and a - b where it is even: two groups, by the parity of b",
)  # fmt: skip
_formula(
    "add_or_multiply", "a*b if a % 2 else a + b",
    "it is a b where a is odd, and a + b where it is even: two groups, by the parity of a",
)  # fmt: skip
_formula(
    "add_or_subtract", "a - b if a % 2 else a + b",
    "it is a - b where a is odd, and a + b where it is even: the group is one, the sign is not",
)  # fmt: skip
