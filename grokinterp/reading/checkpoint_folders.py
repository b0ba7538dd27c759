"""Where in a folder do checkpoints lie, and what does the folder say of them as a `Source`?

Files of their own, sub-folders that are named by their step (`checkpoint-100/model.safetensors`),
or both of these in a folder of a usual name (`RUN/checkpoints/`, `RUN/version_0/checkpoints/`). A
checkpoint may be in parts, with an index that says which weight is in which file. What lies beside
the last checkpoint, in the folder of all of them and in the folder that was given is used.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from grokinterp.base.errors import InputError, names, shown
from grokinterp.reading.checkpoint_files import (
    COPIES,
    Checkpoints,
    Source,
    checkpoint_of,
    run_in,
    step_in,
)
from grokinterp.reading.companions import (
    LARGEST_JSON,
    Companions,
    companions_of,
    contents_beside,
    names_in,
    namesakes_of,
)
from grokinterp.reading.containers import opened
from grokinterp.reading.file_contents import Contents
from grokinterp.reading.settings import is_of_use_beside
from grokinterp.reading.tensor_files import (
    MOST_WEIGHTS,
    StateDict,
    as_mapping,
    is_no_checkpoint,
    read_file,
    weights_in,
)
from grokinterp.runs.manifest import SPLIT, is_run_folder

SUFFIXES = (
    ".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl", ".pickle", ".pth.tar", ".pt.tar",
)  # fmt: skip
INDEX = (".safetensors.index.json", ".bin.index.json")  # of a checkpoint in parts
OF_ALL = (  # folders that hold the checkpoints of a run
    "checkpoints", "checkpoint", "ckpts", "ckpt", "weights", "models", "snapshots", "saved_models",
    "state_dicts", "lightning_logs", "saved", "saves", "saved_checkpoints", "model_checkpoints",
    "states",
)  # fmt: skip
USUAL = (  # files of a checkpoint's folder, the first of them counts
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)  # fmt: skip
DEEPEST = 4  # folder in a folder
TRAINER_STATE = "trainer_state"
_OF_STEP = re.compile(
    r"(epoch[-_=]\d+[-_]|run[-_])?"
    r"((global_?)?(step|iter(ation)?|it|epoch|ep|checkpoint|ckpt|snapshot|model|weight|state)s?"
    r"[-_=.]?)?\d+([-_](best|last|final|latest))?",
    re.IGNORECASE,
)
_NO_WEIGHTS = re.compile(  # files that trainers keep to go on from
    r"(optimizer|scheduler|lr_scheduler|rng_state|random_states|training_args|scaler|sampler)"
    r"(_\d+)*\.\w+"
)
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")
_OF_MODEL = re.compile(r"model|weights|state_?dict|net|ckpt|checkpoint", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A checkpoint that has not been read: its file, and the name that says its step."""

    file: Path
    name: str
    label: str  # for notes


@dataclass(frozen=True)
class Layout:
    """What lies in a folder: checkpoints, the folders around them, and what holds no weights."""

    checkpoints: tuple[Found, ...] = ()
    around: tuple[Path, ...] = ()  # the nearest first
    without_weights: tuple[str, ...] = field(default=())
    loose: tuple[Found, ...] = ()  # files beside the folder of the checkpoints
    beside: tuple[str, ...] = ()  # the same of folders that are not read
    twins: tuple[str, ...] = ()  # files beside that of a step, in the folder of the step
    nameless: tuple[str, ...] = ()  # folders with weights that say no step
    links: tuple[str, ...] = ()  # symbolic links


def layout_of(folder: Path, *, depth: int = 0) -> Layout:
    """Where the checkpoints of a folder lie; of files, one is read only to choose between two."""
    own, without = _weight_files(folder)
    direct = tuple(Found(file, _stem(file), file.name) for file in own)
    folders = [x for x in sorted(folder.iterdir()) if x.is_dir() and not x.name.startswith(".")]
    below = [x for x in folders if _may_hold_checkpoints(x) and not is_run_folder(x)]
    nameless = [x for x in folders if x not in below and _has_weight_files(x)]
    linked = [x for x in below if x.is_symlink()]
    copies = [x for x in nameless if x.is_symlink()]  # best -> checkpoint-40
    inner = _below(folder, [x for x in below if x not in linked], depth)
    layout = _together(folder, Layout(direct, (folder,), without), inner)
    if linked and not layout.checkpoints:
        raise _is_link(linked[0])
    return replace(
        layout,
        links=(*layout.links, *(x.name for x in (*linked, *copies))),
        nameless=(*layout.nameless, *(x.name for x in nameless if x not in copies)),
    )


