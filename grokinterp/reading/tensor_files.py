"""Files of tensors as data (of torch.save, safetensors, numpy, pickle), and the weights in them.

Recognised by content. Tensors are views into the mapped file, so a file of any size is opened
without reading it into memory, and every length is compared with the file's before it is used.
"""

import codecs
import mmap
import stat
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from grokinterp.base.errors import LONGEST_VALUE, InputError, names, one_line, shown
from grokinterp.base.files import HEAD, is_safetensors, kind_of
from grokinterp.base.paths import file_at
from grokinterp.reading.pickled_objects import (
    ModelState,
    NotPlainDataError,
    Record,
    TooLargeError,
    with_states,
)
from grokinterp.reading.pickles import MOST_TENSORS, read_pickle
from grokinterp.reading.words import is_known

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first object of what torch.save wrote before version 1.6
LOCAL_HEADER = 30  # bytes of a zip member's header before its name
BYTES_LISTED = 100  # a member, in the list at the end of one: 46 and its name
LONGEST_HEADER = 10_000_000  # bytes, of a safetensors file
MOST_SHARED = 4  # times a file's size that its tensors may claim together: tied weights, copies
DAMAGE = (  # what the parsers of the standard library raise where something is wrong with a file
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    RuntimeError, SafetensorError, TypeError, ValueError, struct.error, tokenize.TokenError,
    zipfile.BadZipFile,
)  # fmt: skip
NESTED = ("model", "state_dict", "model_state_dict", "net", "weights", "params")
LONGEST_WEIGHT_NAME = 200  # of a weight
MOST_WEIGHTS = 20_000  # of a network of a thousand layers
MOST_OF_ALL = 100_000  # of all checkpoints of a file, tied ones counted each time
GIVE = "give a checkpoint, such as torch.save(model.state_dict(), path) writes"

StateDict = Mapping[str, Tensor]


def is_tensor_file(path: Path) -> bool:
    """Whether a file looks like one of these by its first bytes (a CSV does not)."""
    if path.stat().st_size == 0:  # those of /proc that wait for the kernel say so too
        return False
    with path.open("rb") as file:
        head = file.read(16)
    return head.startswith((b"PK", b"\x80", b"\x93NUMPY")) or is_safetensors(head)


def read_file(path: Path) -> Any:
    """The data in a file: dictionaries, lists, numbers, text and tensors.

    Of a whole model, its state dict (`grokinterp.reading.pickled_objects`). Refused in one line: a
    file that is cut off or damaged, one that wants code to run, and one that claims to be larger
    than it is.
    """
    file_at(path, wanted=GIVE)
    try:
        return with_states(_read(path))
    except OSError as error:  # of files that are not to be mapped, such as those of /sys
        raise InputError(f"{path} cannot be read ({error.strerror}); give a copy.") from None
    except TooLargeError as error:
        raise InputError(
            f"{path} is more than is read of one file: {error}; keep the weights alone, or those "
            "of fewer steps."
        ) from None
    except NotPlainDataError as error:
        raise InputError(
            f"{path} is not plain data: {error}. Nothing in it was run; give a file of "
            "tensors, numbers and containers, such as torch.save(model.state_dict(), path) writes."
        ) from None
    except DAMAGE as error:
        if not is_tensor_file(path):
            refuse_other_file(path)
        reason = one_line(str(error), most=LONGEST_VALUE) or type(error).__name__
        raise InputError(
            f"{path} is damaged or cut off ({reason}); restore it from a copy."
        ) from None


