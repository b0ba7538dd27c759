"""What a figure is asked to draw, checked first: one line instead of an AttributeError."""

from grokinterp.errors import InputError, named


def checked(found: object, kind: type, example: str) -> None:
    """InputError unless `found` is of a kind; `example` is what gives such a thing.

    >>> checked("a", dict, "gi.ablate(run)")
    Traceback (most recent call last):
    grokinterp.errors.InputError: str cannot be drawn here; give what gi.ablate(run) returns.
    """
    if not isinstance(found, kind):
        raise InputError(f"{named(found)} cannot be drawn here; give what {example} returns.")
