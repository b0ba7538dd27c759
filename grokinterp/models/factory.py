"""How is a network made whose code only its user has? By a function that the user names.

`mymodule:build` is the function `build` of the module `mymodule`, found as plug-ins are, from the
current folder too. It is called with what the configuration beside the weights says, as keywords,
as far as it takes them, and returns the module. That is code of the user's own, which nothing but
its name leads to: a run keeps the name and the keywords, and whoever opens it has to name the
module again (`grokinterp --plugin mymodule ...`) before it is imported.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from grokinterp.base.errors import InputError, names, shown
from grokinterp.base.plugins import named_plugins, plugin, strangers

_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")
PLAIN = (bool, int, float, str, type(None))


@dataclass(frozen=True)
class Factory:
    """A function by its name, and the keywords that it is called with."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InputError(
                f"model={shown(self.name)} names no function; give module:function, such as "
                "mymodule:build."
            )

    @classmethod
    def of(cls, name: str, config: Mapping[str, Any]) -> "Factory":
        """The function of that name, to be called with what it takes of a configuration.

        Its module is imported, which runs it. InputError where it cannot be, for a name that it
        does not have, and where the function needs what the configuration does not say.
        """
        return cls(name, _taken(cls(name).function(), config, name))

    @property
    def is_named(self) -> bool:
        """Whether somebody has named its module as a plug-in of this process."""
        return self.name.partition(":")[0] in named_plugins()

    def function(self) -> Callable[..., object]:
        """The function, from its module, which is imported; one of another module is refused."""
        found = _NAME.fullmatch(self.name)
        assert found is not None
        module = plugin(found["module"], f"model={self.name}")
        function = getattr(module, found["function"], None)
        if not callable(function) or getattr(function, "__module__", None) != module.__name__:
            there = [
                name for name, x in vars(module).items()
                if callable(x) and getattr(x, "__module__", None) == module.__name__
            ]  # fmt: skip
            raise InputError(
                f"model={self.name}: {found['module']} defines no function {found['function']!r}; "
                f"it defines {names(there, spelled=str) or 'none'}."
            )
        return function

    def module(self) -> torch.nn.Module:
        """What the function returns, which has to be a module."""
        function = self.function()
        with torch.random.fork_rng(devices=[]), strangers(f"model={self.name}", function):
            made = function(**self.arguments)
        if not isinstance(made, torch.nn.Module):
            raise InputError(
                f"model={self.name} returns {shown(made)}; return the torch.nn.Module."
            )
        return made


def _taken(function: Callable[..., object], config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The plain values of a configuration that a function takes as keywords."""
    plain = {key: x for key, x in config.items() if isinstance(key, str) and _is_plain(x)}
    parameters = inspect.signature(function).parameters.values()
    by_keyword = [x for x in parameters if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)]
    if any(x.kind is x.VAR_KEYWORD for x in parameters):
        taken = plain
    else:
        taken = {x.name: plain[x.name] for x in by_keyword if x.name in plain}
    missing = [
        x.name for x in parameters
        if x.default is x.empty and x.name not in taken
        and x.kind not in (x.VAR_KEYWORD, x.VAR_POSITIONAL)
    ]  # fmt: skip
    if missing:
        raise InputError(
            f"model={name} needs {missing[0]!r}, which no configuration beside the weights says; "
            "give it a default, or a function that needs nothing."
        )
    return taken


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, PLAIN)
