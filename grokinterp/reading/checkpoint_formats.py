"""Which formats of checkpoints are read, and how is each brought onto one step axis?

paper       one file of the mainline run of Nanda et al. 2023 (`full_run_data.pth`): `state_dicts`,
            `epochs`, `train_losses` of every epoch, `test_losses` of every 10th, `config`
trainer     the folder their training code writes: `init.pth`, `<epoch>.pth`, `final.pth`
demo        one file of TransformerLens' Grokking_Demo (`grokking_demo.pth`): `checkpoints`,
            `checkpoint_epochs`, losses of every epoch, `train_indices`, `config`
state_dict  one file with the weights of one step
folder      a folder of those, the step in each file or in its name, or in that of its sub-folder
steps       one file with the weights of several steps: a dictionary by step, or a list

Step s is the state after s updates. Both codes take the training loss of epoch e before its update
and the checkpoint after it: `train_losses[e]` belongs to step e, the checkpoint of epoch e to step
e + 1. (The first update of the paper's schedule has learning rate 0.) The demo takes its test loss
after the update, the paper before. Of other codes nothing is known: their steps and epochs are
taken as they count them, and what they keep with the weights is of these weights, or almost.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.base.paths import kind_at
from grokinterp.reading.checkpoint_files import Source, single_source, step_in
from grokinterp.reading.checkpoint_folders import (
    INDEX,
    SUFFIXES,
    Layout,
    folder_source,
    layout_of,
    read_checkpoint,
    without_links,
)
from grokinterp.reading.companions import companions_of
from grokinterp.reading.containers import series_in, series_source, steps_beside
from grokinterp.reading.file_contents import LossCurve, contents_of, numbers_in
from grokinterp.reading.settings import check_agreement
from grokinterp.reading.tensor_files import (
    StateDict,
    as_mapping,
    is_tensor_file,
    read_file,
    refuse_mostly_shared,
    refuse_other_file,
    refuse_too_many,
    state_dict_in,
)
from grokinterp.reading.unread_folders import refuse_other_folder
from grokinterp.runs.manifest import LARGEST_STEP, is_run_folder

FORMATS = ("paper", "trainer", "demo", "state_dict", "folder", "steps")


def is_foreign(path: Path) -> bool:
    """Whether a path holds checkpoints that are not a run of ours."""
    if path.is_dir():
        return not is_run_folder(path) and bool(layout_of(path).checkpoints)
    return path.is_file() and (path.name.endswith(INDEX) or is_tensor_file(path))


def holds_foreign(path: Path) -> bool:
    """Whether a path to open holds them; what is something else is refused by what it is."""
    kind, found = kind_at(path), is_foreign(path)
    if kind == "file" and not found:
        refuse_other_file(path)
    if kind == "folder" and not found and not is_run_folder(path):
        refuse_other_folder(path)
    return found


def open_source(
    path: Path, *, format: str = "auto", step: int | None = None, metrics: str | None = None
) -> Source:
    """The checkpoints at a path, with all that they and the files next to them say.

    `step` is that of a single checkpoint, which counts before its own, `metrics` a CSV of its log.
    """
    word("format", format, ("auto", *FORMATS))
    if not path.exists():
        raise InputError(f"{path} does not exist; give a checkpoint, or a folder of them.")
    read = _of_folder if path.is_dir() else _of_file
    source = read(path, format, step, metrics)
    if not all(0 <= step < LARGEST_STEP for step in source.states):
        raise InputError(f"{path} has checkpoints of steps that are not from 0 to 2**53.")
    if format not in ("auto", source.format):
        raise InputError(f"{path} has the format {source.format!r}, not {format!r}; try auto.")
    check_agreement(source.configs)
    return source


def _of_file(path: Path, format: str, step: int | None, metrics: str | None) -> Source:
    data = read_checkpoint(path)
    published = format != "steps"
    if published and _is_papers(as_mapping(data)):
        source = paper_source(path, data)
    elif published and _is_demos(as_mapping(data)):
        source = demo_source(path, data)
    elif step is None and _is_trainers(path, data):
        source = trainer_source(path, [path])
    elif (series := series_in(data)) is not None:
        source = series_source(path, series, metrics=metrics)
        return replace(source, notes=(*getattr(data, "notes", ()), *source.notes))
    else:
        return single_source(path, data, step=step, metrics=metrics)
    return source.with_companions(companions_of(path, metrics=metrics)).noting_objects(data)


def _is_demos(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("checkpoints"), list) and "checkpoint_epochs" in data


def _is_papers(data: Mapping[str, Any]) -> bool:
    """Whether a file is as theirs: a list of state dicts, and their epochs or how far apart.

    One that has their steps besides is somebody else's.
    """
    states, epochs = data.get("state_dicts"), data.get("epochs")
    if not isinstance(states, list):
        return False
    steps = steps_beside({key: x for key, x in data.items() if x is not states}, len(states))
    if steps and steps[0] and not steps[0].in_epochs:
        return False
    listed = isinstance(epochs, (list, tuple)) and len(epochs) == len(states)
    listed = listed or tuple(getattr(epochs, "shape", ())) == (len(states),)
    return listed or _save_every(data) is not None


def _save_every(data: Mapping[str, Any]) -> int | None:
    every = as_mapping(data.get("config")).get("save_every")
    return every if type(every) is int else None


def _of_folder(folder: Path, format: str, step: int | None, metrics: str | None) -> Source:
    layout = layout_of(folder)
    if not layout.checkpoints:
        raise InputError(f"{folder} holds no checkpoints ({', '.join(SUFFIXES)}).")
    layout = without_links(layout)
    files = [found.file for found in layout.checkpoints]
    if format != "folder" and len(files) == 1 and _is_the_file(layout, step):
        return _of_file(files[0], format, step, metrics)
    named = [file for file in files if file.parent == folder and _is_named_as_trainers(file)]
    if format == "folder" or not named or not _is_trainers(named[0], read_file(named[0])):
        return folder_source(folder, layout, metrics=metrics)
    source = trainer_source(folder, named)
    others = {"are not named as the training code does": [x.name for x in files if x not in named]}
    return source.with_companions(companions_of(folder, metrics=metrics)).noting(others)


def _is_the_file(layout: Layout, step: int | None) -> bool:
    """Whether a folder is read as the one file in it: of several steps, or of a step to be told."""
    (found,) = layout.checkpoints
    alone = len(layout.around) == 1 and not layout.loose and not layout.links
    if alone and (step is not None or step_in(found.name) is None):
        return True
    try:
        data = read_checkpoint(found.file)
    except InputError:
        return False  # which is told where it is read in its turn
    return _is_papers(as_mapping(data)) or series_in(data) is not None


def paper_source(path: Path, data: Mapping[str, Any]) -> Source:
    """`full_run_data.pth`, or the like."""
    states = data["state_dicts"]
    config = as_mapping(data.get("config"))
    epochs = _whole_numbers(data, "epochs", path)
    notes: tuple[str, ...] = (_one_later("Nanda et al. 2023"),)
    if len(epochs) != len(states):
        every = _save_every(data)
        assert every is not None
        epochs = [every * i for i in range(len(states))]
        notes += (f"no epoch for every checkpoint: taken to be 0, {every}, {2 * every}, ...",)
    return Source(
        path, "paper", _by_step(states, epochs, path), _paper_losses(data, path),
        _whole_numbers(data, "logged_steps", path) or None, config, _training_pairs(data, path),
        notes=notes,
    )  # fmt: skip


def demo_source(path: Path, data: Mapping[str, Any]) -> Source:
    """`grokking_demo.pth`, or the like."""
    states = data["checkpoints"]
    epochs = _whole_numbers(data, "checkpoint_epochs", path)
    if len(epochs) != len(states):
        raise InputError(f"{path} has no 'checkpoint_epochs' for each of its checkpoints.")
    losses = {
        column: LossCurve.every(values, first=int(column.startswith("test")))
        for column, values in _losses_by_epoch(data, path).items()
    }
    rows = _whole_numbers(data, "train_indices", path)
    listed = data.get("train_indices") is not None
    train_data = torch.tensor(rows) if listed else _training_pairs(data, path)
    return Source(
        path, "demo", _by_step(states, epochs, path), losses,
        _whole_numbers(data, "logged_steps", path) or None, as_mapping(data.get("config")),
        train_data, notes=(_one_later("TransformerLens' Grokking_Demo"),),
    )  # fmt: skip


def _one_later(whose: str) -> str:
    return (
        f"weights of epoch e are taken to be step e + 1, as the code of {whose} saves them "
        "(format=steps takes them as they are counted)"
    )


def trainer_source(folder: Path, files: list[Path]) -> Source:
    """What the paper's training code writes; weights of epoch e are those after it: step e + 1."""
    states: dict[int, Callable[[], StateDict]] = {}
    train_data = None
    single: dict[str, dict[int, float]] = {}
    losses: dict[str, LossCurve] = {}
    config: Mapping[str, Any] = {}
    for file in files:
        data = as_mapping(read_file(file))
        contents = contents_of(data)
        if file.stem == "init":
            step, train_data = 0, _training_pairs(data, file)
        elif file.stem == "final":  # its own epoch is the planned one, also of a run cut short
            losses = _paper_losses(data, file)
            epoch = data.get("epoch")
            if curve := losses.get("train_loss"):
                step = len(curve.values)
            elif type(epoch) is int and epoch >= 0:
                step = epoch + 1
            else:
                raise InputError(f"{file} says neither its losses nor its epoch.")
        else:
            epoch = int(file.stem)
            step = epoch + 1
            for column, value in contents.losses.items():
                single.setdefault(column, {})[epoch] = value
        if train_data is None and contents.train_rows is not None:
            train_data = contents.train_rows.clone()
        config = as_mapping(data.get("config")) or config
        if step in states and file.stem == "final":
            continue  # the last epoch was saved twice
        states[step] = lambda file=file: state_dict_in(read_file(file), file)  # type: ignore[misc]
    losses = {column: LossCurve.by_step(values) for column, values in single.items()} | losses
    near = {epoch + 1: loss for epoch, loss in single.get("train_loss", {}).items()}
    return Source(
        folder, "trainer", dict(sorted(states.items())), losses, None, config, train_data,
        near=near,
        notes=("weights of epoch e are taken to be step e + 1, as the paper's code saves them",),
    )  # fmt: skip


