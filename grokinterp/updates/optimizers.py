"""How gradients become steps: the optimisers, in a registry, each with its keys.

    @gi.register.optimizer("adagrad")
    @dataclass(frozen=True, kw_only=True)
    class Adagrad(gi.updates.Optimizer):
        lr: float = 1e-2

        def build(self, parameters):
            return torch.optim.Adagrad(parameters, lr=self.lr)

What `build` returns is any torch.optim.Optimizer. Its learning rates are multiplied with the share
of the warm-up before every update; its state is saved with a run and loaded when the run goes on.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.keys import key
from grokinterp.base.registry import Registry
from grokinterp.updates.kinds import UpdatePart, registering

OPTIMIZERS: Registry[type["Optimizer"]] = Registry("optimizer")


def _betas(given: Any) -> tuple[float, float] | None:
    both = tuple(given) if isinstance(given, list | tuple) else ()
    numbers = [x for x in both if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(both) != 2 or len(numbers) != 2:
        return None
    if any(not 0 <= beta < 1 for beta in numbers):
        raise InputError(f"betas={both} are not both in [0, 1); give such as [0.9, 0.98].")
    return float(both[0]), float(both[1])


def _lr() -> Any:
    return key(1e-3, help="the learning rate", above=0, synonyms=("learning_rate",))


def _decay(about: str) -> Any:
    return key(1.0, help=about, least=0, synonyms=("wd",))


def _two_betas() -> Any:
    return key(
        (0.9, 0.98), help="decay rates of the two moments", read=_betas,
        wanted="two numbers such as [0.9, 0.98]",
    )  # fmt: skip


class Optimizer(UpdatePart):
    """How gradients become steps: a frozen dataclass with a method that builds torch's optimiser.

    Weight decay acts on every trained parameter, biases included.
    """

    @abstractmethod
    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """An optimiser of these parameters, with the values of the keys."""


register_optimizer = registering(OPTIMIZERS, Optimizer)


@register_optimizer("adamw")
@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    elementwise: ClassVar[bool] = True
    lr: float = _lr()
    betas: tuple[float, float] = _two_betas()
    weight_decay: float = _decay("decoupled weight decay")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Torch's own, fused."""
        return torch.optim.AdamW(
            list(parameters), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay,
            fused=True,
        )  # fmt: skip


@register_optimizer("adam")
@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015), its weight decay coupled into the gradient (L2)."""

    elementwise: ClassVar[bool] = True
    lr: float = _lr()
    betas: tuple[float, float] = _two_betas()
    weight_decay: float = _decay("weight decay, coupled into the gradient")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Torch's own, fused."""
        return torch.optim.Adam(
            list(parameters), lr=self.lr, betas=self.betas, weight_decay=self.weight_decay,
            fused=True,
        )  # fmt: skip


@register_optimizer("sgd")
@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Gradient descent, without momentum."""

    elementwise: ClassVar[bool] = True
    lr: float = _lr()
    weight_decay: float = _decay("weight decay, added to the gradient")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Torch's own, fused."""
        return torch.optim.SGD(
            list(parameters), lr=self.lr, weight_decay=self.weight_decay, fused=True
        )
