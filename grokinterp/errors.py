"""The exceptions that this package raises on purpose, and help with misspelt names.

InputError (a ValueError)          something that was given cannot be used: one line that says
what was given, what was expected and what to do
Interrupted (a KeyboardInterrupt)  a training was stopped from outside; its state is saved
"""

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """What was given cannot be used; the message is one line that says what to do about it."""


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; everything up to this step is on disk and can be resumed."""


def nearest(given: str, candidates: Iterable[str], listed: Sequence[str] | None = None) -> str:
    """Advice for an unknown name: the nearest valid one if there is one, else all of them.

    >>> nearest("lerning_rate", ["learning_rate", "steps"])
    "did you mean 'learning_rate'?"
    >>> nearest("xyz", ["learning_rate", "steps"])
    'valid are: learning_rate, steps.'
    """
    names = list(candidates)
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid are: {', '.join(names if listed is None else listed)}."
