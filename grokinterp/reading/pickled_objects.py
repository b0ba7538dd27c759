"""What stands for the objects of a pickle, and which of them is a whole model with its tensors?

Of an object nothing is made but a `Record`: the name of its class, and its attributes as data. One
that has the attributes of a `torch.nn.Module` becomes its state dict, as `module.state_dict()`
names it. What asks for a function is refused, but for a few that only make a value of no use here,
and so is everything of modules that reach the system or run code.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.base.errors import LONGEST_VALUE, InputError, one_line
from grokinterp.models.network_in import has_layers, path_to_layers

CONFIG_CLASSES = {
    "Config", "HookedTransformerConfig", "TransformerBridgeConfig", "TransformerLensConfig",
    "Namespace", "SimpleNamespace",
}  # fmt: skip
REFUSED = {  # modules of which nothing is looked at
    "os", "posix", "nt", "posixpath", "ntpath", "subprocess", "sys", "builtins", "__builtin__",
    "importlib", "imp", "pkgutil", "runpy", "shutil", "socket", "pickle", "_pickle", "ctypes",
    "_ctypes", "marshal", "code", "codeop", "pty", "webbrowser", "pip", "pdb", "bdb", "timeit",
    "operator", "_operator", "commands", "popen2", "cPickle", "multiprocessing", "asyncio",
}  # fmt: skip
HARMLESS = {  # in lower case, and of plain values all the same
    *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
    "functools.partial",
    "numpy.random._pickle.__bit_generator_ctor", "numpy.random._pickle.__generator_ctor",
    "numpy.random._pickle.__randomstate_ctor",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    "numpy.dtype", "numpy.ma.core._mareconstruct", "re._compile", "zoneinfo.ZoneInfo._unpickle",
}  # fmt: skip
TABLES = ("pandas._libs.", "pandas.core.", "pyarrow.lib")  # of tables, which are not looked into
VALUES = {"complex", "range", "xrange", "slice", "bytearray"}  # of builtins, plain all the same
CONFIG_ATTRIBUTES = ("cfg", "config", "hparams", "_hparams", "args")  # of a model
MODULE_ATTRIBUTES = ("_parameters", "_buffers", "_modules")
MOST_MODULES = 20_000  # of one model
MOST_PARTS = 300_000  # modules and tensors of all models of a file; 3,000 checkpoints have 150,000
LONGEST_PREFIX = 200  # characters of the names of modules, one inside the other
DEEPEST = 4  # container in a container in which a model is looked for,
MOST_LOOKED_AT = 50_000  # and what they hold
MOST_NAMED = 3  # objects, in a note


class NotPlainDataError(ValueError):
    """The pickle is broken, or does more than build plain data."""


class TooLargeError(NotPlainDataError):
    """The file holds more than is read."""


@dataclass(frozen=True)
class Global:
    """A name that a pickle refers to. It is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record(dict[str, Any]):
    """The attributes of an object, and the name of its class; "" for known configurations."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind

    def add_state(self, state: Any) -> None:
        """Take the attributes that a pickle gives the object, with or without slots."""
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(part)


class ModelState(dict[str, Tensor]):
    """The state dict of a whole model, and the name of the model's class."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind


def record_of(kind: Global, *, instance: bool = False) -> Record:
    """What stands for an object that the pickle makes by a call of this name, if that is a class.

    `instance` says that it is one, of whatever name: the pickle asks for an object of it.

    >>> record_of(Global("pathlib", "PosixPath")).kind
    'pathlib.PosixPath'
    >>> record_of(Global("shutil", "rmtree"))
    Traceback (most recent call last):
    grokinterp.reading.pickled_objects.NotPlainDataError: it asks to call shutil.rmtree
    """
    name = one_line(str(kind), most=LONGEST_VALUE)
    is_class = kind.name.rpartition(".")[2].lstrip("_")[:1].isupper()
    is_value = kind.module in ("builtins", "__builtin__") and kind.name in VALUES
    is_value = is_value or str(kind) in HARMLESS or f"{kind.module}.".startswith(TABLES)
    refused = kind.module.partition(".")[0] in REFUSED and not is_value
    if refused or not (is_class or instance or is_value):
        raise NotPlainDataError(f"it asks to call {name}")
    return Record("" if kind.name in CONFIG_CLASSES else name)


def with_states(data: Any) -> Any:
    """The data of a file, every whole model in it replaced by its state dict.

    The configuration that a model carries is put beside it, where there is a place.
    """
    models = _Models()
    if _is_model(data):
        return _with_config(data, models)
    for container in _containers(data):
        _with_tensors(container)
        for key, value in list(_items(container)):
            if not _is_model(value):
                continue
            if isinstance(container, list):
                container[key] = _with_config(value, models)
            else:
                container[key], config = models.read(value)
                container.setdefault("model_config", config)
    return data


