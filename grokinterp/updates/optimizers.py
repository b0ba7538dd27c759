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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.keys import Kind, key, registers
from grokinterp.base.registry import Registry
from grokinterp.updates.changes import matrices

OPTIMIZERS: Registry[type["Optimizer"]] = Registry("optimizer")
DecayOn = Literal["all", "matrices"]
DECAY_ON = "which weights decay: all, or matrices alone, without biases and gains"


def _betas(given: Any) -> tuple[float, float] | None:
    both = tuple(given) if isinstance(given, list | tuple) else ()
    numbers = [x for x in both if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(both) != 2 or len(numbers) != 2:
        return None
    if any(not 0 <= beta < 1 for beta in numbers):
        raise InputError(f"betas={both} are not both in [0, 1); give such as [0.9, 0.98].")
    return float(both[0]), float(both[1])


def betas_key() -> Any:
    """The key of Adam's two moments."""
    return key(
        (0.9, 0.98), help="decay rates of the two moments", read=_betas,
        wanted="two numbers such as [0.9, 0.98]",
    )  # fmt: skip


class Optimizer(Kind):
    """How gradients become steps: a frozen dataclass with a method that builds torch's optimiser.

    Weight decay of ours acts on every trained parameter, biases included, unless
    `decay_on="matrices"`. `elementwise` says that what becomes of a number depends on that number's
    own gradients and weights alone: then an ensemble may hold all its members in one tensor.
    `decoupled` says that without a gradient an update would multiply the weights of each of torch's
    groups by 1 - lr * weight_decay, so that what the decay does can be told from the rest.
    `penalises` says that its decay is the gradient of weight_decay |theta|^2 / 2, a term of a loss.

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
    decoupled: ClassVar[bool] = False
    penalises: ClassVar[bool] = False

    def groups(self, weights: Mapping[str, Tensor]) -> Iterable[Tensor] | list[dict[str, Any]]:
        """What `build` is given: all weights, or torch's parameter groups of them, by name."""
        return weights.values()

    def decays(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Lr * weight_decay of each weight at the full rate, by the keys and the groups."""
        own = {name: getattr(self, name, 0.0) for name in ("lr", "weight_decay")}
        found = {}
        for group in self.groups(weights):
            rates = own | group if isinstance(group, dict) else own
            for weight in group["params"] if isinstance(group, dict) else [group]:
                found[id(weight)] = rates["lr"] * rates["weight_decay"]
        return {name: found[id(weight)] for name, weight in weights.items()}

    @abstractmethod
    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """An optimiser of these parameters, or groups of them, with the values of the keys."""


register_optimizer = registers(OPTIMIZERS, Optimizer)


@dataclass(frozen=True, kw_only=True)
class _Fused(Optimizer):
    """One of torch's own, in its fused form, which takes the keys by their names."""

    elementwise: ClassVar[bool] = True
    decoupled: ClassVar[bool] = True
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]]

    lr: float = key(1e-3, help="the learning rate", above=0, synonyms=("learning_rate",))
    weight_decay: float = key(1.0, help="weight decay", least=0, synonyms=("wd",))
    decay_on: DecayOn = key("all", help=DECAY_ON)  # noqa: RUF009

    def groups(self, weights: Mapping[str, Tensor]) -> Iterable[Tensor] | list[dict[str, Any]]:
        """All weights, or those that decay and those that do not."""
        if self.decay_on == "all":
            return weights.values()
        found = matrices(weights)
        others = [weight for name, weight in weights.items() if name not in found]
        groups: list[dict[str, Any]] = [{"params": list(found.values())}] if found else []
        return groups + ([{"params": others, "weight_decay": 0.0}] if others else [])

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Torch's own, fused."""
        own = {name: value for name, value in self.fields_given().items() if name != "decay_on"}
        return self.torch_class(list(parameters), fused=True, **own)


@register_optimizer("sgd")
@dataclass(frozen=True, kw_only=True)
class SGD(_Fused):
    """Gradient descent, without momentum; its weight decay is added to the gradient."""

    penalises: ClassVar[bool] = True
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.SGD


@register_optimizer("adamw")
@dataclass(frozen=True, kw_only=True)
class AdamW(_Fused):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.AdamW

    betas: tuple[float, float] = betas_key()


@register_optimizer("adam")
@dataclass(frozen=True, kw_only=True)
class Adam(AdamW):
    """Adam (Kingma and Ba 2015), its weight decay coupled into the gradient (L2)."""

    decoupled: ClassVar[bool] = False
    penalises: ClassVar[bool] = True
    torch_class: ClassVar[Callable[..., torch.optim.Optimizer]] = torch.optim.Adam
