"""Forwards: the answer logits and activations of a model on some inputs, and whether it takes them.

Whether a model takes the inputs of a task is said by its sizes first (`why_not` of its kind). A
configuration can be missing or wrong, so the model is run on two inputs too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from grokinterp.base.errors import InputError, one_line
from grokinterp.models.architecture import BaseArchitecture, Weights
from grokinterp.models.blocks import at_last
from grokinterp.models.hooked_module import HookedModule, at_answer, near
from grokinterp.models.kinds import has_positions
from grokinterp.models.module import fit_classes
from grokinterp.models.transformer import NetworkSizes, refuse_misfit
from grokinterp.models.user_models import HookedModel, alone_with, configuration
from grokinterp.tasks.task import Task

BLOCK_ROWS = 2048  # inputs a forward sees at once: intermediate results stay in the cache
# Inputs and hook names -> logits at the answer position and those activations.
Forward = Callable[[Tensor, tuple[str, ...]], tuple[Tensor, Mapping[str, Tensor]]]


def forward_of(
    weights: Weights,
    architecture: BaseArchitecture,
    hooked: Callable[[], HookedModel] | None = None,
) -> Forward:
    """The forward of canonical weights, without a hooked model where it is not needed."""
    # Built when first needed, since that imports TransformerLens.
    hooked = hooked or cache(partial(architecture.hooked, weights))
    quick = architecture.answers(weights)

    def forward(inputs: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Mapping[str, Tensor]]:
        own = architecture.own_activations(inputs)
        if own is None or not set(names) <= set(own):
            return hooked_forward(hooked(), inputs, names)
        found: dict[str, Tensor] = {}
        keep_pre = any(name.endswith("hook_pre") for name in names)
        logits = quick(inputs, found if names else None, keep_pre=keep_pre)
        return logits, {name: found[name] for name in names}

    return forward


def hooked_forward(
    model: HookedModel,
    inputs: Tensor,
    names: tuple[str, ...],
    hooks: Sequence[tuple[str, Callable[..., object]]] = (),
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Logits and activations of a hooked model; those of a transformer at the answer position.

    With `hooks`, as they are with these in place.
    """
    if unknown := sorted(set(names) - set(model.hook_dict)):
        raise InputError(f"the model has no activation {unknown[0]!r} (model.hook_dict lists all).")
    inputs = inputs.to(device_of(model))
    cache: dict[str, Tensor] = {}
    with alone_with(model):
        if hooks:
            kept = [(name, partial(_keep, cache, name)) for name in names]
            logits = model.run_with_hooks(inputs, fwd_hooks=[*hooks, *kept])
        elif names:
            logits, cache = model.run_with_cache(inputs, names_filter=list(names))
        else:
            logits = model(inputs)
    for name in names:
        refuse_no_rows(name, cache[name], len(inputs))
    if has_positions(model):
        found = {name: at_last(cache[name], name).cpu() for name in names}
        return at_last(logits).cpu(), found
    return at_answer(logits, logits).cpu(), {
        name: at_answer(cache[name], logits).cpu() for name in names
    }


def _keep(cache: dict[str, Tensor], name: str, activation: Tensor, hook: object) -> None:
    """A hook that keeps an activation and leaves it as it is."""
    cache[name] = activation


def row_blocks(n: int) -> Iterator[slice]:
    """The rows of a table of n in blocks, in order; one empty block of an empty table."""
    return (slice(first, min(first + BLOCK_ROWS, n)) for first in range(0, max(n, 1), BLOCK_ROWS))


