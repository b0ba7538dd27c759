"""On which group do the answers of a table of pairs live, and which exponent has each pair?

An answer has Fourier directions where it is a sum in a cyclic group: there are maps u of the first
operand and v of the second one, and an exponent e of every answer, so that

    e(answer of (a, b)) = u(a) + v(b)    (mod the order of the group)

Two kinds of e are looked for, on the whole table of answers: the answer itself (mod p), as of
a + b and a**2 + b, and its discrete logarithm (mod p - 1, p a prime), as of a b, a / b and a b + a.
Both are found by what every such table has: a row is another one and a constant. So nobody has to
declare a group, and none is found where a single pair contradicts it.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError, shown

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


@dataclass(frozen=True)
class AnswerGroup:
    """The cyclic group Z_order on which the answers of a task live.

    `of_token[c]` is the exponent e(c) of an answer class, `of_input` the exponent f = u(a) + v(b)
    of every row of the table; -1 where there is none (0 has no discrete logarithm). A network that
    solves the task through this group writes its logits with the directions cos/sin(w_k f), and
    answer c is right where f = e(c). `of_a` and `of_b` are u and v by operand token.

    >>> import grokinterp as gi
    >>> group = gi.ModularTask("multiply", p=5).answer_group
    >>> group.order, group.of_token.tolist()  # 1, 2, 4, 3 are 2^0, 2^1, 2^2, 2^3; 0 is no power
    (4, [-1, 0, 1, 3, 2])
    >>> int(group.of_a[2] + group.of_b[4]) % 4 == int(group.of_token[2 * 4 % 5])
    True
    >>> gi.ModularTask("a**2 + a*b + b**2", p=5).answer_group is None
    True
    """

    order: int
    of_token: Int[Tensor, " p"]
    of_input: Int[Tensor, " n_inputs"]
    of_a: Int[Tensor, " p"]
    of_b: Int[Tensor, " p"]

    @property
    def of_operands(self) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
        """U and v."""
        return self.of_a, self.of_b

    @cached_property
    def counts(self) -> Int[Tensor, " order"]:
        """How many inputs each exponent has: equally many, but for maps that are no bijections."""
        return torch.bincount(self.of_input[self.of_input != UNDEFINED], minlength=self.order)

    @cached_property
    def n_inputs(self) -> int:
        """How many inputs have an exponent."""
        return int(self.counts.sum())

    @cached_property
    def weights(self) -> Float[Tensor, " order_and_none"]:
        """What each input counts by its exponent, so that all exponents count alike; mean 1.

        The last entry, which -1 finds, is 0. All others are 1 where the counts are equal.
        """
        each = self.n_inputs / (self.order * self.counts.double())
        return torch.cat([each, each.new_zeros(1)])

    @cached_property
    def rows(self) -> Int[Tensor, "order count"] | None:
        """The inputs of each exponent, where these are equally many; else None."""
        if bool((self.counts != self.counts[0]).any()):
            return None
        defined = (self.of_input != UNDEFINED).nonzero().flatten()
        return defined[self.of_input[defined].argsort(stable=True)].view(self.order, -1)

    @cached_property
    def tokens(self) -> Int[Tensor, " order"]:
        """The answer class of each exponent: classes in the order in which the group counts."""
        return _in_order(self.of_token)

    @cached_property
    def operand_orders(self) -> tuple[Tensor | None, Tensor | None]:
        """Tokens of a and of b in the order of u and of v; None where that is no bijection.

        A map that counts the other way round, such as v(b) = -b of subtraction, or from another
        start, is in the order of the answers too: it has the same frequencies.
        """
        a, b = (_operand_order(self, of_operand) for of_operand in self.of_operands)
        return a, b


def find_group(
    answers: Int[Tensor, "p p"], *, order: str | None = None
) -> tuple[Tensor, Tensor, Tensor, int] | None:
    """e, u, v and the order of the group of a table of answers; -1 marks pairs that are left out.

    `order` "add" or "multiply" asks for one kind alone. None where there is none, where the answer
    takes not all values of the group, or where pairs are left out so that operands fall apart into
    parts without a common start.

    >>> table = (torch.arange(5)[:, None] ** 2 + torch.arange(5)) % 5
    >>> e, u, v, n = find_group(table)
    >>> u.tolist(), v.tolist(), n
    ([0, 1, 4, 4, 1], [0, 1, 2, 3, 4], 5)
    """
    p = len(answers)
    if order in (None, "add"):
        of_answer = torch.arange(p)
        found = _sum_of_maps(answers, of_answer, p)
        if found is not None:
            return of_answer, *found, p
    if order in (None, "multiply") and is_prime(p):
        of_answer = discrete_logs(p)
        found = _sum_of_maps(answers, of_answer, p - 1)
        if found is not None:
            return of_answer, *found, p - 1
    return None


def _sum_of_maps(
    answers: Int[Tensor, "p p"], of_answer: Int[Tensor, " p"], order: int
) -> tuple[Tensor, Tensor] | None:
    """U and v with e(answer) = u(a) + v(b) wherever there is an answer with an exponent, or None.

    An answer without an exponent has to be that of an operand without one.
    """
    there = answers != UNDEFINED
    exponents = of_answer[answers].where(there, UNDEFINED)
    known = exponents != UNDEFINED
    if not known.any():
        return None
    u = torch.full((len(answers),), UNDEFINED)
    v = u.clone()
    v[known.sum(0).argmax()] = 0  # what u has more, v has less
    n_told = 0
    while (now := int((v != UNDEFINED).sum())) > n_told:  # twice where no pair is left out
        n_told = now
        u = _told_by(exponents, v, order)
        v = _told_by(exponents.T, u, order)
    has = (u != UNDEFINED)[:, None] & (v != UNDEFINED)
    expected = ((u[:, None] + v) % order).where(has, UNDEFINED)
    everywhere = bool((expected == exponents)[there].all())
    spread = torch.bincount(exponents[known], minlength=order)
    return (u, v) if everywhere and bool((spread > 0).all()) else None


def _told_by(
    exponents: Int[Tensor, "n m"], of_column: Int[Tensor, " m"], order: int
) -> Int[Tensor, " n"]:
    """What every row adds to the first column with a number that it has an exponent with."""
    usable = (exponents != UNDEFINED) & (of_column != UNDEFINED)
    column = usable.byte().argmax(dim=1)
    told = (exponents.gather(1, column[:, None])[:, 0] - of_column[column]) % order
    return told.where(usable.any(dim=1), UNDEFINED)


def _in_order(exponents: Int[Tensor, " p"]) -> Int[Tensor, " n"]:
    defined = (exponents != UNDEFINED).nonzero().flatten()
    return defined[exponents[defined].argsort()]


def _operand_order(group: AnswerGroup, of_operand: Int[Tensor, " p"]) -> Tensor | None:
    tokens = _in_order(of_operand)
    n = group.order
    if not torch.equal(of_operand[tokens], torch.arange(n)):
        return None
    there = of_operand[group.tokens]
    if bool((there != UNDEFINED).all()):
        steps = (there - there.roll(1)) % n
        if bool((steps == steps[0]).all()) and int(steps[0]) in (1 % n, n - 1):
            return group.tokens
    return tokens