def _is_trainers(file: Path, data: Any) -> bool:
    """Whether a file looks like one of the paper's Trainer, by its name and what is in it."""
    if file.stem == "init":
        return "train_data" in as_mapping(data)
    return _is_named_as_trainers(file) and {"train_loss", "epoch"} <= set(as_mapping(data))


def _is_named_as_trainers(file: Path) -> bool:
    return file.stem in ("init", "final") or file.stem.isdecimal()


def _by_step(
    states: list[Any], epochs: list[int], path: Path
) -> dict[int, Callable[[], StateDict]]:
    if not states:
        raise InputError(f"{path} has an empty list of checkpoints.")
    refuse_too_many((len(as_mapping(state)) for state in states), path)
    found = [state_dict_in(state, path) for state in states]
    refuse_mostly_shared(found, path)
    steps = [epoch + 1 for epoch in epochs]
    if steps != sorted(set(steps)) or steps[0] < 0:
        raise InputError(f"{path}: the epochs of its checkpoints do not rise from 0 on.")
    return {
        step: (lambda state=state: state)  # type: ignore[misc]
        for step, state in zip(steps, found, strict=True)
    }


def _paper_losses(data: Mapping[str, Any], path: Path) -> dict[str, LossCurve]:
    """The training loss of every epoch, the test loss of every so many."""
    found = _losses_by_epoch(data, path)
    n_train, n_test = (len(found.get(column, ())) for column in ("train_loss", "test_loss"))
    stride = max(1, round(n_train / max(1, n_test)))
    return {
        column: LossCurve.every(values, stride=stride if column.startswith("test") else 1)
        for column, values in found.items()
    }


