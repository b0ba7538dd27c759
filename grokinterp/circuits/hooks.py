"""The hook factories: every function returns an `Intervention`, a sequence of hook pairs.

from grokinterp.circuits import hooks

model.run_with_hooks(task.tokens, fwd_hooks=hooks.heads(0, 2) + hooks.mlp_skip(0))
gi.ablate(run, [hooks.heads(0, [0, 2]), hooks.fourier("unembed.hook_out", run.task, [9])])
gi.ablate(run, [hooks.neurons(0, i) for i in range(10)])  # ten rows; neurons(0, range(10)): one

`layer` counts from 0; of neurons of a module of one's own it is a name, `neurons("fc1", 3)`. `mode`
says what stands in for the part: "zero", its "mean" over the inputs, or "resample", its activation
on another input (a fixed permutation of the table). Interventions add up with `+`; `.called(name)`
gives one another name. Run them on the whole table, `task.model_inputs`, which for modular
arithmetic are `task.tokens`: means, permutations and Fourier components are over the inputs given.
Hook names are those that TransformerLens 3 and 4 share and on which both do the same.
"""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.checks import tensor, text, whole, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.names import room_names
from grokinterp.circuits.direction_hooks import directions, embedding, fourier, random_directions
from grokinterp.circuits.interventions import (
    MODES,
    Draw,
    Intervention,
    Setting,
    around,
    intervention,
    reference,
)
from grokinterp.models.blocks import Edit
from grokinterp.models.layers import neurons_name

__all__ = [
    "attention", "attention_skip", "channels", "directions", "embedding", "fourier", "heads",
    "intervention", "mlp", "mlp_skip", "neurons", "patterns", "replaced_neurons",
    "replaced_patterns",
]  # fmt: skip

MOST_INDEX = 2**31  # no layer, head or neuron has a number beyond it
_name = partial(text, "name", such_as="'my neurons'", empty=False)


def heads(layer: int, which: int | Iterable[int], *, mode: str = "mean") -> Intervention:
    """Attention heads of a layer: `hook_z` of those heads replaced.

    Placebos: as many dimensions of all heads' z in random directions, a little of every head.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, [gi.hooks.heads(0, i) for i in range(4)], placebos=5)
    >>> found.table()[["ablation", "acc_all", "verdict"]].round(2)
              ablation  acc_all           verdict
    0  head 0.0 (mean)     0.56  not above chance
    1  head 0.1 (mean)     0.80  not above chance
    2  head 0.2 (mean)     0.28      above chance
    3  head 0.3 (mean)     0.47  not above chance
    """
    layer, index = _layer(layer), _index(which)
    hook = f"blocks.{layer}.attn.hook_z"

    def draw(setting: Setting) -> list[Intervention]:
        n_heads, _, d_head = setting.snapshot.weights[f"blocks.{layer}.attn.W_Q"].shape
        return random_directions(setting, hook, n_heads * d_head, len(index) * d_head, mode)

    return _entries(_numbered("head", layer, index), "head", hook, -2, index, mode, draw)


def attention(layer: int, *, mode: str = "mean") -> Intervention:
    """What a layer's attention adds to the residual stream; no placebos.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, [gi.hooks.attention(0, mode=mode) for mode in ("zero", "mean")])
    >>> found.table()[["ablation", "acc_all", "verdict"]].round(2)
                 ablation  acc_all     verdict
    0  attention 0 (zero)     0.03  no placebo
    1  attention 0 (mean)     0.03  no placebo
    """
    return _whole("attention", layer, "hook_attn_out", mode)


def mlp(layer: int, *, mode: str = "mean") -> Intervention:
    """What a layer's MLP adds to the residual stream; no placebos.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, [gi.hooks.mlp(0, mode="zero"), gi.hooks.mlp(0, mode="resample")])
    >>> found.table()[["ablation", "loss_all", "acc_all"]].round(2)
               ablation  loss_all  acc_all
    0      MLP 0 (zero)      3.78     0.18
    1  MLP 0 (resample)     42.85     0.03
    """
    return _whole("MLP", layer, "hook_mlp_out", mode)


def patterns(layer: int, *, mode: str = "mean") -> Intervention:
    """All attention patterns of a layer replaced, by their average over the inputs, and so on.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> gi.ablate(run, [gi.hooks.patterns(0)]).table()[["ablation", "acc_all"]].round(2)
                          ablation  acc_all
    0  attention patterns 0 (mean)     0.39
    """
    return _whole("attention patterns", layer, "attn.hook_pattern", mode)


