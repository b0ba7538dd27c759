"""Files that appear whole or not at all, and checksums that name the damaged one."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from grokinterp.errors import InputError

ASIDE = ".writing-"


def write_whole(path: Path, content: bytes) -> str:
    """Write aside, flush to the disk, rename; returns the sha256 of the content.

    Whatever interrupts this (a kill, a full disk) leaves the old file or the new one, never a part.
    """
    if not path.name:
        raise InputError(f"{str(path)!r} is not the name of a file; give one.")
    aside = path.with_name(f"{ASIDE}{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None  # not that of the file aside
        raise
    _sync_folder(path.parent)
    return sha256(content)


def read_checked(path: Path, expected: str, *, n_bytes: int | None = None) -> bytes:
    """The content of a file (its first `n_bytes`), refused if its sha256 is another."""
    if not path.is_file():  # also not a pipe or a device, which would never end
        raise InputError(f"{path} is missing, but run.json lists it; restore it from a copy.")
    content = path.read_bytes()[:n_bytes]
    if sha256(content) != expected:
        raise InputError(
            f"{path} is damaged: its sha256 is not the one in run.json; restore it from a copy."
        )
    return content


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
