"""What others keep their checkpoints in, brought onto one step axis.

paper       one file of the mainline run of Nanda et al. 2023 (`full_run_data.pth`): `state_dicts`,
            `epochs`, `train_losses` of every epoch, `test_losses` of every 10th, `config`
trainer     the folder their training code writes: `init.pth`, `<epoch>.pth`, `final.pth`
demo        one file of TransformerLens' Grokking_Demo (`grokking_demo.pth`): `checkpoints`,
            `checkpoint_epochs`, losses of every epoch, `train_indices`, `config`
state_dict  one file with the weights of one step
folder      a folder of those, the step in each file or in its name

Step s is the state after s updates. Both codes take the training loss of epoch e before its update
and the checkpoint after it: `train_losses[e]` belongs to step e, the checkpoint of epoch e to step
e + 1. (The first update of the paper's schedule has learning rate 0.) The demo takes its test loss
after the update, the paper before. Of other codes nothing is known: their steps and epochs are
taken as they count them, and what they keep beside the weights is of these weights, or almost.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from grokinterp.base.errors import InputError, nearest
from grokinterp.base.paths import kind_at
from grokinterp.reading.checkpoint_file import (
    Part,
    Source,
    StateDict,
    is_no_checkpoint,
    other_steps,
    part_of,
    refuse_other_rows,
    single_source,
    told,
    weights_in,
    with_beside,
    with_single,
)
from grokinterp.reading.companion_files import (
    Placed,
    beside,
    intervals_in,
    names_in,
    placed,
    stride_of,
)
from grokinterp.reading.file_contents import Listed, LossCurve, Said
from grokinterp.reading.published_formats import (
    demo_source,
    is_named_as_trainers,
    is_trainers,
    paper_source,
    trainer_source,
)
from grokinterp.reading.settings import check_agreement
from grokinterp.reading.tensor_files import is_tensor_file, read_file, refuse_other_file
from grokinterp.reading.words import step_in
from grokinterp.runs.manifest import LARGEST_STEP, RUN_JSON, SPLIT

# MERGED runs.foreign.folders: A folder of checkpoints as one source: each file's step, and what all of them say together.


COPIES = re.compile(r"best|last|latest|final|current|newest", re.IGNORECASE)  # of another file


def folder_source(folder: Path, files: Collection[Path], *, metrics: str | None) -> Source:
    """The weights of every file that says its step, or has it in its name."""
    there = names_in(folder)
    parts: dict[int, Part] = {}
    others: list[tuple[str, Said]] = []  # of files without weights: a log, the training rows
    left_out: dict[str, list[str]] = {}
    lists = _Lists()
    for file in files:
        try:
            data = read_file(file)
            part = part_of(file, data, there)
        except InputError:
            if step_in(file.stem) is not None:
                raise
            left_out.setdefault("cannot be read and have no step in the name", []).append(file.name)
            continue
        if is_no_checkpoint(data):
            if part.said.what or part.said.config:
                others.append((file.name, part.said))
            left_out.setdefault("hold no weights", []).append(file.name)
            continue
        if part.step is None:
            left_out.setdefault("have no step", []).append(file.name)
            continue
        weights_in(data, file)  # refused at once if these are none
        step = part.step.number
        if (rival := parts.get(step)) is not None:
            copies = [x for x in (part, rival) if not x.named and COPIES.search(x.file.stem)]
            if len(copies) != 1 or not (part.named or rival.named):
                raise InputError(f"{rival.file} and {file.name} are both of step {step}; keep one.")
            other = copies[0].file.name
            left_out.setdefault("are of the step of another file", []).append(other)
            if copies[0] is part:
                continue
        lists.add(step, part.said.lists)
        parts[step] = replace(part, said=replace(part.said, lists={}))
    if not parts and list(left_out) == ["hold no weights"]:
        first = next(iter(files))
        weights_in(read_file(first), first)  # which says what it holds instead
    if not parts:
        raise InputError(
            f"{next(iter(files))} has no step in it or in its name; name it such as step_100.pt."
        )
    source, last = _source(folder, parts, lists)
    found = beside(folder, epochs=last.in_epochs, metrics=metrics)
    found = replace(found, said=(*found.said, *others))
    source = with_beside(source, folder, found, last.word)
    return noting(source, left_out)


def noting(source: Source, left_out: Mapping[str, list[str]]) -> Source:
    """With a note for each reason why files are left out."""
    notes = tuple(
        f"left out, as they {reason}: {', '.join(names[:6])}"
        + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        for reason, names in left_out.items()
        if names
    )
    return replace(source, notes=(*source.notes, *notes))


def _source(folder: Path, by_step: Mapping[int, Part], lists: "_Lists") -> tuple[Source, Any]:
    parts = dict(sorted(by_step.items()))
    refuse_other_rows(parts.values())
    last = list(parts)[-1]
    configs = [pair for part in parts.values() for pair in part.configs]
    config = next((x.said.config for x in reversed(parts.values()) if x.said.config), {})
    rows = [x.said.train_rows for x in parts.values() if x.said.train_rows is not None]
    at = parts[last].step
    assert at is not None
    curves = lists.placed(last, at.word, config)
    losses = dict(curves.curves)
    for step, part in parts.items():
        losses = with_single(losses, step, part.said.losses, curves.curves)
    near = {
        step: part.said.losses["train_loss"] for step, part in parts.items()
        if "train_loss" in part.said.losses
    }  # fmt: skip
    states: dict[int, Callable[[], StateDict]] = {
        step: (lambda file=part.file: weights_in(read_file(file), file))  # type: ignore[misc]
        for step, part in parts.items()
    }
    said = dict.fromkeys(note for part in parts.values() for note in part.said.notes)
    notes = (*_epochs(parts), *other_steps(parts.values()), *told(parts.values(), curves.curves),
             *said, *curves.notes)  # fmt: skip
    source = Source(
        folder, "folder", states, losses, None, config, rows[0] if rows else None, None, notes,
        configs=tuple(configs), near=near,
    )  # fmt: skip
    return source, at


def _epochs(parts: Mapping[int, Part]) -> tuple[str, ...]:
    steps = [part.step for part in parts.values() if part.step is not None]
    words = dict.fromkeys(step.word for step in steps if step.in_epochs)
    if not words:
        return ()
    return (
        f"steps are {' and '.join(map(repr, words))} as the files count them: of one update each, "
        "unless a log says otherwise",
    )


class _Lists:
    """The lists that files of a folder keep, of which the later ones usually hold the earlier."""

    def __init__(self) -> None:
        self._last = -1
        self._loose: dict[str, Listed] = {}  # without steps, of the last file
        self._lengths: list[tuple[int, dict[str, int]]] = []
        self._stepped: dict[str, LossCurve] = {}

    def add(self, step: int, lists: Mapping[str, Listed]) -> None:
        loose = {column: x for column, x in lists.items() if x.steps is None}
        self._lengths.append((step, {column: len(x.values) for column, x in loose.items()}))
        if loose and step > self._last:
            self._last, self._loose = step, loose
        for column, listed in lists.items():
            if listed.steps is not None:
                curve = LossCurve(listed.steps, listed.values)
                known = self._stepped.get(column)
                self._stepped[column] = curve if known is None else _union(known, curve)

    def placed(self, last: int, word: str | None, config: Mapping[str, Any]) -> Placed:
        """All of them on the axis of the checkpoints."""
        intervals = intervals_in(config)
        whole, notes = {}, []
        for column, listed in self._loose.items():
            strides = {
                stride_of(n[column], step, intervals)
                for step, n in self._lengths if column in n and n[column] > 1
            }  # fmt: skip
            if len(strides - {None}) > 1:
                notes.append(
                    f"{column}: the lists of the files do not hold those of the files before, so "
                    "that nothing says of which steps they are; they are left out"
                )
            else:
                whole[column] = listed
        at = self._last if whole else last
        found = placed(whole, step=at, word=word, config=config, fixed=True)
        curves = {**found.curves, **self._stepped}
        return Placed(curves, last, (*notes, *found.notes))


def _union(one: LossCurve, two: LossCurve) -> LossCurve:
    """Both curves; where they have the same steps, the second."""
    steps, values = np.concatenate([two.steps, one.steps]), np.concatenate([two.values, one.values])
    kept, first = np.unique(steps, return_index=True)
    return LossCurve(kept, values[first])


FORMATS = ("paper", "trainer", "demo", "state_dict", "folder")
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl")


def is_foreign(path: Path) -> bool:
    """Whether a path holds checkpoints that are not a run of ours."""
    if path.is_dir():
        return not (path / RUN_JSON).exists() and any(_checkpoint_files(path))
    return path.is_file() and is_tensor_file(path)


def holds_foreign(path: Path) -> bool:
    """The same of a path to open: a file that holds none is refused by what it is instead."""
    kind, found = kind_at(path), is_foreign(path)
    if kind == "file" and not found:
        refuse_other_file(path)
    return found


def open_source(
    path: Path,
    *,
    format: str = "auto",
    step: int | None = None,
    metrics: str | None = None,
) -> Source:
    """The checkpoints at a path, with all that they and the files beside them say.

    `step` is that of a single one, if it is not the one that is said, `metrics` a CSV of its log.
    Which files beside are read, `grokinterp.reading.companion_files` tells.
    """
    if format not in ("auto", *FORMATS):
        raise InputError(
            f"format={format!r} is not known; {nearest(str(format), ('auto', *FORMATS))}"
        )
    if not path.exists():
        raise InputError(f"{path} does not exist; give a checkpoint, or a folder of them.")
    source = _of_folder(path, format, metrics) if path.is_dir() else _of_file(path, step, metrics)
    if not all(0 <= step < LARGEST_STEP for step in source.states):
        raise InputError(f"{path} has checkpoints of steps that are not from 0 to 2**53.")
    if format not in ("auto", source.format):
        raise InputError(f"{path} has the format {source.format!r}, not {format!r}; try auto.")
    check_agreement(source.configs)
    return source


def _of_file(path: Path, step: int | None, metrics: str | None) -> Source:
    data = read_file(path)
    if isinstance(data, Mapping) and isinstance(data.get("state_dicts"), list):
        source = paper_source(path, data)
    elif isinstance(data, Mapping) and isinstance(data.get("checkpoints"), list):
        source = demo_source(path, data)
    elif step is None and is_trainers(path, data):
        source = trainer_source(path, [path])
    else:
        return single_source(path, data, step=step, metrics=metrics)
    return with_beside(source, path.parent, beside(path, metrics=metrics), None)


def _of_folder(folder: Path, format: str, metrics: str | None) -> Source:
    files = sorted(_checkpoint_files(folder))
    if not files:
        raise InputError(f"{folder} holds no checkpoints ({', '.join(SUFFIXES)}).")
    for file in files:
        if file.is_symlink():
            raise InputError(f"{file} is a symbolic link; give a folder that holds the files.")
    named = [file for file in files if is_named_as_trainers(file)]
    if format != "folder" and named and is_trainers(named[0], read_file(named[0])):
        source = trainer_source(folder, named)
        source = with_beside(source, folder, beside(folder, metrics=metrics), None)
        others = [file.name for file in files if file not in named]
        return noting(source, {"are not named as the training code does": others})
    return folder_source(folder, files, metrics=metrics)


def _checkpoint_files(folder: Path) -> Iterable[Path]:
    # A run of ours that was stopped before its first save has no more than our split.
    return (
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and not file.name.startswith(".") and file.name != SPLIT
        if not file.is_dir()
    )
