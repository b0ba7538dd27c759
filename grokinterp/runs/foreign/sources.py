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

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from grokinterp.errors import InputError, nearest
from grokinterp.runs.foreign.beside import config_beside, log_beside, read_log
from grokinterp.runs.foreign.files import is_tensor_file, read_file
from grokinterp.runs.foreign.source import Source, StateDict, mapping, state_dict_in
from grokinterp.runs.foreign.steps import step_in, step_inside
from grokinterp.runs.foreign.trainer import is_named_as_trainers, is_trainers, trainer_source
from grokinterp.runs.foreign.values import LossCurve
from grokinterp.runs.foreign.whole_runs import demo_source, paper_source, training_rows
from grokinterp.runs.manifest import LARGEST_STEP, RUN_JSON, SPLIT

FORMATS = ("paper", "trainer", "demo", "state_dict", "folder")
SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl")


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
    notes = (*source.notes, *(() if log is None else log.attrs["notes"]))
    config = {**config_beside(path), **source.config}
    return replace(source, config=config, log=log, notes=notes)


def _of_file(path: Path, step: int | None, log: pd.DataFrame | None) -> Source:
    data = read_file(path)
    if isinstance(data, Mapping) and isinstance(data.get("state_dicts"), list):
        return paper_source(path, data)
    if isinstance(data, Mapping) and isinstance(data.get("checkpoints"), list):
        return demo_source(path, data)
    if step is None and is_trainers(path, data):
        return trainer_source(path, [path])
    state = state_dict_in(data, path)
    inside = mapping(data) if data is not state else {}
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
        path, "state_dict", {step: lambda: state}, losses, None, mapping(inside.get("config")),
        training_rows(inside, path), notes=notes,
    )  # fmt: skip


def _of_folder(folder: Path, format: str) -> Source:
    files = sorted(_checkpoint_files(folder))
    if not files:
        raise InputError(f"{folder} holds no checkpoints ({', '.join(SUFFIXES)}).")
    for file in files:
        if file.is_symlink():
            raise InputError(f"{file} is a symbolic link; give a folder that holds the files.")
    named = [file for file in files if is_named_as_trainers(file)]
    if format != "folder" and named and is_trainers(named[0], read_file(named[0])):
        return _noting(trainer_source(folder, named), [x.name for x in files if x not in named])
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
        states[step] = lambda file=file: state_dict_in(read_file(file), file)  # type: ignore[misc]
    if not states:
        raise InputError(f"{files[0]} has no step in its name; name it such as step_100.pt.")
    return _noting(Source(folder, "folder", dict(sorted(states.items()))), left_out)


def _noting(source: Source, left_out: list[str]) -> Source:
    note = f"left out, for want of a step in the name: {', '.join(left_out)}"
    return replace(source, notes=(*source.notes, note)) if left_out else source


def _checkpoint_files(folder: Path) -> Iterable[Path]:
    # A run of ours that was stopped before its first save has no more than our split.
    return (
        file
        for file in folder.iterdir()
        if file.suffix in SUFFIXES and not file.name.startswith(".") and file.name != SPLIT
        if not file.is_dir()
    )
