"""Forwards of a model on some inputs: its answer logits, and activations by hook name."""

from collections.abc import Callable, Mapping
from functools import cache, partial

import torch
from torch import Tensor

from grokinterp.errors import InputError
from grokinterp.models.adapter import HookedModel
from grokinterp.models.architecture import Weights
from grokinterp.models.kinds import QuickForward, Shape, build_model, has_positions
from grokinterp.models.model_locks import alone_with
from grokinterp.tasks.task import Task

Forward = Callable[[Tensor, tuple[str, ...]], tuple[Tensor, Mapping[str, Tensor]]]


def forward_of(
    weights: Weights,
    architecture: Shape,
    hooked: Callable[[], HookedModel] | None = None,
) -> Forward:
    """The forward of canonical weights: without a hooked model where that suffices."""
    # Built when first needed: that imports TransformerLens.
    hooked = hooked or cache(partial(build_model, architecture, weights))
    quick = QuickForward(architecture, weights)

    def forward(inputs: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Mapping[str, Tensor]]:
        found: dict[str, Tensor] = {}
        keep_pre = any(name.endswith("hook_pre") for name in names)
        logits = quick(inputs, found if names else None, keep_pre=keep_pre)
        if logits is not None and set(names) <= set(found):
            return logits, {name: found[name] for name in names}
        return hooked_forward(hooked(), inputs, names)

    return forward


def hooked_forward(
    model: HookedModel, inputs: Tensor, names: tuple[str, ...]
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The forward of a hooked model, of a transformer at the answer position."""
    device = device_of(model)
    if unknown := sorted(set(names) - set(model.hook_dict)):
        raise InputError(f"the model has no activation {unknown[0]!r} (model.hook_dict lists all).")
    with alone_with(model):
        if names:
            logits, cache = model.run_with_cache(inputs.to(device), names_filter=list(names))
        else:
            logits, cache = model(inputs.to(device)), {}
    at = answer if has_positions(model) else lambda x, name="": x
    return at(logits).cpu(), {name: at(cache[name], name).cpu() for name in names}


def device_of(model: HookedModel) -> torch.device:
    """Where a model computes: where its first weight lies."""
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device


def answer(x: Tensor, name: str = "") -> Tensor:
    """A transformer's activation or logits at the answer position, the last."""
    is_attention = name.endswith(("hook_pattern", "hook_attn_scores"))
    return x[:, :, -1] if is_attention else x[:, -1]


def agree(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], task: Task) -> bool:
    """Whether two forwards give the same logits, within float32, on a sample of the inputs.

    NaN is the same as NaN: a diverged model is what it was, and its measures say what it is.
    """
    inputs = task.model_inputs[:: max(1, task.n_inputs // 64)]
    with torch.no_grad():
        found, expected = ours(inputs), theirs(inputs)
    other = (found != expected) & ~(found.isnan() & expected.isnan())
    size = expected[expected.isfinite()].norm()
    return bool((found - expected)[other].norm() <= 1e-3 * size)
