"""The two exceptions that this package raises on purpose, and what their messages are made of."""

import difflib
import operator
import re
from collections.abc import Callable, Iterable, Mapping

LONGEST_LINE = 400  # of a message
LONGEST_VALUE = 80  # of a value that a message repeats
LONGEST_LIST = 240  # of the names that one may choose from
_NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class InputError(ValueError):
    r"""What was given cannot be used; the message is one line that says what to do about it.

    Whatever a message repeats (the text of a tensor, an error of another package), it stays one
    line of at most 400 characters. Its middle is left out beyond them: the end says what to do.

    >>> str(InputError("p=[1,\n   2] is no number."))
    'p=[1, 2] is no number.'
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(one_line(x) if isinstance(x, str) else x for x in args))


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop; everything up to this step is on disk and can be resumed.

    >>> import grokinterp as gi
    >>> try:
    ...     raise gi.Interrupted("stopped at step 50 of 100; nothing is lost.")
    ... except KeyboardInterrupt as stopped:  # what `except Exception` lets through
    ...     print(stopped)
    stopped at step 50 of 100; nothing is lost.
    >>> issubclass(gi.Interrupted, Exception)
    False
    """


def one_line(text: str, *, most: int = LONGEST_LINE) -> str:
    r"""Text without line breaks and control characters; the middle of a long one is left out.

    >>> one_line("a\n  b"), one_line("0123456789" * 9, most=13)
    ('a b', '01234 ... 789')
    """
    text = re.sub(r"\s*[\r\n]\s*", " ", text.strip())
    text = _NOT_PRINTED.sub(" ", text)
    if len(text) <= most:
        return text
    end = (most - 5) * 3 // 8
    return f"{text[: most - 5 - end].rstrip()} ... {text[-end:].lstrip()}"


def shown(value: object) -> str:
    """A value as a message repeats it: at most 80 characters, whatever it is.

    >>> shown("a"), shown(10**5000), len(shown("a" * 1000))
    ("'a'", 'an int of 16610 bits', 80)
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return one_line(f"a {type(value).__name__} of shape {tuple(shape)}", most=LONGEST_VALUE)
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"an int of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # of somebody else's class, which then has no text
        text = f"a {type(value).__name__}"
    return one_line(text, most=LONGEST_VALUE)


def named(value: object) -> str:
    """What was given instead of what was expected: numbers and texts as they are, others by type.

    >>> named(5), named("runs/mine"), named(None), named([1, 2])
    ('5', "'runs/mine'", 'None', 'list')
    """
    plain = value is None or isinstance(value, (int, float, complex, str, bytes))
    return shown(value) if plain else type(value).__name__


def names(given: Iterable[object], *, spelled: Callable[[object], str] = repr) -> str:
    """Names as a message lists them: as many as 80 characters hold, and how many more.

    >>> names(["a", "b"]), names(f"blocks.0.weight_{i}" for i in range(99))[-12:]
    ("'a', 'b'", ' and 96 more')
    """
    every = list(given)
    each = [one_line(spelled(name), most=LONGEST_VALUE // 2) for name in every[:LONGEST_VALUE]]
    more = ""
    while len(each) > 1 and len(", ".join(each) + more) > LONGEST_VALUE:
        each.pop()
        more = f" and {len(every) - len(each)} more"
    return ", ".join(each) + more


def nearest(given: object, valid: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
    """Advice about an unknown name: the nearest valid one, or all of them where none is near.

    `aliases` are other words for valid names, to recognise what is meant.

    >>> nearest("weigth_decay", ["weight_decay", "lr"])
    "did you mean 'weight_decay'?"
    >>> nearest("lerning_rate", ["weight_decay", "lr"], {"learning_rate": "lr"})
    "did you mean 'lr'?"
    >>> nearest("a1", ["E1", "A1"])
    "did you mean 'A1'?"
    >>> nearest("xyz", ["weight_decay", "lr"])
    'valid are: weight_decay, lr.'
    """
    names = list(valid)
    words = {**{name.lower(): name for name in names}, **(aliases or {})}
    word = str(given).lower()[:LONGEST_VALUE]
    if close := difflib.get_close_matches(word, words, n=1, cutoff=0.5):
        return f"did you mean {words[close[0]]!r}?"
    listed = ", ".join(names)
    if len(listed) > LONGEST_LIST:
        listed = listed[:LONGEST_LIST].rpartition(", ")[0] + ", ..."
    return f"valid are: {listed}."


def whole_number(x: object) -> int | None:
    """A whole number, also numpy's and torch's, as an int; None for all else, truth values too.

    >>> whole_number(3), whole_number(3.0), whole_number(True), whole_number("3")
    (3, None, None, None)
    """
    try:
        truth = isinstance(x, bool) or str(getattr(x, "dtype", "")) == "torch.bool"
        return None if truth else operator.index(x)  # type: ignore[arg-type]
    except TypeError:
        return None
