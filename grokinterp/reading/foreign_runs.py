"""How much memory a model needs on its task, before any of it is taken."""

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.errors import InputError
from grokinterp.base.files import LOCK, hold
from grokinterp.base.paths import as_path, reaching
from grokinterp.models._recognise import Recognised, recognise
from grokinterp.models.architecture import Architecture, Weights
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.reading.behaviour import (
    Settled,
    aligned,
    direction_told,
    logged_metrics,
    settle,
    stored_at,
)
from grokinterp.reading.checkpoint_file import Source
from grokinterp.reading.settings import Settings, check_sizes
from grokinterp.reading.sources import holds_foreign, open_source
from grokinterp.reading.task_and_split import (
    check_biases,
    rows_without_losses,
    stated_split,
    stated_task,
)
from grokinterp.reading.training_rows import Evidence
from grokinterp.runs._snapshot import BLOCK_ROWS, from_weights
from grokinterp.runs.manifest import Manifest, current_versions
from grokinterp.runs.metrics import columns_of, evaluate, logged_unmirrored
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.splits import mask_of

# MERGED runs.foreign.store: Checkpoints of somebody else as the parts of a run.
# MERGED runs.foreign.importing: Somebody else's checkpoints, written as a run folder.


MOST_BYTES = 16 * 2**30  # p = 1600


def check_affordable(architecture: Architecture, task: ModularTask, where: str) -> None:
    """Refuse sizes that a file of a few kilobytes can state and no machine can compute with.

    Counted: the table of pairs, its logits, and what a forward holds of one block of inputs.
    """
    rows = min(task.n_inputs, BLOCK_ROWS)
    heads = architecture.n_heads * architecture.d_head
    wide = 6 * heads + 4 * architecture.d_mlp + 8 * architecture.d_model
    pairs = architecture.n_heads * architecture.d_vocab**2 if architecture.n_ctx == 2 else 0
    needed = 4 * (rows * wide + pairs + task.n_inputs * (12 + architecture.d_vocab_out))
    if needed > MOST_BYTES:
        raise InputError(
            f"{where} needs {needed / 2**30:.0f} GiB for the {task.n_inputs} inputs of p={task.p}, "
            f"{architecture.n_heads} heads and {architecture.d_mlp} neurons, more than the "
            f"{MOST_BYTES / 2**30:.0f} that are taken for a run; give a smaller one."
        )


@dataclass(frozen=True)
class ForeignStore:
    """The parts of a run, read from a source when asked for."""

    source: Source
    recognised: Recognised
    manifest: Manifest
    rows: Int[Tensor, " n_train"] | None
    logged: pd.DataFrame  # what the files say: step and any of the four columns

    def weights(self, step: int) -> Weights:
        """The weights of a step under canonical names."""
        return _weights(self.source, self.recognised, step)

    def train_indices(self) -> Int[Tensor, " n_train"] | None:
        """Rows of the training set; None where nobody knows them."""
        return self.rows

    def metrics(self, *, progress: bool = False) -> pd.DataFrame:
        """What the files logged; at checkpoints, what they did not is computed."""
        task = self.manifest.task
        mask = None if self.rows is None else mask_of(self.rows, task.n_inputs)
        unmirrored = logged_unmirrored(task, mask)
        columns = columns_of(task, split_known=mask is not None)
        rows = []
        for step in _bar(self.manifest.steps, "evaluate", progress and mask is not None):
            row: dict[str, float] = {"step": step}
            if mask is not None:
                snapshot = from_weights(self.weights(step), self.recognised.architecture, task)
                row |= evaluate(snapshot.all_logits, task.labels, mask, unmirrored)
            rows.append(row)
        computed = pd.DataFrame(rows, columns=["step", *columns])
        computed = computed.astype({x: self.logged[x].dtype for x in computed if x in self.logged})
        known = self.logged.set_index("step").combine_first(computed.set_index("step"))
        return known[list(columns)].sort_index().reset_index()

    def verify(self) -> None:
        """Read every checkpoint; the first that cannot be used is named in the error."""
        for step in self.manifest.steps:
            self.weights(step)


