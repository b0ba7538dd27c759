"""Files that appear whole or not at all, one writer of a folder at a time, and what a file holds.

The lock of a folder is the operating system's, on a file `.lock` in it, so it ends with the process
that holds it, however that ends: a file that a killed process left behind locks nothing. What
stands in the file is for people only. Where a file system knows no locks, work goes on without
one, and the log says so.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import socket
import sys
import time
import uuid
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.paths import kind_at, reaching, refuse_address

if sys.platform == "win32":  # pragma: no cover
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
ASIDE = ".writing-"  # how the name of a file begins that is not whole yet
HAS_FLOCK = os.name == "posix"  # with it a locked file can be renamed, removed and read
TRIES = 20  # of taking a lock file that its last owner is just removing
HELD = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK)
BINARY = getattr(os, "O_BINARY", 0)  # of Windows
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
BLOCK = 2**20  # bytes that are copied at once
HEAD = 4096  # bytes of a file that are looked at
LARGEST_HEADER = 2**32  # of a safetensors file, in bytes; eight letters read as far more


@dataclass(frozen=True)
class Kind:
    """What a file is: words that continue "it is ...", and what to do about it."""

    what: str
    advice: str = ""  # where there is any


UNPACK = "unpack it and give what is in it"
ZIP = b"PK\x03\x04"
_BY_BEGINNING: tuple[tuple[bytes, Kind], ...] = (
    (b"version https://git-lfs.github.com/spec/",
     Kind("a Git-LFS pointer", "fetch the file that it stands for (git lfs pull)")),
    (b"PAR1", Kind("a Parquet file", "write it as CSV (pandas: read_parquet, then to_csv)")),
    (b"ARROW1", Kind("an Arrow or Feather file", "write it as CSV (read_feather, then to_csv)")),
    (b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file")),
    (b"SQLite format 3\0", Kind("an SQLite database")),
    (b":W&B", Kind("a log of Weights & Biases in its own format", "export it as CSV")),
    (b"MATLAB 5.0 MAT-file", Kind("a MATLAB file", "save its numbers as CSV")),
    (b"%PDF-", Kind("a PDF")),
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG image")),
    (b"\xff\xd8\xff", Kind("a JPEG image")),
    (b"GIF8", Kind("a GIF image")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind("an old Excel or Word file", "save it as CSV")),
    (b"\x1f\x8b", Kind("a gzip archive", UNPACK)),
    (b"BZh", Kind("a bzip2 archive", UNPACK)),
    (b"\xfd7zXZ\0", Kind("an xz archive", UNPACK)),
    (b"(\xb5/\xfd", Kind("a zstd archive", UNPACK)),
    (b"7z\xbc\xaf'\x1c", Kind("a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", Kind("a RAR archive", UNPACK)),
    (b"GGUF", Kind("a GGUF model")),
    (b"\x7fELF", Kind("a program")),
    (b"\x93NUMPY", Kind("a numpy array")),
    (b"{\\rtf", Kind("an RTF document", "save it as plain text")),
)  # fmt: skip
_OF_OFFICE = (b"[Content_Types].xml", b"docProps/")
_MARKUP = re.compile(rb"<(!doctype|!--|html|head|body|\?xml|svg|[a-z]+[ />])", re.IGNORECASE)
_JSON = re.compile(rb"""\{\s*("|\}|$)|\[\s*(["{\[\]\d-]|true|false|null|$)""")


def kind_of(head: bytes) -> Kind | None:
    r"""What a file is by its first bytes (`HEAD` of them); None where they do not say.

    Messages then say this instead of what a parser stumbled over in a download that failed.
    Zip archives and pickles are told apart by who opens them: torch.save writes both.

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
    if head.startswith(ZIP) and any(name in head for name in _OF_OFFICE):
        return Kind("an Excel or Word file", "save it as CSV")
    if is_safetensors(head):
        return Kind("a safetensors file")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", UNPACK)
    if b"brain.Event:" in head[:64]:
        return Kind("an event file of TensorBoard", "export its scalars as CSV")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if _MARKUP.match(text):
        html = re.search(rb"<(!doctype html|html|head|body)", text, re.IGNORECASE)
        advice = "download the file itself (on a page of a repository: raw)"
        return Kind("an HTML page", advice) if html else Kind("XML")
    return Kind("JSON") if _JSON.match(text) else None


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors files do: the length of a header, and a JSON object."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LARGEST_HEADER


class Hold(contextlib.AbstractContextManager["Hold", None]):
    """A folder held by this process until `release()`, the end of a `with`, or its own end."""

    def __init__(self, folder: Path, file: Path) -> None:
        made = [one for one in file.parents if not one.exists()]  # the innermost first
        held: list[int] = []  # its descriptor, from the moment on that it is locked
        self.release = weakref.finalize(self, _release, held, file, made, os.getpid())
        try:
            held.append(_acquire(folder, file))
            _name_owner(held[0])
        except BaseException:  # a signal, which may come before the `with` has begun
            self.release()
            raise

    def __exit__(self, *error: object) -> None:
        self.release()


def hold(folder: Path, *, file: Path | None = None) -> Hold:
    """Become the only writer of a folder; use it in a `with` block.

    `file` is the lock file, by default `.lock` in the folder. Its folder is made where it is
    missing, and removed at the end if it is still empty. A second process, or a second thread of
    this one, gets an InputError with the owner's number, its machine and since when.
    """
    refuse_address(folder)
    return Hold(folder, folder / LOCK if file is None else file)


def open_locked(path: Path) -> int | None:
    """A descriptor of the file, made where missing and locked; None while another has it.

    OSError as of opening, and where there are no locks.
    """
    for _ in range(TRIES):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        try:
            if not _lock(descriptor):
                os.close(descriptor)
                return None
            # Its last owner may have removed or renamed it after we opened it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _acquire(folder: Path, file: Path) -> int:
    """The descriptor of the folder's lock; -1 where the file system has no locks."""
    for tries_left in reversed(range(TRIES)):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = open_locked(file)
            break
        except (FileNotFoundError, FileExistsError):  # its last owner just removed the empty folder
            if not tries_left:
                with reaching(folder):
                    raise
        except OSError as error:
            if error.errno not in NO_LOCKS:
                error.filename = str(folder)  # what the user knows of
                with reaching(folder):
                    raise
            logging.getLogger(__name__).warning(
                "%s is on a file system without locks; let only one process write it.", folder
            )
            return -1
    if descriptor is None:
        raise InputError(
            f"{folder} is being written by {_owner(file)}; wait until that ends (close its "
            "Recorder, stop its training), or give another folder."
        )
    return descriptor


def _release(held: list[int], file: Path, made: list[Path], owner: int) -> None:
    forked = os.getpid() != owner  # then the lock is the parent's
    with contextlib.ExitStack() as closed:
        for descriptor in held:
            if descriptor >= 0:
                closed.callback(os.close, descriptor)
        if forked:
            return
        if not HAS_FLOCK:  # then no open file can be removed
            closed.close()
        if held:
            with contextlib.suppress(OSError):  # a read-only disk; a file alone locks nothing
                file.unlink()
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _name_owner(descriptor: int) -> None:
    """Write into a lock whose it is, where there is one."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with contextlib.suppress(OSError):  # a full disk, or no lock
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(owner).encode())


def _owner(file: Path) -> str:
    """Who holds a lock, as far as its file says."""
    if not file.is_file():  # nor a pipe, for which this would wait
        return "another process"
    try:
        said = json.loads(file.read_bytes())
        pid, host, since = int(said["pid"]), str(said["host"]), str(said["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    mine = pid == os.getpid() and host == socket.gethostname()
    return f"{'this very process' if mine else 'process'} {pid} on {host} since {since}"


def _lock(descriptor: int) -> bool:
    """Lock an open file; False if another holder, also of this process, has it."""
    try:
        if sys.platform == "win32":  # pragma: no cover
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # after the text: others may read it
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            return False
        raise
    return True


def copy_at_most(source: IO[bytes], target: IO[bytes], most: int) -> int | None:
    """Copy from one open file to another: how many bytes, or None where there are more than `most`.

    >>> import io
    >>> copy_at_most(io.BytesIO(b"abc"), io.BytesIO(), 3)
    3
    >>> copy_at_most(io.BytesIO(b"abc"), io.BytesIO(), 2) is None
    True
    """
    n = 0
    while block := source.read(BLOCK):
        n += len(block)
        if n > most:
            return None
        target.write(block)
    return n


def write_whole(path: Path, content: bytes) -> str:
    """Write a file aside, flush it to the disk, rename it; returns the sha256 of the content.

    Whatever interrupts this (a kill, a full disk) leaves the old file or the new one, never a part.
    Of several that write one file at once, the last one's stays. What a kill leaves aside, the next
    one to write the file overwrites.
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
    return own, os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o666)


def read_checked(path: Path, expected: str, *, n_bytes: int | None = None) -> bytes:
    """The content of a file, or its first `n_bytes`; refused if its sha256 is not the expected."""
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
    """InputError where a file of a run is empty, a Git-LFS pointer or an HTML page."""
    if not content:
        raise InputError(
            f"{path} is empty: damaged or was not written by grokinterp; restore it from a copy."
        )
    kind = kind_of(content[:HEAD])
    if kind and kind.what in ("a Git-LFS pointer", "an HTML page"):
        raise InputError(f"{path} is {kind.what}, not the file of the run; {kind.advice}.")


def sha256(content: bytes) -> str:
    """The sha256 of bytes in hexadecimal digits."""
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
