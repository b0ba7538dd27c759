"""The operations of modular arithmetic, in a registry.

One more operation is one decorated function: given operand columns and p it returns the label of
every pair. Name the group that carries its answer (`"add"`, `"subtract"`, `"multiply"`) when there
is one, so that the operation has Fourier directions and key frequencies:

    @operation("double_add")
    def _double_add(a, b, p):
        return (2 * a + b) % p
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.errors import InputError, nearest

Group = Literal["add", "subtract", "multiply"]
LabelFunction = Callable[..., Tensor]  # (a, b, p) or, seeded, (a, b, p, seed)


@dataclass(frozen=True)
class Operation:
    """A named operation, its label function, and the group exponent it is a function of."""

    name: str
    labels: LabelFunction
    group: Group | None
    seeded: bool


OPERATIONS: dict[str, Operation] = {}
ALIASES = {
    "addition": "add",
    "subtraction": "subtract",
    "sub": "subtract",
    "multiplication": "multiply",
    "mul": "multiply",
    "x^2+xy+y^2": "x2xyy2",
    "random_labels": "random",
    "rand": "random",
}


def operation(
    name: str, *, group: Group | None = None, seeded: bool = False
) -> Callable[[LabelFunction], LabelFunction]:
    """Register a label function `(a, b, p) -> labels` under `name`.

    A `seeded` operation is called with `(a, b, p, seed)`: its labels are fixed by the seed.
    """

    def register(function: LabelFunction) -> LabelFunction:
        OPERATIONS[name] = Operation(name, function, group, seeded)
        return function

    return register


def get_operation(name: str) -> Operation:
    """The operation of that name, or of that common alias (`"x^2+xy+y^2"`, `"mul"`, ...)."""
    try:
        return OPERATIONS[ALIASES.get(name, name)]
    except KeyError:
        raise InputError(
            f"operation={name!r} is not known; {nearest(name, OPERATIONS, ALIASES)}"
        ) from None


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
