"""May a recorder go on in a folder that is there? Only in a run of its own kind, task and split.

Nothing is written here. What belongs to a run its run.json says, so what a kill has left behind
(half a file, rows of metrics without their checkpoint) is no obstacle and no part of it.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.errors import InputError, shown
from grokinterp.models.kinds import Shape
from grokinterp.runs.folder import RunFolder
from grokinterp.runs.manifest import RUN_JSON, Manifest
from grokinterp.tasks.splits import mask_of
from grokinterp.tasks.task import Task

OTHER = "or give another folder"


def recorded(
    folder: Path, task: Task, train_mask: Bool[Tensor, " n_inputs"] | None
) -> Manifest | None:
    """The run that a recorder with this task and split goes on with; None where there is none yet.

    InputError for a damaged run, one that a recorder did not write, and one of another task or
    split, naming what differs.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the folder of a run, {OTHER}.")
    if not (folder / RUN_JSON).exists():
        return None
    store = RunFolder(folder)
    manifest = store.manifest
    if manifest.recipe is not None:
        raise InputError(
            f"{folder} holds a run that gi.train wrote from a recipe, which a loop of your own "
            "cannot go on with; give gi.train(recipe, out, resume=True) that folder, "
            f"{OTHER}."
        )
    if manifest.source is not None:
        raise InputError(
            f"{folder} holds checkpoints that were imported, not recorded; give another folder."
        )
    _refuse_other_task(folder, manifest.task, task)
    rows = store.train_indices()
    _refuse_other_split(folder, None if rows is None else mask_of(rows, task.n_inputs), train_mask)
    return manifest


def how_to_go_on(folder: Path) -> str:
    """What somebody can do whose recorder finds a run in its folder."""
    try:
        manifest = Manifest.read(folder)
    except InputError:
        return ""
    if manifest.recipe is not None:
        return "go on with that run by gi.train(recipe, out, resume=True)"
    return "" if manifest.source is not None else "go on with that run by resume=True"


def refuse_other_model(folder: Path, theirs: Shape, ours: Shape) -> None:
    """InputError, naming what differs, where a run was begun with a model of another shape."""
    if theirs == ours:
        return
    told = f"{theirs.kind} there, {ours.kind} here"
    if theirs.kind == ours.kind:
        told = _differences(asdict(theirs), asdict(ours))
    raise InputError(
        f"the model is not of the shape that the run in {folder} was begun with ({told}); give a "
        f"model of that shape, {OTHER}."
    )


def _refuse_other_task(folder: Path, theirs: Task, ours: Task) -> None:
    there, here = theirs.to_dict(), ours.to_dict()
    if there == here:
        return
    if there.get("task") != here.get("task"):
        told = f"{theirs.title} there, {ours.title} here"
    else:
        told = _differences(there, here)
    raise InputError(
        f"{folder} holds a run of another task ({told}); give the task it was begun with, {OTHER}."
    )


def _refuse_other_split(
    folder: Path,
    theirs: Bool[Tensor, " n_inputs"] | None,
    ours: Bool[Tensor, " n_inputs"] | None,
) -> None:
    if theirs is None and ours is None:
        return
    if theirs is None or ours is None:
        there, here = (
            "no split" if mask is None else f"{int(mask.sum())} training rows"
            for mask in (theirs, ours)
        )
        raise InputError(
            f"{folder} holds a run with another train_mask ({there} there, {here} here); give the "
            f"one it was begun with, {OTHER}."
        )
    if not torch.equal(theirs, ours):
        other = (theirs != ours).nonzero().flatten()
        raise InputError(
            f"{folder} holds a run with another train_mask ({int(theirs.sum())} training rows "
            f"there, {int(ours.sum())} here; {len(other)} rows differ, the first is row "
            f"{int(other[0])}); give the one it was begun with, {OTHER}."
        )


def _differences(there: dict[str, object], here: dict[str, object]) -> str:
    """The values that differ, such as "p=7 there, 11 here"."""
    keys = [key for key in there | here if there.get(key) != here.get(key)]
    return "; ".join(
        f"{key}={shown(there.get(key))} there, {shown(here.get(key))} here" for key in keys[:3]
    ) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")
