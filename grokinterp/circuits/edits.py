"""What stands in for an ablated activation, and how an activation reaches a later hook."""

import threading

import torch
from torch import Tensor

from grokinterp.arguments import word
from grokinterp.errors import InputError

MODES = ("zero", "mean", "resample")


class Stash(threading.local):
    """Carries an activation from one hook to a later one of the same forward, in its thread."""

    value: Tensor | None = None

    def put(self, tensor: Tensor) -> Tensor:
        """Keep it, unchanged."""
        self.value = tensor
        return tensor

    def take(self, like: Tensor) -> Tensor:
        """What was kept, at the positions of the later activation; it is kept no longer."""
        value, self.value = self.value, None
        assert value is not None  # the earlier hook has fired: both belong to one block
        return value[:, -like.shape[1] :]


def check_mode(mode: str) -> None:
    """Refuse an unknown mode, naming the nearest one."""
    word("mode", mode, MODES)


def reference(x: Tensor, mode: str, seed: int = 0) -> Tensor:
    """What stands in for an ablated activation [n_inputs, ...].

    zero: zeros. mean: the average over the inputs. resample: the activation of another input, the
    next in a seeded random order, which keeps the distribution and breaks the relation.

    >>> reference(torch.tensor([1.0, 3.0]), "mean").tolist()
    [2.0, 2.0]
    """
    if mode == "zero":
        return torch.zeros_like(x)
    if mode == "mean":
        return x.mean(dim=0, keepdim=True, dtype=torch.float64).to(x.dtype).expand_as(x)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order.roll(-1)[order.argsort()].to(x.device)]


def replace_part(x: Tensor, axis: int, index: Tensor, value: Tensor) -> Tensor:
    """A copy of `x` with the entries `index` along `axis` replaced by `value`."""
    _check_range(x, axis, index)
    return x.index_copy(axis, index.to(x.device), value)


def part(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """The entries `index` of `x` along `axis`."""
    _check_range(x, axis, index)
    return x.index_select(axis, index.to(x.device))


def _check_range(x: Tensor, axis: int, index: Tensor) -> None:
    if int(index.max()) >= x.shape[axis]:
        what = {-1: "neuron", -2: "head", 1: "channel"}[axis]
        raise InputError(f"{what} {index.max()} is not between 0 and {x.shape[axis] - 1}.")
