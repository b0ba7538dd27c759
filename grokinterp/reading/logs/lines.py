"""Is a file of text a table, or lines that people read: `step 1,000 | train/acc=0.52`?"""

from itertools import islice
from pathlib import Path

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.reading.logs.contents import content_and_notes
from grokinterp.reading.logs.delimited import is_table, read_delimited
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.line_lists import without_lists
from grokinterp.reading.logs.line_rows import plain, plans_in, rows_of

LOOKED_AT = 500_000  # bytes, to find out whether there are pairs


@log_format("lines", suffixes=(".log", ".out", ".txt"))
def read_lines(path: Path) -> pd.DataFrame:
    """A row a line that has a known name with a number; tables and lists as what they are."""
    content, notes = content_and_notes(path)
    head = content[:LOOKED_AT].decode(errors="ignore")
    if is_table(content) or not has_pairs(head):
        if not is_table(content) and _has_steps(head):
            raise InputError(
                f"{path} has lines with steps, and no loss or accuracy beside them whose name is "
                "known; write lines such as 'step=10 train_acc=0.5 test_acc=0.1', or a CSV."
            )
        return read_delimited(path)
    frame = rows_of(content.decode(), path)
    frame.attrs["notes"] = [*frame.attrs.get("notes", []), *notes]
    return frame


@log_format("csv", suffixes=(".csv", ".tsv", ".tab", ".dat"))
def read_text_table(path: Path) -> pd.DataFrame:
    """A table of text; lines with pairs under the name of a table are read as lines."""
    return read_lines(path)


def has_pairs(text: str) -> bool:
    """Whether a line of the text has a known name with a number, or with a list of them.

    >>> has_pairs("Epoch [3/10], Step [5/600], Loss: 0.25"), has_pairs("a note of 2026")
    (True, False)
    """
    if without_lists(plain(text))[1]:
        return True
    return any(plan.has_curves or plan.dropped for plan in plans_in(text))


def _has_steps(text: str) -> bool:
    """Whether two lines or more say a step."""
    saying = (plan for plan in plans_in(text) if any(slot.kind == "step" for slot in plan.slots))
    return len(list(islice(saying, 2))) > 1
