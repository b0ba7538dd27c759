"""`gi.import_run` and `gi.export`: files of others as a run folder, a run as a file of others.

A run is exported in the formats of TransformerLens' Grokking_Demo and of Nanda et al. 2023.
"""

import io
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from grokinterp.base.checks import word
from grokinterp.base.errors import InputError
from grokinterp.base.files import LOCK, hold, write_whole
from grokinterp.base.paths import as_path, new_file, reaching
from grokinterp.models.architecture import Weights, is_bias, refuse_not_finite
from grokinterp.models.foreign_names import PAPER, to_foreign
from grokinterp.models.transformer import TransformerArchitecture
from grokinterp.reading._load import ForeignStore, RunOrPath, open_foreign, progress_bar, run_of
from grokinterp.reading.addresses import calling_by_address, local_copy
from grokinterp.reading.checkpoint_formats import holds_foreign
from grokinterp.runs.run import Run
from grokinterp.runs.writer import RunWriter
from grokinterp.tasks.layout import USUAL
from grokinterp.tasks.modular import ModularTask

MOST_EPOCHS = 10_000_000
TEST_EVERY = 10  # the paper's file keeps the test loss of every 10th epoch


def import_run(
    source: str | Path,
    out: str | Path,
    *,
    format: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> Run:
    """Write foreign checkpoints as a run folder, which appears whole or not at all.

    `source` is a path or an address, as `gi.load` takes them; `out` is a path.

    Formats are those of `grokinterp.reading.checkpoint_formats`, settings those of
    `grokinterp.reading.settings`; `run.notes` says what was inferred or assumed. Losses that
    the files log are kept as they are; accuracies, and losses that they lack, are computed at
    every checkpoint, where the split is known.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     theirs = gi.export(gi.load("mod31-small").snapshot(), f"{folder}/demo.pth")
    ...     run = gi.import_run(theirs, f"{folder}/mine")
    ...     run.steps, run.task.title, run.manifest.source["format"]
    ((10000,), 'add mod 31', 'demo')
    """
    source = as_path("source", local_copy(source), such_as="model.pt")
    out = as_path("out", out, such_as="runs/mine")
    with calling_by_address(source), reaching(source):
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
        steps_known=manifest.steps_known,
    )
    for step in progress_bar(manifest.steps, "import", progress):
        writer.put(step, store.weights(step))
    for row in store.metrics(progress=progress).to_dict("records"):
        writer.log(int(row["step"]), {column: row[column] for column in writer.columns})
    writer.finish()


def export(run: RunOrPath, path: str | Path, *, format: str = "demo") -> Path:
    """Write a run as one file that notebooks made for others can read; returns its path.

    `format="demo"` is `grokking_demo.pth` of TransformerLens' Grokking_Demo (HookedTransformer
    state dicts, losses of every epoch, training and test rows), `format="paper"` is
    `full_run_data.pth` of Nanda et al. 2023 (transposed weights, test losses of every 10th epoch,
    the training pairs added). Plain containers and tensors only: torch.load(weights_only=True)
    reads it; `config` is a dictionary.

    A checkpoint of step s is that of epoch s - 1 there, step 0 that of epoch -1. Both formats want
    a loss for every epoch: between logged steps the last one is repeated, and `logged_steps` says
    which are real. A run without losses or without a split is exported without them. Refused: what
    the paper's layout has no place for (attention biases, norms, no MLP, an attention rate,
    attention both ways in several layers), what neither has one for (norms after attention and
    MLP), and weights that are not finite.

    >>> import tempfile
    >>> import torch
    >>> import grokinterp as gi
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = gi.export(gi.load("mod31-small"), f"{folder}/full_run_data.pth", format="paper")
    ...     content = torch.load(path, weights_only=True)
    >>> list(content)
    ['model', 'config', 'state_dicts', 'epochs', 'train_losses', 'test_losses', 'logged_steps',
    'train_data']
    >>> content["epochs"][:3], content["config"]["fn_name"]
    ([-1, 49, 99], 'add')
    """
    word("format", format, ("demo", "paper"))
    run = run_of(run)
    path = new_file("path", path, such_as="run.pth")
    if not run.steps_known:
        raise InputError(
            f"nobody knows the steps of the checkpoints of {run.path}, and both formats date them "
            "by epochs; give a run whose steps are known."
        )
    architecture, task = run.architecture.transformer, run.task.modular
    if architecture is None or task is None:
        raise InputError(
            f"{run.path} holds a model of kind {run.architecture.kind!r}; format={format!r} is one "
            "of transformers on modular arithmetic."
        )
    if format == "paper" and (task.layout != USUAL[task.equals_token] or task.sizes_may_be_larger):
        ids = " with ids of their own" if task.sizes_may_be_larger else ""
        raise InputError(
            f"the paper's layout has no place for inputs such as {task.layout!r}{ids}, which this "
            "run has; export it with format=demo."
        )
    if not architecture.in_transformer_lens:
        raise InputError(
            f"{run.path} holds a transformer that TransformerLens has no class for (norms after "
            f"attention and MLP, or none at the end), so format={format!r} cannot hold it; keep it "
            "as a run."
        )
    content = (_demo if format == "demo" else _paper)(run, architecture, task)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())
    return path


