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

from collections.abc import Iterable, Mapping
from pathlib import Path

from grokinterp.errors import InputError, nearest
from grokinterp.paths import kind_at
from grokinterp.runs.foreign.beside import beside
from grokinterp.runs.foreign.files import is_tensor_file, read_file, refuse_other_file
from grokinterp.runs.foreign.folders import folder_source, noting
from grokinterp.runs.foreign.parts import single_source, with_beside
from grokinterp.runs.foreign.sizes import check_agreement
from grokinterp.runs.foreign.source import Source
from grokinterp.runs.foreign.trainer import is_named_as_trainers, is_trainers, trainer_source
from grokinterp.runs.foreign.whole_runs import demo_source, paper_source
from grokinterp.runs.manifest import LARGEST_STEP, RUN_JSON, SPLIT

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
    Which files beside are read, `grokinterp.runs.foreign.beside` tells.
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