def open_foreign(
    path: Path, *, format: str, settings: Mapping[str, Any], progress: bool = False
) -> ForeignStore:
    """Checkpoints of somebody else as the parts of a run: recognised, checked, a note a guess."""
    said = Settings.from_dict(settings)
    source = open_source(path, format=format, step=said.step, metrics=said.metrics)
    config = Settings.from_config(source.config)
    asked = said.over(config)
    said.check_config(source.config, str(path))
    last = max(source.states)
    state, where = source.states[last](), _where(source, last)
    recognised = recognise(state, asked.of_architecture(), where)
    task, task_notes = stated_task(recognised.architecture, said, config, source)
    check_sizes(
        source.configs, recognised.architecture, task.p, said,
        keeps_its_vocabulary=source.format in ("paper", "trainer"),
    )  # fmt: skip
    check_affordable(recognised.architecture, task, where)
    settled = settle(
        recognised, state, task, operation_known=asked.operation is not None, where=where
    )
    settled = _told_by_losses(settled, said, config, source)
    recognised, task = settled.recognised, settled.task
    if task_notes and not settled.above_chance:  # p is less than the shapes say, and not so either
        raise InputError(f"{where} says p={task.p}, which its shapes and its answers contradict.")
    for step in _bar(source.states, "check", progress):
        check_biases(_weights(source, recognised, step), said.biases, where)
    evidence = _evidence(source, recognised, task)
    split = stated_split(said, config, source, evidence)
    source, alignment = aligned(source, evidence, split)
    logged = logged_metrics(source)
    notes = (
        *source.notes,
        *_taken(config),
        *recognised.notes,
        *task_notes,
        *settled.notes.values(),
        settled.so_read,
        *split.notes,
        *alignment,
    )
    described = None
    if split.rows is not None:
        n_train = len(split.rows)
        described = {
            **(split.described or {}), "n_train": n_train, "n_test": task.n_inputs - n_train
        }  # fmt: skip
    manifest = Manifest(
        task, recognised.architecture, None, described, sorted(source.states), finished=True,
        versions=current_versions(),
        source={
            "file": path.name, "format": source.format, "layout": recognised.layout,
            "notes": list(notes),
        },
    )  # fmt: skip
    return ForeignStore(source, recognised, manifest, split.rows, logged)


def _told_by_losses(settled: Settled, said: Settings, config: Settings, source: Source) -> Settled:
    """The direction of attention by stored losses, where the answers were not clear about it."""
    if "attention_dir" not in settled.unsure:
        return settled
    task = settled.task
    evidence = replace(_evidence(source, settled.recognised, task), stored={})
    rows = rows_without_losses(said, config, source, evidence)
    found = direction_told(
        settled.recognised,
        task,
        source,
        train=None if rows is None else mask_of(rows, task.n_inputs),
        train_fraction=_fraction(said, config, task),
    )
    return settled if found is None else settled.answered("attention_dir", *found)


def _bar(steps: Collection[int], what: str, progress: bool) -> Iterable[int]:
    return tqdm(steps, desc=what, unit="checkpoint", disable=None if progress else True)


def _taken(config: Settings) -> tuple[str, ...]:
    said = [f"{key}={value}" for key, value in asdict(config).items() if value is not None]
    return (f"its configuration says {', '.join(said)}",) if said else ()


def _weights(source: Source, recognised: Recognised, step: int) -> Weights:
    return recognised.weights(source.states[step](), _where(source, step))


def _where(source: Source, step: int) -> str:
    return str(source.path) if len(source.states) == 1 else f"{source.path}, step {step}"


def _evidence(source: Source, recognised: Recognised, task: ModularTask) -> Evidence:
    @cache
    def losses_of(step: int) -> Float[Tensor, " n_inputs"]:
        weights = _weights(source, recognised, step)
        logits = from_weights(weights, recognised.architecture, task).all_logits
        return cross_entropies(logits, task.labels)

    stored = stored_at(logged_metrics(source), "train_loss", source.states)
    # Of codes that are not known, losses are those of their checkpoints or of an update before.
    exact = source.format in ("paper", "trainer", "demo") or (
        source.log is not None and "train_loss" in source.log
    )
    if exact and stored:
        return Evidence(task, sorted(source.states), losses_of, stored)
    return Evidence(task, sorted(source.states), losses_of, {**source.near, **stored}, near=True)


def _fraction(said: Settings, config: Settings, task: ModularTask) -> float | None:
    """The share of the table that was trained on, where somebody says it."""
    for each in (said, config):
        if each.train_fraction is not None:
            return each.train_fraction
        if each.n_train is not None:
            return each.n_train / task.n_inputs
    return None


def import_run(
    source: str | Path,
    out: str | Path,
    *,
    format: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> Run:
    """Write foreign checkpoints as a run folder, which appears whole or not at all.

    Formats are those of `grokinterp.reading.sources`, settings those of
    `grokinterp.reading.settings`; `run.notes` says what was inferred or assumed. Losses that
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
