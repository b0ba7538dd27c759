"""The folder that the training code of Nanda et al. 2023 writes: init, <epoch>, final."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from grokinterp.errors import InputError
from grokinterp.runs.foreign.files import read_file
from grokinterp.runs.foreign.said import said_in
from grokinterp.runs.foreign.source import Source, StateDict, mapping, state_dict_in
from grokinterp.runs.foreign.values import LossCurve, training_pairs
from grokinterp.runs.foreign.whole_runs import paper_losses


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
