"""The hook factories: every function returns an `Intervention`, a sequence of hook pairs.

from grokinterp.circuits import hooks

model.run_with_hooks(task.tokens, fwd_hooks=hooks.heads(0, 2) + hooks.mlp_skip(0))
gi.ablate(run, [hooks.heads(0, [0, 2]), hooks.fourier("unembed.hook_out", run.task, [9])])
gi.ablate(run, [hooks.neurons(0, i) for i in range(10)])  # ten rows; neurons(0, range(10)): one

`layer` counts from 0. `mode` says what stands in for the part: "zero", its "mean" over the inputs,
or "resample", its activation on another input (a fixed permutation of the table). Interventions
add up with `+`; `.called(name)` gives one another name. Run them on the whole table,
`task.model_inputs`, which for modular arithmetic are `task.tokens`. Hook names are those that
TransformerLens 3 and 4 share and on which both do the same.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.checks import tensor, whole, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.circuits.interventions import (
    MODES,
    Draw,
    Intervention,
    Setting,
    around,
    intervention,
    reference,
)
from grokinterp.circuits.subspaces import directions, embedding, fourier, random_directions
from grokinterp.models.last_block import Edit

__all__ = [
    "attention",
    "attention_skip",
    "channels",
    "directions",
    "embedding",
    "fourier",
    "heads",
    "intervention",
    "mlp",
    "mlp_skip",
    "neurons",
    "patterns",
    "replaced_neurons",
    "replaced_patterns",
]

MOST_INDEX = 2**31  # no layer, head or neuron has a number beyond it


def __dir__() -> list[str]:
    return __all__


def heads(layer: int, which: int | Iterable[int], *, mode: str = "mean") -> Intervention:
    """Attention heads of a layer: `hook_z` of those heads replaced.

    Placebos: as many dimensions of the space of all heads' z, in random directions, which touch
    every head a little.
    """
    layer, index = _layer(layer), _index(which)
    hook = f"blocks.{layer}.attn.hook_z"

    def draw(setting: Setting) -> list[Intervention]:
        n_heads, _, d_head = setting.snapshot.weights[f"blocks.{layer}.attn.W_Q"].shape
        return random_directions(setting, hook, n_heads * d_head, len(index) * d_head, mode)

    return _entries("head", layer, hook, -2, index, mode, draw)


def attention(layer: int, *, mode: str = "mean") -> Intervention:
    """What a layer's attention adds to the residual stream; no placebos."""
    return _whole("attention", layer, "hook_attn_out", mode)


def mlp(layer: int, *, mode: str = "mean") -> Intervention:
    """What a layer's MLP adds to the residual stream; no placebos."""
    return _whole("MLP", layer, "hook_mlp_out", mode)


def patterns(layer: int, *, mode: str = "mean") -> Intervention:
    """All attention patterns of a layer replaced, by their average over the inputs, and so on."""
    return _whole("attention patterns", layer, "attn.hook_pattern", mode)


def attention_skip(layer: int, *, mode: str = "mean") -> Intervention:
    """The residual stream around a layer's attention: what follows sees attention alone.

    After "=" that stream is one vector, so its mean ablation changes nothing there.
    """
    return _skip("attention", layer, "hook_resid_pre", "hook_attn_out", mode)


def mlp_skip(layer: int, *, mode: str = "mean") -> Intervention:
    """The residual stream around a layer's MLP: the MLP reads it, what follows does not."""
    return _skip("MLP", layer, "hook_resid_mid", "hook_mlp_out", mode)


def neurons(
    layer: int, which: int | Iterable[int], *, mode: str = "mean", name: str | None = None
) -> Intervention:
    """Neurons of a layer, after the nonlinearity. Placebos: as many other neurons, at random.

    Where there are fewer others, they are drawn from all neurons; all neurons have no placebo.
    """
    layer, index = _layer(layer), _index(which)
    kind, listed = "neuron", f"neuron {index[0]}"
    if len(index) > 1:
        kind, listed = "neurons", f"{len(index)} neurons"
    name = listed if name is None else _name(name)

    def draw(setting: Setting) -> list[Intervention]:
        every = torch.arange(setting.snapshot.weights[f"blocks.{layer}.mlp.W_in"].shape[1])
        others = every[~torch.isin(every, index)]
        if not len(others):
            return []
        pool = others if len(others) >= len(index) else every
        stream = setting.generator()
        return [
            neurons(
                layer,
                pool[torch.randperm(len(pool), generator=stream)[: len(index)]].tolist(),
                mode=mode,
                name=f"{len(index)} random neurons {i}",
            )
            for i in range(setting.n)
        ]

    return _entries(kind, layer, f"blocks.{layer}.mlp.hook_post", -1, index, mode, draw, name)


def replaced_neurons(
    layer: int, which: Iterable[int], values: Float[Tensor, "n_inputs n_neurons"], *, name: str
) -> Intervention:
    """Neurons at the answer position replaced by values, one row per input."""
    layer, index, name = _layer(layer), _index(which), _name(name)
    hook = f"blocks.{layer}.mlp.hook_post"
    values = tensor("values", values).clone()

    def change(post: Tensor) -> Tensor:
        _check_range("neuron", post, -1, index)
        return _with_values(post, (slice(None), -1, index), values, hook)

    return Intervention(name, name, ((hook, Edit(change)),), no_placebo="a replacement")


