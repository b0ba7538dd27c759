"""Files that appear whole or not at all, and checksums that name the damaged one."""

import contextlib
import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.paths import kind_at, reaching, refuse_address
from grokinterp.runs.kinds_of_files import HEAD, kind_of
from grokinterp.runs.lock import HAS_FLOCK, open_locked

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
