"""Which logs and configurations lie next to checkpoints, and what is in them?

Of one checkpoint, by its name: `x.json` and `x.csv`, `config_x.json`, `x_metrics.csv`; `model_x.pt`
has those of `x` too. Of all in a folder: `config.json`, `metrics.csv`, `history.json`,
`train_indices.json` and the like. What cannot be read is left alone, and a note says so.

A log is a CSV: cells separated by commas, numbers with a point and no other separator, text in
UTF-8 (or UTF-16 with its mark). Whatever a file holds, it is refused within seconds: its size, the
length of its lines and the number of its columns are limited.
"""

import codecs
import datetime
import io
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from grokinterp.base.checks import listed, refused
from grokinterp.base.errors import LONGEST_VALUE, InputError, names, one_line, shown
from grokinterp.base.files import HEAD, kind_of
from grokinterp.base.paths import file_at
from grokinterp.base.plugins import strangers
from grokinterp.base.registry import Registry, check_function
from grokinterp.reading.file_contents import (
    SPLIT_GROUPS,
    STEPS,
    Contents,
    CurveOf,
    by_column,
    contents_of,
    counts_epochs,
    curve_of,
    step_word,
    words_of,
)
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED

LARGEST_JSON = 20_000_000  # bytes
LARGEST_LOG = 100_000_000  # of a log that nobody named,
LARGEST_CSV = 256_000_000  # and of any
MOST_COLUMNS = 1000
LONGEST_LINE = 100_000  # bytes: pandas takes seconds for a million cells in one
MARKS = (  # the longer first: that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
WANTED = "give a CSV with a column 'step' and losses or accuracies"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII)
NOT_THERE = ("", "nan", "na", "n/a", "null", "none", "<na>")
LONGEST_NUMBER = 60  # characters; with 17 digits a float is exact
MOST_BITS = 10_000  # of a number whose digits Python writes out
_FORMS = (  # of cells that mean a number, or a date, and what to do about them
    (re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(\D.*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(\D.*)?"
                r"|\d+:\d{2}(:\d.*)?", re.DOTALL), "a date or time"),
    (re.compile(r"[+-]?\d{1,3}([,' _\u00a0\u202f]\d{3})+(\.\d+)?"),
     "a number with thousands separators; leave them out"),
    (re.compile(r"[+-]?\d*,\d+"), "a number with a decimal comma; write a point"),
    (re.compile(r"[+-]?[\d.]+\s*%"), "a percentage; give shares from 0 to 1"),
)  # fmt: skip
OF_CONFIG = (
    "config", "args", "hparams", "hyperparameters", "params", "settings", "options", "cfg",
    "model_config", "train_config", "training_args", "run_config", "meta", "metadata", "info",
    "trainer_state",
)  # fmt: skip
OF_LOG = (
    "metrics", "history", "log", "logs", "losses", "curves", "train_log", "training_log",
    "training_history", "stats", "results", "progress",
)  # fmt: skip
OF_SPLIT = ("split", "splits", "train_indices", "train_idx", "indices")
JSON = (".json", ".jsonl")


@dataclass(frozen=True)
class Log:
    """A table of losses or accuracies against step, and what was taken to be what in it."""

    table: pd.DataFrame
    word: str  # for its steps
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Companions:
    """What the files next to checkpoints say together, and a log."""

    contents: Contents
    log: Log | None
    notes: tuple[str, ...]


def companions_of(path: Path, *, epochs: bool = False, metrics: str | None = None) -> Companions:
    """What lies next to a checkpoint, or in a folder of them.

    Of a log that counts both, `epochs` takes epochs for its steps. `metrics` is a log that was
    named, which has to be one.
    """
    folder, own = (path, []) if path.is_dir() else (path.parent, _stems_of(path))
    notes: list[str] = []
    there = names_in(folder)
    every = _contents(folder, [*own, *OF_CONFIG, *OF_LOG, *OF_SPLIT], there, notes)
    contents = reduce(Contents.over, every, Contents())
    if metrics is not None:
        return Companions(contents, read_log(Path(metrics), epochs=epochs), tuple(notes))
    for file in _files(folder, [*own, *OF_LOG], there, (".csv",)):
        try:
            if file.stat().st_size > LARGEST_LOG:
                raise InputError(f"{file} is larger than {LARGEST_LOG / 1e6:.0f} MB.")
            return Companions(contents, read_log(file, epochs=epochs), tuple(notes))
        except (InputError, OSError) as error:
            notes.append(_left_alone(file, str(error)))
    return Companions(contents, None, tuple(notes))


