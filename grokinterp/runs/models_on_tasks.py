"""Does a model take the inputs of a task, and give logits of its answers? Tried on two inputs.

Sizes that a configuration says are compared first (grokinterp.models.kinds). A configuration can be
missing or wrong, so the first and the last input, which have every kind of token, are run too.
"""

from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import mask, whole
from grokinterp.base.errors import InputError, one_line
from grokinterp.models.architecture import Weights
from grokinterp.models.kinds import (
    Shape,
    architecture_of,
    build_model,
    has_positions,
    layers_of,
    refuse_misfit,
    refuse_unfit,
    weights_of,
)
from grokinterp.models.user_models import (
    AnyModel,
    HookedModel,
    alone_with,
    configuration,
    hooked_model,
)
from grokinterp.runs._snapshot import Snapshot, agree, device_of, forward_of, hooked_forward
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task, check_task

# MERGED runs.taking: Taking a snapshot: of canonical weights, or of any hooked model of the user's own.


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


def from_weights(
    weights: Weights,
    architecture: Shape,
    task: Task,
    *,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    step: int | None = None,
) -> Snapshot:
    """A snapshot of canonical weights."""
    hooked = cache(partial(build_model, architecture, weights))
    return Snapshot(
        task,
        weights=weights,
        n_layers=architecture.n_layers,
        kind=architecture.kind,
        forward=forward_of(weights, architecture, hooked),
        hooked=hooked,
        architecture=architecture,
        linear_readout=getattr(architecture, "normalization_type", None) is None,
        train_mask=train_mask,
        step=step,
    )


def snapshot(
    model: AnyModel,
    task: Task,
    *,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    step: int | None = None,
) -> Snapshot:
    """Any hooked model of the user's own, seen over a whole task; the model is not changed.

    What torch.compile, DataParallel or AveragedModel have wrapped is looked at as if it were given
    itself, and a pruned or parametrized model with the weights that it computes with. The model is
    seen in evaluation (no dropout), whatever mode it is in. It has to fit the task: as many tokens
    and positions as its inputs have, and as many classes as answers (or one more for "=").

    Weights and mask are copied: training may go on. Several threads may look at one model.

    `train_mask` says which rows `a*p + b` were trained on; without it, measures that need the split
    are null. The logits and neurons are those of the model as it is now; activations that are asked
    for later come from the model as it is then, unless it is a plain transformer.
    """
    check_task(task)
    looked_at = hooked_model(model)
    if train_mask is not None:
        train_mask = checked_mask(train_mask, task)
    if step is not None:
        step = whole("step", step, least=0, such_as="100")
    with alone_with(looked_at):
        try_on(looked_at, task)
        return _as_it_is(looked_at, task, train_mask, step)


def _as_it_is(
    model: HookedModel, task: Task, train_mask: Bool[Tensor, " n_inputs"] | None, step: int | None
) -> Snapshot:
    architecture = architecture_of(model)
    # As they lie in memory in a run: a transposed matrix is multiplied with other roundings.
    weights = {name: weight.cpu().contiguous() for name, weight in weights_of(model).items()}
    if architecture is not None and _same_function(model, architecture, weights, task):
        return from_weights(weights, architecture, task, train_mask=train_mask, step=step)
    cfg = configuration(model)
    seen = Snapshot(
        task,
        weights=weights,
        n_layers=layers_of(model),
        kind="transformer" if has_positions(model) else cfg.kind,
        forward=lambda tokens, names: hooked_forward(model, tokens, names),
        hooked=lambda: model,
        linear_readout=getattr(cfg, "normalization_type", None) is None
        and getattr(cfg, "output_logits_soft_cap", -1.0) <= 0,
        train_mask=train_mask,
        step=step,
    )
    seen.compute()
    return seen


def checked_mask(train_mask: Bool[Tensor, " n_inputs"], task: Task) -> Bool[Tensor, " n_inputs"]:
    """The mask on the CPU, refused if it does not say true or false of every row of the table."""
    return mask("train_mask", train_mask, task.n_inputs).cpu()


def _same_function(model: HookedModel, architecture: Shape, weights: Weights, task: Task) -> bool:
    """Whether the weights under that architecture give the model's own logits on a sample.

    A configuration does not show everything: a module may have been replaced or hooked.
    """
    ours = forward_of(weights, architecture)
    return agree(
        lambda inputs: ours(inputs, ())[0],
        lambda inputs: hooked_forward(model, inputs, ())[0],
        task,
    )
