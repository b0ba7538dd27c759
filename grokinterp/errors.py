"""The exceptions that this package raises on purpose, and help with misspelt names.

InputError (a ValueError)          something that was given cannot be used: one line that says
what was given, what was expected and what to do
Interrupted (a KeyboardInterrupt)  a training was stopped from outside; its state is saved
"""

import difflib
import operator
from collections.abc import Iterable, Mapping


class InputError(ValueError):
    """What was given cannot be used; the message is one line that says what to do about it."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; everything up to this step is on disk and can be resumed."""


def nearest(given: str, valid: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
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
    if close := difflib.get_close_matches(given.lower(), [*names, *words], n=1, cutoff=0.5):
        return f"did you mean {words.get(close[0], close[0])!r}?"
    return f"valid are: {', '.join(names)}."


def whole_number(x: object) -> int | None:
    """The int that `x` is, numpy's and torch's own included; None for all else, truth values too.

    >>> whole_number(3), whole_number(3.0), whole_number(True), whole_number("3")
    (3, None, None, None)
    """
    try:
        return None if isinstance(x, bool) else operator.index(x)  # type: ignore[arg-type]
    except TypeError:
        return None
