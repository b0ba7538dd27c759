"""The open kinds of an update: what is minimised, how, and what is done to gradients and weights.

Each is a frozen dataclass whose fields are keys of recipes. One of them is chosen by its name,
`optimizer="adamw"`; "none" is the filter and the constraint that do nothing.
"""

from collections.abc import Callable
from typing import ClassVar, TypeVar

from grokinterp.base.keys import keys_of
from grokinterp.base.registry import Registry, check_class, checked_name

AnyPart = TypeVar("AnyPart", bound="type[UpdatePart]")


class UpdatePart:
    """What all kinds of parts of an update have in common.

    `elementwise` says that what becomes of a number depends on that number's own gradients and
    weights alone: then an ensemble may hold all its members in one tensor.
    """

    registered_as: ClassVar[str] = ""
    elementwise: ClassVar[bool] = False


def registering(registry: Registry, base: type) -> Callable[[str], Callable[[AnyPart], AnyPart]]:
    """The decorator that registers frozen dataclasses of a base under a name."""

    def named(name: str) -> Callable[[AnyPart], AnyPart]:
        checked_name(registry.what, name)

        def register(kind: AnyPart) -> AnyPart:
            check_class(registry.what, name, kind, base)
            keys_of(kind)
            registry.add(name, kind, by=kind)
            kind.registered_as = name
            return kind

        return register

    return named