def _has_weight_files(folder: Path) -> bool:
    """Whether there is a file of weights in a folder, and no run of ours."""
    try:
        there = any(x.name.endswith(SUFFIXES) for x in folder.iterdir())
    except OSError:  # one that may not be looked into
        return False
    return there and not is_run_folder(folder)


def _may_hold_checkpoints(folder: Path) -> bool:
    usual = folder.name.lower() in OF_ALL or re.fullmatch(r"version_\d+", folder.name)
    return bool(usual) or _is_of_a_step(folder)


def _below(folder: Path, below: list[Path], depth: int) -> Layout | None:
    """The checkpoints in sub-folders: each in that of its step, or all in one of a usual name."""
    stepped = [x for x in below if _is_of_a_step(x)]
    each = [(x, _in_one(x)) for x in stepped]
    if found := [one for _, (one, _) in each if one is not None]:
        last = max(found, key=lambda one: (step_in(one.name) or (0, None))[0])
        empty = tuple(x.name for x, (one, _) in each if one is None)
        twins = tuple(f"{x.name}/{name}" for x, (_, others) in each for name in others)
        return Layout(tuple(found), (last.file.parent,), empty, twins=twins)
    usual = [x for x in below if x not in stepped]
    inner = [(x, layout_of(x, depth=depth + 1)) for x in usual] if depth < DEEPEST else []
    inner = [(x, layout) for x, layout in inner if layout.checkpoints]
    if len(inner) > 1:
        several = names(x.name for x, _ in inner)
        raise InputError(f"{folder} has checkpoints in {several}; give one of these folders.")
    return inner[0][1] if inner else None


def _together(folder: Path, here: Layout, inner: Layout | None) -> Layout:
    """The files of a folder, or the checkpoints below it: of two series, one has to be given."""
    if inner is None:
        return replace(here, checkpoints=tuple(_named_by_folder(folder, here.checkpoints)))
    numbered = [x for x in here.checkpoints if step_in(x.name) is not None and _has_weights(x.file)]
    below = inner.checkpoints
    where = below[0].file.parent
    where = where if where.parent == folder and not _is_of_a_step(where) else inner.around[-1]
    named = sum(step_in(x.name) is not None for x in below)
    if len(numbered) > 1 and named > 1:
        raise InputError(
            f"{folder} has checkpoints, {names(x.file.name for x in numbered)}, and others below "
            f"it, {names(x.label for x in below)} in {where.name}; keep those of one run there, or "
            "give the other folder."
        )
    if len(numbered) > 1:
        return replace(here, beside=tuple(x.label for x in below))
    return replace(
        inner,
        around=(*inner.around, folder),
        without_weights=(*here.without_weights, *inner.without_weights),
        loose=(*inner.loose, *here.checkpoints),
    )


def _has_weights(file: Path) -> bool:
    """Whether a file beside checkpoints is one; what cannot be read is none."""
    try:
        return not file.is_symlink() and not is_no_checkpoint(read_checkpoint(file))
    except InputError:
        return False


def _named_by_folder(folder: Path, direct: tuple[Found, ...]) -> tuple[Found, ...]:
    """The files of a folder, of which the one with weights has the folder's step."""
    usual = [x for x in direct if x.file.name in USUAL or len(direct) == 1]
    if not usual or not _is_of_a_step(folder):
        return direct
    return tuple(replace(x, name=folder.name) if x is usual[0] else x for x in direct)


def _is_of_a_step(folder: Path) -> bool:
    return bool(_OF_STEP.fullmatch(folder.name)) and step_in(folder.name) is not None


