"""To which steps do the entries of a list of losses belong?

To those beside them, if there are as many. Otherwise a list is taken to be regular, from step 0 on,
where its length says so: one entry a step, or one every so many steps up to the step of the weights
or up to the number of epochs that a configuration plans. The codes of Nanda et al. 2023 and of the
Grokking_Demo keep one loss an epoch and save the planned number of epochs as the epoch of the last
weights; lists beside weights of which nobody knows the step are read so. What fits nothing is left
out, and said so.

Others take losses before the update or after it, which no list tells: entry i of one entry a step
is the loss of step i, as in those two codes.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.reading.file_contents import Listed, LossCurve, Said, by_column, named, said_in
from grokinterp.reading.tables import as_numbers, left_out, read_table
from grokinterp.reading.words import (
    COUNTS,
    STEPS,
    counts_epochs,
    measured,
    says_interval,
    step_word,
    words_of,
)
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED

# MERGED runs.foreign.beside: The files that people keep beside checkpoints: configurations, logs, training rows.
#
# Of one checkpoint, by its name: `x.json` and `x.csv`, `config_x.json`, `x_metrics.csv`; `model_x.pt`
# has those of `x` too. Of all in a folder: `config.json`, `metrics.csv`, `history.json`,
# `train_indices.json` and the like. What cannot be read is left alone, and said so.


FEWEST = 4  # entries of a list whose number says how far apart they are
USUAL = [digit * 10**zeros for zeros in range(12) for digit in (1, 2, 5)]  # intervals
MANY = 1000  # entries that nobody logs but regularly


@dataclass(frozen=True)
class Placed:
    """Curves on the axis of the checkpoints, the step of the weights beside them, and notes."""

    curves: dict[str, LossCurve]
    step: int | None
    notes: tuple[str, ...] = ()


def placed(
    lists: Mapping[str, Listed],
    *,
    step: int | None,
    word: str | None,
    config: Mapping[str, Any],
    fixed: bool = False,
) -> Placed:
    """The lists of a file, whose weights are of a step in some word; either may be unknown.

    A step without a word is only in a name; one that is `fixed` was set, or is one of several.
    """
    curves = {
        column: LossCurve(x.steps, x.values) for column, x in lists.items() if x.steps is not None
    }
    words = {x.word for x in lists.values() if x.steps is not None and x.word}
    notes = [f"its lists are by its own steps ({', '.join(sorted(words))})"] if words else []
    loose = {column: x.values for column, x in lists.items() if x.steps is None}
    if step is None and curves:
        step = max(int(curve.steps[-1]) for curve in curves.values())
        notes.append(f"its weights are taken to be of step {step}, the last of its lists")
    if not loose:
        return Placed(curves, step, tuple(notes))
    longest = max(map(len, loose.values()))
    intervals = intervals_in(config)
    strides = {x: stride_of(len(values), step, intervals) for x, values in loose.items()}
    fits = any(x is not None for x in strides.values())
    if step is None or (not (fits or fixed) and _counts_otherwise(step, word, longest)):
        step, why = _counted(longest, step, word, config)
        strides = {x: stride_of(len(values), step, intervals) for x, values in loose.items()}
        notes.append(why)
    for column, values in loose.items():
        stride = strides[column] or _beside_the_longest(len(values), longest, strides)
        if stride is None:
            notes.append(
                f"{column}: a list of {len(values)} does not say of which steps up to {step} it "
                "is; it is left out (a list of steps beside it would)"
            )
            continue
        curves[column] = LossCurve.every(values, stride=stride)
        every = "one a step" if stride == 1 else f"one every {stride} steps"
        notes.append(f"{column}: a list of {len(values)}, taken to be {every} from 0 on")
    return Placed(curves, step, tuple(notes))


def stride_of(n: int, last: int | None, intervals: Iterable[int] = ()) -> int | None:
    """The regular distance of n steps from 0 on to the last one, or to the last before it.

    >>> stride_of(401, 400), stride_of(400, 400), stride_of(41, 400), stride_of(40, 400)
    (1, 1, 10, 10)
    >>> stride_of(40, 399), stride_of(37, 400), stride_of(5, 400)
    (10, None, 100)
    """
    if last is None or n < 1 or n > last + 1:
        return None
    if n >= max(last, 1):
        return 1
    for every in intervals:
        if n in (last // every + 1, -(-last // every)):
            return every
    if n < FEWEST:
        return None
    exact = {last // k for k in (n - 1, n) if last % k == 0}
    usual = {x for x in USUAL if n in (last // x + 1, -(-last // x))}
    found = usual if len(usual) == 1 and (not exact or usual <= exact) else exact
    return found.pop() if len(found) == 1 else None


def intervals_in(config: Mapping[str, Any]) -> list[int]:
    """Numbers of steps between entries of a log, such as `log_every`."""
    return [
        value for key, value in config.items()
        if isinstance(key, str) and type(value) is int and 0 < value < LARGEST_STEP
        and says_interval(words_of(key))
    ]  # fmt: skip


def _counted(
    longest: int, step: int | None, word: str | None, config: Mapping[str, Any]
) -> tuple[int, str]:
    """The step of weights that only lists tell, and why it is."""
    if step is None:
        planned = {
            name: value for key, value in config.items()
            if isinstance(key, str) and type(value) is int and 0 < value < LARGEST_STEP
            and (name := "_".join(words_of(key))) in COUNTS
        }  # fmt: skip
        for name, count in planned.items():
            if stride_of(longest, count) is not None:
                return count, f"its weights are taken to be of step {count}, its {name!r}"
        return longest, (
            f"no step in the file or its name: its weights are taken to be of step {longest}, one "
            "after each loss of its lists"
        )
    said = f"its {word!r} is {step}" if word else f"its name says {step}"
    return longest, (
        f"its weights are taken to be of step {longest}, one after each loss of its lists "
        f"({said}, which these are not counted in)"
    )


def _counts_otherwise(step: int, word: str | None, longest: int) -> bool:
    """Whether the losses count something else than a step that none of their lists fits.

    A name has many numbers. More losses than epochs are those of batches, one an update. Fewer, but
    thousands, are those of a run that was cut short, of which the paper's code saves the planned
    number of epochs; a short list may have been logged at any steps.
    """
    if word is None:
        return True
    cut_short = longest >= MANY and step < 10 * longest
    return counts_epochs(word) and (longest > step + 1 or cut_short)


def _beside_the_longest(n: int, longest: int, strides: Mapping[str, int | None]) -> int | None:
    """The distance of a list that is shorter than a list of every step by a whole factor."""
    if 1 not in strides.values():
        return None
    stride = round(longest / n)
    return stride if n in (-(-longest // stride), longest // stride) else None


LARGEST = 20_000_000  # bytes of a JSON file
LARGEST_LOG = 100_000_000
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
SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Log:
    """A table of losses or accuracies against step, and what was taken to be what in it."""

    table: pd.DataFrame
    word: str  # for its steps
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """What the files beside say, each with its name, and a log."""

    said: tuple[tuple[str, Said], ...] = ()
    log: Log | None = None
    notes: tuple[str, ...] = ()


def named_after(path: Path, there: Collection[str]) -> tuple[tuple[str, Said], ...]:
    """What JSON files say that go by the name of one checkpoint; `there` is what is beside it."""
    return tuple(_said(path.parent, _names_of(path), there, []))


def beside(path: Path, *, epochs: bool = False, metrics: str | None = None) -> Beside:
    """What stands beside a checkpoint, or in a folder of them.

    Of a log that counts both, `epochs` takes epochs for its steps. `metrics` is a log that was
    named, which has to be one.
    """
    folder = path if path.is_dir() else path.parent
    notes: list[str] = []
    generic = [*OF_CONFIG, *OF_LOG, *OF_SPLIT]
    names = generic if path.is_dir() else [*_names_of(path), *generic]
    there = names_in(folder)
    said = tuple(_said(folder, names, there, notes))
    if metrics is not None:
        return Beside(said, read_log(Path(metrics), epochs=epochs), tuple(notes))
    log = None
    logs = OF_LOG if path.is_dir() else [*_names_of(path), *OF_LOG]
    for file in _files(folder, logs, there, (".csv",)):
        try:
            if file.stat().st_size > LARGEST_LOG:
                raise InputError(f"{file} is larger than {LARGEST_LOG / 1e6:.0f} MB.")
            log = read_log(file, epochs=epochs)
            break
        except (InputError, OSError) as error:
            notes.append(_left_alone(file, str(error)))
    return Beside(said, log, tuple(notes))


def read_log(path: Path, *, epochs: bool = False) -> Log:
    """A CSV of losses or accuracies against step, as numbers.

    Rows without a step are left out, and so are other columns, which a note names; of equal steps
    the last row counts.
    """
    table = read_table(path)
    step, taken = _columns(table, epochs=epochs)
    if step is None or not taken:
        raise InputError(
            f"{path} is no log: it needs one column 'step' and at least one of "
            f"{', '.join(COLUMNS)}."
        )
    for column in (step, *taken.values()):
        if isinstance(table[column], pd.DataFrame):
            raise InputError(f"{path} has two columns {column!r}; keep one.")
    numbers = pd.DataFrame(
        {
            ours: as_numbers(table[theirs], f"{path}, column {theirs!r}")
            for ours, theirs in {"step": step, **taken}.items()
        }
    ).dropna(subset="step")
    steps = numbers["step"]
    if not ((steps % 1 == 0) & (steps >= 0) & (steps < LARGEST_STEP)).all():
        raise InputError(f"{path} has steps that are not whole numbers from 0 on.")
    found = numbers.astype({"step": "int64"}).drop_duplicates("step", keep="last")
    renamed = {"step": step, **taken}
    notes = [f"{ours} is its {theirs!r}" for ours, theirs in renamed.items() if ours != theirs]
    told = [f"{path.name}: {', '.join(notes)}"[:300]] if notes else []
    told += [f"{path.name}: {note}" for note in left_out(table, renamed.values())]
    return Log(found, "_".join(words_of(step)), tuple(told))


def _columns(table: pd.DataFrame, *, epochs: bool) -> tuple[str | None, dict[str, str]]:
    """The column of steps, and by our names theirs of losses and accuracies."""
    names = [name for name in table.columns if isinstance(name, str)]
    stepped = [name for name in names if step_word(words_of(name))]
    stepped.sort(key=lambda name: STEPS.index("_".join(words_of(name))))
    if epochs:
        stepped.sort(key=lambda name: not counts_epochs("_".join(words_of(name))))
    by_measure: dict[tuple[str | None, str], str] = {}
    for name in sorted(names, key=lambda name: len(words_of(name))):
        if (what := measured(words_of(name))) is not None:
            by_measure.setdefault(what, name)
    found, _ = by_column(by_measure)
    exact = {name: name for name in (*COLUMNS, *UNMIRRORED) if name in names}
    taken = {**found, **exact}
    known = {name: taken[name] for name in (*COLUMNS, *UNMIRRORED) if name in taken}
    return ("step" if "step" in names and not epochs else next(iter(stepped), None)), known


def _names_of(path: Path) -> list[str]:
    """Stems of what goes by the name of a checkpoint."""
    stem = path.stem
    bare = re.sub(r"^(model|checkpoint|ckpt|weights)[-_.]", "", stem, flags=re.IGNORECASE)
    names = [stem, re.sub("^model", "config", stem), bare]
    for each in dict.fromkeys((stem, bare)):
        for word in (*OF_CONFIG, *OF_LOG, *OF_SPLIT):
            names += [f"{word}_{each}", f"{each}_{word}", f"{each}.{word}"]
    return list(dict.fromkeys(names))


def names_in(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that can be of use here."""
    try:
        return frozenset(x.name for x in folder.iterdir() if x.suffix in (*SUFFIXES, ".csv"))
    except OSError:
        return frozenset()


def _files(
    folder: Path, names: Iterable[str], there: Collection[str], suffixes: Iterable[str]
) -> Iterator[Path]:
    for name in names if there else ():
        for suffix in suffixes:
            if name + suffix in there and (file := folder / (name + suffix)).is_file():
                yield file


def _said(
    folder: Path, names: Iterable[str], there: Collection[str], notes: list[str]
) -> Iterator[tuple[str, Said]]:
    for file in _files(folder, names, there, SUFFIXES):
        try:
            if file.stat().st_size > LARGEST:
                raise ValueError(f"larger than {LARGEST / 1e6:.0f} MB")
            data = _json(file)
        except (ValueError, RecursionError, OSError) as error:
            notes.append(_left_alone(file, str(error) or type(error).__name__))
            continue
        said = said_in(named(data, file.stem), only_config=True)
        if said.what or said.config:
            yield file.name, said


def _json(file: Path) -> Any:
    content = file.read_bytes()
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    return json.loads(content)


def _left_alone(file: Path, reason: str) -> str:
    told = " ".join(reason.removeprefix(str(file)).split())[:120]
    return f"{file.name} beside it is left alone: {told}"
