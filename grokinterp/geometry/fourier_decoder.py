"""Can a linear decoder that never saw an input read its answer from activations?

A ridge regression is fitted on all folds of inputs but one and asked about that one. Its targets
are the waves cos w_k f, sin w_k f of the answer's exponent f; the answer that it gives is the class
whose waves lie best along its predictions. Where answers have no waves, the targets are the classes
themselves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.circuits.direction_hooks import random_sets
from grokinterp.fourier.basis import n_frequencies

RIDGE = 1e-3  # of the number of rows, where the mean square of the activations is 1
MULTIPLES = 6  # of a frequency, which neurons that are rectified waves make of it


@dataclass(frozen=True)
class FoldedRidge:
    """Ridge regressions on activations, one without each fold, for any targets.

    With X centred on the other folds and scaled to a mean square of 1, each is
    (X^T X + 1e-3 n I)^-1 X^T Y, n being the number of their rows.

    >>> x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> ridge = FoldedRidge.of(x, torch.arange(200) % 5)
    >>> y = x @ torch.tensor([[1.0], [2.0], [0.0]], dtype=torch.float64) + 7
    >>> bool((ridge.predict(y) - y).abs().max() < 0.02)
    True
    """

    x: Float[Tensor, "n d"]  # centred on all rows
    folds: tuple[Int[Tensor, " _"], ...]  # the rows of each, not always as many
    means: tuple[Float[Tensor, " d"], ...]  # over the rows of the other folds
    factors: tuple[Float[Tensor, "d d"], ...]  # Cholesky, of the other folds' normal equations

    @classmethod
    def of(cls, activations: Float[Tensor, "n d"], fold: Int[Tensor, " n"]) -> "FoldedRidge":
        """Prepared for rows of which `fold` gives each its fold, from 0 on."""
        x = activations.double() - activations.double().mean(dim=0)
        folds = tuple((fold == i).nonzero().flatten() for i in range(int(fold.max()) + 1))
        n, d = x.shape
        squares = [x[rows].T @ x[rows] for rows in folds]
        whole = torch.stack(squares).sum(dim=0)
        means, factors = [], []
        for rows, own in zip(folds, squares, strict=True):
            others = n - len(rows)
            mean = -x[rows].sum(dim=0) / others  # all rows sum to 0
            gram = whole - own - others * torch.outer(mean, mean)
            mean_square = float(gram.trace().clamp(min=0)) / (others * d)
            gram.diagonal().add_(RIDGE * others * mean_square if mean_square else 1.0)
            means.append(mean)
            factors.append(torch.linalg.cholesky(gram))
        return cls(x, folds, tuple(means), tuple(factors))

    def predict(self, targets: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
        """Every row's targets by the regression that was fitted without its fold."""
        y = targets.double()
        products = [self.x[rows].T @ y[rows] for rows in self.folds]
        whole, total = torch.stack(products).sum(dim=0), y.sum(dim=0)
        found = torch.empty_like(y)
        for rows, own, mean, factor in zip(
            self.folds, products, self.means, self.factors, strict=True
        ):
            others = len(y) - len(rows)
            level = (total - y[rows].sum(dim=0)) / others
            matrix = torch.cholesky_solve(whole - own - others * torch.outer(mean, level), factor)
            found[rows] = (self.x[rows] - mean) @ matrix + level
        return found


def waves(
    exponents: Int[Tensor, " n"], frequencies: Sequence[int], order: int
) -> Float[Tensor, "n twice_n_frequencies"]:
    """Cos w_k f and sin w_k f, of each frequency in turn.

    >>> waves(torch.tensor([0, 1]), [1], 4).round(decimals=3).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    steps = torch.outer(exponents, torch.tensor(frequencies, dtype=torch.int64)) % order
    angles = steps.double() * (2 * math.pi / order)
    return torch.stack([angles.cos(), angles.sin()], dim=2).flatten(1)


def wave_answers(
    ridge: FoldedRidge,
    exponents: Int[Tensor, " n"],
    sets: Sequence[Sequence[int]],
    order: int,
) -> list[Bool[Tensor, " n"]]:
    """Whether each row's answer is read, by each set of frequencies.

    argmax over f of sum_k (y_k cos w_k f + z_k sin w_k f), y_k and z_k the predictions.
    """
    every = sorted({k for some in sets for k in some})
    predicted = ridge.predict(waves(exponents, every, order))
    of_classes = waves(torch.arange(order), every, order)
    found = []
    for some in sets:
        columns = torch.tensor([2 * every.index(k) + i for k in some for i in (0, 1)])
        scores = predicted[:, columns] @ of_classes[:, columns].T
        found.append(scores.argmax(dim=1) == exponents)
    return found


def class_answers(
    ridge: FoldedRidge, labels: Int[Tensor, " n"], n_classes: int
) -> Bool[Tensor, " n"]:
    """Whether each row's class is read, by a regression on the classes themselves."""
    targets = torch.nn.functional.one_hot(labels, n_classes).double()
    return ridge.predict(targets).argmax(dim=1) == labels


def multiples(keys: Sequence[int], order: int, most: int = MULTIPLES) -> set[int]:
    """The second to the last multiple of some frequencies, from 0 to order // 2.

    >>> sorted(multiples([9], 113, 6))
    [18, 27, 36, 45, 54]
    """
    found = {m * k % order for m in range(2, most + 1) for k in keys}
    return {min(k, order - k) for k in found}


def placebo_sets(
    keys: Sequence[int], order: int, n: int, generator: torch.Generator
) -> list[tuple[int, ...]]:
    """Up to n sets of as many frequencies as there are key ones, none of them key.

    A nonlinearity makes multiples of a frequency, which can then be read as it can: those up to the
    sixth are left out, or up to as many as leave enough others for n sets. Where fewer others are
    left than there are keys, all of them are the one set.

    >>> placebo_sets([9, 18, 53, 55], 113, 1, torch.Generator().manual_seed(0))
    [(12, 15, 37, 47)]
    """
    others = set(range(1, n_frequencies(order) + 1)) - set(keys)
    for most in range(MULTIPLES, 0, -1):
        among = sorted(others - multiples(keys, order, most))
        if comb(len(among), len(keys)) >= n:
            return random_sets(among, len(keys), n, generator)
    if len(others) < len(keys):
        return [tuple(sorted(others))] if others and n else []
    return random_sets(sorted(others), len(keys), n, generator)
