"""What a function is given, checked: the value in its own type, or an InputError of one line.

Every check takes the name of the argument, for the message, and what was given. A truth value is no
number, a text is no list, and numpy's and torch's scalars are what they hold.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.errors import InputError, nearest, shown, whole_number

LARGEST_SEED = 2**63 - 1


def refused(name: str, given: object, wanted: str, give: str) -> InputError:
    """The line about an argument that is not what it should be: what is given, wanted, to do.

    >>> raise refused("bits", 1, "a whole number from 2 to 16", "such as 8")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: bits=1 is not a whole number from 2 to 16; give such as 8.
    """
    return InputError(f"{name}={shown(given)} is not {wanted}; give {give}.")


def number(
    name: str,
    given: object,
    *,
    above: float = 0,
    least: float | None = None,
    most: float | None = None,
    such_as: str,
) -> float:
    """A finite number in its limits: `above` one, unless it is the `least`; `such_as` would do.

    >>> number("threshold", 1, least=0, most=1, such_as="0.95")
    1.0
    >>> number("ceiling", "x", most=1, such_as="0.95")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: ceiling='x' is not a number above 0, at most 1; give such as 0.95.
    """
    found = real(given)
    if (
        found is None
        or (found <= above if least is None else found < least)
        or (most is not None and found > most)
    ):
        low = f"above {above:g}" if least is None else f"from {least:g}"
        high = f"{' to' if least is not None else ', at most'} {most:g}" if most is not None else ""
        limits = f"{low}{high or ' on' * (least is not None)}"
        raise InputError(f"{name}={shown(given)} is not a number {limits}; give such as {such_as}.")
    return found


def real(given: object) -> float | None:
    """The finite float that a number is; None for all else, truth values and text too.

    >>> real(3), real(torch.tensor(0.5)), real("3"), real(True), real(math.inf), real(10**400)
    (3.0, 0.5, None, None, None, None)
    """
    if isinstance(given, bool | str | bytes | bytearray) or given is None:
        return None
    if getattr(given, "shape", ()) != () or getattr(given, "dtype", None) in (torch.bool, "bool"):
        return None
    try:
        found = float(given)  # type: ignore[arg-type]
    except Exception:  # whatever its class makes of it, it is no number
        return None
    return found if math.isfinite(found) else None


def whole(name: str, given: object, *, least: int, most: int | None = None, such_as: str) -> int:
    """A whole number in its limits.

    >>> whole("top", 3, least=1, such_as="5")
    3
    """
    found = whole_number(given)
    if found is None or found < least or (most is not None and found > most):
        wanted = f"from {least} on" if most is None else f"from {least} to {most}"
        raise InputError(
            f"{name}={shown(given)} is not a whole number {wanted}; give such as {such_as}."
        )
    return found


def word(name: str, given: object, valid: Iterable[str]) -> str:
    """One of some words; another is refused with the nearest of them.

    >>> word("mode", "maen", ["zero", "mean"])
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: mode='maen' is not known; did you mean 'mean'?
    """
    words = list(valid)
    if not isinstance(given, str) or given not in words:
        raise InputError(f"{name}={shown(given)} is not known; {nearest(str(given), words)}")
    return given


def truth(name: str, given: object) -> bool:
    """A truth value, numpy's too.

    >>> truth("biases", True)
    True
    """
    if isinstance(given, bool):
        return given
    if isinstance(given, np.bool_):
        return bool(given)
    raise InputError(f"{name}={shown(given)} is neither True nor False; give one of them.")


def listed(name: str, given: object, *, such_as: str) -> list[Any]:
    """The entries of a list, a tuple or anything else that has some; a text is not one.

    >>> listed("keep", (0.9, 0.5), such_as="[0.95]")
    [0.9, 0.5]
    """
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Iterable):
        raise InputError(f"{name}={shown(given)} is not a list; give such as {such_as}.")
    try:
        return list(given)
    except TypeError:  # a tensor without dimensions
        raise InputError(f"{name}={shown(given)} is not a list; give such as {such_as}.") from None


def tensor(name: str, given: object, *, ndim: int | None = None) -> Tensor:
    """A tensor, of so many axes; arrays and lists are not taken for one.

    >>> tensor("matrix", [1, 2])
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: matrix is of type list; give a tensor.
    """
    axes = "" if ndim is None else f" of {ndim} axes" if ndim != 1 else " of one axis"
    if not isinstance(given, Tensor):
        raise InputError(f"{name} is of type {type(given).__name__}; give a tensor{axes}.")
    if ndim is not None and given.ndim != ndim:
        raise InputError(f"{name} has shape {tuple(given.shape)}; give a tensor{axes}.")
    return given


def tensors(name: str, given: object) -> Mapping[str, Tensor]:
    """A dict of named tensors, such as the weights of a model.

    >>> tensors("weights", {"W_E": [1.0]})
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: weights['W_E'] is of type list; give a tensor.
    """
    if not isinstance(given, Mapping):
        raise InputError(
            f"{name}={shown(given)} is no dict of tensors; give such as run.weights()."
        )
    for key, value in given.items():
        if not isinstance(key, str):
            raise InputError(f"{name} has the key {shown(key)}; give the names of tensors.")
        if not isinstance(value, Tensor):
            raise InputError(
                f"{name}[{shown(key)}] is of type {type(value).__name__}; give a tensor."
            )
    return given


def mask(name: str, given: object, n: int, *, of: str = "row trained on") -> Bool[Tensor, " n"]:
    """A mask that says true or false of each of n rows, a copy on the device of the given one.

    Refused: sets, text, numbers of rows, and what has another length.
    """
    found = None
    if not isinstance(given, str | bytes | bytearray | dict | set | frozenset):
        try:
            found = torch.as_tensor(given).detach().clone()
        except Exception:  # torch knows many ways to say that it is no tensor
            found = None
    if found is None:
        raise InputError(
            f"{name}={shown(given)} is no mask; give a torch.bool tensor of shape ({n},): true for "
            f"every {of}."
        )
    if found.dtype != torch.bool or tuple(found.shape) != (n,):
        raise InputError(
            f"{name} is {found.dtype} of shape {tuple(found.shape)}, expected torch.bool of shape "
            f"({n},): true for every {of}."
        )
    return found
