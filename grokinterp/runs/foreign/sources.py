"""What others keep their checkpoints in, brought onto one step axis.

paper       one file of the mainline run of Nanda et al. 2023 (`full_run_data.pth`): `state_dicts`,
            `epochs`, `train_losses` of every epoch, `test_losses` of every 10th, `config`
trainer     the folder their training code writes: `init.pth`, `<epoch>.pth`, `final.pth`
demo        one file of TransformerLens' Grokking_Demo (`grokking_demo.pth`): `checkpoints`,
            `checkpoint_epochs`, losses of every epoch, `train_indices`, `config`
state_dict  one file with the weights of one step
folder      a folder of those, the step in each name

Step s is the state after s updates. Both codes take the training loss of epoch e before its update
and the checkpoint after it: `train_losses[e]` belongs to step e, the checkpoint of epoch e to step
e + 1. (The first update of the paper's schedule has learning rate 0.) The demo takes its test loss
after the update, the paper before.
"""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from grokinterp.errors import InputError, nearest
from grokinterp.runs.foreign.beside import config_beside, log_beside, read_log
from grokinterp.runs.foreign.files import MOST_SHARED, is_tensor_file, read_file
from grokinterp.runs.foreign.steps import step_in, step_inside
from grokinterp.runs.foreign.values import (
    LossCurve,
    logged_steps,
    losses_by_epoch,
    training_pairs,
    whole_numbers,
)
from grokinterp.runs.manifest import LARGEST_STEP, RUN_JSON

