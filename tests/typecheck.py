"""What enforces the shapes of tensors while tests run: beartype, with an int accepted for a float.

Signatures that name no shape are left to the static type checker: enforcing those too takes a
fifth of the suite's time.
"""

from beartype import BeartypeConf, beartype

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


def checker(function):
    """Pictures are left out: what they say to a wrong argument is theirs to say, and is tested."""
    if "_figures" in function.__module__:
        return function
    names_a_shape = "jaxtyping." in str(list(function.__annotations__.values()))
    return _checked(function) if names_a_shape else function
