"""Writing a run folder so that a kill at any moment leaves a run that loads.

Order of a save: the weights of the checkpoint, the tables (metrics.csv, measures.csv, dynamics.csv,
which only ever grow), then run.json, which names what belongs to the run. Files that run.json does
not name yet do not exist for a reader, and the tables count up to the number of bytes that it
gives.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.files import (
    ASIDE,
    read_checked,
    read_tensors,
    sha256,
    tensors_to_bytes,
    write_whole,
)
from grokinterp.base.paths import kind_at
from grokinterp.models.architecture import BaseArchitecture, refuse_not_finite
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import (
    DYNAMICS,
    MEASURED,
    METRICS,
    RESUME,
    RUN_JSON,
    SPLIT,
    Manifest,
    current_versions,
    weights_file,
)
from grokinterp.runs.metrics import DYNAMICS_COLUMNS, columns_of, csv_header, csv_line
from grokinterp.tasks.label_noise import refuse_wrong_labels
from grokinterp.tasks.task import Task

WEIGHTS = "weights/"  # how the names of weights begin in a state to go on from


class Measured(NamedTuple):
    """What was measured of a checkpoint: names of the measures, and values by column.

    `frequencies` are those that were given for all checkpoints, if they were.
    """

    names: Sequence[str]
    values: Mapping[str, float]
    frequencies: Sequence[int] | None = None


class RunWriter:
    """A run folder being written; `columns` are those of its metrics.csv without the step.

    `measures` are the columns of its measures.csv, None until there is a row of it.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        columns: Sequence[str],
        lines: list[str],
        measures: Sequence[str] | None = None,
        measured: Sequence[str] = (),
        dynamics: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.columns = tuple(columns)
        self.measures = None if measures is None else tuple(measures)
        self._lines = lines  # of metrics.csv, without the header
        self._measured = list(measured)  # the same of measures.csv
        self._dynamics = list(dynamics)  # and of dynamics.csv

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        task: Task,
        architecture: BaseArchitecture,
        train_indices: Int[Tensor, " n_train"] | None,
        recipe: Recipe | None = None,
        split: Mapping[str, Any] | None = None,
        source: Mapping[str, Any] | None = None,
        environment: Mapping[str, Any] | None = None,
        steps_known: bool = True,
        restart: bool = False,
    ) -> "RunWriter":
        """Begin a run in a folder that holds none; other files in it are left alone.

        With `restart`, the folder may hold the beginning of the same run, cut off before its first
        save.
        """
        if recipe is None:
            refuse_wrong_labels(task)
        begun = restart and (folder / RUN_JSON).exists()
        ours = (
            RUN_JSON,
            METRICS,
            MEASURED,
            DYNAMICS,
            RESUME,
            "weights/*.safetensors",
            *(() if restart else (SPLIT,)),
        )
        for name in () if begun else ours:
            if found := next(folder.glob(name), None):
                held = f"{folder} already holds a run ({found.name})"
                raise InputError(f"{held}; give another folder{_how_to_go_on(folder)}.")
        manifest = Manifest(
            task,
            architecture,
            recipe,
            split=None,
            versions=current_versions(),
            source=None if source is None else dict(source),
            environment=None if environment is None else dict(environment),
            steps_known=steps_known,
        )
        if train_indices is not None:
            content = tensors_to_bytes({"train_indices": train_indices})
            manifest.sha256[SPLIT] = write_whole(folder / SPLIT, content)
            n_train = len(train_indices)
            n_test = task.n_inputs - n_train
            manifest.split = {**(split or {}), "n_train": n_train, "n_test": n_test}
        manifest.write(folder)
        columns = columns_of(task, split_known=train_indices is not None)
        return cls(folder, manifest, columns, [])

    @classmethod
    def reopen(
        cls, folder: Path, *, step: int, environment: Mapping[str, Any] | None = None
    ) -> "RunWriter":
        """Go on with a run from one of its steps; what was written after that step is forgotten.

        An environment that is not the one so far is noted with the step. The run keeps the columns
        of metrics that it began with, which in 0.2.0 were four, and is no longer finished.
        """
        manifest = Manifest.read(folder)
        manifest.goes_on(step, environment)

        def table(name: str, known: Mapping[str, Any], until: int) -> tuple[list[str], list[str]]:
            path, digest = folder / name, manifest.sha256[name]
            return _rows_until(until, read_checked(path, digest, n_bytes=known["bytes"]))

        columns, lines = table(METRICS, manifest.metrics, step)
        measures: list[str] | None = None
        measured: list[str] = []
        if manifest.measures is not None:  # kept by those that do not measure, too
            measures, measured = table(MEASURED, manifest.measures, step)
        dynamics: list[str] = []
        if manifest.dynamics is not None:  # whose rows are of steps that an update has followed
            _, dynamics = table(DYNAMICS, manifest.dynamics, step - 1)
        kept = [saved for saved in manifest.steps if saved <= step]
        names = {SPLIT, *map(weights_file, kept)}
        checksums = {name: digest for name, digest in manifest.sha256.items() if name in names}
        for leftover in folder.rglob(f"{ASIDE}*"):
            leftover.unlink()
        for name, digest in checksums.items():
            read_checked(folder / name, digest)
        manifest = replace(manifest, steps=kept, sha256=checksums, finished=False)
        writer = cls(folder, manifest, columns, lines, measures, measured, dynamics)
        writer.flush_manifest()  # before the tables are written shorter than run.json says
        return writer

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row of metrics, as far as the run has columns; the next save or flush writes it."""
        self._lines.append(csv_line(step, metrics, self.columns))

    def log_dynamics(self, step: int, row: Mapping[str, float]) -> None:
        """Add a row of dynamics.csv; the next save or flush writes it."""
        self.manifest.dynamics = self.manifest.dynamics or {}
        self._dynamics.append(csv_line(step, row, DYNAMICS_COLUMNS))

    def save(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write the checkpoint of a step, and everything logged so far.

        Weights that are not finite are refused; what was logged is written all the same.
        """
        try:
            self.put(step, weights)
        except InputError:
            self.flush()
            raise
        self.flush()

    def record(
        self,
        step: int,
        metrics: Mapping[str, float],
        weights: Mapping[str, Tensor],
        measured: Measured | None = None,
    ) -> None:
        """Write a checkpoint with its row of metrics and all rows before, or neither of the two.

        With what was measured of it, a row of measures.csv too, whose columns are those of its
        first row. Where writing fails, the step can be tried again.
        """
        known, columns = self.manifest, self.measures
        before = replace(known, steps=list(known.steps), sha256=dict(known.sha256))
        rows, n_measured = len(self._lines), len(self._measured)
        try:
            self.put(step, weights)
            self.log(step, metrics)
            if measured is not None:
                if self.measures is None:
                    self.measures = tuple(measured.values)
                    self.manifest.measures = {"names": list(measured.names)}
                    if measured.frequencies is not None:
                        self.manifest.measures["frequencies"] = list(measured.frequencies)
                self._measured.append(csv_line(step, measured.values, self.measures))
            self.flush()
        except BaseException:
            self.manifest, self.measures = before, columns
            del self._lines[rows:], self._measured[n_measured:]
            raise

    def begin_again(self) -> None:
        """Go on with a run that this writer has finished; refused if it has been changed since."""
        there = Manifest.read(self.folder)
        if (there.steps, there.sha256) != (self.manifest.steps, self.manifest.sha256):
            raise InputError(
                f"the run in {self.folder} is not as it was when it was closed here: another has "
                "written it since; open it anew with gi.Recorder(..., resume=True)."
            )
        self.manifest.finished = False
        self.flush_manifest()  # before the tables are longer than run.json says

    def put(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Write the checkpoint of a step, which belongs to the run after the next flush."""
        self.manifest.architecture.check(weights)
        parameters = self.manifest.architecture.parameters(weights)
        refuse_diverged(self.folder, step, parameters, saved=self.manifest.steps)
        name = weights_file(step)
        content = tensors_to_bytes(dict(weights), step=step)
        self.manifest.sha256[name] = write_whole(self.folder / name, content)
        self.manifest.steps.append(step)

    def flush(self) -> None:
        """Write metrics.csv, the other tables where there are any, and run.json."""
        for name, content in self._tables().items():
            write_whole(self.folder / name, content)
        self.flush_manifest()

    def flush_manifest(self) -> None:
        """Write run.json, for tables with everything logged and measured so far."""
        tables = self._tables()
        self.manifest.metrics = {"rows": len(self._lines), "bytes": len(tables[METRICS])}
        if self.manifest.measures is not None:
            size = {"rows": len(self._measured), "bytes": len(tables[MEASURED])}
            self.manifest.measures = self.manifest.measures | size
        if self.manifest.dynamics is not None:
            rows = len(self._dynamics)
            self.manifest.dynamics = {"rows": rows, "bytes": len(tables[DYNAMICS])}
        self.manifest.sha256 |= {name: sha256(content) for name, content in tables.items()}
        self.manifest.write(self.folder)

    def _tables(self) -> dict[str, bytes]:
        """The content of metrics.csv, and of the other tables where there are any."""
        tables = {METRICS: (self.columns, self._lines)}
        if self.measures is not None:
            tables[MEASURED] = (self.measures, self._measured)
        if self.manifest.dynamics is not None:
            tables[DYNAMICS] = (DYNAMICS_COLUMNS, self._dynamics)
        return {
            name: (csv_header(columns) + "".join(lines)).encode()
            for name, (columns, lines) in tables.items()
        }

    def save_resume(self, step: int, state: dict[str, Tensor], *, file: str = RESUME) -> None:
        """Write what training needs to go on from this step, after everything logged so far.

        Weights that are not finite are refused; the state before them is kept.
        """
        written = self.manifest.metrics["rows"], (self.manifest.dynamics or {}).get("rows", 0)
        if written != (len(self._lines), len(self._dynamics)):  # else a save has just written it
            self.flush()
        weights = {
            name.removeprefix(WEIGHTS): x for name, x in state.items() if name.startswith(WEIGHTS)
        }
        refuse_diverged(self.folder, step, weights, saved=self.manifest.steps)
        content = tensors_to_bytes(state, step=step, checksum=_resume_checksum(step, state))
        write_whole(self.folder / file, content)

    @staticmethod
    def read_resume(folder: Path, *, file: str = RESUME) -> tuple[int, dict[str, Tensor]] | None:
        """The step and state to go on from, or None when the run has not come that far."""
        path = folder / file
        if kind_at(path) is None:
            return None
        way_out = "restore it from a copy, or delete it and resume, which trains from the start."
        try:
            state, metadata = read_tensors(path)
        except InputError as error:
            raise InputError(f"{error} To go on, {way_out}") from None
        step = metadata.get("step", "")
        if not step.isdecimal() or metadata.get("checksum") != _resume_checksum(int(step), state):
            raise InputError(f"{path} is damaged: its checksum differs; {way_out}")
        return int(step), state

    def finish(self) -> None:
        """Mark the run as finished: nothing is left to resume."""
        self.manifest.finished = True
        self.flush()
        (self.folder / RESUME).unlink(missing_ok=True)


def _rows_until(step: int, content: bytes) -> tuple[list[str], list[str]]:
    """The columns of a table without the step, and its lines up to a step."""
    header, *lines = content.decode().splitlines(keepends=True)
    kept = [line for line in lines if int(line.partition(",")[0]) <= step]
    return header.strip().split(",")[1:], kept


def _how_to_go_on(folder: Path) -> str:
    """What else can be done where a folder holds a run; "" where nothing can."""
    with contextlib.suppress(InputError):
        manifest = Manifest.read(folder)
        if manifest.recipe is not None:
            return ", or go on with that run by --resume or gi.train(recipe, out, resume=True)"
        if manifest.source is None:
            return ", or go on with that run by gi.Recorder(out, ..., resume=True)"
    return ""


def refuse_diverged(
    folder: Path, step: int, weights: Mapping[str, Tensor], *, saved: Sequence[int]
) -> None:
    """InputError where a weight is NaN or infinite; `saved` are the checkpoints of the run."""
    last = f", or look at step {saved[-1]}, the last that is saved" if saved else ""
    refuse_not_finite(weights, f"{folder}, step {step}", f"training has diverged: lower lr{last}")


def _resume_checksum(step: int, state: dict[str, Tensor]) -> str:
    """The sha256 of a state and its step, which a flipped bit would turn into another step."""
    return sha256(f"{step}\n".encode() + tensors_to_bytes(state))
