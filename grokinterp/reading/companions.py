"""Which files lie next to checkpoints, and what do they say: a log, a configuration, a split?

Of one checkpoint, by its name: `x.json` and `x.csv`, `config_x.json`, `x_metrics.csv`; `model_x.pt`
has those of `x` too. Of all in a folder: `config.json`, `metrics.csv`, `history.json`,
`train_indices.json`, `train_indices.npy`, `.hydra/config.yaml` and the like. What cannot be read is
left alone, and a note says so.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

from grokinterp.base.errors import InputError
from grokinterp.reading.file_contents import Contents, contents_of
from grokinterp.reading.logs.contents import text_of
from grokinterp.reading.logs.json_files import records_in
from grokinterp.reading.logs.table import OF_LOG, Log, logs_at
from grokinterp.reading.plain_yaml import read_yaml
from grokinterp.reading.tensor_files import read_file
from grokinterp.reading.words import SPLIT_GROUPS, words_of
from grokinterp.runs.manifest import LARGEST_STEP

LARGEST_JSON = 20_000_000  # bytes
LARGEST_LOG = 100_000_000  # of a log that nobody named
OF_CONFIG = (
    "config", "args", "hparams", "hyperparameters", "params", "settings", "options", "cfg",
    "model_config", "train_config", "training_args", "run_config", "meta", "metadata", "info",
    "trainer_state",
)  # fmt: skip
OF_SPLIT = ("split", "splits", "train_indices", "train_idx", "indices")
OF_ROWS = ("train_indices", "train_idx")  # in files of one array
HYDRA = ".hydra"  # the folder in which it keeps a run's configuration, as `config.yaml`
JSON = (".json", ".jsonl")
YAML = (".yaml", ".yml")
ARRAY = ".npy"
_OF_WANDB = {"desc", "value"}  # around every value of its config.yaml


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
    every = chain(
        _contents(folder, [*own, *OF_CONFIG, *OF_LOG, *OF_SPLIT], there, notes),
        _contents(folder / HYDRA, ["config"], names_in(folder / HYDRA), notes),
        _contents(folder, OF_ROWS, there, notes, (ARRAY,)),
    )
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


def contents_beside(path: Path, stem: str) -> tuple[Contents, ...]:
    """What a JSON file of this name says that lies next to a checkpoint."""
    return tuple(_contents(path.parent, [stem], {f"{stem}.json"}, []))


def belongs_to(path: Path, name: str) -> bool:
    """Whether a file next to a checkpoint is looked at for it, as its name says.

    >>> [belongs_to(Path("model_3.pt"), name) for name in ("3.json", "config.json", "4.json")]
    [True, True, False]
    """
    other = Path(name)
    known = {*_stems_of(path), *OF_CONFIG, *OF_LOG, *OF_SPLIT}
    is_rows = other.suffix == ARRAY and other.stem in OF_ROWS
    return is_rows or (other.suffix in (*JSON, *YAML, ".csv") and other.stem in known)


def names_in(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that can be of use here."""
    try:
        return frozenset(
            x.name for x in folder.iterdir() if x.suffix in (*JSON, *YAML, ARRAY, ".csv")
        )
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
    folder: Path,
    stems: Iterable[str],
    there: Collection[str],
    notes: list[str],
    suffixes: Iterable[str] = (*JSON, *YAML),
) -> Iterator[Contents]:
    for file in _files(folder, stems, there, suffixes):
        try:
            if file.stat().st_size > LARGEST_JSON:
                raise ValueError(f"larger than {LARGEST_JSON / 1e6:.0f} MB")
            data = _data_in(file, notes)
        except (ValueError, RecursionError, OSError) as error:
            notes.append(_left_alone(file, str(error) or type(error).__name__))
            continue
        found = contents_of(with_name(data, file.stem), all_is_config=True)
        if not found.is_empty:
            yield replace(found, configs=((str(file), found.config),))


def _data_in(file: Path, notes: list[str]) -> Any:
    """What a small file holds; ValueError where that cannot be read."""
    if file.suffix == ARRAY:
        return read_file(file)
    if file.suffix == ".jsonl":
        return _json_lines(file, notes)
    content = file.read_bytes()
    return without_wandb(read_yaml(content) if file.suffix in YAML else json.loads(content))


def _json_lines(file: Path, notes: list[str]) -> list[Any]:
    """The records of a log in lines, as `gi.read_log` takes them: a run that was killed cuts one.

    Notes say which lines are left out.
    """
    text = text_of(file, largest=LARGEST_JSON)
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        records, others, cut_off = records_in(text, file, error)
    left = [f"{others} lines that are no JSON"] * bool(others)
    left += ["its last record, which is cut off"] * cut_off
    if left:
        notes.append(f"{file.name} is read without {' and '.join(left)}")
    return records


def without_wandb(data: Any) -> Any:
    """A configuration without what Weights & Biases puts around every value of it.

    >>> without_wandb({"wandb_version": 1, "p": {"desc": None, "value": 7}})
    {'p': 7}
    """
    if not isinstance(data, Mapping):
        return data
    own = {key: x for key, x in data.items() if key not in ("_wandb", "wandb_version")}
    wrapped = [isinstance(x, Mapping) and "value" in x and {*x} <= _OF_WANDB for x in own.values()]
    return {key: x["value"] for key, x in own.items()} if own and all(wrapped) else data


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
    """A log of the same run as checkpoints: one run, at whole steps (see `reading.logs.table`)."""
    logs = logs_at(path, epochs=epochs)
    if len(logs) > 1:
        raise InputError(
            f"{path} is a log of {len(logs)} runs; give that of the checkpoints' run alone."
        )
    (log,) = logs
    steps = log.table["step"]
    if not ((steps % 1 == 0) & (steps >= 0) & (steps < LARGEST_STEP)).all():
        raise InputError(f"{path} has steps that are not whole numbers from 0 on.")
    notes = tuple(f"{path.name}: {note}" for note in log.notes)
    return replace(log, table=log.table.astype({"step": "int64"}), notes=notes)
