"""In which format is a log, and which function reads it?

A format is known by the endings of its files' names, or by how they begin: a Parquet file is one
under any name. What is none of them is read as text: a table of cells, or lines of `key=value`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from grokinterp.base.checks import listed, refused
from grokinterp.base.registry import Registry, check_function

Read = Callable[[Path], pd.DataFrame]


class LogFormat(NamedTuple):
    """A format of logs: the endings of its files' names, what reads one, and how they begin."""

    suffixes: tuple[str, ...]
    read: Read
    begins: Callable[[bytes], bool] | None = None  # by the first bytes, `HEAD` of them


LOG_FORMATS: Registry[LogFormat] = Registry("log_format")


def log_format(
    name: str, *, suffixes: Sequence[str], begins: Callable[[bytes], bool] | None = None
) -> Callable[[Read], Read]:
    r"""Register a function of a path as the reader of logs whose names end so.

        @gi.register.log_format("tab-separated", suffixes=(".tsv",))
        def tab_separated(path):
            return pandas.read_csv(path, sep="\t")

    It returns a table with a column of steps and columns of losses or accuracies, a row a step,
    under the names that its tool has; they are recognised as those of a CSV are. Cells that are
    empty count for nothing. `begins` tells a file of the format by its first bytes, whatever its
    name is. Of two formats with one ending the later one reads, so that yours comes before ours.
    """
    LOG_FORMATS.named(name)
    endings = tuple(listed("suffixes", suffixes, such_as="('.tsv',)"))
    if not endings or not all(isinstance(x, str) and x.startswith(".") for x in endings):
        raise refused("suffixes", suffixes, "endings of names", "such as ('.tsv',)")

    def register(read: Read) -> Read:
        check_function("log_format", name, read, ("path",))
        LOG_FORMATS.add(name, LogFormat(endings, read, begins), by=read)
        return read

    return register