def _losses_by_epoch(data: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """The lists `train_losses` and `test_losses`, and accuracies as long as these, if any."""
    found = {
        f"{side}_loss": _numbers(data, f"{side}_losses", path)
        for side in ("train", "test")
        if data.get(f"{side}_losses") is not None
    }
    for column, listed in contents_of(data).lists.items():
        values = listed.values if isinstance(listed, LossCurve) else listed
        n_losses = len(found.get(column.replace("_acc", "_loss"), ()))
        if column.endswith("_acc") and n_losses == len(values):
            found[column] = values
    return {column: values for column, values in found.items() if len(values)}


def _whole_numbers(data: Mapping[str, Any], key: str, path: Path) -> list[int]:
    """A list of epochs, steps or rows; empty where there is none."""
    if data.get(key) is None:
        return []
    numbers = _numbers(data, key, path)
    if not (np.isfinite(numbers) & (numbers % 1 == 0) & (abs(numbers) < 2**53)).all():
        raise InputError(f"{path}: its {key!r} are not whole numbers; put them right.")
    return [int(x) for x in numbers]


def _numbers(data: Mapping[str, Any], key: str, path: Path) -> np.ndarray:
    numbers = numbers_in(data[key])
    if numbers is None or numbers.ndim != 1:
        raise InputError(f"{path}: its {key!r} is not a list of numbers; put it right.")
    return numbers


def _training_pairs(data: Mapping[str, Any], path: Path) -> Tensor | None:
    """Training pairs (a, b) of `train_data`, a list of tuples (a, b, p)."""
    rows = data.get("train_data")
    if rows is None:
        return None
    try:
        rows = rows.tolist() if isinstance(rows, (Tensor, np.ndarray)) else rows
        pairs = [row[:2] for row in rows]
        if not all(len(pair) == 2 and all(type(x) is int for x in pair) for pair in pairs):
            raise TypeError
        return torch.tensor(pairs)
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError(f"{path}: its train_data is not a list of (a, b, p).") from None
