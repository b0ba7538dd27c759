"""Keys of a recipe: each is declared once, beside the code that it configures, as a field.

    @dataclass(frozen=True, kw_only=True)
    class AdamW(Optimizer):
        lr: float = key(1e-3, help="the learning rate", above=0)

A field without `key` is a key too, of its type and default; `derived()` marks one that is none.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from grokinterp.base.checks import is_left_out, member, number, real, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.registry import Registry, check_class

T = TypeVar("T")
MOST_BITS = 63  # of whole numbers, as in TOML


@dataclass(frozen=True)
class Key:
    """A key of a recipe: its type, its default, its limits, and one line of help.

    `field` is the field of its kind that it sets ("" where the kind makes something else of it).
    `synonyms` are what other code calls it, for the hint at an unknown one. Whoever gives it means
    that it stands in place of the keys that it `replaces`. `read` makes a value of what is given,
    or None of what it cannot read, which `wanted` then describes.
    """

    name: str
    type: Any
    default: Any = MISSING
    help: str = ""
    field: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    read: Callable[[Any], Any] | None = dataclasses.field(default=None, compare=False)
    wanted: str = ""

    @property
    def shown_default(self) -> str:
        """Its default as a list of keys shows it, and as TOML has it; "" where it has none."""
        if self.default in (MISSING, None):
            return ""
        value = list(self.default) if isinstance(self.default, tuple) else self.default
        return str(value).lower() if isinstance(value, bool) else str(value)

    def checked(self, given: Any) -> Any:
        """The value in the type of the key and within its limits; else an InputError.

        What is empty is None for a key that may be None.
        """
        several = isinstance(given, list | tuple)
        for part in given if several else [given]:
            if isinstance(part, int) and part.bit_length() > MOST_BITS:
                raise InputError(
                    f"{self.name}={shown(part)} is too large; whole numbers are below 2^63."
                )
        read, wanted = (self.read, self.wanted) if self.read else _reader(self.type)
        if is_left_out(given) and type(None) in get_args(self.type):
            return None
        if (found := read(given)) is None:
            usual = list(self.default) if isinstance(self.default, tuple) else self.default
            clear = " such as " in wanted or usual in (MISSING, None) or isinstance(usual, bool)
            example = "" if clear else f"; give such as {usual!r}"
            raise InputError(f"{self.name}={shown(given)} is not {wanted}{example}.")
        return self._within_limits(found)

    def _within_limits(self, value: Any) -> Any:
        inner = [x for x in (self.type, *get_args(self.type)) if get_origin(x) is Literal]
        if words := self.choices or (get_args(inner[0]) if inner else ()):
            word(self.name, value, words)
        for part in value if isinstance(value, tuple) else (value,):
            if self.above is not None:
                usual = self.default if isinstance(self.default, int | float) else 0.001
                number(self.name, part, above=self.above, most=self.most, such_as=f"{usual:g}")
            if self.least is not None and part < self.least:
                less = f"{self.name}={shown(value)} is less than {self.least}"
                raise InputError(f"{less}; give at least {self.least}.")
            if self.most is not None and part > self.most:
                large = f"{self.name}={shown(value)} is too large"
                raise InputError(f"{large}; give at most {self.most}.")
        return value


def key(
    default: Any = MISSING,
    *,
    name: str = "",
    usual: Any = MISSING,
    help: str = "",  # noqa: A002  what a key is called everywhere else too
    **about: Any,
) -> Any:
    """A field of a kind that is a key of recipes; `about` are fields of `Key`.

    `name` is what recipes call it, where that is not the field's own name. `usual` is its default
    in a recipe, where the field itself has none or another.
    """
    for each in about:
        member(each, Key.__dataclass_fields__, "part of a key")
    metadata = {"key": {"name": name, "usual": usual, "help": help, **about}}
    return dataclasses.field(default=default, metadata=metadata)


def derived(default: Any = MISSING, *, shown: bool = True) -> Any:
    """A field that is no key: it follows from others, or is only given in code."""
    return dataclasses.field(default=default, repr=shown, metadata={"key": None})


def keys_of(kind: Any) -> tuple[Key, ...]:
    """The keys that a dataclass declares, in the order of its fields.

    >>> @dataclass
    ... class Net:
    ...     width: int = key(64, help="neurons", least=1)
    >>> keys_of(Net)[0].checked(32.0)
    32
    """
    return _declared(kind)


@lru_cache(maxsize=256)
def _declared(kind: Any) -> tuple[Key, ...]:
    try:
        hints = typing.get_type_hints(kind)
    except NameError as error:
        raise InputError(
            f"a field of {kind.__name__} is of a type without meaning: {error}."
        ) from None
    found = []
    for field in dataclasses.fields(kind):
        about = field.metadata.get("key", {})
        if not field.init or about is None:
            continue
        about = dict(about)
        name, usual = about.pop("name", ""), about.pop("usual", MISSING)
        default = field.default if field.default_factory is MISSING else field.default_factory()
        default = default if usual is MISSING else usual
        where = f"{kind.__name__}.{field.name}"
        if about.get("read") is None:
            _reader(hints[field.name], of=where)
        if default is not None and type(None) in get_args(hints[field.name]):
            raise InputError(
                f"{where} may be None, which no recipe can hold but as the default; give it the "
                "default None, or a type without None."
            )
        made = Key(name or field.name, hints[field.name], default, field=field.name, **about)
        try:
            _ = default in (MISSING, None) or made.checked(default)
        except InputError as error:
            raise InputError(f"the default of {where} is refused: {error}") from None
        found.append(made)
    return tuple(found)


class Kind:
    """What all kinds that a recipe names have: frozen dataclasses, whose fields are its keys."""

    kind: ClassVar[str] = ""  # the name that it is registered under, itself and not a base of it

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.kind = vars(cls).get("kind", "")

    def registered_kind(self, what: str) -> str:
        """Its kind, for a file; InputError where nothing could read that again."""
        if not self.kind:
            raise InputError(
                f"{type(self).__name__} is not registered, so nothing could read it again; write "
                f'@gi.register.{what}("name") above it.'
            )
        return self.kind

    def fields_given(self) -> dict[str, Any]:
        """What its class is called with to make it again."""
        own = dataclasses.fields(self)  # type: ignore[arg-type]
        return {each.name: getattr(self, each.name) for each in own if each.init}

    @classmethod
    def keys(cls) -> tuple[Key, ...]:
        """The keys that recipes of this kind have."""
        return keys_of(cls)


def registers(registry: Registry[Any], base: type) -> Callable[[str], Callable[[T], T]]:
    """The decorator that registers frozen dataclasses of a base under a name: `@register("name")`.

    Recipes then name it, and its fields are keys of theirs. InputError for a name that is taken,
    for what is no such class, and for fields of types that no recipe can hold.
    """

    def named(name: str) -> Callable[[T], T]:
        """Register a frozen dataclass of its kind under a name, by which recipes then know it.

        Its fields are keys of these recipes. InputError for a name that is taken, for what is no
        such class, and for fields of types that no recipe can hold.
        """
        registry.named(name)

        def register(kind: T) -> T:
            check_class(registry.what, name, kind, base)
            own = {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
            if (other := kind.kind or name) != name or "kind" in own:  # type: ignore[attr-defined]
                taken = f"is {other!r} already" if other != name else "has a field 'kind'"
                what = f"{registry.what} {name!r}: {kind.__name__} {taken}"  # type: ignore[attr-defined]
                raise InputError(f"{what}; its kind is its name; register a class without one.")
            keys_of(kind)
            registry.add(name, kind, by=kind)
            kind.kind = name  # type: ignore[attr-defined]
            return kind

        return register

    return named


def by_name(keys: Iterable[Key]) -> dict[str, Key]:
    """Keys by their names, of which each is declared once, or alike."""
    found: dict[str, Key] = {}
    for one in keys:
        other = found.setdefault(one.name, one)
        if (other.type, other.default) != (one.type, one.default):
            raise InputError(
                f"two kinds of this recipe have a key {one.name!r}, with defaults "
                f"{shown(other.default)} and {shown(one.default)}; rename the field of one."
            )
    return found


def fields_from(keys: Iterable[Key], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of those keys that set a field, by the field; not of one that another replaces."""
    keys = list(keys)
    replaced = {name for one in keys if values.get(one.name) for name in one.replaces}
    own = (one for one in keys if one.field and one.name in values and one.name not in replaced)
    return {one.field: values[one.name] for one in own}


