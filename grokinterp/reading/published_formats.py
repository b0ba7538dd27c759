"""Whole runs in one file: of the paper's mainline run, and of TransformerLens' Grokking_Demo."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.reading.checkpoint_file import Source, StateDict, mapping, state_dict_in
from grokinterp.reading.file_contents import (
    LossCurve,
    logged_steps,
    losses_by_epoch,
    said_in,
    training_pairs,
    whole_numbers,
)
from grokinterp.reading.tensor_files import MOST_SHARED, read_file

# MERGED runs.foreign.trainer: The folder that the training code of Nanda et al. 2023 writes: init, <epoch>, final.


def paper_source(path: Path, data: Mapping[str, Any]) -> Source:
    """`full_run_data.pth`, or the like."""
    states = _list_of_states(data["state_dicts"], path)
    config = mapping(data.get("config"))
    epochs = whole_numbers(data.get("epochs"), path)
    notes: tuple[str, ...] = ()
    if len(epochs) != len(states):
        every = config["save_every"] if type(config.get("save_every")) is int else 100
        epochs = [every * i for i in range(len(states))]
        notes = (f"no epoch for every checkpoint: taken to be 0, {every}, {2 * every}, ...",)
    losses = paper_losses(data, path)
    return Source(
        path, "paper", _by_step(epochs, states, path), losses,
        logged_steps(data, path), config, training_pairs(data.get("train_data"), path), notes=notes,
    )  # fmt: skip


def demo_source(path: Path, data: Mapping[str, Any]) -> Source:
    """`grokking_demo.pth`, or the like."""
    states = _list_of_states(data["checkpoints"], path)
    epochs = whole_numbers(data.get("checkpoint_epochs"), path)
    if len(epochs) != len(states):
        raise InputError(f"{path} has no 'checkpoint_epochs' for each of its checkpoints.")
    losses = {
        column: LossCurve.every(values, first=int(column.startswith("test")))
        for column, values in losses_by_epoch(data, path).items()
    }
    return Source(
        path, "demo", _by_step(epochs, states, path), losses,
        logged_steps(data, path), mapping(data.get("config")), training_rows(data, path),
    )  # fmt: skip


def paper_losses(data: Mapping[str, Any], path: Path) -> dict[str, LossCurve]:
    """The training loss of every epoch, the test loss of every so many."""
    found = losses_by_epoch(data, path)
    lengths = {column: len(values) for column, values in found.items()}
    stride = max(1, round(lengths.get("train_loss", 0) / lengths.get("test_loss", 1)))
    return {
        column: LossCurve.every(values, stride=stride if column.startswith("test") else 1)
        for column, values in found.items()
    }


def _list_of_states(states: list[Any], path: Path) -> list[StateDict]:
    if not states:
        raise InputError(f"{path} has an empty list of checkpoints.")
    found = [state_dict_in(state, path) for state in states]
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


def training_rows(data: Mapping[str, Any], path: Path) -> Tensor | None:
    """Rows a*p + b, or pairs (a, b), that a file keeps beside the weights."""
    rows = data.get("train_indices")
    if rows is None:
        return training_pairs(data.get("train_data"), path)
    return torch.tensor(whole_numbers(rows, path))


def is_trainers(file: Path, data: Any) -> bool:
    """Whether a file looks like one of the paper's Trainer, by its name and what is in it."""
    if file.stem == "init":
        return "train_data" in mapping(data)
    return is_named_as_trainers(file) and {"train_loss", "epoch"} <= set(mapping(data))


def is_named_as_trainers(file: Path) -> bool:
    """Whether a file is called init, final or by a number."""
    return file.stem in ("init", "final") or file.stem.isdecimal()


def trainer_source(folder: Path, files: list[Path]) -> Source:
    """The weights of epoch e are those after its update: step e + 1."""
    states: dict[int, Callable[[], StateDict]] = {}
    train_data = None
    single: dict[str, dict[int, float]] = {}
    near: dict[int, float] = {}
    losses: dict[str, LossCurve] = {}
    config: Mapping[str, Any] = {}
    for file in files:
        data = mapping(read_file(file))
        said = said_in(data)
        if file.stem == "init":
            step, train_data = 0, training_pairs(data.get("train_data"), file)
        elif file.stem == "final":  # its own epoch is the planned one, also of a run cut short
            losses = paper_losses(data, file)
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
            for column, value in said.losses.items():
                single.setdefault(column, {})[epoch] = value
            if "train_loss" in said.losses:
                near[step] = said.losses["train_loss"]
        if train_data is None and said.train_rows is not None:
            train_data = said.train_rows.clone()
        config = mapping(data.get("config")) or config
        if step in states and file.stem == "final":
            continue  # the last epoch was saved twice
        states[step] = lambda file=file: state_dict_in(read_file(file), file)  # type: ignore[misc]
    for column, values in single.items():
        if column not in losses and values:
            losses[column] = LossCurve(np.array([*values]), np.array([*values.values()]))
    return Source(
        folder, "trainer", dict(sorted(states.items())), losses, None, config, train_data,
        near=near,
        notes=("weights of epoch e are taken to be step e + 1, as the paper's code saves them",),
    )  # fmt: skip
