"""What enforces the signatures while tests run: beartype, with an int accepted for a float."""

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checker(function):
    """Pictures are left out: what they say to a wrong argument is theirs to say, and is tested."""
    return function if "_figures" in function.__module__ else _checked(function)
