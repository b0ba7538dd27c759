"""What is minimised over the training rows of an update: the objectives, in a registry.

    @gi.register.objective("mean-square")
    @dataclass(frozen=True, kw_only=True)
    class MeanSquare(gi.updates.Objective):
        target: float = 1.0

        def loss(self, logits, labels):
            right = torch.nn.functional.one_hot(labels, logits.shape[-1]) * self.target
            return (logits - right).square().mean()

Metrics stay what they are, cross-entropies and accuracies of the logits, whatever is minimised and
at whatever temperature.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError, shown
from grokinterp.base.keys import Kind, key, registers
from grokinterp.base.plugins import strangers
from grokinterp.base.registry import Registry
from grokinterp.models.architecture import Loss
from grokinterp.models.cross_entropy import cross_entropies
from grokinterp.models.layers import mean_loss_gradient

OBJECTIVES: Registry[type["Objective"]] = Registry("objective")


class Objective(Kind):
    """What is minimised: a number that the logits of the rows of an update give.

    >>> from dataclasses import dataclass
    >>> import torch
    >>> import grokinterp as gi
    >>> @gi.updates.register_objective("all-wrong")  # gi.register.objective is the same
    ... @dataclass(frozen=True, kw_only=True)
    ... class AllWrong(gi.updates.Objective):
    ...     margin: float = 1.0
    ...     def loss(self, logits, labels):
    ...         return torch.nn.functional.multi_margin_loss(logits, labels, margin=self.margin)
    >>> objective = gi.Recipe(objective="all-wrong", margin=2).build("objective")
    >>> objective.loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item()  # (2 - 1) / 2 classes
    0.5
    >>> del gi.updates.OBJECTIVES["all-wrong"]  # take it out again
    """

    mean_over_rows: ClassVar[bool] = False  # it is a mean of numbers of one row each

    @abstractmethod
    def loss(
        self, logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The number, differentiable in the logits."""

    def checked_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The number; InputError for what is none, or does not come from the logits."""
        with strangers(f"objective={self.kind!r}", self):
            found = self.loss(logits, labels)
        if not isinstance(found, Tensor) or found.ndim or not found.requires_grad:
            raise InputError(
                f"objective={self.kind!r} gives {shown(found)}; give one number, a tensor without "
                "axes that is computed from the logits, such as a mean over the rows."
            )
        return found

    def by_logits(
        self, logits: Float[Tensor, "*members n classes"], labels: Int[Tensor, "*members n"]
    ) -> Float[Tensor, "*members n classes"]:
        """Its gradient by the logits, a new tensor; of each member's own rows where there are any.

        By autograd, unless an objective has a better way.
        """
        if labels.ndim > 1:
            each = zip(logits, labels, strict=True)
            return torch.stack([self.by_logits(*member) for member in each])
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(self.checked_loss(leaf, labels), leaf)
        return found.clone()


register_objective = registers(OBJECTIVES, Objective)


@register_objective("cross_entropy")
@dataclass(frozen=True, kw_only=True)
class CrossEntropy(Objective):
    """The mean cross-entropy, in nats, exact when it is 1e-8: so are its gradients.

    >>> CrossEntropy().loss(torch.tensor([[20.0, 0.0]]), torch.tensor([0])).item()
    2.061153620314381e-09
    """

    mean_over_rows: ClassVar[bool] = True

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over rows of the cross-entropy."""
        return cross_entropies(logits, labels).mean()

    def by_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(softmax - one_hot(label)) / n, without cancellation."""
        return mean_loss_gradient(logits, labels)


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """The key of every recipe that scales logits for the objective alone."""

    output_scale: float = key(
        1.0,
        above=0,
        help="logits are multiplied by it for the objective alone: 1 / temperature",
        synonyms=("temperature", "logit_scale"),
    )


def objective_of(recipe: Any) -> Loss:
    """What a recipe minimises: its objective, of the logits times its `output_scale`.

    >>> import torch
    >>> import grokinterp as gi
    >>> warm = gi.updates.objective_of(gi.Recipe(output_scale=0.1))
    >>> logits = torch.tensor([[20.0, 0.0]], requires_grad=True)
    >>> round(warm.checked_loss(logits, torch.tensor([0])).item(), 3)  # that of a margin of 2
    0.127
    """
    objective: Objective = recipe.build("objective")
    return objective if recipe.output_scale == 1 else _Scaled(objective, recipe.output_scale)


@dataclass(frozen=True)
class _Scaled:
    """An objective of logits times a number, which weights and metrics know nothing of."""

    objective: Objective
    scale: float

    @property
    def mean_over_rows(self) -> bool:
        return self.objective.mean_over_rows

    def checked_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.objective.checked_loss(logits * self.scale, labels)

    def by_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.objective.by_logits(logits * self.scale, labels) * self.scale
