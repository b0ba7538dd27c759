"""Paths as they are given, and what the file system says to them, in one line."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from grokinterp.errors import LONGEST_VALUE, InputError, one_line, shown

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


def as_path(name: str, given: object, *, such_as: str) -> Path:
    """The path that was given as an argument, as text or a Path.

    >>> as_path("out", "runs/mine", such_as="runs/mine").parts
    ('runs', 'mine')
    >>> as_path("out", None, such_as="runs/mine")
    Traceback (most recent call last):
    grokinterp.errors.InputError: out=None is no path; give such as 'runs/mine'.
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
    longest = max(map(len, whole.replace(b"\\", b"/").split(b"/")))
    if longest > LONGEST_NAME or len(whole) > LONGEST_PATH:
        raise InputError(
            f"{name}={shown(text)} is too long: names of files and folders have at most "
            f"{LONGEST_NAME} bytes, paths {LONGEST_PATH}; {advice}."
        )
    return Path(text)


def refuse_address(path: str | Path) -> None:
    """InputError for a place to write to that is an address: a folder `http:` would be made.

    >>> refuse_address("runs/mine")
    >>> refuse_address("s3://bucket/report.html")
    Traceback (most recent call last):
    grokinterp.errors.InputError: s3://bucket/report.html is an address, ...
    """
    parts = Path(path).parts
    if not parts or not SCHEME.fullmatch(parts[0]):
        return
    slashes = "///" if parts[0] == "file:" else "//"  # of which a Path keeps one
    given = str(path) if "://" in str(path) else parts[0] + slashes + "/".join(parts[1:])
    raise InputError(
        f"{one_line(given, most=LONGEST_VALUE)} is an address, and this writes to folders of this machine alone; give a path, "
        "and copy the result from there."
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
