"""The values in a TOML file, or one line that says why it has none."""

import tomllib
from pathlib import Path
from typing import Any

from grokinterp.errors import InputError, one_line
from grokinterp.paths import file_at

LARGEST = 1_000_000  # bytes, which take a second to read


def read_toml(path: str | Path, *, wanted: str) -> dict[str, Any]:
    """The values of a TOML file; `wanted` says what it should be, for the message."""
    return toml_values(file_at(path, wanted=wanted, largest=LARGEST).read_bytes(), path, wanted)


def toml_values(text: bytes, file: str | Path, wanted: str) -> dict[str, Any]:
    r"""The values of a TOML document that was read from a file.

    >>> toml_values(b"p = 113\n", "mine.toml", "give a recipe")
    {'p': 113}
    >>> toml_values(b"p 113\n", "mine.toml", "give a recipe")
    Traceback (most recent call last):
    grokinterp.errors.InputError: mine.toml is not TOML (Expected '=' after a key in a key/value
    pair (at line 1, column 3)); give a recipe.
    """
    try:
        return tomllib.loads(text.decode("utf-8-sig"))
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as error:  # of TOML, of text, or of a number of thousands of digits
        reason = one_line(str(error), most=120)
    raise InputError(f"{file} is not TOML ({reason}); {wanted}.")