def namesakes_of(path: Path, there: Collection[str]) -> Iterator[Contents]:
    """What JSON files say that have the name of one checkpoint; `there` is what lies next to it."""
    return _contents(path.parent, _stems_of(path), there, [])


def names_in(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that can be of use here."""
    try:
        return frozenset(x.name for x in folder.iterdir() if x.suffix in (*JSON, ".csv"))
    except OSError:
        return frozenset()


def _stems_of(path: Path) -> list[str]:
    """Stems of the files that belong to one checkpoint by their names."""
    stem = path.stem
    bare = re.sub(r"^(model|checkpoint|ckpt|weights)[-_.]", "", stem, flags=re.IGNORECASE)
    names = [stem, re.sub("^model", "config", stem), bare]
    for each in dict.fromkeys((stem, bare)):
        for word in (*OF_CONFIG, *OF_LOG, *OF_SPLIT):
            names += [f"{word}_{each}", f"{each}_{word}", f"{each}.{word}"]
    return list(dict.fromkeys(names))


def _files(
    folder: Path, stems: Iterable[str], there: Collection[str], suffixes: Iterable[str]
) -> Iterator[Path]:
    for stem in stems if there else ():
        for suffix in suffixes:
            if stem + suffix in there and (file := folder / (stem + suffix)).is_file():
                yield file


def _contents(
    folder: Path, stems: Iterable[str], there: Collection[str], notes: list[str]
) -> Iterator[Contents]:
    for file in _files(folder, stems, there, JSON):
        try:
            if file.stat().st_size > LARGEST_JSON:
                raise ValueError(f"larger than {LARGEST_JSON / 1e6:.0f} MB")
            data: Any = file.read_bytes()
            if file.suffix == ".jsonl":
                data = [json.loads(line) for line in data.splitlines() if line.strip()]
            else:
                data = json.loads(data)
        except (ValueError, RecursionError, OSError) as error:
            notes.append(_left_alone(file, str(error) or type(error).__name__))
            continue
        found = contents_of(with_name(data, file.stem), all_is_config=True)
        if not found.is_empty:
            yield replace(found, configs=((str(file), found.config),))


def with_name(data: Any, name: str) -> Mapping[str, Any]:
    """What a file holds, under its own name where that says what it is: `split.json`."""
    if isinstance(data, Mapping):
        return {**data, name: data} if "_".join(words_of(name)) in SPLIT_GROUPS else data
    records = isinstance(data, list) and data and isinstance(data[0], Mapping)
    return {"records" if records else name: data}


def _left_alone(file: Path, reason: str) -> str:
    short = " ".join(reason.removeprefix(str(file)).split())[:120]
    return f"{file.name} next to it is left alone: {short}"


def read_log(path: Path, *, epochs: bool = False) -> Log:
    """A CSV of losses or accuracies against step, as numbers.

    Rows without a step are left out, and so are other columns, which a note names; of equal steps
    the last row counts.
    """
    table = read_table(path)
    step, taken = _columns(table, epochs=epochs)
    if step is None or not taken:
        wanted = ", ".join(COLUMNS)
        raise InputError(
            f"{path} is no log: it needs one column 'step' and at least one of {wanted}."
        )
    renamed, columns = {"step": step, **taken}, {}
    for ours, theirs in renamed.items():
        if isinstance(table[theirs], pd.DataFrame):
            raise InputError(f"{path} has two columns {theirs!r}; keep one.")
        columns[ours] = as_numbers(table[theirs], f"{path}, column {theirs!r}")
    numbers = pd.DataFrame(columns).dropna(subset="step")
    steps = numbers["step"]
    if not ((steps % 1 == 0) & (steps >= 0) & (steps < LARGEST_STEP)).all():
        raise InputError(f"{path} has steps that are not whole numbers from 0 on.")
    found = numbers.astype({"step": "int64"}).drop_duplicates("step", keep="last")
    notes = [f"{ours} is its {theirs!r}" for ours, theirs in renamed.items() if ours != theirs]
    notes = [", ".join(notes)[: 300 - len(f"{path.name}: ")]] if notes else []
    notes += left_out(table, renamed.values())
    return Log(found, "_".join(words_of(step)), tuple(f"{path.name}: {x}" for x in notes))


def _columns(table: pd.DataFrame, *, epochs: bool) -> tuple[str | None, dict[str, str]]:
    """The column of steps, and by our names theirs of losses and accuracies."""
    names = [name for name in table.columns if isinstance(name, str)]
    stepped = [(word, name) for name in names if (word := step_word(words_of(name)))]
    stepped.sort(key=lambda each: (epochs and not counts_epochs(each[0]), STEPS.index(each[0])))
    by_measure: dict[CurveOf, str] = {}
    for name in sorted(names, key=lambda name: len(words_of(name))):
        if (measure := curve_of(words_of(name))) is not None:
            by_measure.setdefault(measure, name)
    taken = {**by_column(by_measure)[0], **dict(zip(names, names, strict=True))}
    known = {name: taken[name] for name in (*COLUMNS, *UNMIRRORED) if name in taken}
    first = stepped[0][1] if stepped else None
    return ("step" if "step" in names and not epochs else first), known


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


@log_format("csv", suffixes=(".csv",))
def read_csv_table(path: Path) -> pd.DataFrame:
    """A CSV file of another tool, column names stripped; what is none is refused in one line.

    Names that stand twice in the header stay, so that who uses such a column can refuse it.
    """
    content = _content(path)
    _check_lines(path, content)
    try:
        header = _read(content, header=None, nrows=1, dtype=str, keep_default_na=False)
        names = [str(name).strip() for name in header.iloc[0]]
        if len(names) > MOST_COLUMNS:
            raise InputError(f"{path} has more than {MOST_COLUMNS} columns; keep those of the log.")
        for name, separator in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):
            if len(names) == 1 and separator in names[0]:
                raise InputError(f"{path} separates its cells by {name}; separate them by commas.")
        _read(content, nrows=1)  # a first row longer than the header is found after all others
        frame = _read(content)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty; {WANTED}.") from None
    except InputError:
        raise
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError) as error:
        raise InputError(f"{path} is not a CSV that can be read: {_reason(error)}.") from None
    frame.columns = pd.Index(names)
    return frame


def _read(content: bytes, **options: Any) -> pd.DataFrame:
    with warnings.catch_warnings(action="ignore"):  # of columns whose cells are of several types
        warnings.simplefilter("error", pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(content), index_col=False, skipinitialspace=True,
            float_precision="round_trip", **options,
        )  # fmt: skip


def _content(path: Path) -> bytes:
    """The content of a text file in UTF-8; what is no text, or too large, is refused."""
    size = file_at(path, wanted=WANTED).stat().st_size
    with path.open("rb") as file:
        if kind := kind_of(file.read(HEAD)):
            raise InputError(f"{path} is {kind.what}, no CSV; {kind.advice or WANTED}.")
        if size > LARGEST_CSV:
            raise InputError(
                f"{path} is {size / 1e6:.0f} MB large, and a log of at most "
                f"{LARGEST_CSV / 1e6:.0f} MB is read; keep the columns that are needed, or every "
                "tenth row."
            )
        file.seek(0)
        content = file.read()
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        recoded = content if encoding == "utf-8" else text.encode()
    except UnicodeError as error:
        at = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(
            f"{path} is not text in {encoding.upper()}{at}; {WANTED}, saved as UTF-8."
        ) from None
    if (zero := recoded.find(b"\0")) >= 0:
        line = recoded.count(b"\n", 0, zero) + 1
        raise InputError(
            f"{path} has bytes of zero, the first in line {line}: it is no text, or damaged; "
            f"{WANTED}, saved as UTF-8."
        )
    return recoded


def _check_lines(path: Path, content: bytes) -> None:
    """Refuse lines that are too long, and too wide a header or first row (of others, pandas)."""
    start = 0
    while len(content) - start > LONGEST_LINE:
        window = start, start + LONGEST_LINE + 1
        end = max(content.rfind(b"\n", *window), content.rfind(b"\r", *window))
        if end < 0:
            raise _wide(path, content, start, len(content[start:].partition(b"\n")[0]))
        start = end + 1
    for line in islice(re.finditer(rb"[^\r\n]+", content[: 2 * LONGEST_LINE]), 2):
        if b'"' not in line[0] and line[0].count(b",") > MOST_COLUMNS:
            raise _wide(path, content, line.start(), len(line[0]))


def _wide(path: Path, content: bytes, start: int, length: int) -> InputError:
    line = content.count(b"\n", 0, start) + 1
    commas = content.count(b",", start, start + length)
    many = f"{commas + 1} cells" if commas >= MOST_COLUMNS else f"{length} characters"
    return InputError(
        f"{path} has {many} in line {line}; {WANTED}, of at most {MOST_COLUMNS} columns and "
        f"{LONGEST_LINE} characters a line."
    )


def _reason(error: Exception) -> str:
    """What pandas says, in other words where it says it in those of its code."""
    text = str(error)
    if found := re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text):
        expected, line, seen = found.groups()
        return f"line {line} has {seen} cells, and those before it {expected}"
    if found := re.search(r"EOF inside string starting at row (\d+)", text):
        return f"the quote that opens in row {found[1]} is never closed"
    if "Length of header" in text:
        return "its rows have more cells than its header"
    return one_line(text, most=120)


def left_out(frame: pd.DataFrame, used: Collection[str]) -> tuple[str, ...]:
    """A note that names the columns of a table that were not used; none where all were."""
    others = [x for x in frame.columns if x not in used and _is_named(x)]
    return (f"columns left out, not read here: {column_names(others)}",) * bool(others)


def column_names(columns: Iterable[object]) -> str:
    """The names of columns for a message, as many as `names` lists.

    >>> column_names(["a", "b"]), column_names(f"column_{i}" for i in range(100))[-30:]
    ('a, b', 'column_5, column_6 and 93 more')
    """
    return names(filter(_is_named, columns), spelled=str) or "none"


def _is_named(column: object) -> bool:
    """Whether a column has a name of its own: an index that pandas wrote out has none."""
    return str(column).strip() != "" and not str(column).startswith("Unnamed: ")


def as_numbers(values: pd.Series, where: str) -> pd.Series:
    """A column as floats, NaN where nothing stands; the first cell that is no number is named.

    `where` says which column of which file it is, for the message.

    >>> as_numbers(pd.Series(["1", " 2.5 ", None]), "x.csv, column 'step'").tolist()
    [1.0, 2.5, nan]
    >>> as_numbers(pd.Series(["1", "0x10"]), "column 'step'")
    Traceback (most recent call last):
    grokinterp.base.errors.InputError: column 'step' has '0x10' in row 2, no number; give numbers.
    """
    if pd.api.types.is_any_real_numeric_dtype(values.dtype):
        return pd.Series(values.to_numpy(float, na_value=math.nan), values.index)
    numbers = [_number(cell, where, row) for row, cell in enumerate(values.tolist(), start=1)]
    return pd.Series(numbers, values.index, dtype=float)


def _number(cell: Any, where: str, row: int) -> float:
    problem = "no number"
    if isinstance(cell, str):
        if len(cell) > LONGEST_NUMBER:
            problem = f"no number ({len(cell)} characters)"
            cell = cell[:LONGEST_VALUE] + cell[-LONGEST_VALUE:]
        elif (text := cell.strip().lower()) in NOT_THERE:
            return math.nan
        elif NUMBER.fullmatch(text):
            return float(text)
        else:
            problem = next((words for form, words in _FORMS if form.fullmatch(text)), problem)
    elif cell is None or cell is pd.NA or cell is pd.NaT:
        return math.nan
    elif isinstance(cell, (datetime.date, datetime.time, datetime.timedelta, pd.Period)):
        problem, cell = "a date or time", str(cell)
    elif not isinstance(cell, (bool, np.bool_, bytes)):
        try:
            return float(cell)
        except OverflowError:
            problem = f"no number below {sys.float_info.max:.2g}"
            if isinstance(cell, int) and cell.bit_length() < MOST_BITS:
                cell = str(cell)
        except (TypeError, ValueError, RuntimeError):
            pass
    advice = "" if ";" in problem else "; give numbers"
    raise InputError(f"{where} has {shown(cell)} in row {row}, {problem}{advice}.")