def over_blocks(
    forward: Forward, inputs: Tensor, names: tuple[str, ...] = ()
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and activations of inputs, computed a block at a time."""
    whole: dict[str | None, Tensor] = {}  # the logits without a name
    for rows in row_blocks(len(inputs)):
        with torch.no_grad():
            logits, found = forward(inputs[rows], names)
        for name, part in ((None, logits), *((name, found[name]) for name in names)):
            if name not in whole:
                whole[name] = part.new_empty(len(inputs), *part.shape[1:])
            whole[name][rows] = part
    return whole.pop(None), whole  # type: ignore[return-value]


def refuse_no_rows(name: str, activation: Tensor, n: int) -> None:
    """InputError where the first axis of an activation is not that of the inputs."""
    if not activation.ndim or len(activation) != n:
        raise InputError(
            f"the activation {name!r} of {n} inputs is of shape {tuple(activation.shape)}; name "
            "one with a row for every input, first (in torch's layers: batch_first=True)."
        )


def device_of(model: HookedModel) -> torch.device:
    """The device of a model's first weight."""
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device


def agree(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], task: Task) -> bool:
    """Whether two forwards give the same logits, within float32, on a sample of the inputs.

    NaN is the same as NaN, so that a diverged model agrees with itself.
    """
    inputs = task.model_inputs[:: max(1, task.n_inputs // 64)]
    with torch.no_grad():
        found, expected = ours(inputs), theirs(inputs)
    other = (found != expected) & ~(found.isnan() & expected.isnan())
    size = expected[expected.isfinite()].norm()
    return bool((found - expected)[other].norm() <= 1e-3 * size)


def try_on(model: HookedModel, task: Task) -> None:
    """InputError, with the sizes of both, where a model does not fit a task."""
    cfg = configuration(model)
    if not has_positions(model):
        if cfg is not None:
            cfg.refuse_unfit(task)
        with torch.random.fork_rng(devices=[]):
            logits = _answers(model, task, ("inputs", "classes"))
            if isinstance(model, HookedModule):
                _refuse_moods(model, task, logits)
        return
    if (pairs := task.modular) is None:
        raise InputError(
            f"the transformer reads operand tokens, the task is {task.title}; give the task it was "
            "trained on."
        )
    # What the configuration does not say is taken to fit until the model has been run.
    n_ctx = len(pairs.reads.words)
    d_vocab, said_ctx = _size(cfg, "d_vocab") or pairs.d_vocab, _size(cfg, "n_ctx") or n_ctx
    classes = _size(cfg, "d_vocab_out") or pairs.reads.n_answer_classes
    refuse_misfit(pairs, NetworkSizes(d_vocab, said_ctx, classes))
    logits = _answers(model, task, ("inputs", "positions", "classes"))
    if logits.shape[1] not in (1, n_ctx):
        raise InputError(
            f"the model gives logits at {logits.shape[1]} positions for inputs of {n_ctx} tokens; "
            "return logits [inputs, positions, classes]."
        )
    refuse_misfit(pairs, NetworkSizes(d_vocab, said_ctx, logits.shape[2]))


def _refuse_moods(model: Any, task: Task, logits: Tensor) -> None:
    """InputError where the answer to an input depends on chance, or on the inputs beside it."""
    again = _answers(model, task, ("inputs", "classes"))
    among = _answers(model, task, ("inputs", "classes"), rows=(0, task.n_inputs // 2, -1))
    for found, how in (
        (again, "when it is run again: something in it acts by chance, in evaluation too"),
        (among[[0, 2]], "with another input beside them: something in it mixes those of a batch"),
    ):
        if not near(*(x - x.mean(dim=1, keepdim=True) for x in (found, logits))):
            raise InputError(
                f"the {type(model.module).__name__} gives other logits {how}; give a module that "
                "is a function of each input."
            )


def _answers(
    model: HookedModel, task: Task, axes: tuple[str, ...], rows: tuple[int, ...] = (0, -1)
) -> Tensor:
    """Logits with these axes for the first and the last input, which have every kind of token."""
    inputs = task.model_inputs[list(rows)].to(device_of(model))
    what = f"the {type(model.module if isinstance(model, HookedModule) else model).__name__}"
    try:
        with torch.no_grad():
            given: Any = model(inputs)
    except Exception as error:
        stated = {x: _size(configuration(model), x) for x in ("d_vocab", "n_ctx", "d_vocab_out")}
        sizes = ", ".join(f"{name}={size}" for name, size in stated.items() if size)
        described = f"{inputs.shape[1]} tokens from 0 to {int(inputs.max())}"
        if inputs.is_floating_point():
            described = f"numbers of shape {tuple(inputs.shape[1:])}"
        raise InputError(
            f"{what}{f' ({sizes})' if sizes else ''} cannot read the inputs of {task.title}, "
            f"{described}: {type(error).__name__}: {one_line(str(error), most=120)}; give a model "
            "that reads them."
        ) from error
    expected = f"expected logits [{', '.join(axes)}]"
    if not isinstance(given, Tensor):
        found = type(given).__name__
        raise InputError(f"{what} returns a {found}, {expected}; return the logits alone.")
    given = at_answer(given, given) if len(axes) == 2 else given
    shape = tuple(given.shape)
    if len(shape) != len(axes) or shape[0] != len(inputs) or not given.is_floating_point():
        raise InputError(
            f"{what} returns {given.dtype} of shape {shape} for {len(inputs)} inputs, {expected}; "
            "return logits of this shape."
        )
    if len(axes) == 2 and not fit_classes(shape[-1], task):
        raise InputError(
            f"{what} gives {shape[-1]} classes, and {task.title} has {task.n_classes}; give the "
            "task it was trained on."
        )
    return given


def _size(cfg: object, key: str) -> int | None:
    """A size that a configuration states; None where it states none."""
    n = getattr(cfg, key, None)
    return n if isinstance(n, int) and n > 0 else None
