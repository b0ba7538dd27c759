"""TOML documents of recipes and sweeps as data, whatever is in them."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from grokinterp.errors import InputError, shown

LARGEST = 1_000_000  # bytes: ten thousand values of an axis take a tenth of it
MOST_PARTS = 1000  # of a dotted key, in whose number the parser's time is quadratic
EXAMPLE = "write lines such as p = 113."


def read_toml(path: str | Path, *, example: str = EXAMPLE) -> dict[str, Any]:
    """The content of a TOML file; InputError, one line with the file's name, where it is none."""
    path = Path(path)
    if not os.path.isfile(path):  # which is false of names that no file can have
        raise InputError(f"{path} is not a file; give one in TOML: {example}")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path} has more than {LARGEST} bytes; give a TOML file: {example}")
    return parse_toml(path.read_bytes(), file=path, example=example)


def parse_toml(text: bytes, *, file: str | Path, example: str = EXAMPLE) -> dict[str, Any]:
    """The content of a document that was read from `file`, which messages name."""
    reason: object
    try:
        document = text.decode("utf-8-sig")
        if max(part.count(".") for part in re.split("[,\n]", document)) > MOST_PARTS:
            raise ValueError(f"a key of more than {MOST_PARTS} parts")
        return tomllib.loads(document)
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:  # TOML's own, wrong UTF-8, or a number of over 4300 digits
        reason = " ".join(str(error).split())
    raise InputError(f"{file} is not TOML ({shown(reason)[1:-1]}); {example}")
