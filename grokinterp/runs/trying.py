"""Does a model take the inputs of a task, and give logits of its answers? Tried on two inputs.

Sizes that a configuration says are compared first (grokinterp.models.fits). A configuration can be
missing or wrong, so the first and the last input, which have every kind of token, are run too.
"""

from typing import Any

import torch
from torch import Tensor

from grokinterp.errors import InputError, one_line
from grokinterp.models.adapter import HookedModel, configuration
from grokinterp.models.fits import refuse_misfit, refuse_unfit
from grokinterp.models.kinds import has_positions
from grokinterp.runs.forward import device_of
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task

SIZES = ("d_vocab", "n_ctx", "d_vocab_out")
LONGEST_REASON = 120


def try_on(model: HookedModel, task: Task) -> None:
    """InputError, in one line with the sizes of both, where a model does not fit a task."""
    cfg = configuration(model)
    if not has_positions(model):
        refuse_unfit(cfg, task)
        _answers(model, task, ("inputs", "classes"))
        return
    if not isinstance(task, ModularTask):
        refuse_unfit(cfg, task)
        return
    # What the configuration does not say is taken to fit until the model has been run.
    n_ctx = task.tokens.shape[1]
    d_vocab, said_ctx = _size(cfg, "d_vocab") or task.d_vocab, _size(cfg, "n_ctx") or n_ctx
    classes = _size(cfg, "d_vocab_out") or task.n_classes
    refuse_misfit(task, d_vocab=d_vocab, n_ctx=said_ctx, d_vocab_out=classes)
    logits = _answers(model, task, ("inputs", "positions", "classes"))
    if logits.shape[1] not in (1, n_ctx):
        raise InputError(
            f"the model gives logits at {logits.shape[1]} positions for inputs of {n_ctx} tokens; "
            "return logits [inputs, positions, classes]."
        )
    refuse_misfit(task, d_vocab=d_vocab, n_ctx=said_ctx, d_vocab_out=logits.shape[2])


def _answers(model: HookedModel, task: Task, axes: tuple[str, ...]) -> Tensor:
    """What the model gives for the first and the last input: logits with these axes, or refused."""
    inputs = task.model_inputs[[0, -1]].to(device_of(model))
    try:
        with torch.no_grad():
            given: Any = model(inputs)
    except Exception as error:
        sizes = ", ".join(f"{key}={n}" for key in SIZES if (n := _size(configuration(model), key)))
        raise InputError(
            f"the {type(model).__name__}{f' ({sizes})' if sizes else ''} cannot read the inputs of "
            f"{task.title}, {_described(inputs)}: {type(error).__name__}: "
            f"{one_line(str(error), most=LONGEST_REASON)}; give a model that reads them."
        ) from error
    expected = f"logits [{', '.join(axes)}]"
    if not isinstance(given, Tensor):
        raise InputError(
            f"the {type(model).__name__} returns a {type(given).__name__}, expected {expected}; "
            "return the logits alone."
        )
    shape = tuple(given.shape)
    if len(shape) != len(axes) or shape[0] != len(inputs) or not given.is_floating_point():
        raise InputError(
            f"the {type(model).__name__} returns {given.dtype} of shape {shape} for "
            f"{len(inputs)} inputs, expected {expected}; return logits of this shape."
        )
    if shape[-1] != task.n_classes and len(axes) == 2:
        raise InputError(
            f"the {type(model).__name__} gives {shape[-1]} classes, and {task.title} has "
            f"{task.n_classes}; give the task it was trained on."
        )
    return given


def _size(cfg: object, key: str) -> int | None:
    """A size that a configuration says; None where it says none."""
    n = getattr(cfg, key, None)
    return n if isinstance(n, int) and n > 0 else None


def _described(inputs: Tensor) -> str:
    if inputs.is_floating_point():
        return f"lattices of side {inputs.shape[-1]}"
    return f"{inputs.shape[1]} tokens from 0 to {int(inputs.max())}"
