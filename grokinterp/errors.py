"""The exceptions that this package raises on purpose, and help with misspelt names.

InputError (a ValueError)          something that was given cannot be used: one line that says
what was given, what was expected and what to do
Interrupted (a KeyboardInterrupt)  a training was stopped from outside; its state is saved
"""

import difflib
import math
import numbers
import operator
import reprlib
from collections.abc import Iterable, Mapping

LONGEST_LINE = 400  # characters of a message
LONGEST_VALUE = 80  # of it that a value from a file or a caller may take
LONGEST_LIST = 240  # of it that names to choose from may take


class InputError(ValueError):
    """What was given cannot be used; the message is one line that says what to do about it.

    The line has at most 400 characters. Values are shortened where they are put in (see `shown`);
    what is still longer, for the sake of a deep path, loses its middle.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_cut(" ".join(str(message).split()), LONGEST_LINE))


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; everything up to this step is on disk and can be resumed."""


def nearest(given: object, valid: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """Advice for an unknown name: the nearest valid one, and all of them when none is near.

    `aliases` are other words for valid names, to recognise what is meant.

    >>> nearest("weigth_decay", ["weight_decay", "lr"])
    "did you mean 'weight_decay'?"
    >>> nearest("lerning_rate", ["weight_decay", "lr"], {"learning_rate": "lr"})
    "did you mean 'lr'?"
    >>> nearest("xyz", ["weight_decay", "lr"])
    'valid are: weight_decay, lr.'
    """
    names, words = list(valid), dict(aliases or {})
    word = str(given).lower()[:LONGEST_VALUE]
    if close := difflib.get_close_matches(word, [*names, *words], n=1, cutoff=0.5):
        return f"did you mean {words.get(close[0], close[0])!r}?"
    listed = ", ".join(names)
    if len(listed) > LONGEST_LIST:
        listed = listed[:LONGEST_LIST].rpartition(", ")[0] + ", ..."
    return f"valid are: {listed}."


class _Short(reprlib.Repr):
    """Reprs of anything, of a size that a line has room for."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = LONGEST_VALUE
        self.maxlong = LONGEST_VALUE // 2

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write more than some thousand digits.
        return (
            super().repr_int(x, level) if x.bit_length() < 1000 else "a number of over 300 digits"
        )


_SHORT = _Short()


def shown(value: object) -> str:
    """How a message shows a value that was given: its repr, in one line of at most 80 characters.

    >>> shown("add"), shown([1, 2.5]), shown("x" * 200)[:8], len(shown("x" * 200))
    ("'add'", '[1, 2.5]', "'xxxxxxx", 80)
    """
    return _cut(" ".join(_SHORT.repr(value).split()), LONGEST_VALUE)


def _cut(text: str, longest: int) -> str:
    """The text without its middle where it is longer, and without what no file can hold."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if len(text) <= longest:
        return text
    kept = longest - 3
    return f"{text[: kept * 2 // 3]}...{text[len(text) - (kept - kept * 2 // 3) :]}"


def whole_number(x: object) -> int | None:
    """The int that `x` is, numpy's and torch's own included; None for all else, truth values too.

    >>> whole_number(3), whole_number(3.0), whole_number(True), whole_number("3")
    (3, None, None, None)
    """
    try:
        return None if isinstance(x, bool) else operator.index(x)  # type: ignore[arg-type]
    except TypeError:
        return None


def finite_number(x: object) -> float | None:
    """The float that a number is, where it is finite; None for all else, truth values too.

    >>> finite_number(3), finite_number(float("inf")), finite_number(10**400), finite_number("3")
    (3.0, None, None, None)
    """
    if isinstance(x, bool) or not isinstance(x, numbers.Real):
        return None
    try:
        number = float(x)
    except (OverflowError, ValueError):  # an int of 400 digits
        return None
    return number if math.isfinite(number) else None
