"""In which format is a log, and which function reads it?"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from grokinterp.base.checks import listed, refused
from grokinterp.base.registry import Registry, check_function


class LogFormat(NamedTuple):
    """A format of logs: the endings of its files' names, and what reads one."""

    suffixes: tuple[str, ...]
    read: Callable[[Path], pd.DataFrame]


LOG_FORMATS: Registry[LogFormat] = Registry("log_format")


def log_format(
    name: str, *, suffixes: Sequence[str]
) -> Callable[[Callable[[Path], pd.DataFrame]], Callable[[Path], pd.DataFrame]]:
    r"""Register a function of a path as the reader of logs whose names end so.

        @gi.register.log_format("tab-separated", suffixes=(".tsv",))
        def tab_separated(path):
            return pandas.read_csv(path, sep="\t")

    It returns a table with a column of steps and columns of losses or accuracies, a row a step,
    under the names that its tool has; they are recognised as those of a CSV are.
    """
    LOG_FORMATS.named(name)
    endings = tuple(listed("suffixes", suffixes, such_as="('.tsv',)"))
    if not endings or not all(isinstance(x, str) and x.startswith(".") for x in endings):
        raise refused("suffixes", suffixes, "endings of names", "such as ('.tsv',)")

    def register(read: Callable[[Path], pd.DataFrame]) -> Callable[[Path], pd.DataFrame]:
        check_function("log_format", name, read, ("path",))
        LOG_FORMATS.add(name, LogFormat(endings, read), by=read)
        return read

    return register