def _reader(kind: Any, of: str = "") -> tuple[Callable[[Any], Any], str]:
    """What reads values of a type (None for others), and what it reads in words."""
    inner = [each for each in get_args(kind) if each is not type(None)]
    if get_origin(kind) in (typing.Union, types.UnionType) and len(inner) == 1:
        return _reader(inner[0], of)
    if get_origin(kind) is Literal and all(isinstance(word, str) for word in inner):
        return _READERS[str]
    if kind in _READERS:
        return _READERS[kind]
    if get_origin(kind) is tuple and inner and inner[0] in (int, float):
        if inner[1:] == [Ellipsis]:
            read = _READERS[inner[0]][0]
            return lambda given: _several(given, read), "a list such as [256, 64]"
        if set(inner) == {inner[0]}:
            n, read = len(inner), _READERS[inner[0]][0]
            return lambda given: _several(given, read, n), f"{n} numbers"
    raise InputError(
        f"{of or 'a key'} is of type {getattr(kind, '__name__', kind)}, which no recipe can hold; "
        "give a field of bool, int, float, str, a Literal of words or a tuple of numbers, or mark "
        "it as no key: = derived(default)."
    )


def _whole(given: Any) -> int | None:
    if isinstance(given, float) and given.is_integer():  # 1e4, as people write steps
        return int(given)
    return whole_number(given)


def _several(
    given: Any, read: Callable[[Any], Any], n: int | None = None
) -> tuple[Any, ...] | None:
    parts = tuple(given) if isinstance(given, list | tuple) else (given,)
    found = tuple(read(part) for part in parts)
    return None if None in found or (n is not None and len(found) != n) else found


_READERS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    bool: (lambda given: given if isinstance(given, bool) else None, "true or false"),
    int: (_whole, "a whole number"),
    float: (real, "a number"),
    str: (lambda given: given if isinstance(given, str) else None, "text"),
}