def objects_in(data: Any) -> tuple[str, ...]:
    """A note about objects that a file holds besides plain data, if any."""
    found: dict[str, str] = {}
    around = {"": data} if isinstance(data, (Record, ModelState)) else data
    for container in _containers(around):
        for key, value in _items(container):
            if isinstance(value, (Record, ModelState)) and value.kind:
                found.setdefault(value.kind, one_line(str(key), most=LONGEST_VALUE // 2))
    named = [f"{kind} ({key!r})" if key else kind for kind, key in found.items()]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    listed = ", ".join(named[:MOST_NAMED]) + more
    return (f"objects are read as plain data, and nothing of them was run: {listed}",) * bool(found)


def _containers(data: Any) -> Iterator[Any]:
    """The data and what it holds, container in container, none of them twice."""
    level, seen, left = [data], set[int](), MOST_LOOKED_AT
    for _ in range(DEEPEST):
        below = []
        for container in level:
            if not isinstance(container, (dict, list)) or id(container) in seen:
                continue
            seen.add(id(container))
            if _is_model(container) or isinstance(container, ModelState):
                continue
            left -= len(container)
            if left < 0:
                return
            below += [value for _, value in _items(container) if isinstance(value, (dict, list))]
            yield container
        level = below


def _items(container: Any) -> Iterator[tuple[Any, Any]]:
    return iter(container.items()) if isinstance(container, dict) else enumerate(container)


def _is_model(value: Any) -> bool:
    return isinstance(value, Record) and all(
        isinstance(value.get(name), dict) for name in MODULE_ATTRIBUTES
    )


def _with_tensors(container: Any) -> None:
    """The weights of a network as tensors where they are arrays."""
    if not isinstance(container, dict):
        return
    arrays = {key: x for key, x in container.items() if isinstance(x, np.ndarray)}
    if arrays and has_layers(arrays):
        container.update({key: torch.from_numpy(x) for key, x in arrays.items() if x.size})


def _with_config(model: Record, models: "_Models") -> dict[str, Any]:
    state, config = models.read(model)
    return {"state_dict": state, "model_config": config}


class _Models:
    """The models of one file, each read once, and how much they may hold together."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ModelState, Mapping[str, Any], int]] = {}
        self._left = MOST_PARTS

    def read(self, model: Record) -> tuple[ModelState, Mapping[str, Any]]:
        """State dict and configuration; of a model that is there many times, the same."""
        if id(model) in self._known:
            state, config, n_parts = self._known[id(model)]
            self._charge(n_parts)
            return state, config
        before = self._left
        state, configs = self._walk(model)
        config = _config_among(configs, state)
        self._known[id(model)] = state, config, before - self._left
        return state, config

    def _walk(self, model: Record) -> tuple[ModelState, dict[str, Mapping[str, Any]]]:
        """Parameters and buffers that are saved, as torch names them; configurations by prefix."""
        found, visited = ModelState(model.kind), 0
        configs: dict[str, Mapping[str, Any]] = {}
        left: list[tuple[str, Record]] = [("", model)]
        while left:
            prefix, module = left.pop()
            visited += 1
            if visited > MOST_MODULES or len(prefix) > LONGEST_PREFIX:
                raise NotPlainDataError("it has a model whose modules are inside of one another")
            self._charge(1 + sum(len(module[group]) for group in MODULE_ATTRIBUTES))
            if config := _config_of(module):
                configs[prefix] = config
            passing = module.get("_non_persistent_buffers_set")
            passing = passing if isinstance(passing, set) else set()
            for group, without in (("_parameters", set()), ("_buffers", passing)):
                for name, tensor in module[group].items():
                    if isinstance(tensor, Tensor) and name not in without:
                        found[f"{prefix}{name}"] = tensor
            inner = [(name, each) for name, each in module["_modules"].items() if _is_model(each)]
            left += [(f"{prefix}{name}.", each) for name, each in reversed(inner)]
        return found, configs

    def _charge(self, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            raise TooLargeError(f"its models have more than {MOST_PARTS} modules and tensors")


def _config_of(module: Record) -> Mapping[str, Any]:
    groups = (module.get(name) for name in CONFIG_ATTRIBUTES)
    return next((group for group in groups if isinstance(group, dict) and group), {})


def _config_among(configs: Mapping[str, Mapping[str, Any]], state: ModelState) -> Mapping[str, Any]:
    """What the modules say around the layers of the network, the innermost before those around."""
    if not {*configs} - {""}:
        return configs.get("", {})
    try:
        path = path_to_layers(state)
    except InputError:  # two networks: only what is of both
        path = ""
    around = sorted((prefix for prefix in configs if path.startswith(prefix)), key=len)
    return {key: value for prefix in around for key, value in configs[prefix].items()}
