"""Optimisers, warm-up and the order of mini-batches, as a recipe names them."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.recipe.recipe import Recipe


def build_optimizer(recipe: Recipe, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """AdamW (decoupled weight decay), Adam (weight decay coupled into the gradient) or SGD.

    Weight decay acts on every trained parameter, biases included.
    """
    common: dict[str, Any] = {
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "fused": True,
    }
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(list(parameters), **common)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(list(parameters), betas=recipe.betas, **common)


def learning_rate(recipe: Recipe, update: int) -> float:
    """Rate of an update, counted from 0: `lr * min(update / warmup, 1)`.

    With a warm-up the first update has rate 0, as in the released code of Nanda et al. 2023.

    >>> [learning_rate(Recipe(lr=1.0, warmup=4), update) for update in (0, 2, 4, 9)]
    [0.0, 0.5, 1.0, 1.0]
    """
    return recipe.lr * min(update / recipe.warmup, 1.0) if recipe.warmup else recipe.lr


def batch_rows(
    recipe: Recipe, train_indices: Int[Tensor, " n_train"], update: int
) -> Int[Tensor, " batch"]:
    """Training rows of an update: all of them, or a slice of the epoch's own permutation.

    The permutation depends on the seed and the epoch alone, so a resumed run needs no history.
    """
    n_train, size = len(train_indices), recipe.batch_size
    if size == 0 or size >= n_train:
        return train_indices
    epoch, batch = divmod(update, -(-n_train // size))
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(n_train, generator=generator)
    return train_indices[order[batch * size : (batch + 1) * size]]