def attention_skip(layer: int, *, mode: str = "mean") -> Intervention:
    """The residual stream around a layer's attention: what follows sees attention alone.

    After "=" that stream is one vector, so its mean ablation changes nothing there.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> skips = [gi.hooks.attention_skip(0, mode=mode) for mode in ("mean", "zero")]
    >>> gi.ablate(run, skips).table()[["ablation", "acc_all", "ratio"]].round()
                      ablation  acc_all  ratio
    0  attention skip 0 (mean)      1.0    1.0
    1  attention skip 0 (zero)      0.0  642.0
    """
    return _skip("attention", layer, "hook_resid_pre", "hook_attn_out", mode)


def mlp_skip(layer: int, *, mode: str = "mean") -> Intervention:
    """The residual stream around a layer's MLP: the MLP reads it, what follows does not.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.ablate(run, [gi.hooks.mlp_skip(0), gi.hooks.mlp(0)])
    >>> found.table()[["ablation", "acc_all", "ratio"]].round()
                ablation  acc_all  ratio
    0  MLP skip 0 (mean)      1.0    7.0
    1       MLP 0 (mean)      0.0  920.0
    """
    return _skip("MLP", layer, "hook_resid_mid", "hook_mlp_out", mode)


def neurons(
    layer: int | str, which: int | Iterable[int], *, mode: str = "mean", name: str | None = None
) -> Intervention:
    """Neurons of a layer, after the nonlinearity. Placebos: as many other neurons, at random.

    Where there are fewer others, they are drawn from all neurons; all neurons have no placebo. Of a
    module of one's own, `layer` is the name of a sub-module whose output they are, [n, neurons].

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> own = gi.circuits.neuron_clusters(run).members(14).tolist()
    >>> cluster = gi.hooks.neurons(0, own, name="the cluster of k = 14")
    >>> found = gi.ablate(run, [gi.hooks.neurons(0, own[0]), cluster], placebos=5)
    >>> found.table()[["ablation", "acc_all", "ratio"]].round(1)
                           ablation  acc_all  ratio
    0               neuron 1 (mean)      1.0    1.0
    1  the cluster of k = 14 (mean)      0.8  245.8
    """
    layer, index = layer if isinstance(layer, str) else _layer(layer), _index(which)
    kind, listed = "neuron", f"neuron {index[0]}"
    if len(index) > 1:
        kind, listed = "neurons", f"{len(index)} neurons"
    name = listed if name is None else _name(name)

    def draw(setting: Setting) -> list[Intervention]:
        every = torch.arange(setting.snapshot.width_of(layer))
        others = every[~torch.isin(every, index)]
        if not len(others):
            return []
        pool = others if len(others) >= len(index) else every
        stream, found = setting.generator(), []
        for i in range(setting.n):
            drawn = pool[torch.randperm(len(pool), generator=stream)[: len(index)]].tolist()
            name = f"{len(index)} random neurons {i}"
            found.append(neurons(layer, drawn, mode=mode, name=name))
        return found

    return _entries(name, kind, neurons_name(layer), -1, index, mode, draw)


def replaced_neurons(
    layer: int | str,
    which: Iterable[int],
    values: Float[Tensor, "n_inputs n_neurons"],
    *,
    name: str,
) -> Intervention:
    """Neurons at the answer position replaced by values, one row per input.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> post = run.snapshot().activation("blocks.0.mlp.hook_post")
    >>> rounded = gi.hooks.replaced_neurons(0, range(160), post.round(), name="whole numbers")
    >>> gi.ablate(run, [rounded]).table()[["ablation", "acc_all"]].round(2)
            ablation  acc_all
    0  whole numbers      1.0
    """
    layer, index = layer if isinstance(layer, str) else _layer(layer), _index(which)
    name, hook = _name(name), neurons_name(layer)
    values = tensor("values", values).clone()

    def change(post: Tensor) -> Tensor:
        whole("neuron", int(index.max()), least=0, most=post.shape[-1] - 1, such_as="0")
        answer = (slice(None), *[-1] * (post.ndim - 2), index)  # where there are positions
        return with_values(post, answer, values, hook)

    return Intervention(name, name, ((hook, Edit(change)),), no_placebo="a replacement")


def channels(layer: int, which: int | Iterable[int], *, mode: str = "mean") -> Intervention:
    """Channels of a convolution, after the nonlinearity. Placebos: its other single channels.

    >>> import grokinterp as gi
    >>> two = gi.hooks.channels(0, [2, 5])
    >>> two.name, two[0][0]
    ('channels 0.2, 0.5 (mean)', 'conv.0.hook_post')
    """
    layer, index = _layer(layer), _index(which)

    def draw(setting: Setting) -> list[Intervention]:
        n = len(setting.snapshot.weights[f"conv.{layer}.W"])
        return [channels(layer, c, mode=mode) for c in range(n) if c not in index]

    name, others = _numbered("channel", layer, index), draw if len(index) == 1 else None
    return _entries(name, "channel", f"conv.{layer}.hook_post", 1, index, mode, others)


