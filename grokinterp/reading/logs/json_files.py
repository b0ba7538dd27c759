"""Logs in JSON: one document, records one after the other, or one a line (JSONL).

What begins like JSON may be something else: lines of text such as `[10/2000] loss=1`, dictionaries
as Python prints them, or a table under a wrong name. It is then read as that.
"""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError, one_line
from grokinterp.base.files import kind_of
from grokinterp.reading.logs.contents import text_of
from grokinterp.reading.logs.delimited import is_table
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.line_rows import plans_in
from grokinterp.reading.logs.lines import LOOKED_AT, read_lines
from grokinterp.reading.logs.nested import table_in

LARGEST = 128_000_000  # bytes; Python needs ten times as many for what is in them
LOOKED_AT_OF_LINE = 200  # characters, to tell JSON from text
SUFFIXES = (".json", ".jsonl", ".ndjson")
_LIKE_JSON = re.compile(
    r"""\s*(["\]}]|\{\s*(["}]|$)|\[\s*([\["\]]|\{\s*("|$)|[\d.,+\-eE\s]*[,\]]|$)"""
    r"""|([\d.+\-eE\s]|null|true|false)+,?\s*$)"""
)
_BETWEEN = re.compile(r"[\s,]*")  # records
_HEAD_OF_RECORD = "{["


def _is_json(head: bytes) -> bool:
    kind = kind_of(head)
    return kind is not None and kind.what == "JSON"


@log_format("json", suffixes=SUFFIXES, begins=_is_json)
def read_json(path: Path) -> pd.DataFrame:
    """JSON of any shape that `grokinterp.reading.logs.nested` knows, or records.

    The last record of a file that is still written to, or was cut off, may be half a one.
    """
    text = text_of(path, largest=LARGEST)
    notes: list[str] = []
    try:
        data = json.loads(text)
    except RecursionError:
        raise InputError(
            f"{path} is nested too deeply; give records or lists of numbers."
        ) from None
    except ValueError as error:
        if _is_other(text):
            return read_lines(path)
        data, others, _ = records_in(text, path, error)
        if others:
            notes = [f"{others} lines that are no JSON were left out"]
    if isinstance(data, dict) and {"cells", "nbformat"} <= set(data):
        raise InputError(f"{path} is a Jupyter notebook, no log; give what it printed, or a CSV.")
    frame = table_in(data, str(path))
    if notes:
        frame.attrs["notes"] = [*frame.attrs.get("notes", ()), *notes]
    return frame


def _is_other(text: str) -> bool:
    """Whether most lines that say something are no JSON: they are lines of pairs, or a table."""
    head = text[:LOOKED_AT]
    if text.lstrip()[:1] not in _HEAD_OF_RECORD and is_table(head.encode(errors="replace")):
        return True
    lines = [line for line in head.splitlines() if line.strip()]
    others = [line for line in lines if not _is_like_json(line)]
    records = sum(line.lstrip()[:1] == "{" for line in lines if _is_like_json(line))
    pairs = sum(plan.has_curves for line in others for plan in plans_in(line))
    return pairs > 0 and pairs >= records


def _is_like_json(line: str) -> bool:
    return _LIKE_JSON.match(line[:LOOKED_AT_OF_LINE]) is not None


def records_in(text: str, path: Path, whole: ValueError) -> tuple[list[Any], int, bool]:
    """Records in their order, how many lines between them are none, and whether one is cut off.

    The refusal names what is wrong with the first that begins like one and is none.
    """
    decoder = json.JSONDecoder()
    records: list[Any] = []
    others = at = line_end = 0
    cut_off = False
    while (at := _BETWEEN.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        if at >= line_end:
            line_end = min(x for x in (text.find("\n", at), len(text)) if x >= 0)
        head = text[at : min(line_end, at + LOOKED_AT_OF_LINE)]
        if text[at] not in _HEAD_OF_RECORD or not _is_like_json(head):
            others, at = others + 1, line_end
            continue
        try:
            record, at = decoder.raw_decode(text, at)
        except RecursionError:
            number = len(records) + 1
            raise InputError(f"{path} is nested too deeply in line {number}; mend it.") from None
        except ValueError as error:
            if records and not text[line_end:].strip():
                cut_off = True
                break
            reason = one_line(str(error if records else whole), most=80)
            where = f" in record {len(records) + 1}" if records else ""
            raise InputError(
                f"{path} is JSON that cannot be read{where} ({reason}); mend it there."
            ) from None
        if not records or record != records[-1]:  # not the whole log again
            records.append(record)
    if not records:
        reason = one_line(str(whole), most=80)
        raise InputError(f"{path} is JSON that cannot be read ({reason}); mend it there.")
    return records, others, cut_off
