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

>>> import grokinterp as gi
>>> run, hooks = gi.load("mod31-small"), gi.hooks
>>> parts = [hooks.heads(0, 2), hooks.attention(0), hooks.patterns(0), hooks.attention_skip(0)]
>>> parts += [hooks.mlp(0), hooks.neurons(0, [1, 3]), hooks.heads(0, 0) + hooks.mlp_skip(0)]
>>> parts += [hooks.fourier("unembed.hook_out", run.task, [14])]
>>> parts += [hooks.embedding(run.task, [1, 8, 14])]
>>> gi.ablate(run, parts, placebos=5).table()[["ablation", "acc_all", "verdict"]].round(2)
                              ablation  acc_all           verdict
0                      head 0.2 (mean)     0.28      above chance
1                   attention 0 (mean)     0.03        no placebo
2          attention patterns 0 (mean)     0.39        no placebo
3              attention skip 0 (mean)     1.00        no placebo
4                         MLP 0 (mean)     0.12        no placebo
5                     2 neurons (mean)     1.00      above chance
6  head 0.0 (mean) + MLP skip 0 (mean)     0.57  not above chance
7            drop k = 14 at the logits     0.50      above chance
8         embedding keeps k = 1, 8, 14     0.94      above chance
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import combinations, product
from math import comb
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import tensor, text, truth, whole, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.circuits.interventions import (
    MODES,
    Draw,
    HookPair,
    Intervention,
    Setting,
    around,
    intervention,
    reference,
)
from grokinterp.fourier.answers import checked_frequencies, group_of
from grokinterp.fourier.basis import fourier_basis, n_frequencies
from grokinterp.models.blocks import LOGITS, Edit
from grokinterp.models.layers import neurons_name
from grokinterp.tasks.answer_group import UNDEFINED
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import check_task

__all__ = [
    "attention", "attention_skip", "channels", "directions", "embedding", "fourier", "heads",
    "intervention", "mlp", "mlp_skip", "neurons", "patterns", "replaced_neurons",
    "replaced_patterns",
]  # fmt: skip

ARGUMENTS = ("answer", "operands")  # of the waves
THIN = 1e-10  # relative; spans thinner than this are float64 rounding
MOST_INDEX = 2**31  # no layer, head or neuron has a number beyond it
_name = partial(text, "name", such_as="'my neurons'", empty=False)


def __dir__() -> list[str]:
    return __all__


