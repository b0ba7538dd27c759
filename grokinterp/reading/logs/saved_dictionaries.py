"""Logs in pickles and files of torch.save: dictionaries of lists, read without running anything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.nested import DEEPEST, table_in
from grokinterp.reading.tensor_files import read_file
from grokinterp.reading.words import is_known

SUFFIXES = (".pt", ".pth", ".pkl", ".pickle")


def _is_saved(head: bytes) -> bool:
    return head.startswith(b"\x80") or (head.startswith(b"PK") and b"data.pkl" in head[:200])


@log_format("saved", suffixes=SUFFIXES, begins=_is_saved)
def read_saved(path: Path) -> pd.DataFrame:
    """Dictionaries, lists, numbers and arrays of numbers; see `grokinterp.reading.pickles`.

    Of a checkpoint what is beside its weights.
    """
    data = read_file(path)
    if isinstance(data, Mapping):
        data = {key: x for key, x in data.items() if not _has_weights({key: x})} or data
    return table_in(data, str(path))


def holds_a_log(path: Path) -> bool:
    """Whether such a file has curves and no weights; False for what cannot be read."""
    try:
        data = read_file(path)
        return not _has_weights(data) and len(table_in(data, str(path))) > 0
    except InputError:
        return False


def _has_weights(data: Any, depth: int = 0) -> bool:
    """Whether there is a matrix under a name that is not one of losses, steps or rows."""
    if isinstance(data, Tensor):
        return data.ndim >= 2
    if depth > DEEPEST or not isinstance(data, Mapping | list | tuple):
        return False
    if isinstance(data, Mapping):
        values = [x for key, x in data.items() if not (isinstance(key, str) and is_known(key))]
    else:
        values = list(data[:100])
    return any(_has_weights(x, depth + 1) for x in values)
