"""Hooks along directions: Fourier components, frequencies of the embedding, any subspace.

They are `fourier`, `embedding` and `directions` of `grokinterp.circuits.hooks`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations, product
from math import comb

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import tensor, truth, word
from grokinterp.base.errors import InputError, shown
from grokinterp.circuits.interventions import (
    MODES,
    HookPair,
    Intervention,
    Setting,
    around,
    reference,
)
from grokinterp.fourier.answers import checked_frequencies, group_of
from grokinterp.fourier.basis import fourier_basis, n_frequencies
from grokinterp.models.blocks import LOGITS, Edit
from grokinterp.tasks.answer_group import UNDEFINED
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import check_task

ARGUMENTS = ("answer", "operands")  # of the waves
THIN = 1e-10  # relative; spans thinner than this are float64 rounding


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

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> drop = gi.hooks.fourier("unembed.hook_out", run.task, [14])
    >>> keep = gi.hooks.fourier("unembed.hook_out", run.task, [1, 8, 14], keep=True)
    >>> found = gi.ablate(run, [drop, keep], placebos=5)
    >>> found.table()[["ablation", "acc_all", "verdict"]].round(2)
                                   ablation  acc_all       verdict
    0             drop k = 14 at the logits      0.5  above chance
    1  keep only k = 1, 8, 14 at the logits      1.0  above chance
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

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> some = [gi.hooks.embedding(run.task, keys) for keys in ([14], [1, 14], [1, 8, 14])]
    >>> gi.ablate(run, some, placebos=5).table()[["ablation", "acc_all", "verdict"]].round(2)
                           ablation  acc_all       verdict
    0        embedding keeps k = 14     0.16  above chance
    1     embedding keeps k = 1, 14     0.53  above chance
    2  embedding keeps k = 1, 8, 14     0.94  above chance
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

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> basis = gi.circuits.neuron_logit_directions(run).basis
    >>> keep = gi.hooks.directions("blocks.0.mlp.hook_post", basis, keep=True, name="u_k, v_k")
    >>> gi.ablate(run, [keep], placebos=5).table()[["acc_all", "ratio", "placebo_min"]].round(1)
       acc_all  ratio  placebo_min
    0      1.0    0.8        573.9
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
    return random_sets(plain, size, setting.n, setting.generator())


def random_sets(
    among: Sequence[int], size: int, n: int, stream: torch.Generator
) -> list[tuple[int, ...]]:
    """Up to n sets of this size, each another one; all that there are where these are no more.

    >>> random_sets([2, 5, 7], 2, 9, torch.Generator())
    [(2, 5), (2, 7), (5, 7)]
    """
    if comb(len(among), size) <= n:
        return list(combinations(among, size))
    found = set[tuple[int, ...]]()
    while len(found) < n:
        drawn = torch.randperm(len(among), generator=stream)[:size].tolist()
        found.add(tuple(sorted(among[i] for i in drawn)))
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