def _demo(run: Run, architecture: TransformerArchitecture, task: ModularTask) -> dict[str, Any]:
    mask = torch.ones(architecture.n_ctx, architecture.n_ctx, dtype=torch.bool)
    buffers = {  # so that a strict load takes it
        f"blocks.{layer}.attn.{name}": buffer
        for layer in range(architecture.n_layers)
        for name, buffer in (
            ("mask", mask.tril() if architecture.attention_dir == "causal" else mask),
            ("IGNORE", torch.tensor(-torch.inf)),
        )
    }
    states = [{**_weights(run, step), **buffers} for step in run.steps]
    # What is learned and read too, which no import can tell of a network that has not learned it.
    config = architecture.to_dict() | task.to_dict()
    config = {key: x for key, x in config.items() if key not in ("task", "equals_token", "seed")}
    if task.sizes_may_be_larger:
        config["layout"] = task.layout  # which ids are those of
    if architecture.attention_rate == 1:  # another rate is a hook there, not a setting
        del config["attention_rate"]
    content = {
        "model": states[-1],
        "config": config,
        "checkpoints": states,
        "checkpoint_epochs": [step - 1 for step in run.steps],
        **_losses(run, test_first=1, test_every=1),
    }
    if run.train_mask is not None:
        content["train_indices"] = run.train_indices
        content["test_indices"] = (~run.train_mask).nonzero().flatten()
    return content


def _paper(run: Run, architecture: TransformerArchitecture, task: ModularTask) -> dict[str, Any]:
    n_layers, n_ctx = architecture.n_layers, architecture.n_ctx
    masks = {  # so that a strict load takes it
        f"blocks.{layer}.attn.mask": torch.ones(n_ctx, n_ctx).tril() for layer in range(n_layers)
    }
    states = []
    for step in run.steps:
        weights = _weights(run, step)
        _check_fits_paper(weights, architecture)
        states.append({**to_foreign(weights, PAPER, n_layers), **masks})
    config: dict[str, Any] = {
        "p": task.p,
        "d_model": architecture.d_model,
        "num_layers": n_layers,
        "num_heads": architecture.n_heads,
        "fn_name": task.operation,
        "act_type": {"relu": "ReLU", "gelu": "GeLU"}.get(architecture.act_fn, architecture.act_fn),
    }
    content = {
        "model": states[-1],
        "config": config,
        "state_dicts": states,
        "epochs": [step - 1 for step in run.steps],
        **_losses(run, test_first=0, test_every=TEST_EVERY),
    }
    if run.train_indices is not None:
        content["train_data"] = list(map(tuple, task.tokens[run.train_indices].tolist()))
    return content


def _weights(run: Run, step: int) -> Weights:
    weights = run.weights(step)
    where, advice = f"{run.path}, step {step}", "training has diverged: there is nothing to export"
    refuse_not_finite(weights, where, advice)
    return weights


def _check_fits_paper(weights: Weights, architecture: TransformerArchitecture) -> None:
    no_place = [x for x, w in weights.items() if is_bias(x) and ".mlp." not in x and w.any()]
    if architecture.normalization_type:
        no_place.append(f"normalization_type={architecture.normalization_type}")
    if architecture.attn_only:
        no_place.append("attention without an MLP")
    if architecture.attention_rate != 1:
        no_place.append("attention_rate")
    if architecture.attention_dir != "causal" and architecture.n_layers > 1:
        no_place.append(f"attention_dir={architecture.attention_dir}")
    if no_place:
        raise InputError(
            f"the paper's layout has no place for {no_place[0]}, which this run has; "
            "export it with format=demo."
        )


def _losses(run: Run, *, test_first: int, test_every: int) -> Mapping[str, Any]:
    """Losses by epoch; entry i of the test losses is that of step test_first + i * test_every."""
    last, metrics = run.steps[-1], run.metrics.set_index("step")
    if last > MOST_EPOCHS:
        raise InputError(f"both formats want a loss of every epoch, and {last} are too many.")
    by_step = {}
    for column in ("train_loss", "test_loss"):
        known = metrics[column].dropna()
        if not len(known):
            return {}
        by_step[column] = known.reindex(range(last + 1)).ffill().astype(float).tolist()
    return {
        "train_losses": by_step["train_loss"][:last],
        "test_losses": by_step["test_loss"][test_first : last + test_first : test_every],
        "logged_steps": [int(step) for step in metrics.index],
    }
