"""Addresses (`http://...`, `s3://...`) where a path of this machine is needed."""

import re
from pathlib import Path

from grokinterp.errors import InputError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of two letters or more: `C:` is a drive


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
    shown = given if len(given) <= 80 else given[:79] + "…"
    raise InputError(
        f"{shown} is an address, and this writes to folders of this machine alone; give a path, "
        "and copy the result from there."
    )
