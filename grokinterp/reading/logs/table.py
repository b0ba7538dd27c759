"""What table is in a log?"""

from pathlib import Path

import pandas as pd

from grokinterp.base.errors import InputError, shown
from grokinterp.base.plugins import strangers
from grokinterp.reading.logs.delimited import read_csv_table
from grokinterp.reading.logs.formats import LOG_FORMATS


def read_table(path: str | Path) -> pd.DataFrame:
    """The table of a log, in the format that its ending names, or as a CSV."""
    path = Path(path)  # pandas would fetch a URL
    known = [each for each in LOG_FORMATS.values() if path.suffix in each.suffixes]
    if not known and path.suffix:
        known = [each for each in LOG_FORMATS.every() if path.suffix in each.suffixes]
    if not known:
        return read_csv_table(path)
    with strangers(f"the log_format of {path}", known[-1].read):
        frame = known[-1].read(path)
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"the log_format of {path} returns {shown(frame)}; return a DataFrame.")
    return frame