def heads(layer: int, which: int | Iterable[int], *, mode: str = "mean") -> Intervention:
    """Attention heads of a layer: `hook_z` of those heads replaced.

    Placebos: as many dimensions of all heads' z in random directions, a little of every head.
    """
    layer, index = _layer(layer), _index(which)
    hook = f"blocks.{layer}.attn.hook_z"

    def draw(setting: Setting) -> list[Intervention]:
        n_heads, _, d_head = setting.snapshot.weights[f"blocks.{layer}.attn.W_Q"].shape
        return random_directions(setting, hook, n_heads * d_head, len(index) * d_head, mode)

    return _entries(_numbered("head", layer, index), "head", hook, -2, index, mode, draw)


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
    layer: int | str, which: int | Iterable[int], *, mode: str = "mean", name: str | None = None
) -> Intervention:
    """Neurons of a layer, after the nonlinearity. Placebos: as many other neurons, at random.

    Where there are fewer others, they are drawn from all neurons; all neurons have no placebo. Of a
    module of one's own, `layer` is the name of a sub-module whose output they are, [n, neurons].
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
    """Neurons at the answer position replaced by values, one row per input."""
    layer, index = layer if isinstance(layer, str) else _layer(layer), _index(which)
    name, hook = _name(name), neurons_name(layer)
    values = tensor("values", values).clone()

    def change(post: Tensor) -> Tensor:
        whole("neuron", int(index.max()), least=0, most=post.shape[-1] - 1, such_as="0")
        answer = (slice(None), *[-1] * (post.ndim - 2), index)  # where there are positions
        return with_values(post, answer, values, hook)

    return Intervention(name, name, ((hook, Edit(change)),), no_placebo="a replacement")


def channels(layer: int, which: int | Iterable[int], *, mode: str = "mean") -> Intervention:
    """Channels of a convolution, after the nonlinearity. Placebos: its other single channels."""
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


def fourier(
    hook_name: str,
    task: ModularTask,
    frequencies: Iterable[int],
    *,
    keep: bool = False,
    terms: str = "answer",
) -> Intervention:
    """Drop Fourier components at any hook point, or keep only those (and the mean).

    `terms="answer"`: cos and sin of w_k f(a, b), on which the answer depends. "operands": the
    eight products of {1, cos w_k, sin w_k} of a and of b other than 1. The logits are
    "unembed.hook_out". Each entry of the activation is taken as a function of the input; inputs
    without an exponent (a zero factor) are left as they are.

    Placebos: every other single frequency that is not key, or random sets of as many.
    """
    check_task(task)
    word("terms", terms, ARGUMENTS)
    keep = truth("keep", keep)
    group = task.answer_group
    if group is None:
        raise InputError(f"{task.no_group_reason}: it has no Fourier components.")
    chosen = checked_frequencies(frequencies, group)

    def change(x: Tensor) -> Tensor:
        if len(x) != task.n_inputs:
            raise InputError(
                f"{hook_name} has {len(x)} inputs, expected all {task.n_inputs} of the table; run "
                "it on task.tokens."
            )
        basis, defined = table_directions(task, chosen, terms)
        flat = x.flatten(1)
        along = basis.to(flat) @ (basis.to(flat).T @ flat)
        if not keep:
            return (flat - along).view_as(x)
        defined = defined.to(x.device)
        mean = flat[defined].mean(dim=0, dtype=torch.float64).to(flat)
        return torch.where(defined[:, None], mean + along, flat).view_as(x)

    def draw(setting: Setting) -> list[Intervention]:
        group = group_of(setting.snapshot)
        doubled = harmonics(setting.frequencies, group.order)
        found = []
        for others in _other_frequencies(setting, chosen, group.order):
            placebo = fourier(hook_name, task, others, keep=keep, terms=terms)
            found.append(replace(placebo, harmonic=bool(doubled & set(others))))
        return found

    verb = "keep only" if keep else "drop"
    listed = ", ".join(map(str, chosen)) or "none"
    some = "one frequency" if len(chosen) == 1 else "frequencies"
    where = "the logits" if hook_name == LOGITS else hook_name
    where = f"{'' if terms == 'answer' else ' of the operands'} at {where}"
    return Intervention(
        f"{verb} k = {listed}{where}",
        f"{verb} {some}{where}",
        _pairs(hook_name, change),
        draw if chosen else None,
        no_placebo=None if chosen else "no frequency is named",
        keeps=keep,
        same=("fourier", hook_name, task, chosen, keep, terms),
    )


def embedding(
    task: ModularTask, frequencies: Iterable[int], *, hook_name: str = "hook_embed"
) -> Intervention:
    """The embedding with only these token frequencies (and its mean) left.

    Of an MLP with two-hot input, `hook_name` is "blocks.0.mlp.hook_pre", rows a and p + b added.
    """
    kept = fourier(hook_name, task, frequencies, keep=True, terms="operands")
    name = kept.name.removesuffix(f" of the operands at {hook_name}")
    name = name.replace("keep only", "embedding keeps")
    return kept.called(name, "embedding keeps the key frequencies")


def directions(
    hook_name: str,
    basis: Float[Tensor, "d r"],
    *,
    keep: bool = False,
    mode: str = "zero",
    name: str = "directions",
) -> Intervention:
    """Drop the part of an activation along given directions, or keep only that.

    `basis` spans the directions in the space of the activation's last axis (of all heads together
    for `hook_z`). What is taken out is set to zero, its mean, or that of another input. Placebos:
    random subspaces of the same dimension.
    """
    word("mode", mode, MODES)
    keep = truth("keep", keep)
    if tensor("basis", basis).ndim != 2 or not bool(basis.isfinite().all()):
        raise InputError(
            f"directions of shape {tuple(basis.shape)} are no basis; give a finite one, [d, r]."
        )
    orthonormal = basis.double()
    if basis.numel():
        left, singular, _ = torch.linalg.svd(orthonormal, full_matrices=False)
        orthonormal = left[:, singular > THIN * singular.max()]

    def change(x: Tensor) -> Tensor:
        flat = x.flatten(2) if x.ndim > 2 else x  # an MLP has no position axis
        if flat.shape[-1] != len(orthonormal):
            raise InputError(
                f"{hook_name} has {flat.shape[-1]} entries, the directions {len(orthonormal)}; "
                f"give them as columns, [{flat.shape[-1]}, r]."
            )
        along = (flat @ orthonormal.to(flat)) @ orthonormal.to(flat).T
        kept, removed = (along, flat - along) if keep else (flat - along, along)
        return (kept + reference(removed, mode)).view_as(x)

    def draw(setting: Setting) -> list[Intervention]:
        d, r = orthonormal.shape
        return random_directions(setting, hook_name, d, r, mode, keep=keep)

    verb = "keep only" if keep else "drop"
    return Intervention(
        f"{verb} {name} at {hook_name} ({mode})",
        f"{verb} {name} ({mode})",
        _pairs(hook_name, change),
        draw,
        no_placebo=None,
        keeps=keep,
    )


def random_directions(
    setting: Setting, hook_name: str, d: int, r: int, mode: str, *, keep: bool = False
) -> list[Intervention]:
    """Placebos of `directions`: random subspaces of that dimension; none of the whole space."""
    if r >= d:
        return []
    stream, found = setting.generator(), []
    for i in range(setting.n):
        basis = torch.randn(d, r, dtype=torch.float64, generator=stream)
        name = f"{r} random directions {i}"
        placebo = directions(hook_name, basis, keep=keep, mode=mode, name=name)
        same = ("random directions", hook_name, d, r, mode, keep, i)
        found.append(replace(placebo, same=same))
    return found


@lru_cache(maxsize=64)
def table_directions(
    task: ModularTask, frequencies: tuple[int, ...], terms: str
) -> tuple[Float[Tensor, "n_inputs r"], Bool[Tensor, " n_inputs"]]:
    """Orthonormal functions of the input (float64), and which inputs they are defined on."""
    group = task.answer_group
    assert group is not None
    defined = group.of_input != UNDEFINED
    basis = fourier_basis(group.order)
    rows = {k: [r for r in (2 * k - 1, 2 * k) if r < group.order] for k in frequencies}
    if terms == "answer":
        columns = [basis[r][group.of_input] for k in frequencies for r in rows[k]]
    else:
        a, b = (u[side] for u, side in zip(group.of_operands, task.operands.T, strict=True))
        # The first pair of each frequency is that of both constants.
        pairs = [ij for k in frequencies for ij in [*product([0, *rows[k]], repeat=2)][1:]]
        columns = [basis[i][a] * basis[j][b] for i, j in pairs]
    stacked = torch.stack(columns, dim=1) if columns else torch.zeros(task.n_inputs, 0)
    stacked = torch.where(defined[:, None], stacked, 0.0)
    grid = None not in group.operand_orders and int(defined.sum()) == group.order**2
    if columns and (group.rows is None or not grid):  # not orthogonal
        centred = stacked.double() - stacked.double()[defined].mean(dim=0)
        left, sizes, _ = torch.linalg.svd(centred * defined[:, None], full_matrices=False)
        return left[:, sizes > THIN * sizes.max()], defined
    return torch.nn.functional.normalize(stacked, dim=0).double(), defined


def harmonics(frequencies: Iterable[int], order: int) -> set[int]:
    """2k and 4k of these frequencies, as frequencies from 1 to order // 2, without themselves.

    >>> sorted(harmonics([18, 53], 113))
    [7, 14, 36, 41]
    """
    doubled = {m * k % order for k in frequencies for m in (2, 4)}
    return {min(k, order - k) for k in doubled} - {0} - set(frequencies)


def _other_frequencies(
    setting: Setting, chosen: tuple[int, ...], order: int
) -> list[tuple[int, ...]]:
    """Other frequencies that are not key: all single ones, or sets of as many, no harmonics."""
    size = len(chosen)
    others = set(range(1, n_frequencies(order) + 1)) - set(setting.frequencies) - set(chosen)
    if size == 1:
        return [(k,) for k in sorted(others)]
    plain = sorted(others - harmonics(setting.frequencies, order))
    if comb(len(plain), size) <= setting.n:
        return list(combinations(plain, size))
    stream, found = setting.generator(), set[tuple[int, ...]]()
    while len(found) < setting.n:
        drawn = torch.randperm(len(plain), generator=stream)[:size].tolist()
        found.add(tuple(sorted(plain[i] for i in drawn)))
    return sorted(found)


def _pairs(hook_name: str, change: Callable[[Tensor], Tensor]) -> tuple[HookPair, ...]:
    """The edit at that hook point, where both TransformerLens lines would do the same."""
    if not isinstance(hook_name, str):
        raise InputError(
            f"{shown(hook_name)} is not the name of a hook point; give such as {LOGITS!r}."
        )
    if not hook_name.endswith("hook_resid_mid"):
        return ((hook_name, Edit(change)),)
    # TransformerLens 4 has this point at the MLP's input, beside the skip. So what attention adds
    # is chosen such that the sum becomes the edited one (with norms after attention: before them).
    read, written = (hook_name.replace("resid_mid", name) for name in ("resid_pre", "attn_out"))
    return around(read, written, lambda stream, out: change(stream + out) - stream, late=2)