def channels(layer: int, which: int | Iterable[int], *, mode: str = "mean") -> Intervention:
    """Channels of a convolution, after the nonlinearity. Placebos: its other single channels."""
    layer, index = _layer(layer), _index(which)

    def draw(setting: Setting) -> list[Intervention]:
        n = len(setting.snapshot.weights[f"conv.{layer}.W"])
        return [channels(layer, c, mode=mode) for c in range(n) if c not in index]

    hook, others = f"conv.{layer}.hook_post", draw if len(index) == 1 else None
    return _entries("channel", layer, hook, 1, index, mode, others)


def replaced_patterns(
    layer: int, values: Float[Tensor, "n_inputs n_heads n_ctx"], *, name: str
) -> Intervention:
    """Attention patterns at the answer position replaced by values, one row per input.

    Placebos: the same rows given to other inputs, at random.
    """
    layer, name, values = _layer(layer), _name(name), tensor("values", values).clone()
    hook = f"blocks.{layer}.attn.hook_pattern"

    def change(pattern: Tensor) -> Tensor:
        return _with_values(pattern, (slice(None), slice(None), -1), values, hook)

    def draw(setting: Setting) -> list[Intervention]:
        stream = setting.generator()
        return [
            replaced_patterns(
                layer,
                values[torch.randperm(len(values), generator=stream)],
                name=f"{name}, rows permuted {i}",
            )
            for i in range(setting.n)
        ]

    return Intervention(name, name, ((hook, Edit(change)),), draw, no_placebo=None)


def _whole(what: str, layer: int, hook: str, mode: str) -> Intervention:
    """A whole activation of a layer replaced."""
    layer = _layer(layer)
    word("mode", mode, MODES)
    change = Edit(lambda out: reference(out, mode))
    return Intervention(
        f"{what} {layer} ({mode})", f"{what} ({mode})", ((f"blocks.{layer}.{hook}", change),)
    )


def _skip(what: str, layer: int, read: str, written: str, mode: str) -> Intervention:
    """The stream is taken out of the sum that the component's output is added to."""
    layer = _layer(layer)
    word("mode", mode, MODES)

    def change(stream: Tensor, out: Tensor) -> Tensor:
        return out - stream + reference(stream, mode)

    return Intervention(
        f"{what} skip {layer} ({mode})",
        f"{what} skip ({mode})",
        around(f"blocks.{layer}.{read}", f"blocks.{layer}.{written}", change, late=1),
    )


def _entries(
    kind: str,
    layer: int,
    hook: str,
    axis: int,
    index: Tensor,
    mode: str,
    draw: Draw | None,
    name: str | None = None,
) -> Intervention:
    """The entries `index` of an activation along an axis replaced."""
    word("mode", mode, MODES)
    numbers = ", ".join(f"{layer}.{i}" for i in index.tolist())
    name = name or f"{kind}{'s' * (len(index) > 1)} {numbers}"

    def change(x: Tensor) -> Tensor:
        _check_range(kind.removesuffix("s"), x, axis, index)
        chosen = index.to(x.device)
        return x.index_copy(axis, chosen, reference(x.index_select(axis, chosen), mode))

    found = Intervention(f"{name} ({mode})", f"{kind} ({mode})", ((hook, Edit(change)),), draw)
    return replace(found, no_placebo=None) if draw else found


def _with_values(x: Tensor, place: Any, values: Tensor, hook: str) -> Tensor:
    """A copy of an activation with other values at some place."""
    if x[place].shape != values.shape:
        raise InputError(
            f"the place at {hook} is of shape {tuple(x[place].shape)}, its replacement of shape "
            f"{tuple(values.shape)}; give one row per input and run on task.tokens."
        )
    changed = x.clone()
    changed[place] = values.to(x)
    return changed


def _check_range(what: str, x: Tensor, axis: int, index: Tensor) -> None:
    if int(index.max()) >= x.shape[axis]:
        raise InputError(f"{what} {index.max()} is not between 0 and {x.shape[axis] - 1}.")


def _layer(given: int) -> int:
    """A layer's number; whether the model has it shows when it is looked at."""
    return whole("layer", given, least=0, most=MOST_INDEX, such_as="0")


def _name(given: str) -> str:
    if not isinstance(given, str) or not given:
        raise InputError(f"name={shown(given)} is no text; give such as 'my neurons'.")
    return given


def _index(which: int | Iterable[int]) -> Int[Tensor, " n"]:
    several = isinstance(which, Iterable) and whole_number(which) is None
    listed = list(which) if several else [which]
    found = [i for i in map(whole_number, listed) if i is not None and 0 <= i <= MOST_INDEX]
    if not found or len(set(found)) != len(listed):
        raise InputError(
            f"{shown(listed)} are not distinct indices from 0 on; give such as 3 or [0, 2]."
        )
    return torch.tensor(found)
