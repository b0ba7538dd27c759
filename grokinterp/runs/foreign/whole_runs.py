"""Whole runs in one file: of the paper's mainline run, and of TransformerLens' Grokking_Demo."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.runs.foreign.files import MOST_SHARED
from grokinterp.runs.foreign.source import Source, StateDict, mapping, state_dict_in
from grokinterp.runs.foreign.values import (
    LossCurve,
    logged_steps,
    losses_by_epoch,
    training_pairs,
    whole_numbers,
)


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