def refuse_other_file(path: Path) -> NoReturn:
    """InputError that says what a file is that holds no tensors, as far as its beginning shows."""
    file_at(path, wanted=GIVE)
    with path.open("rb") as file:
        head = file.read(HEAD)
    if kind := kind_of(head):
        raise InputError(f"{path} is {kind.what}, no checkpoint; {kind.advice or GIVE}.")
    try:
        if b"\0" in head:
            raise ValueError
        codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end within a letter
    except ValueError:
        raise InputError(f"{path} begins as no format that is known here; {GIVE}.") from None
    raise InputError(
        f"{path} is text, no checkpoint; {GIVE} (a log in CSV is for grokinterp phases)."
    )


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        # A private copy of pages that are written to: torch wants to be able to write.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if is_safetensors(mapped[:16]):
        if int.from_bytes(mapped[:8], "little") > LONGEST_HEADER:
            raise TooLargeError(f"its header has more than {LONGEST_HEADER} bytes")
        with safe_open(path, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    if mapped[:2] == b"PK":
        return _read_zip(mapped)
    if mapped[:6] == b"\x93NUMPY":
        with warnings.catch_warnings(action="ignore"):  # of old headers
            return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    if mapped[:1] == b"\x80":
        return _read_legacy(mapped)
    raise ValueError("its first bytes are of no format that is known here")


class _Claims:
    """How much memory the tensors of a file stand for together."""

    def __init__(self, most: int) -> None:
        self.left = most * MOST_SHARED

    def flat(self, mapped: mmap.mmap, start: int, dtype: torch.dtype, n: int) -> Tensor:
        """`n` numbers of the file from byte `start` on."""
        if n == 0:
            return torch.empty(0, dtype=dtype)
        n_bytes = n * dtype.itemsize
        self.left -= n_bytes
        if self.left < 0:
            raise ValueError(f"its tensors claim more than {MOST_SHARED} times its size")
        if start + n_bytes > len(mapped):
            raise ValueError("a tensor reaches beyond its end")
        stored = torch.uint8 if dtype == torch.bool else dtype  # any byte but 0 is true
        if start % dtype.itemsize:
            flat = torch.frombuffer(bytearray(mapped[start : start + n_bytes]), dtype=stored)
        else:
            flat = torch.frombuffer(mapped, dtype=stored, count=n, offset=start)
        return flat.bool() if dtype == torch.bool else flat


def _read_zip(mapped: mmap.mmap) -> Any:
    """torch.save since version 1.6: a zip archive, stored, with one pickle and a file a storage."""
    stream: Any = mapped  # it has all of a file that the parsers use
    if _directory_size(mapped) > MOST_TENSORS * BYTES_LISTED:  # which takes seconds to read
        raise TooLargeError(f"it has more than {MOST_TENSORS} tensors")
    with zipfile.ZipFile(stream) as archive:
        members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            _check_member(info, members)
            members[info.filename] = info
        pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise NotPlainDataError(
                "it is a zip archive that torch.save did not write; unpack it and give the folder"
            )
        if sum(info.file_size for info in members.values()) > len(mapped):
            raise ValueError("its members overlap")
        folder = pickles[0].partition("/")[0]
        spans = {name: _span(mapped, info) for name, info in members.items()}
        start, size = spans.get(f"{folder}/byteorder", (0, 0))
        if mapped[start : start + size] == b"big":
            raise NotPlainDataError("it has numbers in big-endian order")
        claims = _Claims(len(mapped))

        def find(key: str, dtype: torch.dtype, n: int) -> Tensor:
            start, size = spans[f"{folder}/data/{key}"]
            if n * dtype.itemsize > size:
                raise ValueError(f"storage {shown(key)} is too short")
            return claims.flat(mapped, start, dtype, n)

        start, size = spans[pickles[0]]
        return read_pickle(mapped[start : start + size], find)


def _directory_size(mapped: mmap.mmap) -> int:
    """How many bytes the list of members takes, at the end of a zip archive."""
    end = mapped.rfind(b"PK\x05\x06", max(0, len(mapped) - 2**16 - 22))
    if end < 0 or end + 20 > len(mapped):
        return 0  # no archive, which its parser finds out
    (size,) = struct.unpack_from("<I", mapped, end + 12)
    long = mapped.rfind(b"PK\x06\x06", max(0, end - 20 - 2**16), end)
    if size == 2**32 - 1 and 0 <= long <= end - 48:
        (size,) = struct.unpack_from("<Q", mapped, long + 40)
    return int(size)


def _check_member(info: zipfile.ZipInfo, earlier: dict[str, zipfile.ZipInfo]) -> None:
    parts = info.filename.split("/")
    if ".." in parts or info.filename.startswith("/") or "\\" in info.filename:
        raise NotPlainDataError(f"its member {shown(info.filename)} leads out of the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise NotPlainDataError(f"its member {shown(info.filename)} is a symbolic link")
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise NotPlainDataError(
            f"its member {shown(info.filename)} is compressed, which torch.save never does"
        )
    if info.filename in earlier:
        raise ValueError(f"it has two members {shown(info.filename)}")


def _span(mapped: mmap.mmap, info: zipfile.ZipInfo) -> tuple[int, int]:
    """First byte and length of a member, its checksum compared."""
    header = mapped[info.header_offset : info.header_offset + LOCAL_HEADER]
    signature, name, extra = struct.unpack("<4s22xHH", header)
    start = info.header_offset + LOCAL_HEADER + name + extra
    if signature != b"PK\x03\x04" or start + info.file_size > len(mapped):
        raise ValueError(f"member {shown(info.filename)} is not whole")
    with memoryview(mapped) as view, view[start : start + info.file_size] as content:
        if zlib.crc32(content) != info.CRC:
            raise ValueError(f"member {shown(info.filename)} differs from its checksum")
    return start, info.file_size


def _storage_in(content: bytes) -> Tensor:
    """The numbers of a storage that was pickled by itself: a file of torch.save, before 1.6."""
    mapped = mmap.mmap(-1, len(content))
    mapped.write(content)
    mapped.seek(0)
    found = _read_legacy(mapped, inside=True)
    if not isinstance(found, Tensor) or found.ndim != 1:
        raise NotPlainDataError("it has a storage that is none")
    return found


def _read_legacy(mapped: mmap.mmap, *, inside: bool = False) -> Any:
    """A plain pickle, or torch.save before version 1.6: five pickles, then the storages."""
    first = read_pickle(mapped, load_bytes=None if inside else _storage_in)
    if type(first) is not int or first != LEGACY_MAGIC:  # an array compares as one
        return first
    for _ in ("protocol version", "sizes of the system's types"):
        read_pickle(mapped)
    begin = mapped.tell()
    kinds: dict[str, tuple[torch.dtype, int]] = {}

    def register(key: str, dtype: torch.dtype, n: int) -> Tensor:
        kinds[key] = dtype, n
        return torch.empty(n, dtype=dtype, device="meta")

    read_pickle(mapped, register)
    keys = read_pickle(mapped)
    claims = _Claims(len(mapped))
    storages = {}
    for key in keys:
        dtype, n = kinds[key]
        if struct.unpack("<q", mapped.read(8))[0] != n:
            raise ValueError(f"storage {shown(key)} has another length than its tensors")
        storages[key] = claims.flat(mapped, mapped.tell(), dtype, n)
        mapped.seek(mapped.tell() + n * dtype.itemsize)
    mapped.seek(begin)
    return read_pickle(mapped, lambda key, dtype, n: storages[key])


def weights_in(data: Any, path: Path | str) -> StateDict:
    """The weights in what a file holds, without losses and rows that are tensors."""
    if not isinstance(data, Mapping) or len(data) > MOST_WEIGHTS:
        return state_dict_in(data, path)
    rest = {key: x for key, x in data.items() if not (isinstance(key, str) and is_known(key))}
    return state_dict_in(rest, path, whole=data)


def holds_weights(data: Any) -> bool:
    """Whether this is a state dict, or what keeps one under a usual name."""
    try:
        return bool(weights_in(data, Path())) if isinstance(data, Mapping) else False
    except InputError:
        return False


def other_weights(data: Any) -> list[Any]:
    """Keys of a file under which there are weights that are not the ones that are read."""
    top = as_mapping(data)
    held = [key for key, x in top.items() if isinstance(x, Mapping) and holds_weights(x)]
    flat = sum(isinstance(x, Tensor) for x in top.values())
    if flat >= 4 and flat >= len(top) / 2:  # as state_dict_in decides
        return held
    read = next((name for name in NESTED if name in held), None)
    return [key for key in held if key != read] if read else []


def refuse_too_many(sizes: Iterable[int], path: Path | str) -> None:
    """Refuse checkpoints of one file that have more weights together than are looked at."""
    n = 0
    for size in sizes:
        n += size
        if n > MOST_OF_ALL:
            raise InputError(
                f"{path} is more than is read of one file: its checkpoints have more than "
                f"{MOST_OF_ALL} weights; keep those of fewer steps."
            )


def refuse_mostly_shared(states: Collection[StateDict], path: Path) -> None:
    """Refuse checkpoints of one file that claim many times its size together."""
    claimed = sum(weight.nbytes for state in states for weight in state.values())
    if claimed > MOST_SHARED * path.stat().st_size:
        raise InputError(
            f"{path} has {len(states)} checkpoints that are mostly one another's tensors; it is "
            "damaged."
        )


def is_no_checkpoint(data: Any) -> bool:
    """Whether a file is plainly of something else than weights: an optimizer's state, a log."""
    if not isinstance(data, Mapping):
        return True
    if any(as_mapping(data.get(name)) for name in NESTED):
        return False
    return not any(
        isinstance(x, Tensor) and x.ndim >= 2 and not is_known(str(key)) for key, x in data.items()
    )


def state_dict_in(data: Any, path: Path | str, *, whole: Any = None) -> StateDict:
    """The weights in what a file holds: the file itself, or what it keeps under a usual name.

    `whole` is all that the file holds, for the message, where `data` is a part.
    """
    top = as_mapping(data)
    for candidate, fewest in ((top, 4), *((as_mapping(top.get(name)), 1) for name in NESTED)):
        weights = {key: x for key, x in candidate.items() if isinstance(x, Tensor)}
        if len(weights) >= fewest and len(weights) >= len(candidate) / 2:
            _check_names(weights, path)
            return weights
    few = {key: x for key, x in top.items() if isinstance(x, Tensor)}
    if 0 < len(top) <= 2 * sum(x.ndim >= 2 for x in few.values()):  # mostly matrices
        _check_names(few, path)
        return few  # a network too: its names tell later which
    found = _what_it_is(data if whole is None else whole)
    raise InputError(f"{path} holds no weights that are known here: {found}.")


def _what_it_is(data: Any) -> str:
    """What a file holds instead of a state dict, and what to do about it."""
    if isinstance(data, Record) and data.kind:
        table = data.kind.startswith("pandas.")
        return f"it is {_kind(data)}; {'write it with its to_csv or to_parquet' if table else GIVE}"
    if not isinstance(data, Mapping):
        return f"it is {_kind(data)}; {GIVE}"
    if not data:
        return f"it is an empty dictionary; {GIVE}"
    inside = [
        key for key, x in islice(data.items(), MOST_WEIGHTS)
        if sum(isinstance(each, Tensor) for each in as_mapping(x).values()) >= 4
    ]  # fmt: skip
    if inside:
        return f"it has state dicts under {names(inside)}; save one of them as a file of its own"
    if key := next((key for key in NESTED if key in data), None):
        return f"its {key!r} is {_kind(data[key])}; {GIVE}"
    return f"it is a dictionary of {names(data)}; {GIVE}"


def _kind(value: Any) -> str:
    if isinstance(value, ModelState) and not value:
        return f"a model of class {value.kind} without tensors"
    if isinstance(value, Record) and value.kind:
        return f"an object of {value.kind}. Nothing in it was run"
    if isinstance(value, Mapping):
        return f"a dictionary of {names(value) if value else 'nothing'}, not of tensors"
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, (str, bytes)):
        return f"text, {shown(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return f"of type {type(value).__name__}"


def _check_names(weights: Mapping[Any, Tensor], path: Path | str) -> None:
    if len(weights) > MOST_WEIGHTS:
        raise InputError(
            f"{path} has a state dict of {len(weights)} weights; a network of at most "
            f"{MOST_WEIGHTS} is read."
        )
    for name in weights:
        if not isinstance(name, str) or len(name) > LONGEST_WEIGHT_NAME or not name.isprintable():
            raise InputError(
                f"{path} has a weight of the name {shown(name)}; names are text of at most "
                f"{LONGEST_WEIGHT_NAME} characters, such as embed.W_E."
            )


def as_mapping(value: Any) -> Mapping[Any, Any]:
    """The value where it is a mapping; otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}
