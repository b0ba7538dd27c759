"""The files that people keep beside checkpoints: configurations, logs, training rows.

Of one checkpoint, by its name: `x.json` and `x.csv`, `config_x.json`, `x_metrics.csv`; `model_x.pt`
has those of `x` too. Of all in a folder: `config.json`, `metrics.csv`, `history.json`,
`train_indices.json` and the like. What cannot be read is left alone, and said so.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.errors import InputError
from grokinterp.runs.foreign.said import Said, by_column, named, said_in
from grokinterp.runs.foreign.words import STEPS, counts_epochs, measured, step_word, words_of
from grokinterp.runs.manifest import LARGEST_STEP
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED
from grokinterp.runs.tables import as_numbers, left_out, read_table

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
