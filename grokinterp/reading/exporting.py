"""A run in the files of others: of TransformerLens' Grokking_Demo, or of Nanda et al. 2023."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from grokinterp.base.errors import InputError, nearest
from grokinterp.base.files import write_whole
from grokinterp.base.paths import as_path
from grokinterp.models.architecture import Architecture, Weights, is_bias, refuse_not_finite
from grokinterp.models.foreign_names import PAPER, to_foreign
from grokinterp.reading._load import RunOrPath, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask

FORMATS = ("demo", "paper")
MOST_EPOCHS = 10_000_000
TEST_EVERY = 10  # the paper's file keeps the test loss of every 10th epoch


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
    the paper's layout has no place for (attention biases, LayerNorm, an attention rate, attention
    both ways in several layers), and weights that are not finite.
    """
    if format not in FORMATS:
        raise InputError(f"format={format!r} is not known; {nearest(str(format), FORMATS)}")
    run = run_of(run)
    path = _free(path)
    architecture, task = run.architecture, run.task
    if not isinstance(architecture, Architecture) or not isinstance(task, ModularTask):
        raise InputError(
            f"{run.path} holds a model of kind {architecture.kind!r}; format={format!r} is one of "
            "transformers on modular arithmetic."
        )
    content = _demo(run, architecture) if format == "demo" else _paper(run, architecture, task)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())
    return path


def _free(given: str | Path) -> Path:
    """Where to write, refused before anything is computed where that is a folder."""
    path = as_path("path", given, such_as="run.pth")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file, such as run.pth.")
    return path


def _demo(run: Run, architecture: Architecture) -> dict[str, Any]:
    states = [_hooked_state(_weights(run, step), architecture) for step in run.steps]
    content = {
        "model": states[-1],
        "config": _hooked_config(architecture),
        "checkpoints": states,
        "checkpoint_epochs": [step - 1 for step in run.steps],
        **_losses(run, test_first=1, test_every=1),
    }
    if run.train_mask is not None:
        content["train_indices"] = run.train_indices
        content["test_indices"] = (~run.train_mask).nonzero().flatten()
    return content


def _paper(run: Run, architecture: Architecture, task: ModularTask) -> dict[str, Any]:
    states = []
    for step in run.steps:
        weights = _weights(run, step)
        _check_fits_paper(weights, architecture)
        states.append(_paper_state(weights, architecture))
    config: dict[str, Any] = {
        "p": task.p,
        "d_model": architecture.d_model,
        "num_layers": architecture.n_layers,
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
        equals = [task.p] if task.equals_token else []
        rows = run.train_indices.tolist()
        content["train_data"] = [(*divmod(row, task.p), *equals) for row in rows]
    return content


def _weights(run: Run, step: int) -> Weights:
    weights = run.weights(step)
    where, advice = f"{run.path}, step {step}", "training has diverged: there is nothing to export"
    refuse_not_finite(weights, where, advice)
    return weights


def _hooked_state(weights: Weights, architecture: Architecture) -> dict[str, Tensor]:
    """A HookedTransformer's state dict: its buffers too, so that a strict load takes it."""
    n_ctx = architecture.n_ctx
    mask = torch.ones(n_ctx, n_ctx, dtype=torch.bool)
    buffers = {}
    for layer in range(architecture.n_layers):
        attention = f"blocks.{layer}.attn"
        causal = architecture.attention_dir == "causal"
        buffers[f"{attention}.mask"] = mask.tril() if causal else mask
        buffers[f"{attention}.IGNORE"] = torch.tensor(-torch.inf)
    return {**weights, **buffers}


def _paper_state(weights: Weights, architecture: Architecture) -> dict[str, Tensor]:
    """A state dict of the paper's code: its buffers too, so that a strict load takes it."""
    n_ctx = architecture.n_ctx
    masks = {
        f"blocks.{layer}.attn.mask": torch.ones(n_ctx, n_ctx).tril()
        for layer in range(architecture.n_layers)
    }
    return {**to_foreign(weights, PAPER, architecture.n_layers), **masks}


def _hooked_config(architecture: Architecture) -> dict[str, Any]:
    """The arguments of a HookedTransformerConfig; an attention rate is a hook, not a setting."""
    names = (
        "n_layers", "n_heads", "d_model", "d_head", "d_mlp", "d_vocab", "d_vocab_out", "n_ctx",
        "act_fn", "normalization_type", "eps", "attention_dir",
    )  # fmt: skip
    config = {name: getattr(architecture, name) for name in names}
    if architecture.attention_rate != 1:
        config["attention_rate"] = architecture.attention_rate
    return config


def _check_fits_paper(weights: Weights, architecture: Architecture) -> None:
    no_place = [x for x, w in weights.items() if is_bias(x) and ".mlp." not in x and w.any()]
    if architecture.normalization_type:
        no_place.append("LayerNorm")
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
    metrics = run.metrics
    last = run.steps[-1]
    train, test = (_by_step(metrics, column, last) for column in ("train_loss", "test_loss"))
    if train is None or test is None:
        return {}
    return {
        "train_losses": train[:last],
        "test_losses": test[test_first : last + test_first : test_every],
        "logged_steps": [int(step) for step in metrics["step"]],
    }


def _by_step(metrics: pd.DataFrame, column: str, last: int) -> list[float] | None:
    """A loss at every step up to the last, those between logged ones repeated."""
    if last > MOST_EPOCHS:
        raise InputError(f"both formats want a loss of every epoch, and {last} are too many.")
    known = metrics[["step", column]].dropna().set_index("step")[column]
    if not len(known):
        return None
    every = known.reindex(range(last + 1)).ffill()
    return [float(x) for x in every.fillna(math.nan)]
