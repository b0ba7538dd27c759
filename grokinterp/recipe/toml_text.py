"""TOML documents of recipes and sweeps as data, whatever is in them."""

import re
import tomllib
from pathlib import Path
from typing import Any

from grokinterp.errors import InputError, one_line
from grokinterp.paths import as_path, file_at, kind_at

LARGEST = 1_000_000  # bytes: ten thousand values of an axis take a tenth of it
MOST_PARTS = 1000  # of a dotted key, in whose number the parser's time is quadratic
EXAMPLE = "p = 113"


def read_toml(path: str | Path, *, example: str = EXAMPLE) -> dict[str, Any]:
    """The content of a TOML file; InputError, one line with the file's name, where it is none."""
    file = as_path("path", path, such_as="recipe.toml")
    wanted = f"give the path of a TOML file, with lines such as {example}"
    if kind_at(file) is None:
        raise InputError(f"{file} is not a file (there is none of that name); {wanted}.")
    content = file_at(file, wanted=wanted, largest=LARGEST).read_bytes()
    return parse_toml(content, file=file, example=example)


def parse_toml(text: bytes, *, file: str | Path, example: str = EXAMPLE) -> dict[str, Any]:
    """The content of a document that was read from `file`, which messages name."""
    try:
        document = text.decode("utf-8-sig")
        if max(part.count(".") for part in re.split("[,\n]", document)) > MOST_PARTS:
            raise ValueError(f"a key of more than {MOST_PARTS} parts")
        return tomllib.loads(document)
    except RecursionError:
        reason = "nested too deep"
    except ValueError as error:  # TOML's own, wrong UTF-8, or a number of over 4300 digits
        reason = str(error)
    raise InputError(
        f"{file} is not TOML ({one_line(reason, most=120)}); write lines such as {example}."
    )
