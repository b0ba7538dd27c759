"""Paths as they are given, and what is there: a file, a folder, nothing.

What is neither a file nor a folder is refused and never opened: reading would wait for a named
pipe, and a device may never end. Empty files are not read either: those of /proc that wait for the
kernel call themselves empty. What the file system says becomes one line.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from grokinterp.base.errors import LONGEST_VALUE, InputError, one_line, shown

LONGEST_NAME = 255  # bytes, of a file or folder; no file system takes more
LONGEST_PATH = 4095
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of two letters or more: `C:` is a drive
OF_THE_PATH = (  # what is wrong with a path, and not with the disk or the memory
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
_OTHERS = {
    stat.S_IFIFO: "a named pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def as_path(name: str, given: object, *, such_as: str) -> Path:
    """The path that was given as an argument, as text or a Path.

    >>> as_path("out", "runs/mine", such_as="runs/mine").parts
    ('runs', 'mine')
    >>> as_path("out", None, such_as="runs/mine")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: out=None is no path; give such as 'runs/mine'.
    """
    advice = f"give such as {such_as!r}"
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise InputError(f"{name}={shown(given)} is no path; {advice}.")
    text = os.fspath(given)
    if not text.strip():
        raise InputError(f"{name}={text!r} names nothing; {advice}.")
    try:
        whole = os.fsencode(text)
    except UnicodeEncodeError:
        whole = b"\0"
    if b"\0" in whole:
        raise InputError(f"{name}={shown(text)} has a character that no path has; {advice}.")
    names = whole.replace(b"\\", b"/").split(b"/")
    if max(map(len, names)) > LONGEST_NAME or len(whole) > LONGEST_PATH:
        raise InputError(
            f"{name}={shown(text)} is too long: names of files and folders have at most "
            f"{LONGEST_NAME} bytes, paths {LONGEST_PATH}; {advice}."
        )
    return Path(text)


def new_file(name: str, given: object, *, such_as: str) -> Path:
    """The path of a file to write, as `as_path` gives it; refused where a folder stands there.

    >>> new_file("path", ".", such_as="figure.html")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: . is a folder; give the name of a file, such as figure.html.
    """
    path = as_path(name, given, such_as=such_as)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file, such as {such_as}.")
    return path


def new_folder(path: Path, *, give: str) -> Path:
    """The path of a folder to make or to go on in, refused where a file stands there."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; give {give}.")
    return path


def address_of(path: str | Path) -> str | None:
    """The address that was typed, of which a Path keeps one slash; None for any other path.

    >>> address_of(Path("hf://user/repo/run")), address_of(Path("file:///tmp/run"))
    ('hf://user/repo/run', 'file:///tmp/run')
    >>> address_of("runs/mine") is None
    True
    """
    parts = Path(path).parts
    if not parts or not SCHEME.fullmatch(parts[0]):
        return None
    slashes = "///" if parts[0] == "file:" else "//"
    return str(path) if "://" in str(path) else parts[0] + slashes + "/".join(parts[1:])


def refuse_address(path: str | Path) -> None:
    """InputError for a place to write to that is an address, for it would become a folder `s3:`.

    >>> refuse_address("runs/mine")
    >>> refuse_address("s3://bucket/report.html")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: s3://bucket/report.html is an address, ...
    """
    given = address_of(path)
    if given is None:
        return
    raise InputError(
        f"{one_line(given, most=LONGEST_VALUE)} is an address, and this writes to folders of this "
        "machine alone; give a path, and copy the result from there."
    )


@contextlib.contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn what the file system says of a path into an InputError; a full disk stays an OSError."""
    try:
        yield
    except OF_THE_PATH as error:
        where = path if error.filename is None else error.filename
        raise InputError(
            f"{where}: {error.strerror or type(error).__name__}; give a path that is there and "
            "that you may use."
        ) from error


def kind_at(path: str | Path) -> Literal["file", "folder"] | None:
    """Whether a path leads to a file or a folder, links followed; None where nothing is there.

    InputError for a pipe, a device or a socket, and for what cannot be a path.

    >>> kind_at("."), kind_at("nowhere")
    ('folder', None)
    >>> kind_at("/dev/zero")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: /dev/zero is a device, not a file or folder; ...
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
    """The path of a file that is not empty and has at most `largest` bytes; InputError for others.

    `wanted` is what the message says to do.

    >>> file_at("nowhere.toml", wanted="give a recipe in TOML")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: nowhere.toml does not exist; give a recipe in TOML.
    """
    kind, wrong = kind_at(path), None
    size = os.stat(path).st_size if kind else 0
    if kind is None:
        wrong = "does not exist"
    elif kind == "folder":
        wrong = "is a folder, not a file"
    elif size == 0:
        wrong = "is empty"
    elif largest is not None and size > largest:
        wrong = f"has {size} bytes, more than the {largest} that are read"
    if wrong:
        raise InputError(f"{_named(path)} {wrong}; {wanted}.")
    return Path(path)


def _named(path: str | Path) -> str:
    """The path as a message names it; an odd one is shown by Python's rules."""
    text = str(path)
    return one_line(text, most=200) if text.isprintable() else shown(text)
