"""Optimisers, warm-up and the order of mini-batches, as a recipe names them."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor


class Hyperparameters(Protocol):
    """The keys of a recipe that say how weights change; a `Recipe` has them."""

    @property
    def optimizer(self) -> str: ...  # noqa: D102
    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def betas(self) -> tuple[float, float]: ...  # noqa: D102
    @property
    def warmup(self) -> int: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def reshuffle(self) -> bool: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


def build_optimizer(recipe: Hyperparameters, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """AdamW (decoupled weight decay), Adam (weight decay coupled into the gradient) or SGD.

    Weight decay acts on every trained parameter, biases included.
    """
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(list(parameters), **common)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(list(parameters), betas=recipe.betas, **common)


def learning_rate(recipe: Hyperparameters, update: int) -> float:
    """Rate of an update, counted from 0: `lr * min(update / warmup, 1)`.

    >>> from grokinterp.recipe import Recipe
    >>> [learning_rate(Recipe(lr=1.0, warmup=4), update) for update in (0, 2, 4, 9)]
    [0.0, 0.5, 1.0, 1.0]

    With a warm-up the first update has rate 0, as in the released code of Nanda et al. 2023.
    """
    return recipe.lr * min(update / recipe.warmup, 1.0) if recipe.warmup else recipe.lr


class Batches:
    """The training rows of every update: all of them, or a slice of the epoch's permutation.

    The permutation depends only on the seed and the epoch (without `reshuffle` only on the seed),
    so a resumed run needs no history.
    """

    def __init__(self, recipe: Hyperparameters, train_indices: Int[Tensor, " n_train"]) -> None:
        self._recipe, self._rows = recipe, train_indices
        self._order: tuple[int, Int[Tensor, " n_train"]] | None = None
        n_train, size = len(train_indices), recipe.batch_size
        self._full = size == 0 or size >= n_train
        self.per_epoch = 1 if self._full else -(-n_train // size)

    def rows(self, update: int) -> Int[Tensor, " batch"]:
        """The rows of an update, counted from 0."""
        if self._full:
            return self._rows
        epoch, batch = divmod(update, self.per_epoch)
        shuffle = epoch if self._recipe.reshuffle else 0
        if self._order is None or self._order[0] != shuffle:
            generator = torch.Generator().manual_seed(self._recipe.seed * 1_000_003 + shuffle)
            order = torch.randperm(len(self._rows), generator=generator).to(self._rows.device)
            self._order = shuffle, self._rows[order]
        size = self._recipe.batch_size
        return self._order[1][batch * size : (batch + 1) * size]
