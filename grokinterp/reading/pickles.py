"""A pickle read as data: a program that may build containers, numbers, text and tensors.

Nothing is imported and nothing is called by name. The opcodes come from the standard library's
`pickletools`; what a pickle asks to be called is compared with the few names that `_call` knows,
whose results are plain data. An object of another class becomes a `Record` of its attributes, and
any other function is refused by its name.
"""

import gc
import io
import math
import pickletools
import struct
from collections.abc import Callable, Iterator
from itertools import islice
from mmap import mmap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.reading.pickled_objects import (
    Global,
    NotPlainDataError,
    Record,
    TooLargeError,
    record_of,
)

MOST_OPCODES = 3_000_000  # a second or two; 500 checkpoints take 300,000
MOST_TENSORS = 40_000  # of the paper's networks, 3,000 checkpoints
CALLS_OF_TENSOR = 3  # steps that take longer than others: its storage, its hooks, itself
LARGEST_INT = 2**127
LARGEST_KEY = 2**53
LARGEST_MEMO = 2**32
MOST_COPIED = 4  # times its length that a pickle may have copied: one object, again and again
STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
NUMPY_TYPES = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}

FindStorage = Callable[[str, torch.dtype, int], Tensor]
LoadBytes = Callable[[bytes], Tensor]
MOST_IN_KEY = 8  # parts of a key that is a tuple,
LONGEST_IN_KEY = 100  # and characters of each


def read_pickle(
    content: bytes | mmap,
    find_storage: FindStorage | None = None,
    load_bytes: LoadBytes | None = None,
) -> Any:
    r"""The data that a pickle builds; of a mapped file, of the pickle that begins where it stands.

    `find_storage(key, dtype, n_elements)` gives the flat tensor behind a persistent id, as
    torch.save writes them; `load_bytes(content)` that which is a file of torch.save inside, as
    pickle.dump writes them. Raises NotPlainDataError for anything but plain data.

    >>> import pickle
    >>> read_pickle(pickle.dumps({"p": 113, "losses": [4.7, 0.1]}))
    {'p': 113, 'losses': [4.7, 0.1]}
    >>> read_pickle(pickle.dumps(print))
    Global(module='builtins', name='print')
    >>> read_pickle(b"cos\nsystem\n(S'echo'\ntR.")
    Traceback (most recent call last):
    grokinterp.reading.pickles.NotPlainDataError: it asks to call os.system
    """
    machine = _Machine(find_storage, load_bytes, MOST_COPIED * len(content))
    collects = gc.isenabled()
    gc.disable()  # or it looks for cycles while containers grow: four fifths of the time
    try:
        steps = _steps(content)
        for code, argument in islice(steps, MOST_OPCODES):
            _ACTIONS[code](machine, argument)
        if next(steps, None):
            raise TooLargeError(f"it has more than {MOST_OPCODES} steps")
    finally:
        if collects:
            gc.enable()
    if len(machine.stack) != 1 or machine.marks:
        raise NotPlainDataError("it does not end with one object")
    return machine.stack[0]


def _steps(content: bytes | mmap) -> Iterator[tuple[int, Any]]:
    """Opcode and argument of every step, as `pickletools.genops` finds them and in less time."""
    stream = content if isinstance(content, mmap) else io.BytesIO(content)
    at = stream.tell()
    while True:
        try:
            code = content[at]
            at += 1
            if code in _BARE:
                yield code, None
            elif code in _NUMBER:
                form = _NUMBER[code]
                yield code, form.unpack_from(content, at)[0]
                at += form.size
            elif code in _TEXT:
                form = _TEXT[code]
                begin = at + form.size
                at = begin + form.unpack_from(content, at)[0]
                text = content[begin:at]
                if len(content) < at:
                    raise ValueError(f"expected {at - begin} bytes of text, found {len(text)}")
                yield code, str(text, "utf-8", "surrogatepass")
            elif code == _GLOBAL:
                middle = content.find(b"\n", at)
                end = content.find(b"\n", middle + 1)
                if middle < 0 or end < 0:
                    raise IndexError
                yield code, str(content[at:end], "ascii").replace("\n", " ")
                at = end + 1
            elif code == _STOP:
                stream.seek(at)
                return
            elif code in _READERS:
                stream.seek(at)
                yield code, _READERS[code](stream)
                at = stream.tell()
            else:
                raise ValueError(f"byte {at - 1} of a pickle is {code:#04x}, which is no opcode")
        except (IndexError, struct.error):
            raise ValueError("a pickle ends before its end") from None