def replaced_patterns(
    layer: int, values: Float[Tensor, "n_inputs n_heads n_ctx"], *, name: str
) -> Intervention:
    """Attention patterns at the answer position replaced by values, one row per input.

    Placebos: the same rows given to other inputs, at random.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> looks = run.snapshot().activation("blocks.0.attn.hook_pattern")
    >>> looks = looks[:, :1].expand_as(looks)
    >>> as_head_0 = gi.hooks.replaced_patterns(0, looks, name="all as head 0")
    >>> gi.ablate(run, [as_head_0], placebos=5).table()[["ablation", "acc_all", "verdict"]].round(2)
            ablation  acc_all       verdict
    0  all as head 0     0.18  above chance
    """
    layer, values = _layer(layer), tensor("values", values).clone()
    name, hook = _name(name), f"blocks.{layer}.attn.hook_pattern"

    def change(pattern: Tensor) -> Tensor:
        return with_values(pattern, (slice(None), slice(None), -1), values, hook)

    def draw(setting: Setting) -> list[Intervention]:
        stream, found = setting.generator(), []
        for i in range(setting.n):
            permuted = values[torch.randperm(len(values), generator=stream)]
            found.append(replaced_patterns(layer, permuted, name=f"{name}, rows permuted {i}"))
        return found

    return Intervention(name, name, ((hook, Edit(change)),), draw, no_placebo=None)


def _whole(what: str, layer: int, hook: str, mode: str) -> Intervention:
    """A whole activation of a layer replaced."""
    layer = _layer(layer)
    word("mode", mode, MODES)
    pair = f"blocks.{layer}.{hook}", Edit(lambda out: reference(out, mode))
    return Intervention(f"{what} {layer} ({mode})", f"{what} ({mode})", (pair,))


def _skip(what: str, layer: int, read: str, written: str, mode: str) -> Intervention:
    """The stream is taken out of the sum that the component's output is added to."""
    layer = _layer(layer)
    word("mode", mode, MODES)

    def change(stream: Tensor, out: Tensor) -> Tensor:
        return out - stream + reference(stream, mode)

    pairs = around(f"blocks.{layer}.{read}", f"blocks.{layer}.{written}", change, late=1)
    return Intervention(f"{what} skip {layer} ({mode})", f"{what} skip ({mode})", pairs)


def _entries(
    name: str, kind: str, hook: str, axis: int, index: Tensor, mode: str, draw: Draw | None
) -> Intervention:
    """The entries `index` of an activation along an axis replaced."""
    word("mode", mode, MODES)

    def change(x: Tensor) -> Tensor:
        most = x.shape[axis] - 1
        whole(kind.removesuffix("s"), int(index.max()), least=0, most=most, such_as="0")
        chosen = index.to(x.device)
        return x.index_copy(axis, chosen, reference(x.index_select(axis, chosen), mode))

    found = Intervention(f"{name} ({mode})", f"{kind} ({mode})", ((hook, Edit(change)),), draw)
    return replace(found, no_placebo=None) if draw else found


def with_values(x: Tensor, place: Any, values: Tensor, hook: str) -> Tensor:
    """A copy of an activation with other values at some place."""
    if x[place].shape != values.shape:
        raise InputError(
            f"the place at {hook} is of shape {tuple(x[place].shape)}, its replacement of shape "
            f"{tuple(values.shape)}; give one row per input and run on task.tokens."
        )
    changed = x.clone()
    changed[place] = values.to(x)
    return changed


def _layer(given: int) -> int:
    """A layer's number; whether the model has it shows when it is looked at."""
    return whole("layer", given, least=0, most=MOST_INDEX, such_as="0")


def _numbered(what: str, layer: int, index: Tensor) -> str:
    return f"{what}{'s' * (len(index) > 1)} {', '.join(f'{layer}.{i}' for i in index.tolist())}"


def _index(which: int | Iterable[int]) -> Int[Tensor, " n"]:
    listed = list(which) if isinstance(which, Iterable) and whole_number(which) is None else [which]
    found = [i for i in map(whole_number, listed) if i is not None and 0 <= i <= MOST_INDEX]
    if not found or len(set(found)) != len(listed):
        raise InputError(
            f"{shown(listed)} are not distinct indices from 0 on; give such as 3 or [0, 2]."
        )
    return torch.tensor(found)


__getattr__, __dir__ = room_names(__name__, __all__)