FORMATS = ("paper", "trainer", "demo", "state_dict", "folder")
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl")
LONGEST_NAME = 200  # of a weight
NESTED = ("model", "state_dict", "model_state_dict", "net", "weights", "params")

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Checkpoints of somebody else: state dicts by step, and what their files say besides."""

    path: Path
    format: str
    states: dict[int, Callable[[], StateDict]]
    losses: dict[str, LossCurve] = field(default_factory=dict)  # train_loss, test_loss
    logged_steps: np.ndarray | None = None  # where losses between are only repeated
    config: Mapping[str, Any] = field(default_factory=dict)
    train_data: Tensor | None = None  # rows a*p + b, or pairs (a, b)
    log: pd.DataFrame | None = None  # losses or accuracies against step, of a CSV
    notes: tuple[str, ...] = ()


def is_foreign(path: Path) -> bool:
    """Whether a path holds checkpoints that are not a run of ours."""
    if path.is_dir():
        return not (path / RUN_JSON).exists() and any(_checkpoint_files(path))
    return path.is_file() and is_tensor_file(path)


def open_source(
    path: Path,
    *,
    format: str = "auto",
    step: int | None = None,
    metrics: str | None = None,
) -> Source:
    """The checkpoints at a path.

    `step` is that of a single one whose name has none, `metrics` a CSV of its log. A JSON and a CSV
    that go by the checkpoint's name are read too: `model_x.pt` with `config_x.json`, `x.pt` with
    `x.json` and `x.csv`; in a folder, `config.json` and `metrics.csv`.
    """
    if format not in ("auto", *FORMATS):
        raise InputError(f"format={format!r} is not known; {nearest(format, ('auto', *FORMATS))}")
    if not path.exists():
        raise InputError(f"{path} does not exist; give a checkpoint, or a folder of them.")
    log = log_beside(path) if metrics is None else read_log(Path(metrics))
    source = _of_folder(path, format) if path.is_dir() else _of_file(path, step, log)
    if not all(0 <= step < LARGEST_STEP for step in source.states):
        raise InputError(f"{path} has checkpoints of steps that are not from 0 to 2**53.")
    if format not in ("auto", source.format):
        raise InputError(f"{path} has the format {source.format!r}, not {format!r}; try auto.")
    return replace(source, config={**config_beside(path), **source.config}, log=log)


def _of_file(path: Path, step: int | None, log: pd.DataFrame | None) -> Source:
    data = read_file(path)
    if isinstance(data, Mapping) and isinstance(data.get("state_dicts"), list):
        return _paper(path, data)
    if isinstance(data, Mapping) and isinstance(data.get("checkpoints"), list):
        return _demo(path, data)
    if step is None and _is_trainers(path, data):
        return _trainer(path, [path])
    state = _state_dict(data, path)
    inside = _mapping(data) if data is not state else {}
    notes: tuple[str, ...] = ()
    if step is None and (found := step_inside(inside) or step_in(path.stem)):
        step, origin = found
        notes = (f"step {step} is {origin} (set step= if it counts otherwise)",)
    elif step is None and log is not None and len(log):
        step = int(log["step"].max())
        notes = (f"no step in the file or its name: taken to be {step}, the last of its log",)
    elif step is None:
        step = 0
        notes = ("no step in the file or its name: it stands at step 0 (give step=)",)
    losses = {}
    for column in ("train_loss", "test_loss"):
        if "epoch" not in inside and isinstance(inside.get(column), (int, float)):
            losses[column] = LossCurve(np.array([step]), np.array([float(inside[column])]))
    return Source(
        path, "state_dict", {step: lambda: state}, losses, None, _mapping(inside.get("config")),
        _training_rows(inside, path), notes=notes,
    )  # fmt: skip


def _paper(path: Path, data: Mapping[str, Any]) -> Source:
    states = _list_of_states(data["state_dicts"], path)
    config = _mapping(data.get("config"))
    epochs = whole_numbers(data.get("epochs"), path)
    notes: tuple[str, ...] = ()
    if len(epochs) != len(states):
        every = config["save_every"] if type(config.get("save_every")) is int else 100
        epochs = [every * i for i in range(len(states))]
        notes = (f"no epoch for every checkpoint: taken to be 0, {every}, {2 * every}, ...",)
    losses = _paper_losses(data, path)
    return Source(
        path, "paper", _by_step(epochs, states, path), losses,
        logged_steps(data, path), config, training_pairs(data.get("train_data"), path), notes=notes,
    )  # fmt: skip


def _demo(path: Path, data: Mapping[str, Any]) -> Source:
    states = _list_of_states(data["checkpoints"], path)
    epochs = whole_numbers(data.get("checkpoint_epochs"), path)
    if len(epochs) != len(states):
        raise InputError(f"{path} has no 'checkpoint_epochs' for each of its checkpoints.")
    losses = {
        column: LossCurve.every(values, first=int(column == "test_loss"))
        for column, values in losses_by_epoch(data, path).items()
    }
    return Source(
        path, "demo", _by_step(epochs, states, path), losses,
        logged_steps(data, path), _mapping(data.get("config")), _training_rows(data, path),
    )  # fmt: skip


def _paper_losses(data: Mapping[str, Any], path: Path) -> dict[str, LossCurve]:
    """The training loss of every epoch, the test loss of every so many."""
    found = losses_by_epoch(data, path)
    lengths = {column: len(values) for column, values in found.items()}
    stride = max(1, round(lengths.get("train_loss", 0) / lengths.get("test_loss", 1)))
    return {
        column: LossCurve.every(values, stride=stride if column == "test_loss" else 1)
        for column, values in found.items()
    }


def _of_folder(folder: Path, format: str) -> Source:
    files = sorted(_checkpoint_files(folder))
    if not files:
        raise InputError(f"{folder} holds no checkpoints ({', '.join(SUFFIXES)}).")
    for file in files:
        if file.is_symlink():
            raise InputError(f"{file} is a symbolic link; give a folder that holds the files.")
    named = [file for file in files if _is_named_as_trainers(file)]
    if format != "folder" and named and _is_trainers(named[0], read_file(named[0])):
        return _noting(_trainer(folder, named), [x.name for x in files if x not in named])
    states: dict[int, Callable[[], StateDict]] = {}
    at: dict[int, Path] = {}
    left_out = []
    for file in files:
        found = step_in(file.stem)
        if found is None:
            left_out.append(file.name)
            continue
        step, _ = found
        if step in at:
            raise InputError(f"{at[step]} and {file.name} are both of step {step}; keep one.")
        at[step] = file
        states[step] = lambda file=file: _state_dict(read_file(file), file)  # type: ignore[misc]
    if not states:
        raise InputError(f"{files[0]} has no step in its name; name it such as step_100.pt.")
    return _noting(Source(folder, "folder", dict(sorted(states.items()))), left_out)


def _noting(source: Source, left_out: list[str]) -> Source:
    note = f"left out, for want of a step in the name: {', '.join(left_out)}"
    return replace(source, notes=(*source.notes, note)) if left_out else source


def _trainer(folder: Path, files: list[Path]) -> Source:
    states: dict[int, Callable[[], StateDict]] = {}
    train_data = None
    single: dict[str, dict[int, float]] = {"train_loss": {}, "test_loss": {}}
    losses: dict[str, LossCurve] = {}
    config: Mapping[str, Any] = {}
    for file in files:
        data = _mapping(read_file(file))
        if file.stem == "init":
            step, train_data = 0, training_pairs(data.get("train_data"), file)
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
            for column, found in single.items():
                if isinstance(data.get(column), (int, float)):
                    found[epoch] = float(data[column])
        config = _mapping(data.get("config")) or config
        if step in states and file.stem == "final":
            continue  # the last epoch was saved twice
        states[step] = lambda file=file: _state_dict(read_file(file), file)  # type: ignore[misc]
    for column, values in single.items():
        if column not in losses and values:
            losses[column] = LossCurve(np.array([*values]), np.array([*values.values()]))
    return Source(
        folder, "trainer", dict(sorted(states.items())), losses, None, config, train_data,
        notes=("weights of epoch e are taken to be step e + 1, as the paper's code saves them",),
    )  # fmt: skip


def _checkpoint_files(folder: Path) -> Iterable[Path]:
    return (file for file in folder.iterdir() if file.suffix in SUFFIXES and not file.is_dir())


def _state_dict(data: Any, path: Path) -> StateDict:
    """The weights in what a file holds: the file itself, or what it keeps under a usual name."""
    for candidate in (data, *(_mapping(data).get(name) for name in NESTED)):
        found = _mapping(candidate)
        weights = {key: x for key, x in found.items() if isinstance(x, Tensor)}
        if len(weights) >= 4 and len(weights) >= len(found) / 2:
            _check_names(weights, path)
            return weights
    keys = ", ".join(map(reprlib.repr, list(_mapping(data))[:6])) or type(data).__name__
    raise InputError(
        f"{path} holds no weights that are known here (found: {keys}); give a state dict, "
        "or a dictionary that has one as 'model' or 'state_dict'."
    )


def _check_names(weights: Mapping[Any, Tensor], path: Path) -> None:
    for name in weights:
        if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(
                f"{path} has a weight of the name {reprlib.repr(name)}; names are text of at most "
                f"{LONGEST_NAME} characters, such as embed.W_E."
            )


def _list_of_states(states: list[Any], path: Path) -> list[StateDict]:
    if not states:
        raise InputError(f"{path} has an empty list of checkpoints.")
    found = [_state_dict(state, path) for state in states]
    claimed = sum(weight.nbytes for state in found for weight in state.values())
    if claimed > MOST_SHARED * path.stat().st_size:
        raise InputError(
            f"{path} has {len(states)} checkpoints that are mostly one another's tensors; it is "
            "damaged."
        )
    return found


def _by_step(
    epochs: list[int], states: list[StateDict], path: Path
) -> dict[int, Callable[[], StateDict]]:
    steps = [epoch + 1 for epoch in epochs]
    if steps != sorted(set(steps)) or steps[0] < 0:
        raise InputError(f"{path}: the epochs of its checkpoints do not rise from 0 on.")
    return {
        step: (lambda state=state: state)  # type: ignore[misc]
        for step, state in zip(steps, states, strict=True)
    }


def _training_rows(data: Mapping[str, Any], path: Path) -> Tensor | None:
    """Rows a*p + b, or pairs (a, b), that a file keeps beside the weights."""
    rows = data.get("train_indices")
    if rows is None:
        return training_pairs(data.get("train_data"), path)
    return torch.tensor(whole_numbers(rows, path))


def _is_trainers(file: Path, data: Any) -> bool:
    """Whether a file looks like one of the paper's Trainer, by its name and what is in it."""
    if file.stem == "init":
        return "train_data" in _mapping(data)
    return _is_named_as_trainers(file) and {"train_loss", "epoch"} <= set(_mapping(data))


def _is_named_as_trainers(file: Path) -> bool:
    return file.stem in ("init", "final") or file.stem.isdecimal()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
