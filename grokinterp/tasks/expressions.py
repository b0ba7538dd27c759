"""What is the answer of a formula such as `a*b + a`, mod p, for every pair of operands?

A formula has the operands a and b (or x and y), p, whole numbers, + - * / ** and brackets, and for
answers by cases `u if condition else v`, % and comparisons: `a/b if b % 2 else a - b`. It is read
by Python's parser into a tree of these parts, each of which is computed here. Nothing is executed,
and anything else in it is refused.

All arithmetic is mod p. a / b is a times the inverse of b, and a pair whose b has none is left out
of the table. In conditions numbers are those from 0 to p - 1 (a % 2 is the parity of a), and a
condition without a comparison holds where it is not 0.
"""

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import NoReturn

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.errors import InputError, shown
from grokinterp.tasks.answer_group import UNDEFINED

LONGEST = 200  # characters
LARGEST_POWER = 1000
LARGEST_NUMBER = 2**31
OPERANDS = {"a": "a", "b": "b", "x": "a", "y": "b"}
PARTS = "a, b, p, whole numbers, + - * / ** %, brackets, and u if condition else v"
COMPARED: dict[type, Callable[[Tensor, Tensor], Tensor]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class _Value:
    """A number for every pair (mod p but for constants), and where there is one."""

    numbers: Int[Tensor, "..."]
    there: Bool[Tensor, "..."]


@dataclass(frozen=True)
class Expression:
    """A formula of two operands, under the name that all ways to write it have in common."""

    name: str
    tree: ast.expr

    def __call__(self, a: Int[Tensor, " n"], b: Int[Tensor, " n"], p: int) -> Int[Tensor, " n"]:
        """The answer of every pair, -1 where it has none."""
        found = _Computed(a, b, p).value(self.tree)
        return (found.numbers % p).where(found.there, UNDEFINED).expand(len(a)).clone()


def parse_expression(text: str) -> Expression | None:
    """The formula that a text is, None of a text that is none; InputError for one of other parts.

    >>> parse_expression("(x * y + x) % p").name
    'a*b + a'
    >>> a, b = torch.tensor([3, 2]), torch.tensor([2, 0])
    >>> parse_expression("a/b")(a, b, 5).tolist()  # 3 * 3 = 9 = 4, and 0 has no inverse
    [4, -1]
    >>> parse_expression("subtract") is None
    True
    >>> parse_expression("a + open(b)")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: operation 'a + open(b)': open(b) is no part of a formula;
    formulas have a, b, p, whole numbers, + - * / ** %, brackets, and u if condition else v.
    """
    if not isinstance(text, str) or not (words := re.findall(r"[^\W\d]\w*", text)):
        return None
    if not {*words} & OPERANDS.keys() or text.strip().isidentifier():
        return None
    if len(text) > LONGEST:
        raise InputError(
            f"operation {shown(text)} has {len(text)} characters; a formula has at most {LONGEST}."
        )
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        if {*words} <= {*OPERANDS, "p", "if", "else"}:
            _refuse(text, "cannot be read")
        return None
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Mod) and _is_p(tree.right):
        tree = tree.left
    tree = _checked(tree, text)
    missing = {"a", "b"} - {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if missing:
        _refuse(text, f"has no {' and no '.join(sorted(missing))}: it is no function of both")
    return Expression(_name_of(tree), tree)


def _refuse(text: str, why: str) -> NoReturn:
    raise InputError(f"operation {shown(text)}: {why}; formulas have {PARTS}.")


def _is_p(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "p"


def _checked(tree: ast.expr, text: str) -> ast.expr:
    """The tree with a and b for x and y; InputError where it has other parts than a formula."""
    for node in ast.walk(tree):
        why = "is no part of a formula"
        match node:
            case ast.Name(id=name) if name in OPERANDS:
                node.id = OPERANDS[name]
                continue
            case ast.Name(id="p") | ast.Load() | ast.operator() | ast.unaryop() | ast.cmpop():
                continue
            case ast.Constant(value=int(number)) if type(number) is int:
                if number < LARGEST_NUMBER:
                    continue
                why = "is too large"
            case ast.BinOp(op=ast.Pow(), right=power):
                if isinstance(power, ast.Constant) and type(power.value) is int:
                    if power.value <= LARGEST_POWER:
                        continue
                    why = f"has a power above {LARGEST_POWER}"
                else:
                    why = "has a power that is no whole number"
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.Mod()):
                continue
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()) | ast.IfExp():
                continue
            case ast.Compare(ops=[op]) if type(op) in COMPARED:
                continue
        _refuse(text, f"{ast.unparse(node)} {why}")
    return tree


def _name_of(tree: ast.expr) -> str:
    """As people write it: powers and products without spaces."""
    return re.sub(r" (\*\*|\*|/) ", r"\1", ast.unparse(tree))


@dataclass(frozen=True)
class _Computed:
    a: Int[Tensor, " n"]
    b: Int[Tensor, " n"]
    p: int

    def value(self, node: ast.expr) -> _Value:
        """The value of a part of the tree."""
        match node:
            case ast.Name(id=name):
                numbers = {"a": self.a, "b": self.b, "p": torch.tensor(self.p)}[name]
                return _Value(numbers, torch.tensor(True))
            case ast.Constant(value=number):
                return _Value(torch.tensor(number), torch.tensor(True))
            case ast.UnaryOp(op=op, operand=inner):
                of = self.value(inner)
                return of if isinstance(op, ast.UAdd) else _Value(-of.numbers % self.p, of.there)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                one, other = self.value(left), self.value(right)
                holds = COMPARED[type(op)](one.numbers, other.numbers)
                return _Value(holds.long(), one.there & other.there)
            case ast.IfExp(test=test, body=body, orelse=otherwise):
                condition, yes, no = (self.value(x) for x in (test, body, otherwise))
                holds = condition.numbers != 0
                there = condition.there & torch.where(holds, yes.there, no.there)
                return _Value(torch.where(holds, yes.numbers, no.numbers), there)
            case ast.BinOp(left=left, op=op, right=right):
                return self._of_two(self.value(left), op, self.value(right))
        raise AssertionError(f"{node} was not refused")

    def _of_two(self, one: _Value, op: ast.operator, other: _Value) -> _Value:
        p, there = self.p, one.there & other.there
        if isinstance(op, ast.Mod):
            divides = other.numbers != 0
            numbers = one.numbers % other.numbers.where(divides, 1)
            return _Value(numbers, there & divides)
        x, y = one.numbers % p, other.numbers % p
        match op:
            case ast.Add():
                return _Value((x + y) % p, there)
            case ast.Sub():
                return _Value((x - y) % p, there)
            case ast.Mult():
                return _Value(x * y % p, there)
            case ast.Div():
                inverse = inverses(p)[y]
                return _Value(x * inverse % p, there & (inverse != UNDEFINED))
        power = torch.ones_like(x) % p
        for bit in bin(int(other.numbers))[2:]:  # square and multiply
            power = power * power % p
            power = power * x % p if bit == "1" else power
        return _Value(power, there)


def inverses(p: int) -> Int[Tensor, " p"]:
    """X with x y = 1 mod p for every y, -1 where there is none.

    >>> inverses(6).tolist()
    [-1, 1, -1, -1, -1, 5]
    """
    return torch.tensor([pow(y, -1, p) if gcd(y, p) == 1 else UNDEFINED for y in range(p)])
