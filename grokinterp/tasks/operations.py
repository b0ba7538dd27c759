"""What is the label of a pair (a, b)? The operations of modular arithmetic, in a registry.

One more operation is one decorated function: given operand columns and p it returns the label of
every pair, whole numbers from 0 to p-1:

    @operation("double_add")
    def _double_add(a, b, p):
        return (2 * a + b) % p

Name the group that carries its answer where there is one, so that the operation has Fourier
directions and key frequencies: `"add"`, `"subtract"` or `"multiply"` says that the labels are
(a + b) % p, (a - b) % p or (a * b) % p, however they are computed. What the labels are is checked
when a task is made of the operation; a group that they contradict is refused.
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

UNDEFINED = -1


def is_prime(n: int) -> bool:
    """Whether n is a prime, by trial division (n is a modulus of a table, so it is small)."""
    return n >= 2 and all(n % d for d in range(2, int(n**0.5) + 1))


def discrete_logs(p: int) -> Int[Tensor, " p"]:
    """`logs[x]` with g**logs[x] = x mod p for the smallest primitive root g; -1 at x = 0.

    >>> discrete_logs(7).tolist()  # g = 3: 1, 3, 2, 6, 4, 5
    [-1, 0, 2, 1, 4, 5, 3]
    """
    if not is_prime(p):
        raise InputError(f"p={shown(p)} is not a prime; discrete logarithms need one.")
    for g in range(1, p):
        powers = [1]
        while (following := powers[-1] * g % p) != 1:
            powers.append(following)
        if len(powers) == p - 1:
            logs = torch.full((p,), UNDEFINED)
            logs[torch.tensor(powers)] = torch.arange(p - 1)
            return logs
    raise AssertionError("every prime has a primitive root")


Group = Literal["add", "subtract", "multiply"]
LabelFunction = Callable[..., Tensor]  # (a, b, p) or, seeded, (a, b, p, seed)
CHECKED_P = 1500  # up to it, making a task checks its labels; beyond it, using them does


@dataclass(frozen=True, eq=False)
class Operation:
    """A named operation, its label function, and the group exponent it is a function of."""

    name: str
    labels: LabelFunction
    group: Group | None
    seeded: bool

    @property
    def built_in(self) -> bool:
        """Whether it is one of this file, which the tests of this package vouch for."""
        return getattr(self.labels, "__module__", None) == __name__

    def table(self, p: int, seed: int) -> Int[Tensor, " n_inputs"]:
        """The label of every pair, row `a*p + b`, refused where they are not what is declared."""
        found = self._called(p, seed)
        if self.built_in:
            return found
        a, b = _operands(p)
        labels = self._checked(found, a, b, p)
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
        if not self.built_in and p <= CHECKED_P:
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
            (labels < 0) | (labels >= p),
            lambda row: f"{gives} label {labels[row]} for ({a[row]}, {b[row]}) at p={p}; {wanted}.",
        )
        return labels


FORMULAS = {"add": "(a + b) % p", "subtract": "(a - b) % p", "multiply": "(a * b) % p"}
ALIASES = {
    "addition": "add", "subtraction": "subtract", "sub": "subtract", "multiplication": "multiply",
    "mul": "multiply", "x^2+xy+y^2": "x2xyy2", "random_labels": "random", "rand": "random",
}  # fmt: skip
OPERATIONS: Registry[Operation] = Registry("operation", aliases=ALIASES)


def operation(
    name: str, *, group: Group | None = None, seeded: bool = False
) -> Callable[[LabelFunction], LabelFunction]:
    """Register a label function `(a, b, p) -> labels` under `name`.

    A `seeded` operation is called with `(a, b, p, seed)`: its labels are fixed by the seed. `group`
    declares that the labels are those of the group (see the module's docstring).

    InputError for a name that is taken (a notebook cell run twice replaces its own), for what is
    no name, no group or no function of these arguments; and when a task is made of it, for labels
    that are not whole numbers from 0 to p-1, one per pair, that contradict the group, or that
    differ from call to call.
    """
    OPERATIONS.named(name)
    if group is not None:
        word("group", group, get_args(Group))
    truth("seeded", seeded)

    def register(function: LabelFunction) -> LabelFunction:
        given = ("a", "b", "p", "seed") if seeded else ("a", "b", "p")
        check_function("operation", name, function, given)
        OPERATIONS.add(name, Operation(name, function, group, seeded), by=function)
        return function

    return register


def get_operation(name: str) -> Operation:
    """The operation of that name, or of that common alias (`"x^2+xy+y^2"`, `"mul"`, ...)."""
    return OPERATIONS.find(name)


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
