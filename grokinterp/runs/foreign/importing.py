"""Somebody else's checkpoints, written as a run folder."""

import os
import shutil
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from grokinterp.errors import InputError
from grokinterp.paths import as_path, reaching
from grokinterp.runs.foreign.sources import holds_foreign
from grokinterp.runs.foreign.store import ForeignStore, open_foreign
from grokinterp.runs.lock import LOCK, hold
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter


def import_run(
    source: str | Path,
    out: str | Path,
    *,
    format: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> Run:
    """Write foreign checkpoints as a run folder, which appears whole or not at all.

    Formats are those of `grokinterp.runs.foreign.sources`, settings those of
    `grokinterp.runs.foreign.settings`; `run.notes` says what was inferred or assumed. Losses that
    the files log are kept as they are; accuracies, and losses that they lack, are computed at
    every checkpoint, where the split is known.
    """
    source = as_path("source", source, such_as="model.pt")
    out = as_path("out", out, such_as="runs/mine")
    with reaching(source):
        return _imported(source, out, format, progress, settings)


def _imported(
    source: Path, out: Path, format: str, progress: bool, settings: dict[str, Any]
) -> Run:
    if not holds_foreign(source) and source.exists():
        raise InputError(f"{source} holds no checkpoints of others; nothing to import.")
    _refuse_taken(out)
    store = open_foreign(source, format=format, settings=settings, progress=progress)
    out = out if out.name else out.absolute()  # "." has no name to go by
    aside = out.with_name(f".importing-{out.name}")
    with hold(out, file=aside.with_name(f"{aside.name}.lock")):
        _refuse_taken(out)  # by another process, just now
        if aside.exists():  # of an import that was killed
            shutil.rmtree(aside)
        try:
            _write(store, aside, progress)
            Run(aside)  # what cannot be read again must not appear
            os.replace(aside, out)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    return Run(out)


def _refuse_taken(out: Path) -> None:
    if out.is_dir() and [path.name for path in out.iterdir()] == [LOCK]:
        hold(out).release()  # takes away what a killed process left, and nothing else
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; give another one.")


def _write(store: ForeignStore, folder: Path, progress: bool) -> None:
    manifest = store.manifest
    writer = RunWriter.create(
        folder,
        task=manifest.task,
        architecture=manifest.architecture,
        train_indices=store.train_indices(),
        split=manifest.split,
        source=manifest.source,
    )
    for step in tqdm(
        manifest.steps, desc="import", unit="checkpoint", disable=None if progress else True
    ):
        writer.put(step, store.weights(step))
    for row in store.metrics(progress=progress).to_dict("records"):
        writer.log(int(row["step"]), {column: row[column] for column in writer.columns})
    writer.finish()
