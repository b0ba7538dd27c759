"""What is at a path? A file, a folder, nothing; what is neither is refused and never opened.

A named pipe is waited for, and a device may never end: neither holds a run, a log or a recipe. Of
an empty file nothing is read either: so those of /proc call themselves that wait for the kernel.
"""

import os
import stat
from pathlib import Path
from typing import Literal

from grokinterp.errors import InputError, one_line, shown

_OTHERS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def kind_at(path: str | Path) -> Literal["file", "folder"] | None:
    """Whether a path leads to a file or a folder, links followed; None where nothing is.

    InputError for a pipe, a device or a socket, and for what no path can be.

    >>> kind_at("."), kind_at("nowhere")
    ('folder', None)
    >>> kind_at("/dev/zero")
    Traceback (most recent call last):
    grokinterp.errors.InputError: /dev/zero is a device, not a file or folder; give one of these.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(
            f"{_named(path)} cannot be looked at ({error.strerror}); give a path that can."
        ) from None
    except ValueError as error:  # a zero byte
        raise InputError(f"{_named(path)} is no path ({error}); give another.") from None
    if kind == stat.S_IFREG:
        return "file"
    if kind == stat.S_IFDIR:
        return "folder"
    raise InputError(
        f"{_named(path)} is {_OTHERS.get(kind, 'something else')}, not a file or folder; give one "
        "of these."
    )


def file_at(path: str | Path, *, wanted: str, largest: int | None = None) -> Path:
    """The path of a file with something in it, and at most so many bytes; InputError for others.

    `wanted` is what to do about it.

    >>> file_at("nowhere.toml", wanted="give a recipe in TOML")
    Traceback (most recent call last):
    grokinterp.errors.InputError: nowhere.toml does not exist; give a recipe in TOML.
    """
    kind = kind_at(path)
    if kind is None:
        raise InputError(f"{_named(path)} does not exist; {wanted}.")
    if kind == "folder":
        raise InputError(f"{_named(path)} is a folder, not a file; {wanted}.")
    size = os.stat(path).st_size
    if size == 0:
        raise InputError(f"{_named(path)} is empty; {wanted}.")
    if largest is not None and size > largest:
        raise InputError(
            f"{_named(path)} has {size} bytes, more than the {largest} that are read; {wanted}."
        )
    return Path(path)


def _named(path: str | Path) -> str:
    """The path as a message names it; an odd one is shown by Python's rules."""
    text = str(path)
    return one_line(text, most=200) if text.isprintable() else shown(text)
