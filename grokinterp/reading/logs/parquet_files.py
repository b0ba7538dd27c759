"""Logs as Parquet files: the columns of a table, packed."""

from pathlib import Path

import pandas as pd

from grokinterp.base.errors import InputError, names, shown
from grokinterp.base.paths import file_at
from grokinterp.reading.logs.contents import LARGEST_TEXT, WANTED
from grokinterp.reading.logs.formats import log_format
from grokinterp.reading.logs.series import MOST_CELLS, MOST_COLUMNS
from grokinterp.reading.tensor_files import DAMAGE
from grokinterp.reading.words import curve_of, words_of

MOST_ROWS = 10_000_000


@log_format("parquet", suffixes=(".parquet", ".pq"), begins=lambda head: head.startswith(b"PAR1"))
def read_parquet(path: Path) -> pd.DataFrame:
    """The columns of numbers and text; an index that pandas has named is one of them.

    What a few bytes of it may unpack to is limited by its own numbers of rows and columns.
    """
    import pyarrow
    import pyarrow.parquet

    file_at(path, wanted=WANTED, largest=LARGEST_TEXT)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
            plain = [field.name for field in schema if not pyarrow.types.is_nested(field.type)]
            n_bytes = sum(
                file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)
            )
            too_many = len(plain) > MOST_COLUMNS or rows * len(plain) > MOST_CELLS
            if too_many or rows > MOST_ROWS or n_bytes > 4 * LARGEST_TEXT:
                raise InputError(
                    f"{path} has {rows} rows of {len(plain)} columns; at most {MOST_ROWS} of "
                    f"{MOST_COLUMNS} and {MOST_CELLS:,} cells are read: keep the curves."
                )
            _refuse_lists(schema.names, plain, path)
            table = file.read(columns=plain)
        if table.num_rows != rows:
            raise InputError(f"{path} is damaged: it has another number of rows than it says.")
        frame: pd.DataFrame = table.to_pandas()  # with the index that pandas kept beside
        return frame if frame.index.name is None else frame.reset_index()
    except (pyarrow.ArrowException, OSError, *DAMAGE) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is no whole Parquet file ({shown(str(error))}); restore it from a copy."
        ) from None


def _refuse_lists(columns: list[str], plain: list[str], path: Path) -> None:
    """InputError where no column is of a curve but such that have lists in their cells."""
    lists = [x for x in columns if x not in plain and curve_of(words_of(x))]
    if lists and not any(curve_of(words_of(x)) for x in plain):
        raise InputError(
            f"{path} has lists in the cells of {names(lists, spelled=str)}; write a row a step "
            "(pandas: explode), or give the table that pandas.read_parquet returns."
        )
