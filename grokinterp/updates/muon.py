"""Steps along orthogonalised momentum: Muon for hidden matrices, AdamW for all else."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from grokinterp.base.keys import key
from grokinterp.updates.changes import matrices
from grokinterp.updates.optimizers import (
    DECAY_ON,
    DecayOn,
    Optimizer,
    betas_key,
    register_optimizer,
)

# How the names of matrices that are not hidden begin.
EMBEDDINGS = ("embed.", "pos_embed.", "unembed.")


@register_optimizer("muon")
@dataclass(frozen=True, kw_only=True)
class Muon(Optimizer):
    """Muon (Jordan et al. 2024) of hidden matrices, as torch has it; AdamW of all other weights.

    Momentum of each matrix is brought near to an orthogonal matrix by five steps of Newton and
    Schulz, in bfloat16, and weight decay is decoupled. Hidden are all matrices but embeddings,
    positional ones too, and the unembedding; of an attention head's tensors each head is a matrix
    of its own, of a convolution [out, in * width * height]. `lr` and `momentum` are Muon's,
    `adamw_lr` and `betas` AdamW's, `weight_decay` both theirs. Tveit et al. 2025 (arXiv 2504.16041)
    report that it groks sooner than AdamW.

    >>> import torch
    >>> import grokinterp as gi
    >>> muon = gi.Recipe(optimizer="muon", lr=0.1, weight_decay=0).build("optimizer")
    >>> weights = {"blocks.0.mlp.W_in": torch.zeros(2, 2), "unembed.W_U": torch.zeros(2, 2)}
    >>> for weight in weights.values():
    ...     weight.grad = torch.eye(2)
    >>> _ = muon.build(muon.groups(weights)).step()
    >>> [round(-weight[0, 0].item(), 3) for weight in weights.values()]  # of lr, and of adamw_lr
    [0.113, 0.001]
    """

    decoupled: ClassVar[bool] = True
    lr: float = key(0.02, help="the learning rate of hidden matrices", above=0, most=1e30,
                    synonyms=("learning_rate",))  # fmt: skip
    weight_decay: float = key(1.0, help="weight decay", least=0, synonyms=("wd",))
    decay_on: DecayOn = key("all", help=DECAY_ON)  # noqa: RUF009
    momentum: float = key(0.95, least=0, most=1, help="the momentum of hidden matrices")
    adamw_lr: float = key(1e-3, help="the learning rate of all other weights", above=0)
    betas: tuple[float, float] = betas_key()

    def groups(self, weights: Mapping[str, Tensor]) -> Iterable[Tensor] | list[dict[str, Any]]:
        """Hidden matrices, and of the others those that decay and those that do not."""
        found: dict[tuple[bool, bool], list[Tensor]] = {}
        those_of_layers = matrices(weights)
        for name, weight in weights.items():
            hidden = name in those_of_layers and not name.startswith(EMBEDDINGS)
            decays = self.decay_on == "all" or name in those_of_layers
            found.setdefault((hidden, decays), []).append(weight)
        return [
            {
                "params": those,
                "hidden": hidden,
                "lr": self.lr if hidden else self.adamw_lr,
                "weight_decay": self.weight_decay if decays else 0.0,
            }
            for (hidden, decays), those in found.items()
        ]

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """Both as one, whose groups say which of them each is for."""
        return _Both(parameters, momentum=self.momentum, betas=self.betas)


class _Both(torch.optim.Optimizer):
    """Torch's Muon and AdamW under one roof: the state of a weight is of the weight's own shape.

    Torch's Muon takes two-dimensional parameters alone, so it is given views of the weights and of
    their momenta, anew for every step: what lies in `state` is all that is remembered.
    """

    def __init__(self, parameters: Any, *, momentum: float, betas: tuple[float, float]) -> None:
        super().__init__(parameters, {"hidden": False, "lr": 1e-3, "weight_decay": 0.0})
        self._momentum, self._betas = momentum, betas

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of each, of the weights that have gradients."""
        for group in self.param_groups:
            those = [x for x in group["params"] if x.grad is not None]
            rates = group["lr"], group["weight_decay"]
            if those and group["hidden"]:
                self._muon(those, *rates)
            elif those:
                lr, decay = rates
                inner = torch.optim.AdamW(
                    those, lr=lr, weight_decay=decay, betas=self._betas, fused=True
                )
                inner.state = self.state
                inner.step()

    def _muon(self, weights: list[Tensor], lr: float, weight_decay: float) -> None:
        views = []
        momenta = []
        for weight in weights:
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            parts = zip(
                *map(_matrices, (weight, weight.grad, state["momentum_buffer"])), strict=True
            )
            for view, gradient, momentum in parts:
                view.grad = gradient
                views.append(view)
                momenta.append(momentum)
        inner = torch.optim.Muon(views, lr=lr, weight_decay=weight_decay, momentum=self._momentum)
        for view, momentum in zip(views, momenta, strict=True):
            inner.state[view]["momentum_buffer"] = momentum
        inner.step()


def _matrices(weight: Tensor) -> Iterator[Tensor]:
    """The matrices in a weight, in its own memory: one, one a head, or that of a convolution."""
    detached = weight.detach()
    if weight.ndim == 3:
        yield from detached
    else:
        yield detached.view(len(detached), -1)