def _weight_files(folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Files that may hold weights, each checkpoint in parts by its index; and files that do not."""
    # A run of ours that was stopped before its first save has no more than our split.
    files = sorted(
        file
        for file in folder.iterdir()
        if file.name.endswith((*SUFFIXES, *INDEX)) and not file.name.startswith(".")
        if file.name != SPLIT and not file.is_dir()
    )
    without = tuple(file.name for file in files if _NO_WEIGHTS.fullmatch(file.name))
    indices = {file.name for file in files if file.name.endswith(INDEX)}
    kept = []
    for file in files:
        if shard := _SHARD.fullmatch(file.name):
            index = f"{shard[1]}{shard[2]}.index.json"
            if index in indices:
                continue
            if shard[2] in (".safetensors", ".bin"):
                raise InputError(f"{file} is a part of a checkpoint whose {index} is missing.")
        if file.name not in without:
            kept.append(file)
    return kept, without


def _in_one(folder: Path) -> tuple[Found | None, list[str]]:
    """The checkpoint in the folder of a step, None where there is none; other files beside it."""
    files, _ = _weight_files(folder)
    by_name = {file.name: file for file in files}
    file = next((by_name[name] for name in USUAL if name in by_name), None)
    if file is None and len(files) > 1:
        files = [x for x in files if _OF_MODEL.search(x.name)] or files
        if len(files) > 1:
            raise InputError(
                f"{folder} has several files that may be its checkpoint, "
                f"{names(x.name for x in files)}; keep one, or give it by itself."
            )
    if file is None and not files:
        return None, []
    file = file or files[0]
    others = [name for name in by_name if name != file.name]
    return Found(file, folder.name, f"{folder.name}/{file.name}"), others


def _stem(file: Path) -> str:
    endings = (*INDEX, *SUFFIXES[::-1])  # ".pth.tar" before ".tar"
    ending = next((x for x in endings if file.name.endswith(x)), file.suffix)
    return file.name.removesuffix(ending)


def _refuse_link(path: Path) -> None:
    if path.is_symlink() and not _of_hub_cache(path):
        raise _is_link(path)


def _is_link(path: Path) -> InputError:
    return InputError(f"{path} is a symbolic link; give a folder that holds the files.")


def _of_hub_cache(link: Path) -> bool:
    """Whether a link is one of huggingface_hub's cache, to a file of the same repository there."""
    link = link.absolute()
    snapshots = next((x for x in link.parents if x.name == "snapshots"), None)
    if snapshots is None:
        return False
    target = link.resolve()
    return target.is_file() and target.parent == snapshots.parent.resolve() / "blobs"


def without_links(layout: Layout) -> Layout:
    """The same without files that are symbolic links, which notes name; refused if all are."""
    links = [x for x in layout.checkpoints if x.file.is_symlink()]
    followed = len(links) == len(layout.checkpoints)
    if followed:
        for each in links:
            _refuse_link(each.file)
        links = []
    loose = [x for x in layout.loose if x.file.is_symlink()]
    return replace(
        layout,
        checkpoints=tuple(x for x in layout.checkpoints if x not in links),
        loose=tuple(x for x in layout.loose if x not in loose),
        links=(*layout.links, *(x.label for x in (*links, *loose))),
    )


def read_checkpoint(file: Path) -> Any:
    """The data of a checkpoint's file, or of all parts that an index names."""
    return _parts_of(file) if file.name.endswith(INDEX) else opened(read_file(file))


def _parts_of(index: Path) -> Mapping[str, Tensor]:
    """The weights of a checkpoint in parts, which lie beside their index and nowhere else."""
    by_part: dict[str, list[str]] = {}
    listed = _weight_map(index)
    for weight, part in listed.items():
        by_part.setdefault(part, []).append(weight)
    found: dict[str, Tensor] = {}
    for part, wanted in by_part.items():
        if not part or part != Path(part).name or part.startswith(".") or "\\" in part:
            raise InputError(
                f"{index} names {shown(part)}, which is no file beside it; nothing else is read."
            )
        file = index.with_name(part)
        _refuse_link(file)
        if not file.is_file():
            raise InputError(
                f"{file} is missing, one of the {len(by_part)} parts that {index.name} names; "
                "restore it from a copy."
            )
        weights = weights_in(read_file(file), file)
        for weight in wanted:
            if weight not in weights:
                raise InputError(f"{file} has no weight {shown(weight)}, which its index names.")
            found[weight] = weights[weight]
        for weight in weights:
            if weight not in listed:
                raise InputError(
                    f"{file} has the weight {shown(weight)}, which {index.name} does not list; "
                    "restore the index from a copy."
                )
    return found


def _weight_map(index: Path) -> dict[str, str]:
    damaged = InputError(f"{index} is no index of a checkpoint in parts; restore it from a copy.")
    if index.stat().st_size > LARGEST_JSON:
        raise damaged
    try:
        found = as_mapping(json.loads(index.read_bytes())).get("weight_map")
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(found, dict) or not 0 < len(found) <= MOST_WEIGHTS:
        raise damaged
    if not all(isinstance(part, str) and len(part) <= 255 for part in found.values()):
        raise damaged
    return found


def folder_source(folder: Path, layout: Layout, *, metrics: str | None) -> Source:
    """The weights of every checkpoint that says its step, or has it in its name."""
    checkpoints, others = Checkpoints(), Contents()  # of files without weights: a log, the rows
    there = {where: names_in(where) for where in layout.around}
    for reason, left in (
        ("hold no weights", layout.without_weights), ("are symbolic links", layout.links),
        ("lie in a folder beside the checkpoints", layout.beside),
        ("lie beside the file of the step", layout.twins),
        ("lie in a folder that says no step", layout.nameless),
    ):  # fmt: skip
        for name in left:
            checkpoints.leave_out(reason, name)
    errors: list[InputError] = []
    used: list[str] = []  # of these files
    for found in (*layout.checkpoints, *layout.loose):
        file = found.file
        try:
            data = read_checkpoint(file)
            if found in layout.loose and not is_no_checkpoint(data):
                checkpoints.leave_out("lie beside the folder of the checkpoints", found.label)
                continue
            beside = namesakes_of(file, there.get(file.parent, ()))
            if step_in(found.name) is None:
                beside = chain(beside, contents_beside(file, TRAINER_STATE))
            part = checkpoint_of(
                data, where=str(file), name=found.label, stem=found.name, beside=beside,
                state=partial(_weights, file),
            )  # fmt: skip
        except InputError as error:
            if step_in(found.name) is not None and found not in layout.loose:
                raise
            reason = "cannot be read" + " and have no step in the name" * (
                step_in(found.name) is None
            )
            errors.append(error)
            checkpoints.leave_out(reason, found.label)
            continue
        if is_no_checkpoint(data):
            if not part.contents.is_empty:
                whole = ((str(file), part.contents.config),)
                others = others.over(replace(part.contents, configs=whole))
            if is_of_use_beside(part.contents):
                used.append(found.label)
            else:
                checkpoints.leave_out("hold no weights", found.label)
            continue
        if part.step is None:
            checkpoints.leave_out("have no step", found.label)
            continue
        weights_in(data, file)  # refused at once if these are none
        checkpoints.add(part, part.step)
    if not checkpoints.parts:
        if len(errors) == len(layout.checkpoints):
            raise errors[0]
        first = layout.checkpoints[0].file
        if used or list(checkpoints.left_out) == ["hold no weights"]:
            weights_in(read_checkpoint(first), first)  # which says what it holds instead
        raise InputError(f"{first} has no step in it or in its name; name it such as step_100.pt.")
    companions = _around(layout, epochs=checkpoints.last.in_epochs, metrics=metrics)
    if used:
        note = f"read for what else they say, as they hold no weights: {names(used, spelled=str)}"
        others = replace(others, notes=(note, *others.notes))
    companions = replace(companions, contents=companions.contents.over(others))
    source = checkpoints.source(folder, "folder", companions)
    return replace(source, notes=(*_of_names(folder, checkpoints), *source.notes))


def _of_names(folder: Path, checkpoints: Checkpoints) -> list[str]:
    """What is to be said of steps that only names tell; refused where these name several runs."""
    stems = [part.name for part in checkpoints.parts.values() if part.named]
    runs = list(dict.fromkeys(map(run_in, stems)))
    if len(runs) > 1:
        listed = names([run or "no such word" for run in runs], spelled=str)
        raise InputError(
            f"{folder} has checkpoints of several runs by their names ({listed}); give a folder of "
            "those of one run."
        )
    notes = []
    steps = [part.step for part in checkpoints.parts.values() if part.step is not None]
    if len(steps) > 1 and all(step.word is None and not step.inside for step in steps):
        first, last = min(x.number for x in steps), max(x.number for x in steps)
        notes.append(
            f"the numbers in the names of its checkpoints, {first} to {last}, are taken to be steps"
        )
    kinds = list(dict.fromkeys(_without_numbers(name) for name in stems))
    if len(kinds) > 1:
        notes.append(f"checkpoints with several names are taken to be of one run: {names(kinds)}")
    return notes


def _without_numbers(name: str) -> str:
    """A name without its numbers and the words for a copy, which may differ within a run."""
    plain = COPIES.sub("", _stem(Path(Path(name).parts[0])))
    return re.sub(r"[\W\d_]+", " ", plain).strip().lower()


def _weights(file: Path) -> StateDict:
    return weights_in(read_checkpoint(file), file)


def _around(layout: Layout, *, epochs: bool, metrics: str | None) -> Companions:
    """What lies beside the last checkpoint and in the folders around it; the nearest counts."""
    found = [companions_of(x, epochs=epochs, metrics=metrics) for x in layout.around]
    return Companions(
        reduce(Contents.over, (x.contents for x in found)),
        next((x.log for x in found if x.log is not None), None),
        tuple(dict.fromkeys(note for x in found for note in x.notes)),
    )
