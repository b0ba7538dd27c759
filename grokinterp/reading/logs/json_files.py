"""Logs in JSON: one document, or a record a line (JSONL)."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError, one_line
from grokinterp.base.files import kind_of
from grokinterp.reading.logs.contents import text_of
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.nested import table_in

LARGEST = 128_000_000  # bytes; Python needs ten times as many for what is in them
SUFFIXES = (".json", ".jsonl", ".ndjson")


def _is_json(head: bytes) -> bool:
    kind = kind_of(head)
    return kind is not None and kind.what == "JSON"


@log_format("json", suffixes=SUFFIXES, begins=_is_json)
def read_json(path: Path) -> pd.DataFrame:
    """JSON of any shape that `grokinterp.reading.logs.nested` knows, or a record a line.

    The last line of a file that is still written to, or was cut off, may be half a record.
    """
    text = text_of(path, largest=LARGEST)
    try:
        data = json.loads(text)
    except RecursionError:
        raise InputError(
            f"{path} is nested too deeply; give records or lists of numbers."
        ) from None
    except ValueError as error:
        data = _records(text, path, error)
    return table_in(data, str(path))


def _records(text: str, path: Path, whole: ValueError) -> list[Any]:
    """A record a line; the refusal names what is wrong with the first line that is none."""
    lines = [line for line in text.splitlines() if line.strip()]
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except RecursionError:
            raise InputError(f"{path} is nested too deeply in line {number}; mend it.") from None
        except ValueError as error:
            if number == len(lines) and number > 1:  # cut off
                break
            reason = one_line(str(whole if number == 1 else error), most=80)
            where = "" if number == 1 else f" in record {number}"
            raise InputError(
                f"{path} is JSON that cannot be read{where} ({reason}); mend it there."
            ) from None
    return records
