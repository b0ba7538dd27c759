"""What is done to gradients before a step, and to weights after it: filters and constraints.

    @gi.register.gradient_filter("low-pass")
    @dataclass(frozen=True, kw_only=True)
    class LowPass(gi.updates.GradientFilter):
        memory: float = 0.98

        def start(self, weights):
            return {name: torch.zeros_like(weight) for name, weight in weights.items()}

        def filtered(self, gradients, state):
            for name, slow in state.items():
                slow.lerp_(gradients[name], 1 - self.memory)
            return {name: gradient + state[name] for name, gradient in gradients.items()}

What `start` returns is the state, tensors by names, which are copied. It is saved with a run and
loaded when the run goes on; both methods may change it in place. Neither should draw at random: no
run keeps a random state, so it would not go on to the same bits.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from grokinterp.base.keys import Kind, key, registers
from grokinterp.base.registry import Registry
from grokinterp.models.architecture import is_bias

State = dict[str, Tensor]
GRADIENT_FILTERS: Registry[type["GradientFilter"]] = Registry("gradient_filter")
CONSTRAINTS: Registry[type["Constraint"]] = Registry("constraint")


class GradientFilter(Kind):
    """What the optimiser is given in place of the gradients, by the names of the weights.

    >>> from dataclasses import dataclass
    >>> import torch
    >>> import grokinterp as gi
    >>> @gi.updates.register_gradient_filter("sign")  # gi.register.gradient_filter is the same
    ... @dataclass(frozen=True, kw_only=True)
    ... class SignAlone(gi.updates.GradientFilter):
    ...     times: float = 1.0
    ...     def filtered(self, gradients, state):
    ...         return {name: self.times * x.sign() for name, x in gradients.items()}
    >>> signs = gi.Recipe(gradient_filter="sign", times=2).build("gradient_filter")
    >>> signs.filtered({"W": torch.tensor([0.1, -3.0])}, signs.start({}))
    {'W': tensor([ 2., -2.])}
    >>> del gi.updates.GRADIENT_FILTERS["sign"]  # take it out again
    """

    elementwise: ClassVar[bool] = False  # as of an `Optimizer`

    def start(self, weights: Mapping[str, Tensor]) -> State:
        """The state before the first update, from the trained weights."""
        return {}

    @abstractmethod
    def filtered(self, gradients: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """The gradients that the optimiser gets; those that are given stay as they are."""


class Constraint(Kind):
    """What the trained weights are brought back to after every update.

    `moves` says that it may change them.

    >>> from dataclasses import dataclass
    >>> import torch
    >>> import grokinterp as gi
    >>> @gi.updates.register_constraint("box")  # gi.register.constraint is the same
    ... @dataclass(frozen=True, kw_only=True)
    ... class Box(gi.updates.Constraint):
    ...     side: float = 1.0
    ...     def constrained(self, weights, state):
    ...         return {name: x.clamp(-self.side, self.side) for name, x in weights.items()}
    >>> constraint = gi.Recipe(constraint="box", side=0.5).build("constraint")
    >>> constraint.constrained({"W": torch.tensor([0.25, -3.0])}, constraint.start({}))
    {'W': tensor([ 0.2500, -0.5000])}
    >>> del gi.updates.CONSTRAINTS["box"]  # take it out again
    """

    elementwise: ClassVar[bool] = False  # as of an `Optimizer`
    moves: ClassVar[bool] = True

    def start(self, weights: Mapping[str, Tensor]) -> State:
        """The state before the first update, such as the norms to be kept."""
        return {}

    def initial(self, weights: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """The weights that training begins with; those that it was given, unless said otherwise."""
        return weights

    @abstractmethod
    def constrained(self, weights: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """The weights to go on with; those that are given stay as they are."""


register_gradient_filter = registers(GRADIENT_FILTERS, GradientFilter)
register_constraint = registers(CONSTRAINTS, Constraint)


@register_gradient_filter("none")
@dataclass(frozen=True, kw_only=True)
class NoFilter(GradientFilter):
    """The gradients as they are."""

    elementwise: ClassVar[bool] = True

    def filtered(self, gradients: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """The same."""
        return gradients


@register_constraint("none")
@dataclass(frozen=True, kw_only=True)
class NoConstraint(Constraint):
    """The weights as they are."""

    elementwise: ClassVar[bool] = True
    moves: ClassVar[bool] = False

    def constrained(self, weights: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """The same."""
        return weights


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The keys of every recipe that change the gradients of any filter, for any optimiser."""

    orthogonal_gradients: bool = key(
        False, help="leave of each tensor's gradient what is perpendicular to the tensor"
    )
    clip_norm: float = key(
        0.0,
        least=0,
        help="the largest norm of all gradients together; 0 is no limit",
        synonyms=("grad_clip", "max_grad_norm", "gradient_clipping"),
    )


def perpendicular(
    gradients: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    r"""Gradients without their part along the weights, each tensor by itself, at its old norm.

    g - (w.g) / (w.w) w, then times |g| / |g - ...| (Prieto et al. 2025, arXiv 2501.04697,
    section 5, and their released code). A step along it changes |w| to second order alone: what it
    does not keep is the norm over a finite step, and Adam's step is along another direction.

    >>> import torch
    >>> perpendicular({"W": torch.tensor([3.0, 4.0])}, {"W": torch.tensor([2.0, 0.0])})
    {'W': tensor([0., 5.])}
    """
    found = {}
    for name, gradient in gradients.items():
        g, w = gradient.double(), weights[name].double()  # float32 leaves 1e-7 of w.g, of a sum
        left = g - (w * g).sum() / ((w * w).sum() + 1e-30) * w
        left = left - (w * left).sum() / ((w * w).sum() + 1e-30) * w  # what rounding has left
        real = left.norm() > torch.finfo(gradient.dtype).eps * g.norm()
        times = torch.where(real, g.norm() / (left.norm() + 1e-30), 0.0)
        found[name] = (left * times).to(gradient.dtype)
    return found


def matrices(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the weights that are neither biases nor gains of a normalisation.

    >>> import torch
    >>> names = ("blocks.0.mlp.W_in", "blocks.0.mlp.b_in", "blocks.0.attn.b_Q")
    >>> list(matrices({name: torch.zeros(2, 2) for name in names}))
    ['blocks.0.mlp.W_in']
    """
    gains = (".w", "norm.weight")
    return {
        name: weight
        for name, weight in weights.items()
        if weight.ndim > 1 and not is_bias(name) and not name.endswith(gains)
    }


def clipped(gradients: Mapping[str, Tensor], most: float) -> Mapping[str, Tensor]:
    """Gradients scaled down together where their common norm is above `most`.

    >>> import torch
    >>> clipped({"W": torch.tensor([3.0]), "b": torch.tensor([4.0])}, 1.0)
    {'W': tensor([0.6000]), 'b': tensor([0.8000])}
    """
    norm = norm_of(gradients)
    if not norm > most:
        return gradients
    return {name: gradient * (most / norm) for name, gradient in gradients.items()}


def norm_of(tensors: Mapping[str, Tensor]) -> float:
    """The norm of all these numbers together, added in float64.

    >>> import torch
    >>> norm_of({"W": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    5.0
    """
    return math.hypot(*(float(x.double().norm()) for x in tensors.values()))
