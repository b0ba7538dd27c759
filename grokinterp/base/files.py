"""Files that appear whole or not at all, and checksums that name the damaged one."""

import contextlib
import hashlib
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.lock import HAS_FLOCK, open_locked
from grokinterp.base.paths import kind_at, reaching, refuse_address

# MERGED runs.kinds_of_files: What a file is by its first bytes, where it is none that the reader at hand can read.
#
# For messages: a Git-LFS pointer, the HTML page of a download that failed or a picture is said to be
# one, instead of what a parser stumbles over in it.


HEAD = 4096  # bytes that are looked at
LARGEST_HEADER = 2**32  # of a safetensors file, in bytes; eight letters read as far more


@dataclass(frozen=True)
class Kind:
    """What a file is, in words that continue "it is ...", and what to do about it, or ""."""

    what: str
    advice: str = ""

    @property
    def stands_in(self) -> bool:
        """Whether it is what a clone or a download leaves in the place of another file."""
        return self.what in ("a Git-LFS pointer", "an HTML page")


_UNPACK = "unpack it and give what is in it"
_BY_BEGINNING: tuple[tuple[bytes, Kind], ...] = (
    (b"version https://git-lfs.github.com/spec/",
     Kind("a Git-LFS pointer", "fetch the file that it stands for (git lfs pull)")),
    (b"PAR1", Kind("a Parquet file", "write it as CSV (pandas: read_parquet, then to_csv)")),
    (b"ARROW1", Kind("an Arrow or Feather file", "write it as CSV (read_feather, then to_csv)")),
    (b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file")),
    (b"SQLite format 3\0", Kind("an SQLite database")),
    (b":W&B", Kind("a log of Weights & Biases in its own format", "export it as CSV")),
    (b"%PDF-", Kind("a PDF")),
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG image")),
    (b"\xff\xd8\xff", Kind("a JPEG image")),
    (b"GIF8", Kind("a GIF image")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("an old Excel or Word file", "save it as CSV")),
    (b"\x1f\x8b", Kind("a gzip archive", _UNPACK)),
    (b"BZh", Kind("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ\0", Kind("an xz archive", _UNPACK)),
    (b"(\xb5/\xfd", Kind("a zstd archive", _UNPACK)),
    (b"7z\xbc\xaf'\x1c", Kind("a 7z archive", _UNPACK)),
    (b"Rar!\x1a\x07", Kind("a RAR archive", _UNPACK)),
    (b"GGUF", Kind("a GGUF model")),
    (b"\x7fELF", Kind("a program")),
    (b"\x93NUMPY", Kind("a numpy array")),
    (b"{\\rtf", Kind("an RTF document", "save it as plain text")),
)  # fmt: skip
_MARKUP = re.compile(rb"<(!doctype|!--|html|head|body|\?xml|svg|[a-z]+[ />])", re.IGNORECASE)
_JSON = re.compile(rb"""\{\s*("|\}|$)|\[\s*(["{\[\]\d-]|true|false|null|$)""")


def kind_of(head: bytes) -> Kind | None:
    r"""What the first bytes of a file (`HEAD` of them) say that it is; None where they do not.

    An empty head says nothing. Archives by zip and pickles are told apart by who opens them:
    torch.save writes the one and the other.

    >>> kind_of(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a").what
    'a Git-LFS pointer'
    >>> kind_of(b"\n<!DOCTYPE html><html>").what, kind_of(b'[{"step": 0}]').what
    ('an HTML page', 'JSON')
    >>> kind_of(b"step,test_acc\n0,0.1\n") is None
    True
    """
    for beginning, kind in _BY_BEGINNING:
        if head.startswith(beginning):
            return kind
    if is_safetensors(head):
        return Kind("a safetensors file")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", _UNPACK)
    if b"brain.Event:" in head[:64]:
        return Kind("an event file of TensorBoard", "export its scalars as CSV")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _MARKUP.match(text):
        html = re.search(rb"<(!doctype html|html|head|body)", text, re.IGNORECASE)
        advice = "download the file itself (on a page of a repository: raw)"
        return Kind("an HTML page", advice) if html else Kind("XML")
    return Kind("JSON") if _JSON.match(text) else None


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a header, and a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LARGEST_HEADER


def kind_of_file(path: Path) -> Kind | None:
    """The same of a file on disk."""
    with path.open("rb") as file:
        return kind_of(file.read(HEAD))


ASIDE = ".writing-"


def write_whole(path: Path, content: bytes) -> str:
    """Write aside, flush to the disk, rename; returns the sha256 of the content.

    Whatever interrupts this (a kill, a full disk) leaves the old file or the new one, never a part;
    of several that write one file at once, the last one's stays. What a kill leaves aside is used
    by the next one that writes the file.
    """
    if not path.name:
        raise InputError(f"{str(path)!r} is not the name of a file; give one.")
    refuse_address(path)
    kind_at(path)  # of a device nothing is left but an ordinary file
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside, descriptor = _open_aside(path)
        with open(descriptor, "wb") as file:
            file.truncate()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            if HAS_FLOCK:  # while the lock is held; elsewhere an open file cannot be renamed
                os.replace(aside, path)
        if not HAS_FLOCK:
            os.replace(aside, path)
    except BaseException as error:
        if aside is not None:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # not that of the file aside
        with reaching(path):
            raise
    _sync_folder(path.parent)
    return sha256(content)


def _open_aside(path: Path) -> tuple[Path, int]:
    """A file beside this one that nobody else writes: the usual one, or one of its own."""
    usual = path.with_name(f"{ASIDE}{path.name}")
    if HAS_FLOCK:
        with contextlib.suppress(OSError):  # no locks there; what else is wrong comes up below
            if (descriptor := open_locked(usual)) is not None:
                return usual, descriptor
    own = path.with_name(f"{usual.name}-{uuid.uuid4().hex[:8]}")
    return own, os.open(
        own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
    )


def read_checked(path: Path, expected: str, *, n_bytes: int | None = None) -> bytes:
    """The content of a file (its first `n_bytes`), refused if its sha256 is another."""
    if not path.is_file():  # also not a pipe or a device, which would never end
        raise InputError(f"{path} is missing, but run.json lists it; restore it from a copy.")
    content = path.read_bytes()[:n_bytes]
    if sha256(content) != expected:
        refuse_stand_in(path, content)
        raise InputError(
            f"{path} is damaged: its sha256 is not the one in run.json; restore it from a copy."
        )
    return content


def refuse_stand_in(path: Path, content: bytes) -> None:
    """InputError where a file of a run is what came instead of it: a Git-LFS pointer, nothing."""
    if not content:
        raise InputError(
            f"{path} is empty: damaged or was not written by grokinterp; restore it from a copy."
        )
    if (kind := kind_of(content[:HEAD])) and kind.stands_in:
        raise InputError(f"{path} is {kind.what}, not the file of the run; {kind.advice}.")


def sha256(content: bytes) -> str:
    """Hexadecimal sha256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def tensors_to_bytes(tensors: dict[str, Tensor], **metadata: Any) -> bytes:
    """Named tensors as the content of a safetensors file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(contiguous, {key: str(value) for key, value in metadata.items()})


def tensors_from_bytes(content: bytes, path: Path) -> dict[str, Tensor]:
    """Named tensors from the content of the safetensors file at `path`."""
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file ({error}).") from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"{path} is damaged: no whole safetensors file ({error}).") from None


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; not every platform can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