class _Machine:
    """The stack machine of the pickle protocol, less everything that runs code."""

    def __init__(
        self, find_storage: FindStorage | None, load_bytes: LoadBytes | None, most_copied: int
    ) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.find_storage = find_storage
        self.load_bytes = load_bytes
        self.left = most_copied
        self.calls = 0

    def _number(self, value: Any) -> None:
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            value = Record("builtins.int")  # of a size with which everything is slow
        self.stack.append(value)

    def _put(self, number: int) -> None:
        if number >= LARGEST_MEMO:  # numbers that Python's dictionaries are slow with
            raise NotPlainDataError("it numbers its objects from 2**32 on")
        self.memo[number] = self._top()

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self._top()

    def _get(self, number: int) -> None:
        if number not in self.memo:
            raise NotPlainDataError("it refers to an object it has not built")
        self.stack.append(self.memo[number])

    def _mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _top(self) -> Any:
        self._need(1)
        return self.stack[-1]

    def _pop(self, _: Any = None) -> Any:
        self._need(1)
        return self.stack.pop()

    def _need(self, n: int) -> None:
        if len(self.stack) < n:
            raise NotPlainDataError("it takes an object from an empty stack")

    def _pop_items(self, n: int | None) -> list[Any]:
        """The last n objects of the stack; with None, all that it holds since the mark."""
        if n is not None:
            self._need(n)
            items = self.stack[-n:]
            del self.stack[-n:]
            return items
        if not self.marks:
            raise NotPlainDataError("it closes a list that it has not opened")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _list(self, items: list[Any]) -> None:
        self.stack.append(items)

    def _tuple(self, items: list[Any]) -> None:
        self.stack.append(tuple(items))

    def _appends(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Record):  # of which its attributes are enough
            _expect(target, list)

    def _dict(self, items: list[Any]) -> None:
        self.stack.append({})
        self._setitems(items)

    def _setitems(self, items: list[Any]) -> None:
        target = _expect(self._top(), dict)
        if len(items) % 2:
            raise NotPlainDataError("a key of a dictionary has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) is str:  # nearly all are
                target[key] = value
            elif not _is_of_no_use(key):
                target[_key(key)] = value

    def _frozenset(self, items: list[Any]) -> None:
        self.stack.append(_set_of(items))

    def _additems(self, items: list[Any]) -> None:
        kept = _set_of(items)
        if not isinstance(target := self._top(), Record):
            _expect(target, set).update(kept)

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Global(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = _expect(self._pop(), str), _expect(self._pop(), str)
        self.stack.append(Global(module, name))

    def _binpersid(self, _: Any) -> None:
        self._count()
        match self._pop():
            case ("storage", Global(module="torch", name=kind), str(key), str(), int(n), *_) if (
                self.find_storage is not None and kind in STORAGES and n >= 0
            ):
                self.stack.append(self.find_storage(key, STORAGES[kind], n))
            case ("module", Global() as kind, *_):  # a class with its source, before version 1.6
                self.stack.append(kind)
            case _:
                raise NotPlainDataError("it refers to something outside that is no storage")

    def _reduce(self, _: Any) -> None:
        arguments = _expect(self._pop(), tuple)
        self._charge(arguments)
        function = _expect(self._pop(), Global)
        match str(function), arguments:
            case "torch.storage._load_from_bytes", (bytes(content),) if self.load_bytes:
                self.stack.append(self.load_bytes(content))
            case _:
                self.stack.append(_call(function, arguments))

    def _newobj(self, _: Any) -> None:
        self._count()
        _expect(self._pop(), tuple)
        self.stack.append(record_of(_expect(self._pop(), Global), instance=True))

    def _newobj_ex(self, _: Any) -> None:
        _expect(self._pop(), dict)
        self._newobj(None)

    def _count(self) -> None:
        """Count what takes longer than other steps."""
        self.calls += 1
        if self.calls > MOST_TENSORS * CALLS_OF_TENSOR:
            raise TooLargeError(f"it has more than {MOST_TENSORS} tensors")

    def _charge(self, value: Any) -> None:
        """Count what a call copies: what the pickle holds once, it may refer to a million times."""
        self._count()
        self.left -= _size(value) + sum(map(_size, value if isinstance(value, tuple) else ()))
        if self.left < 0:
            raise NotPlainDataError("it copies the same objects again and again")

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        self._charge(state)
        if isinstance(target, Record):
            target.add_state(state)
        elif isinstance(target, np.ndarray):
            _fill(target, state)
        elif not isinstance(target, (dict, np.dtype)):  # these two: only what we do not need
            raise NotPlainDataError(f"it sets the state of a {type(target).__name__}")
        elif isinstance(target, np.dtype) and ">" in _expect(state, tuple):
            raise NotPlainDataError("it has numbers in big-endian order")


def _size(value: Any) -> int:
    sized = (str, bytes, bytearray, list, tuple, dict)
    return len(value) if isinstance(value, sized) else 1


def _call(function: Global, arguments: tuple[Any, ...]) -> Any:
    """What the few known functions would return for these arguments."""
    match str(function), arguments:
        case (
            "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2",
            (Tensor() as flat, offset, size, stride, *rest),
        ):
            if any(as_said.get(x) for as_said in rest[2:3] if isinstance(as_said, dict)
                   for x in ("neg", "conj")):  # fmt: skip
                raise NotPlainDataError("it has a tensor that is stored negated or conjugated")
            return _tensor(flat, offset, size, stride)
        case (
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state",
            (Tensor() as tensor, *_),
        ):
            return tensor
        case (
            "torch._tensor._rebuild_from_type_v2",
            (Global(name="_rebuild_tensor_v2") as rebuild, Global(), tuple(parts), *_),
        ):
            return _call(rebuild, parts)
        case "collections.OrderedDict" | "collections.Counter", ():
            return {}
        case "collections.Counter", (dict(counts),):
            return dict(counts)
        case "collections.defaultdict", (*_,):
            return {}
        case "collections.deque", (*_,):
            return []
        case (
            "builtins.set" | "__builtin__.set" | "builtins.frozenset" | "__builtin__.frozenset",
            (list(items),),
        ):
            return _set_of(items)
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
            (bytes() | bytearray() as data, np.dtype() as kind, tuple(shape), "C" | "F" as order),
        ):
            array = np.empty(0)
            _fill(array, (1, shape, kind, order == "F", bytes(data)))
            return array
        case "copyreg.__newobj__" | "copyreg.__newobj_ex__", (Global() as kind, *_):
            return record_of(kind, instance=True)
        case "copyreg._reconstructor" | "copy_reg._reconstructor", (Global() as kind, *_):
            return record_of(kind, instance=True)
    return record_of(function)


def _tensor(flat: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
    """A view into a storage, refused where it would leave it or repeat its elements."""
    size, stride = _expect(size, tuple), _expect(stride, tuple)
    numbers = (offset, *size, *stride)
    plain = all(type(number) is int and 0 <= number < 2**48 for number in numbers)
    if not plain or len(size) != len(stride) or len(size) > 8 or flat.ndim != 1:
        raise NotPlainDataError("it has a tensor of impossible shape")
    if not (elements := math.prod(size)):
        return flat.as_strided(size, stride)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if elements > len(flat) or last >= len(flat):
        raise NotPlainDataError("it has a tensor larger than its storage")
    return flat.as_strided(size, stride, offset)


def _fill(array: np.ndarray, state: Any) -> None:
    """Give a new array its content, in place: the pickle may already refer to it elsewhere."""
    match state:
        case (int(), tuple(shape), np.dtype() as kind, bool(fortran), bytes(content)) if (
            array.size == 0
            and len(shape) <= 8
            and all(type(n) is int and n >= 0 for n in shape)
            and math.prod(shape) * kind.itemsize == len(content)
        ):
            array.__setstate__((1, shape, kind, fortran, content))  # type: ignore[arg-type]
        case (int(), tuple(), Record(), bool(), bytes() | list()) if array.size == 0:
            pass  # of text, objects, dates: nothing here computes with them
        case _:
            raise NotPlainDataError("it has an array of impossible shape")


def _set_of(items: list[Any]) -> set[Any]:
    return {_key(item) for item in items if not _is_of_no_use(item)}


def _is_of_no_use(key: Any) -> bool:
    """Whether a key is an enum's member, a set, or a tuple of more than a few plain values."""
    if isinstance(key, tuple):
        nested = [part for x in key if isinstance(x, tuple) for part in x]
        deep = any(isinstance(part, tuple) for part in nested)  # which is refused
        return not deep and not _is_short_tuple(key)
    return isinstance(key, (Record, set, complex))


def _is_short_tuple(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= MOST_IN_KEY and all(map(_is_short, value))


def _is_short(value: Any) -> bool:
    if isinstance(value, (str, bytes)):
        return len(value) <= LONGEST_IN_KEY
    return isinstance(value, (int, float, type(None)))


def _key(value: Any) -> Any:
    """A value that may be a key; Python's dictionaries are slow with huge numbers of one hash."""
    if isinstance(value, Global) or _is_short_tuple(value):
        return str(value)
    key = _expect(value, str, int, float, bytes, type(None))
    if isinstance(key, int) and abs(key) >= LARGEST_KEY:
        raise NotPlainDataError("it has a key of more than 53 bits")
    return key


def _expect(value: Any, *kinds: type) -> Any:
    """The value, refused unless it is of one of these types."""
    if not isinstance(value, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise NotPlainDataError(f"it has a {type(value).__name__} where a {wanted} belongs")
    return value


_NUMBERS = {"INT", "LONG", "LONG1", "LONG4"}  # of any size
_VALUES = {
    "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
# What takes objects off the stack, and how many; None: all since the mark.
_OF_ITEMS: dict[str, tuple[Callable[[_Machine, list[Any]], None], int | None]] = {
    **{f"TUPLE{n or ''}": (_Machine._tuple, n) for n in (None, 1, 2, 3)},
    "LIST": (_Machine._list, None), "DICT": (_Machine._dict, None),
    "APPEND": (_Machine._appends, 1), "APPENDS": (_Machine._appends, None),
    "SETITEM": (_Machine._setitems, 2), "SETITEMS": (_Machine._setitems, None),
    "ADDITEMS": (_Machine._additems, None), "FROZENSET": (_Machine._frozenset, None),
}  # fmt: skip


def _action(name: str) -> Callable[[_Machine, Any], None]:
    """What an opcode does: where plain data has no use for it, it is refused."""
    if name in _NUMBERS:
        return _Machine._number
    if name in _VALUES:
        return lambda machine, value: machine.stack.append(value)
    if make := _CONSTANTS.get(name):
        return lambda machine, _: machine.stack.append(make())
    if name in ("PROTO", "FRAME"):  # which only help who reads in parts
        return lambda machine, _: None
    if name in _OF_ITEMS:
        use, n = _OF_ITEMS[name]
        return lambda machine, _: use(machine, machine._pop_items(n))
    if name.endswith(("PUT", "GET")):
        name = name.removeprefix("LONG_").removeprefix("BIN")
    action: Callable[[_Machine, Any], None] = getattr(_Machine, f"_{name.lower()}", _refuse(name))
    return action


def _refuse(name: str) -> Callable[[_Machine, Any], None]:
    def refuse(machine: _Machine, argument: Any) -> None:
        raise NotPlainDataError(f"it uses {name}, which plain data does not need")

    return refuse


_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_ACTIONS = {code: _action(opcode.name) for code, opcode in _OPCODES.items()}
_STOP, _GLOBAL = ord("."), ord("c")
_BARE = {code for code, opcode in _OPCODES.items() if opcode.arg is None} - {_STOP}
_READERS: dict[int, Callable[[Any], Any]] = {
    code: opcode.arg.reader for code, opcode in _OPCODES.items() if opcode.arg is not None
}
_FORMS_OF_NUMBERS = {
    "BININT1": "<B", "BININT2": "<H", "BININT": "<i", "BINFLOAT": ">d", "BINPUT": "<B",
    "LONG_BINPUT": "<I", "BINGET": "<B", "LONG_BINGET": "<I",
}  # fmt: skip
_FORMS_OF_LENGTHS = {"BINUNICODE": "<I", "SHORT_BINUNICODE": "<B"}  # before a text
_NUMBER, _TEXT = (
    {code: struct.Struct(forms[x.name]) for code, x in _OPCODES.items() if x.name in forms}
    for forms in (_FORMS_OF_NUMBERS, _FORMS_OF_LENGTHS)
)
