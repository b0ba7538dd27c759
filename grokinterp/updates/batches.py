"""Which rows is an update made of, and at which learning rate? Mini-batches and schedules."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from grokinterp.base.keys import key


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The keys of every recipe that say which rows an update has, and at which rate.

    A recipe has them as attributes, and is what is given as `recipe` below.
    """

    seed: int = key(
        0, least=0, most=2**40, help="of the initial weights and of the order of mini-batches"
    )
    warmup: int = key(0, least=0, help="update number s (from 0) has lr * min(s / warmup, 1)")
    batch_size: int = key(0, least=0, help="rows of an update; 0 is all of them")
    reshuffle: bool = key(True, help="draw the mini-batches of every epoch anew, or once for all")
    lr_schedule: Literal["constant", "linear", "cosine"] = key(
        "constant", help="how the learning rate goes on after the warm-up: constant, linear, cosine"
    )
    lr_end: float = key(
        0.0, least=0, help="of a linear or cosine schedule: the share of lr at the last step"
    )


def warmup_share(recipe: Any, update: int) -> float:
    """The share of its learning rate that an update has, counted from 0: min(update / warmup, 1).

    >>> from grokinterp.recipe import Recipe
    >>> [warmup_share(Recipe(warmup=4), update) for update in (0, 2, 4, 9)]
    [0.0, 0.5, 1.0, 1.0]

    With a warm-up the first update has rate 0, as in the released code of Nanda et al. 2023.
    """
    return min(update / recipe.warmup, 1.0) if recipe.warmup else 1.0


def rate_share(recipe: Any, update: int) -> float:
    """The share of its learning rate that an update has, counted from 0, by the whole schedule.

    After the warm-up, t = (update - warmup) / (steps - warmup) goes from 0 to 1, and the share from
    1 to e = `lr_end`: 1 - (1 - e) t if linear, e + (1 - e) (1 + cos(pi t)) / 2 if cosine
    (Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5, without restarts).

    >>> from grokinterp.recipe import Recipe
    >>> recipe = Recipe(warmup=2, steps=6, lr_schedule="linear", lr_end=0.2)
    >>> [round(rate_share(recipe, update), 2) for update in range(7)]
    [0.0, 0.5, 1.0, 0.8, 0.6, 0.4, 0.2]
    >>> round(rate_share(recipe.replace(lr_schedule="cosine"), 4), 2)
    0.6
    """
    if recipe.lr_schedule == "constant" or update < recipe.warmup:
        return warmup_share(recipe, update)
    through = min((update - recipe.warmup) / max(recipe.steps - recipe.warmup, 1), 1.0)
    left = 1 - through if recipe.lr_schedule == "linear" else (1 + math.cos(math.pi * through)) / 2
    end: float = recipe.lr_end
    return end + (1 - end) * left


class Batches:
    """The training rows of every update: all of them, or a slice of the epoch's permutation.

    The permutation depends only on the seed and the epoch (without `reshuffle` only on the seed),
    so a resumed run needs no history.

    >>> import torch
    >>> import grokinterp as gi
    >>> batches = gi.updates.Batches(gi.Recipe(p=5, batch_size=4), torch.arange(10))
    >>> rows = [batches.rows(update) for update in range(batches.per_epoch)]
    >>> [len(each) for each in rows], torch.cat(rows).sort().values.tolist()
    ([4, 4, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    def __init__(self, recipe: Any, train_indices: Int[Tensor, " n_train"]) -> None:
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
