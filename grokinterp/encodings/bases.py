"""Weights in other coordinates, in which they can be scored, zeroed and turned back.

The Fourier basis over the tokens is fixed, with as many coordinates as weights. The singular basis
comes from the weights and is not free: a singular value that stays costs m + n numbers for its two
vectors, so a fraction of singular values is no fraction of weights. `Coordinates.cost` is what a
coordinate costs to store; compare by that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Size, Tensor

from grokinterp.base.checks import finite, tensor, tensors, word
from grokinterp.base.errors import InputError
from grokinterp.fourier.basis import fourier_basis
from grokinterp.fourier.spectra import TABLES
from grokinterp.models.architecture import Weights, is_bias

BASES = ("weights", "fourier", "singular")
FIRST_LAYER = "blocks.0.mlp.W_in"
TOKEN_AXES = {"embed.W_E": 0, "embed_a.W_E": 0, "embed_b.W_E": 0}
ANSWER_AXES = {"unembed.W_U": 1, "unembed.b_U": 0}

Restore = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Coordinates:
    """Weights in another basis by name: their values, the numbers each costs, the way back.

    >>> import grokinterp as gi
    >>> weights = gi.load("mod31-small").weights()
    >>> found = gi.encodings.coordinates(weights, "singular")
    >>> found.values["embed.W_E"].shape, found.cost["embed.W_E"]
    (torch.Size([32]), 64)
    >>> back = found.restore("embed.W_E", found.values["embed.W_E"])
    >>> back.float().allclose(weights["embed.W_E"], atol=1e-5)
    True
    """

    basis: str
    values: dict[str, Tensor] = field(repr=False)
    cost: dict[str, int] = field(repr=False)
    restores: dict[str, Restore] = field(repr=False)  # of tensors that are not as stored

    def restore(self, name: str, values: Tensor) -> Tensor:
        """The weight that has these coordinates; all zero gives zeros exactly."""
        return self.restores[name](values) if name in self.restores else values


def coordinates(
    weights: Mapping[str, Tensor],
    basis: str,
    *,
    tokens: Int[Tensor, " n"] | None = None,
    answers: Int[Tensor, " n"] | None = None,
) -> Coordinates:
    """Weights in the basis "weights" (as they are), "fourier" or "singular" (float64).

    fourier: x_k = sum_t F[k, t] x_t over the operand tokens t in the order of `tokens` (the group's
    order: `grokinterp.fourier.spectra.token_order`), F the rows of `fourier_basis`. It applies to
    the rows of `embed.W_E` (or of each operand's own table), to the columns of `unembed.W_U` (and
    `b_U`) in the order of `answers` (the same, unless given) and, without an embedding, to the rows
    of `blocks.0.mlp.W_in`, [p, width] or both operands' blocks of [2 p, width]. Rows of no operand
    ("=", 0 in multiplication) and all other tensors stay as stored. Coordinate i of a rotated axis
    stands where token `tokens[i]` stood.

    singular: W = U diag(s) V^T, W as `as_matrix` has it; biases stay as stored.

    InputError for an unknown basis, "fourier" without tokens, and "singular" of infinity or NaN.

    >>> W = {"unembed.W_U": torch.tensor([[3.0, 0.0], [0.0, 4.0]])}
    >>> found = coordinates(W, "singular")
    >>> found.values["unembed.W_U"].tolist(), found.cost
    ([4.0, 3.0], {'unembed.W_U': 4})
    """
    tensors("weights", weights)
    for name, given in (("tokens", tokens), ("answers", answers)):
        if given is not None:
            tensor(name, given, ndim=1)
    word("basis", basis, BASES)
    values: Weights = dict(weights)
    cost = dict.fromkeys(weights, 1)
    restores: dict[str, Restore] = {}
    if basis == "singular":
        for name, weight in weights.items():
            if is_bias(name) or weight.ndim < 2:
                continue
            finite(f"entries of {name!r}", weight, give="give finite ones")
            matrix = as_matrix(name, weight).double()
            u, values[name], vh = torch.linalg.svd(matrix, full_matrices=False)
            cost[name] = sum(matrix.shape)
            restores[name] = partial(_from_singular, u=u, vh=vh, name=name, shape=weight.shape)
    elif basis == "fourier":
        for name, (axis, blocks) in token_axes(weights, tokens, answers).items():
            values[name] = _rotated(weights[name], axis, blocks)
            restores[name] = partial(_rotated, axis=axis, blocks=blocks, back=True)
    return Coordinates(basis, values, cost, restores)


def token_axes(
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, " n"] | None,
    answers: Int[Tensor, " n"] | None = None,
) -> dict[str, tuple[int, tuple[Int[Tensor, " n"], ...]]]:
    """The axis of each tensor that is indexed by tokens, and each operand's places along it.

    InputError without tokens, and where no tensor of that size is indexed by them.
    """
    if tokens is None:
        raise InputError("the task has no tokens, so no Fourier basis; give basis='weights'.")
    answers = tokens if answers is None else answers
    p = int(tokens.max()) + 1  # p - 1 is an operand in every order of tokens
    found: dict[str, tuple[int, tuple[Tensor, ...]]] = {
        name: (axis, (places,))
        for axes, places in ((TOKEN_AXES, tokens), (ANSWER_AXES, answers))
        for name, axis in axes.items()
        if name in weights
    }
    if FIRST_LAYER in weights and not any(name in weights for name in TABLES):
        rows = len(weights[FIRST_LAYER])
        if rows not in (p, 2 * p):
            raise InputError(
                f"{FIRST_LAYER!r} has {rows} rows, expected {2 * p}: one for each token of each "
                f"operand, or {p} for their sum; give basis='weights'."
            )
        found[FIRST_LAYER] = (0, (tokens,) if rows == p else (tokens, p + tokens))
    for name, (axis, blocks) in found.items():
        if weights[name].shape[axis] < (least := int(blocks[-1].max()) + 1):
            raise InputError(
                f"{name!r} has shape {tuple(weights[name].shape)}, fewer than {least} tokens."
            )
    if not found:
        raise InputError("no weight is indexed by tokens or answers; give basis='weights'.")
    return found


def as_matrix(name: str, weight: Float[Tensor, "..."]) -> Float[Tensor, "m n"]:
    """A weight as the matrix of the map it is.

    Matrices as they are; W_Q, W_K, W_V [heads, d_model, d_head] as [d_model, heads d_head] and W_O
    [heads, d_head, d_model] as [heads d_head, d_model], all heads at once; kernels
    [out, in, height, width] as [out, in height width].

    >>> as_matrix("blocks.0.attn.W_Q", torch.ones(4, 8, 2)).shape
    torch.Size([8, 8])
    """
    if weight.ndim == 3:
        return weight.flatten(0, 1) if name.endswith(".W_O") else weight.transpose(0, 1).flatten(1)
    return weight.flatten(1)


def _from_singular(values: Tensor, *, u: Tensor, vh: Tensor, name: str, shape: Size) -> Tensor:
    """The weight of which `as_matrix` has these singular values and vectors."""
    matrix = (u * values) @ vh
    if len(shape) == 3 and not name.endswith(".W_O"):
        return matrix.view(shape[1], shape[0], shape[2]).transpose(0, 1).contiguous()
    return matrix.view(shape)


def _rotated(
    x: Tensor, axis: int, blocks: tuple[Tensor, ...], *, back: bool = False
) -> Float[Tensor, "..."]:
    """A float64 copy, the places of each block along the axis in the Fourier basis, or back."""
    x = x.double()
    for block in blocks:
        basis = fourier_basis(len(block))
        part = x.index_select(axis, block).movedim(axis, 0)
        turned = torch.tensordot(basis.T if back else basis, part, dims=1)
        x = x.index_copy(axis, block, turned.movedim(0, axis))
    return x
