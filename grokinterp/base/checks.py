"""Arguments of functions, checked: the value in its own type, or an InputError of one line.

Every check takes the name of the argument, for the message, and what was given. A truth value is no
number, a text is no list, and numpy's and torch's scalars are what they hold.
"""

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.errors import InputError, named, nearest, shown, whole_number

LARGEST_SEED = 2**63 - 1


def refused(name: str, given: object, wanted: str, give: str) -> InputError:
    """The error about an argument: what was given, what was expected, and what to do.

    >>> raise refused("bits", 1, "a whole number from 2 to 16", "such as 8")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: bits=1 is not a whole number from 2 to 16; give such as 8.
    """
    return InputError(f"{name}={shown(given)} is not {wanted}; give {give}.")


def is_left_out(given: object) -> bool:
    """Whether nothing is given: None, or what is empty, since TOML has no other word for it.

    >>> is_left_out(None), is_left_out(""), is_left_out({}), is_left_out(0)
    (True, True, True, False)
    """
    return given is None or (isinstance(given, str | Mapping | tuple | list) and not given)


def number(
    name: str,
    given: object,
    *,
    above: float = 0,
    least: float | None = None,
    most: float | None = None,
    such_as: str,
) -> float:
    """A finite number within limits: `above` one, or from `least` on, and at most `most`.

    >>> number("threshold", 1, least=0, most=1, such_as="0.95")
    1.0
    >>> number("ceiling", "x", most=1, such_as="0.95")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: ceiling='x' is not a number above 0, at most 1; ...
    """
    if least is None:
        limits = f"above {above:g}" + ("" if most is None else f", at most {most:g}")
    else:
        limits = f"from {least:g} " + ("on" if most is None else f"to {most:g}")
    found = real(given)
    if (
        found is None
        or (found <= above if least is None else found < least)
        or (most is not None and found > most)
    ):
        raise refused(name, given, f"a number {limits}", f"such as {such_as}")
    return found


def real(given: object) -> float | None:
    """A number as a finite float; None for everything else, truth values and text too.

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
    """A whole number within limits.

    >>> whole("top", 3, least=1, such_as="5")
    3
    """
    found = whole_number(given)
    if found is None or found < least or (most is not None and found > most):
        limits = f"from {least} on" if most is None else f"from {least} to {most}"
        raise refused(name, given, f"a whole number {limits}", f"such as {such_as}")
    return found


def word(name: str, given: object, valid: Iterable[str]) -> str:
    """One of the valid words; the error about any other names the nearest of them.

    >>> word("mode", "maen", ["zero", "mean"])
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: mode='maen' is not known; did you mean 'mean'?
    """
    words = list(valid)
    if not isinstance(given, str) or given not in words:
        raise InputError(f"{name}={shown(given)} is not known; {nearest(str(given), words)}")
    return given


def member(given: object, valid: Iterable[str], what: str) -> str:
    """One of the names that there are, of which no argument is the name.

    >>> member("W_I", ["W_E", "W_U"], "weight")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: 'W_I' is no weight; did you mean 'W_E'?
    """
    names = list(valid)
    if not isinstance(given, str) or given not in names:
        raise InputError(f"{shown(given)} is no {what}; {nearest(given, names)}")
    return given


def text(name: str, given: object, *, such_as: str, empty: bool = True) -> str:
    """A text, without a letter only where `empty` is true.

    >>> text("title", 3, such_as="'Sweep'")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: title=3 is no text; give such as 'Sweep'.
    """
    if not isinstance(given, str) or not (given or empty):
        raise InputError(f"{name}={shown(given)} is no text; give such as {such_as}.")
    return given


def instance(given: Any, kind: type | tuple[type, ...], what: str, *, give: str) -> Any:
    """An object of a class, which the message calls by its everyday name.

    >>> instance("log.csv", dict, "recipe", give="gi.Recipe(...)")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: 'log.csv' is no recipe; give gi.Recipe(...).
    """
    if not isinstance(given, kind):
        raise InputError(f"{named(given)} is no {what}; give {give}.")
    return given


def truth(name: str, given: object) -> bool:
    """True or False, numpy's too.

    >>> truth("biases", True)
    True
    """
    if isinstance(given, bool | np.bool_):
        return bool(given)
    raise InputError(f"{name}={shown(given)} is neither True nor False; give one of them.")


def listed(name: str, given: object, *, such_as: str) -> list[Any]:
    """The entries of a list, a tuple or another iterable; a text is none.

    >>> listed("keep", (0.9, 0.5), such_as="[0.95]")
    [0.9, 0.5]
    """
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | bytearray):
        with contextlib.suppress(TypeError):  # a tensor without dimensions
            return list(given)
    raise refused(name, given, "a list", f"such as {such_as}")


def tensor(name: str, given: object, *, ndim: int | None = None) -> Tensor:
    """A tensor, of `ndim` axes where that is said; arrays and lists are refused.

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


def finite(what: str, values: Tensor, *, give: str = "look at an earlier step") -> Tensor:
    """A tensor without NaN and without infinities.

    >>> finite("the logits", torch.tensor([1.0, math.nan]))
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: the logits are not finite; look at an earlier step.
    """
    if not bool(values.isfinite().all()):
        raise InputError(f"{what} are not finite; {give}.")
    return values


def cloud(name: str, given: object) -> Float[Tensor, "n d"]:
    """Points [n, d] of finite real numbers, in float64 and apart from any graph.

    >>> cloud("points", torch.zeros(0, 3))
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: points has shape (0, 3): there is no point; give some.
    """
    found = tensor(name, given, ndim=2).detach()
    if not found.numel():
        raise InputError(f"{name} has shape {tuple(found.shape)}: there is no point; give some.")
    if found.is_complex():
        raise InputError(
            f"{name} is {found.dtype}; give real numbers, such as .real and .imag side by side."
        )
    return finite(f"the {name}", found, give="give finite ones").double()


def tensors(name: str, given: object) -> Mapping[str, Tensor]:
    """A dict of named tensors, such as the weights of a model.

    >>> tensors("weights", {"W_E": [1.0]})
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: weights['W_E'] is of type list; give a tensor.
    """
    if not isinstance(given, Mapping):
        raise refused(name, given, "a dict of tensors", "such as run.weights()")
    for key, value in given.items():
        if not isinstance(key, str):
            raise InputError(f"{name} has the key {shown(key)}; give the names of tensors.")
        tensor(f"{name}[{shown(key)}]", value)
    return given


def mask(name: str, given: object, n: int, *, of: str = "row trained on") -> Bool[Tensor, " n"]:
    """A mask with true or false for each of n rows, copied; it stays on its device.

    Row numbers, sets, text and masks of another length are refused.
    """
    found = None
    if not isinstance(given, str | bytes | bytearray | dict | set | frozenset):
        with contextlib.suppress(Exception):  # torch knows many ways to say that it is no tensor
            found = torch.as_tensor(given).detach().clone()
    wanted = f"torch.bool of shape ({n},): true for every {of}"
    if found is None:
        raise InputError(f"{name}={shown(given)} is no mask; give a tensor, {wanted}.")
    if found.dtype != torch.bool or tuple(found.shape) != (n,):
        there = f"{found.dtype} of shape {tuple(found.shape)}"
        raise InputError(f"{name} is {there}, expected {wanted}.")
    return found
