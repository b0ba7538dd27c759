"""Which operation does a configuration name, and which words of it are understood by nobody here?

Formulas (`x-y`, `(a + b) % p`), signs and words (`minus`, `modular_subtraction`) stand for the
operations that this package or a plug-in has. Of a word that is none of these nothing is guessed.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from grokinterp.base.errors import InputError, shown
from grokinterp.tasks.operations import OPERATIONS, get_operation

NAMES = (  # of keys that are of the operation and nothing else
    "operation", "operation_name", "operator", "math_operator", "math_operation", "binary_op",
    "binary_operation", "fn_name",
)  # fmt: skip
ALSO = ("fn", "op", "op_name", "func_name")  # that may be of something else
TITLES = ("task", "task_name", "task_type")  # any text; asked only where no other key is there
LONGEST_WORD = 100  # characters
_WORDS = {
    **dict.fromkeys(("x+y", "+", "plus", "addition", "add", "adding", "sum"), "add"),
    **dict.fromkeys(
        ("x-y", "-", "minus", "subtraction", "sub", "subtract", "difference"), "subtract"
    ),
    **dict.fromkeys(
        ("x*y", "xy", "*", "times", "multiplication", "mul", "mult", "multiply", "product", "prod"),
        "multiply",
    ),
    **dict.fromkeys(("division", "div", "divide", "divided", "quotient"), "divide"),
    **dict.fromkeys(("x^2+xy+y^2", "x2xyy2"), "x2xyy2"),
}  # fmt: skip
_MODULUS = re.compile(  # the part of a name that says that it is modulo a number
    r"(?<![a-z])mod(ulo|ular)?(?![a-z])[\s_.-]*(arithmetic[\s_-]*)?(p(?![a-z])|\d+)?|%\s*(p|\d+)?"
)


@dataclass(frozen=True)
class OperationSaid:
    """The operation that a configuration names (None: none that is known), and its other words."""

    name: str | None = None
    others: tuple[tuple[str, str], ...] = ()  # key and word, not known or of another operation

    @property
    def unknown(self) -> str | None:
        """A word that stands where an operation does and nothing else, and is not known here."""
        return next(
            (word for key, word in self.others if key in NAMES and operation_in(word) is None), None
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of the words that did not count."""
        return tuple(
            f"its configuration says {key}={shown(word)}, "
            + ("which is not known here" if operation_in(word) is None else f"not {self.name}")
            for key, word in self.others
        )


def operation_in(word: str) -> str | None:
    """The operation that a word or a formula stands for; None where nobody here knows it.

    >>> [operation_in(x) for x in ("x-y", "(a + b) % 97", "modular_subtraction", "times", "x/y")]
    ['subtract', 'add', 'subtract', 'multiply', 'divide']
    >>> [operation_in(x) for x in ("x**2 + y (mod 97)", "gcd(x, y)")]
    ['a**2 + b', None]
    """
    with contextlib.suppress(InputError):  # those of plug-ins are known too
        return OPERATIONS.canonical(word)
    if len(word) > LONGEST_WORD:
        return None
    plain = re.sub(r"\(\s*\)$", "", _MODULUS.sub("", word.strip().lower()).strip()).strip()
    powers = plain.replace("**", "^")
    if said := _WORDS.get(_formula(powers)) or _WORDS.get(_one_word(powers)):
        return said
    with contextlib.suppress(InputError):
        return get_operation(plain).name
    return None


def _formula(text: str) -> str:
    """A formula of x and y without spaces, or in brackets as a whole; "" where it is none."""
    formula = re.sub(r"\s", "", text)
    if re.fullmatch(r"\([^()]*\)", formula):
        formula = formula[1:-1]
    if not re.fullmatch(r"[abxy\d+*^-]+", formula):
        return ""
    return formula.translate(str.maketrans("ab", "xy")).replace("+x*y+", "+xy+")


def _one_word(text: str) -> str:
    """The only word of a name besides its operands, as of `x_plus_y`; "" where there are more."""
    words = [x for x in re.split(r"[\s_.-]+", text) if x not in ("", "a", "b", "x", "y")]
    return words[0] if len(words) == 1 and words[0].isalpha() else ""


def operation_said(pairs: Iterable[tuple[str, Any]]) -> OperationSaid:
    """The operation that the keys of a configuration name, the outermost first."""
    words = [(key, x) for key, x in pairs if isinstance(x, str) and x.strip()]
    own = [pair for pair in words if pair[0] in (*NAMES, *ALSO)]
    found: Mapping[tuple[str, str], str | None] = {
        pair: operation_in(pair[1]) for pair in (*own, *(x for x in words if x[0] in TITLES))
    }
    asked = own or list(found)
    name = next((found[pair] for pair in asked if found[pair] is not None), None)
    others = tuple(
        (key, word) for (key, word), x in found.items()
        if (x != name if x else name is None or key in NAMES)
    )  # fmt: skip
    return OperationSaid(name, others)
