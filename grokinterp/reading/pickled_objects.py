"""What a pickle may refer to: the few functions whose results are plain data, by name.

Nothing here is looked up by the name that a pickle gives: a name that is not listed is refused.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from grokinterp.base.errors import LONGEST_VALUE, one_line

CONFIG_CLASSES = {
    "Config",
    "HookedTransformerConfig",
    "TransformerBridgeConfig",
    "TransformerLensConfig",
    "Namespace",
    "SimpleNamespace",
}
LARGEST_KEY = 2**53
NUMPY_TYPES = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}


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

    @property
    def shown(self) -> str:
        """The name as a message repeats it."""
        return one_line(str(self), most=LONGEST_VALUE)


class Record(dict[str, Any]):
    """The attributes of a configuration object."""


def call(function: Global, arguments: tuple[Any, ...]) -> Any:
    """What the few known functions would return for these arguments."""
    match str(function), arguments:
        case "torch._utils._rebuild_tensor_v2", (Tensor() as flat, offset, size, stride, *_):
            return _tensor(flat, offset, size, stride)
        case "torch._utils._rebuild_tensor", (Tensor() as flat, offset, size, stride):
            return _tensor(flat, offset, size, stride)
        case "torch._utils._rebuild_parameter", (Tensor() as tensor, *_):
            return tensor
        case "collections.OrderedDict", ():
            return {}
        case "builtins.set" | "__builtin__.set", (list(items),):
            return set(map(key_of, items))
        case "builtins.bytes" | "__builtin__.bytes", ():
            return b""
        case "torch.Size", (tuple(size),):
            return size
        case "torch.device", (str(device), *_):
            return device
        case "_codecs.encode", (str(text), "latin1"):
            return text.encode("latin1")
        case "numpy.dtype", (str(code), *_) if code in NUMPY_TYPES:
            return np.dtype(code)
        case (
            "numpy.core.multiarray._reconstruct" | "numpy._core.multiarray._reconstruct",
            (Global(module="numpy", name="ndarray"), *_),
        ):
            return np.empty(0)
        case (
            "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar",
            (np.dtype() as kind, bytes(content)),
        ) if len(content) == kind.itemsize:
            return np.frombuffer(content, kind)[0].item()
        case (
            "numpy.core.numeric._frombuffer" | "numpy._core.numeric._frombuffer",
            (
                bytes() | bytearray() as content,
                np.dtype() as kind,
                tuple(shape),
                "C" | "F" as order,
            ),
        ):
            array = np.empty(0)
            fill(array, (1, shape, kind, order == "F", bytes(content)))
            return array
        case _, () if function.name in CONFIG_CLASSES:
            return Record()
        case "copyreg.__newobj__", (Global() as kind, *_):
            return record(kind, arguments[1:])
        case "copyreg._reconstructor" | "copy_reg._reconstructor", (Global() as kind, *_):
            return record(kind, ())
    raise NotPlainDataError(f"it asks to call {function.shown}")


def record(kind: Global, arguments: tuple[Any, ...]) -> Record:
    """An object of a known configuration class, its attributes still to come."""
    if kind.name not in CONFIG_CLASSES or arguments:
        raise NotPlainDataError(f"it holds an object of {kind.shown}")
    return Record()


def _tensor(flat: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
    """A view into a storage, refused where it would leave it or repeat its elements."""
    size, stride = expect(size, tuple), expect(stride, tuple)
    if (
        any(
            type(number) is not int or not 0 <= number < 2**48
            for number in (offset, *size, *stride)
        )
        or len(size) != len(stride)
        or len(size) > 8
        or flat.ndim != 1
    ):
        raise NotPlainDataError("it has a tensor of impossible shape")
    if not (elements := math.prod(size)):
        return flat[:0].reshape(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if elements > len(flat) or last >= len(flat):
        raise NotPlainDataError("it has a tensor larger than its storage")
    return flat.as_strided(size, stride, offset)


def fill(array: np.ndarray, state: Any) -> None:
    """Give a new array its content, in place: the pickle may already refer to it elsewhere."""
    match state:
        case (int(), tuple(shape), np.dtype() as kind, bool(fortran), bytes(content)) if (
            array.size == 0
            and len(shape) <= 8
            and all(type(n) is int and n >= 0 for n in shape)
            and math.prod(shape) * kind.itemsize == len(content)
        ):
            array.__setstate__((1, shape, kind, fortran, content))  # type: ignore[arg-type]
        case _:
            raise NotPlainDataError("it has an array of impossible shape")


def key_of(value: Any) -> Any:
    """A value that may be a key; Python's dictionaries are slow with huge numbers of one hash."""
    key = expect(value, str, int, float, bytes, type(None))
    if isinstance(key, int) and abs(key) >= LARGEST_KEY:
        raise NotPlainDataError("it has a key of more than 53 bits")
    return key


def expect(value: Any, *kinds: type) -> Any:
    """The value, refused unless it is of one of these types."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise NotPlainDataError(f"it has a {type(value).__name__} where a {wanted} belongs")
    return value
