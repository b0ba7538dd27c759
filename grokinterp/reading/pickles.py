"""A pickle read as data: a program that may build containers, numbers, text and tensors.

Nothing is imported and nothing is called by name. The opcodes come from the standard library's
`pickletools`; what a pickle asks to be called is compared with the few names that
`grokinterp.reading.pickled_objects` knows, and any other name is refused.
"""

import contextlib
import gc
import io
import pickletools
import struct
from collections.abc import Callable, Iterator
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
    call,
    expect,
    fill,
    key_of,
    record,
)

MOST_OPCODES = 3_000_000  # a second or two; 500 checkpoints take 300,000
MOST_TENSORS = 40_000  # of the paper's networks, 3,000 checkpoints
CALLS_OF_TENSOR = 3  # steps that take longer than others: its storage, its hooks, itself
LARGEST_INT = 2**127
LARGEST_MEMO = 2**32
MOST_COPIED = 4  # times its length that a pickle may have copied: one object, again and again
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

FindStorage = Callable[[str, torch.dtype, int], Tensor]


def read_pickle(content: bytes | mmap, find_storage: FindStorage | None = None) -> Any:
    r"""The data that a pickle builds; of a mapped file, of the pickle that begins where it stands.

    `find_storage(key, dtype, n_elements)` gives the flat tensor behind a persistent id, as
    torch.save writes them. Raises NotPlainDataError for anything but plain data.

    >>> import pickle
    >>> read_pickle(pickle.dumps({"p": 113, "losses": [4.7, 0.1]}))
    {'p': 113, 'losses': [4.7, 0.1]}
    >>> read_pickle(pickle.dumps(print))
    Global(module='builtins', name='print')
    >>> read_pickle(b"cos\nsystem\n(S'echo'\ntR.")
    Traceback (most recent call last):
    grokinterp.reading.pickled_objects.NotPlainDataError: it asks to call os.system
    """
    machine = _Machine(find_storage, MOST_COPIED * len(content))
    with _no_collection():
        for count, (code, argument) in enumerate(_steps(content)):
            if count == MOST_OPCODES:
                raise TooLargeError(f"it has more than {MOST_OPCODES} steps")
            action = _ACTIONS[code]
            if action is None:
                name = _OPCODES[code].name
                raise NotPlainDataError(f"it uses {name}, which plain data does not need")
            action(machine, argument)
    if len(machine.stack) != 1 or machine.marks:
        raise NotPlainDataError("it does not end with one object")
    return machine.stack[0]


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Python looks for cycles again and again while containers grow: four fifths of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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

    def __init__(self, find_storage: FindStorage | None, most_copied: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.find_storage = find_storage
        self.left = most_copied
        self.calls = 0

    def _value(self, value: Any) -> None:
        if isinstance(value, int) and abs(value) > LARGEST_INT:
            raise NotPlainDataError("it has a whole number of more than 127 bits")
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

    def _nothing(self, _: Any) -> None:
        """Of opcodes that only help who reads in parts."""

    def _top(self) -> Any:
        if not self.stack:
            raise NotPlainDataError("it takes an object from an empty stack")
        return self.stack[-1]

    def _pop(self, _: Any = None) -> Any:
        top = self._top()
        self.stack.pop()
        return top

    def _since_mark(self) -> list[Any]:
        if not self.marks:
            raise NotPlainDataError("it closes a list that it has not opened")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()  # which puts another stack in place: not in one line
        self.stack.append(tuple(items))

    def _tuple1(self, _: Any) -> None:
        self.stack.append((self._pop(),))

    def _tuple2(self, _: Any) -> None:
        second = self._pop()
        self.stack.append((self._pop(), second))

    def _tuple3(self, _: Any) -> None:
        third, second = self._pop(), self._pop()
        self.stack.append((self._pop(), second, third))

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append(items)

    def _append(self, _: Any) -> None:
        item = self._pop()
        expect(self._top(), list).append(item)

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        expect(self._top(), list).extend(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set(items)

    def _setitem(self, _: Any) -> None:
        value = self._pop()
        self._set([self._pop(), value])

    def _setitems(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = expect(self._top(), dict)
        if len(items) % 2:
            raise NotPlainDataError("a key of a dictionary has no value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key_of(key)] = value

    def _additems(self, _: Any) -> None:
        items = self._since_mark()
        expect(self._top(), set).update(map(key_of, items))

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(Global(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = expect(self._pop(), str), expect(self._pop(), str)
        self.stack.append(Global(module, name))

    def _binpersid(self, _: Any) -> None:
        self._count()
        match self._pop():
            case ("storage", Global(module="torch", name=kind), str(key), str(), int(n), *_) if (
                self.find_storage is not None and kind in STORAGES and n >= 0
            ):
                self.stack.append(self.find_storage(key, STORAGES[kind], n))
            case _:
                raise NotPlainDataError("it refers to something outside that is no storage")

    def _reduce(self, _: Any) -> None:
        arguments = expect(self._pop(), tuple)
        self._charge(arguments)
        self.stack.append(call(expect(self._pop(), Global), arguments))

    def _newobj(self, _: Any) -> None:
        arguments = expect(self._pop(), tuple)
        self.stack.append(record(expect(self._pop(), Global), arguments))

    def _count(self) -> None:
        """Count what takes longer than other steps."""
        self.calls += 1
        if self.calls > MOST_TENSORS * CALLS_OF_TENSOR:
            raise TooLargeError(f"it has more than {MOST_TENSORS} tensors")

    def _charge(self, value: Any) -> None:
        """Count what a call copies: what the pickle holds once, it may refer to a million times."""
        self._count()
        self.left -= _size(value)
        for part in value if isinstance(value, tuple) and self.left >= 0 else ():
            self.left -= _size(part)
        if self.left < 0:
            raise NotPlainDataError("it copies the same objects again and again")

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._top()
        self._charge(state)
        if isinstance(target, Record):
            attributes = state[0] if isinstance(state, tuple) and state else state
            target.update(expect(attributes, dict))
        elif isinstance(target, np.ndarray):
            fill(target, state)
        elif not isinstance(target, (dict, np.dtype)):  # these two: only what we do not need
            raise NotPlainDataError(f"it sets the state of a {type(target).__name__}")
        elif isinstance(target, np.dtype) and ">" in expect(state, tuple):
            raise NotPlainDataError("it has numbers in big-endian order")


def _size(value: Any) -> int:
    sized = (str, bytes, bytearray, list, tuple, dict)
    return len(value) if isinstance(value, sized) else 1


_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
    "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


def _action(name: str) -> Callable[[_Machine, Any], None] | None:
    """What an opcode does; None where plain data has no use for it."""
    if name in _VALUES:
        return _Machine._value
    if make := _CONSTANTS.get(name):
        return lambda machine, _: machine.stack.append(make())
    if name in ("PROTO", "FRAME"):
        return _Machine._nothing
    if name.endswith(("PUT", "GET")):
        name = name.removeprefix("LONG_").removeprefix("BIN")
    action: Callable[[_Machine, Any], None] | None = getattr(_Machine, f"_{name.lower()}", None)
    return action


_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_ACTIONS = {code: _action(opcode.name) for code, opcode in _OPCODES.items()}
_STOP = ord(".")
_BARE = {code for code, opcode in _OPCODES.items() if opcode.arg is None} - {_STOP}
_READERS: dict[int, Callable[[Any], Any]] = {
    code: opcode.arg.reader for code, opcode in _OPCODES.items() if opcode.arg is not None
}
_CODES = {opcode.name: code for code, opcode in _OPCODES.items()}
_NUMBER = {
    _CODES[name]: struct.Struct(form)
    for name, form in {
        "BININT1": "<B", "BININT2": "<H", "BININT": "<i", "BINFLOAT": ">d", "BINPUT": "<B",
        "LONG_BINPUT": "<I", "BINGET": "<B", "LONG_BINGET": "<I",
    }.items()
}  # fmt: skip
_TEXT = {
    _CODES[name]: struct.Struct(form)  # of its length
    for name, form in {"BINUNICODE": "<I", "SHORT_BINUNICODE": "<B"}.items()
}
