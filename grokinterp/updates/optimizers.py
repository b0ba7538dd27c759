"""How gradients become steps: the optimisers, in a registry, each with its keys.

    @gi.register.optimizer("adagrad")
    @dataclass(frozen=True, kw_only=True)
    class Adagrad(gi.updates.Optimizer):
        lr: float = 1e-2

        def build(self, parameters):
            return torch.optim.Adagrad(parameters, lr=self.lr)

What `build` returns is any torch.optim.Optimizer of these parameters. During a warm-up its learning
rates are set before every update; later they are its own. What it remembers of a parameter
(`self.state[parameter]`) and in its groups is saved with a run and loaded when the run goes on, and
nothing else is: no attribute, and no random state.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.keys import Kind, key, registers
from grokinterp.base.registry import Registry

OPTIMIZERS: Registry[type["Optimizer"]] = Registry("optimizer")


def _betas(given: Any) -> tuple[float, float] | None:
    both = tuple(given) if isinstance(given, list | tuple) else ()
    numbers = [x for x in both if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(both) != 2 or len(numbers) != 2:
        return None
    if any(not 0 <= beta < 1 for beta in numbers):
        raise InputError(f"betas={both} are not both in [0, 1); give such as [0.9, 0.98].")
    return float(both[0]), float(both[1])


class Optimizer(Kind):
    """How gradients become steps: a frozen dataclass with a method that builds torch's optimiser.

    Weight decay acts on every trained parameter, biases included. `elementwise` says that what
    becomes of a number depends on that number's own gradients and weights alone: then an ensemble
    may hold all its members in one tensor. `decays_alone` says that an update without a gradient
    would multiply every weight by 1 - lr * weight_decay, keys that it then has.

    >>> from dataclasses import dataclass
    >>> import torch
    >>> import grokinterp as gi
    >>> @gi.updates.register_optimizer("rprop")  # gi.register.optimizer is the same
    ... @dataclass(frozen=True, kw_only=True)
    ... class Rprop(gi.updates.Optimizer):
    ...     lr: float = 1e-2
    ...     def build(self, parameters):
    ...         return torch.optim.Rprop(parameters, lr=self.lr)
    >>> optimizer = gi.Recipe(optimizer="rprop", lr=0.1).build("optimizer")
    >>> type(optimizer.build([torch.zeros(3, requires_grad=True)])).__name__
    'Rprop'
    >>> del gi.updates.OPTIMIZERS["rprop"]  # take it out again
    """

    elementwise: ClassVar[bool] = False
    decays_alone: ClassVar[bool] = False

    @abstractmethod
    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """An optimiser of these parameters, with the values of the keys."""


register_optimizer = registers(OPTIMIZERS, Optimizer)


@dataclass(frozen=True, kw_only=True)
class _Fused(Optimizer):
    """One of torch's own, in its fused form, which takes the keys by their names."""

    elementwise: ClassVar[bool] = True
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]]

    lr: float = key(1e-3, help="the learning rate", above=0, synonyms=("learning_rate",))
    weight_decay: float = key(1.0, help="weight decay", least=0, synonyms=("wd",))

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Torch's own, fused."""
        return self.torch_class(list(parameters), fused=True, **self.fields_given())


@register_optimizer("sgd")
@dataclass(frozen=True, kw_only=True)
class SGD(_Fused):
    """Gradient descent, without momentum; its weight decay is added to the gradient."""

    decays_alone: ClassVar[bool] = True  # without momentum that is the same as decoupled decay
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.SGD


@register_optimizer("adamw")
@dataclass(frozen=True, kw_only=True)
class AdamW(_Fused):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    decays_alone: ClassVar[bool] = True
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.AdamW

    betas: tuple[float, float] = key(
        (0.9, 0.98), help="decay rates of the two moments", read=_betas,
        wanted="two numbers such as [0.9, 0.98]",
    )  # fmt: skip


@register_optimizer("adam")
@dataclass(frozen=True, kw_only=True)
class Adam(AdamW):
    """Adam (Kingma and Ba 2015), its weight decay coupled into the gradient (L2)."""

    decays_alone: ClassVar[bool] = False
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.Adam
