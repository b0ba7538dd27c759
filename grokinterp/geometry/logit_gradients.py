"""Inner products of the gradients of a model's logits at single inputs: its tangent kernel.

A row of gradients for every input is as large as the model, so they are held for all inputs only as
far as memory goes: weights are taken in parts, and the kernel is the sum over them.
"""

from collections.abc import Collection, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.geometry.inputs import Logits
from grokinterp.models.architecture import Weights

HELD = 1 << 28  # bytes of gradients of all inputs at once
AT_ONCE = 1 << 24  # bytes of gradients that are made at once

Part = dict[str, slice]  # some of the numbers of some weights


def kernels_of(
    logits_fn: Logits,
    weights: Weights,
    inputs: Tensor,
    directions: Float[Tensor, "sets probes classes"],
    names: Collection[str],
) -> Float[Tensor, "sets n n"]:
    """Mean over probes v of <grad v.z(x_i), grad v.z(x_j)> by the named weights, a set each.

    `logits_fn(weights, inputs)` maps one input [1, ...] to its logits [1, classes].

    >>> linear = lambda weights, x: x @ weights["W"]
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 0.0]]).double()
    >>> weights = {"W": torch.zeros(2, 1).double()}
    >>> kernels_of(linear, weights, x, torch.ones(1, 1, 1).double(), ["W"])[0].tolist()
    [[5.0, 3.0], [3.0, 9.0]]
    """
    n, (sets, probes, _) = len(inputs), directions.shape
    total = torch.zeros(sets, n, n, dtype=torch.float64)
    rows = _alone if _refuses_vmap(logits_fn, weights, inputs[:1]) else _side_by_side
    for part in parts_of({name: weights[name].numel() for name in names}, HELD // (8 * n)):
        gradients = torch.empty(n, sum(x.stop - x.start for x in part.values())).double()
        for i, direction in enumerate(directions.flatten(0, 1)):
            rows(gradients, logits_fn, weights, inputs, direction, part)
            total[i // probes] += gradients @ gradients.T
    return (total + total.mT) / (2 * probes)  # a matrix product need not be symmetric


def parts_of(sizes: Mapping[str, int], most: int) -> Iterator[Part]:
    """Weights by name in parts of at most so many numbers; one that is larger is cut.

    >>> [{name: (cut.start, cut.stop) for name, cut in part.items()}
    ...  for part in parts_of({"a": 3, "b": 3, "c": 9}, 7)]
    [{'a': (0, 3), 'b': (0, 3)}, {'c': (0, 7)}, {'c': (7, 9)}]
    """
    part: Part = {}
    room = most = max(most, 1)
    for name, size in sizes.items():
        for start in range(0, size, most):
            cut = slice(start, min(start + most, size))
            if cut.stop - cut.start > room:
                yield part
                part, room = {}, most
            part[name] = cut
            room -= cut.stop - cut.start
    if part:
        yield part


def _side_by_side(
    into: Float[Tensor, "n numbers"],
    logits_fn: Logits,
    weights: Weights,
    inputs: Tensor,
    direction: Float[Tensor, " classes"],
    part: Part,
) -> None:
    """The gradients of direction . logits by a part of the weights, a row per input, by vmap."""
    leaves = {name: weights[name] for name in part}

    def of_one(row: Tensor) -> tuple[Tensor, ...]:
        gradient = torch.func.grad(lambda w: logits_fn(weights | w, row[None])[0] @ direction)
        return tuple(found.flatten()[part[name]] for name, found in gradient(leaves).items())

    at_once = max(1, AT_ONCE // (8 * sum(leaf.numel() for leaf in leaves.values())))
    for some in torch.arange(len(inputs)).split(at_once):
        found = torch.func.vmap(of_one)(inputs[some])
        torch.cat(found, dim=1, out=into[some[0] : some[-1] + 1])


def _alone(
    into: Float[Tensor, "n numbers"],
    logits_fn: Logits,
    weights: Weights,
    inputs: Tensor,
    direction: Float[Tensor, " classes"],
    part: Part,
) -> None:
    """The same input by input, for what vmap cannot compute."""
    leaves = {name: weights[name].detach().requires_grad_() for name in part}
    for i in range(len(inputs)):
        with torch.enable_grad():
            value = logits_fn(weights | leaves, inputs[i : i + 1])[0] @ direction
        found = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
        cuts = zip(found, part.values(), strict=True)
        torch.cat([each.flatten()[cut] for each, cut in cuts], out=into[i])


def _refuses_vmap(logits_fn: Logits, weights: Weights, one: Tensor) -> bool:
    try:
        with torch.no_grad():
            torch.func.vmap(lambda row: logits_fn(weights, row[None]))(one)
    except (InputError, RuntimeError):
        return True
    return False
