"""What is in a folder that holds no checkpoints and no run, and what should be given instead?"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from grokinterp.base.errors import InputError, names
from grokinterp.reading.checkpoint_folders import SUFFIXES
from grokinterp.runs.manifest import RUN_JSON, is_run_folder

MOST_LOOKED_AT = 10_000  # folders within
KINDS = {  # of checkpoints that are a folder each, by a file in it: what it is, and what to do
    ".metadata": (
        "a distributed checkpoint of torch",
        "make one file of it with python -m torch.distributed.checkpoint.format_utils dcp_to_torch",
    ),
    **dict.fromkeys(
        ("_METADATA", "manifest.ocdbt", "_CHECKPOINT_METADATA"),
        (
            "a checkpoint of Orbax (JAX)",
            "save its weights as a dictionary of arrays by name, with torch.save or safetensors",
        ),
    ),
}


def refuse_other_folder(folder: Path) -> None:
    """InputError that names the checkpoints or runs within, if there are any that can be named."""
    below: list[str] = []
    for inner, files in islice(_within(folder), MOST_LOOKED_AT):
        for name in files:
            if name in KINDS:
                kind, advice = KINDS[name]
                raise InputError(f"{inner} is {kind}, which is not read; {advice}.")
        own = is_run_folder(inner) or any(name.endswith(SUFFIXES) for name in files)
        path = str(inner.relative_to(folder))
        if own and inner != folder and not any(path.startswith(f"{x}{os.sep}") for x in below):
            below.append(path)
    if below:
        raise InputError(
            f"{folder} is not a run: it has no {RUN_JSON}, and no checkpoints to import but in "
            f"{names(below)}; give one of these folders."
        )


def _within(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folder and those within, the nearest first, with the names of their files."""
    level = [folder]
    while level:
        following = []
        for each in level:
            try:
                with os.scandir(each) as entries:
                    there = sorted(entries, key=lambda entry: entry.name)
            except OSError:  # one that may not be looked into
                continue
            following += [
                Path(x.path) for x in there
                if x.is_dir(follow_symlinks=False) and not x.name.startswith(".")
            ]  # fmt: skip
            yield each, [x.name for x in there if x.is_file(follow_symlinks=False)]
        level = following
