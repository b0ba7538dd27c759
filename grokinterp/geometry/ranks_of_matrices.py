"""How many directions does a matrix use? Four effective ranks, and that of a cloud of points.

A matrix of floats has full rank; an effective rank says how many of its singular values count. The
definitions disagree, most of all where a few values lead a long tail, so each has its name here.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.checks import cloud, tensor
from grokinterp.base.errors import InputError

Singular = Float[Tensor, " n"]  # singular values over the largest, so that no sum overflows


def _entropic(weights: Singular) -> float:
    """exp(H) of what is given, normalised to sum 1."""
    return float(torch.special.entr(weights / weights.sum()).sum().exp())


DEFINITIONS: dict[str, Callable[[Singular], float]] = {
    "entropy_rank": _entropic,
    "entropy_rank_squared": lambda s: _entropic(s.square()),
    "stable_rank": lambda s: float(s.square().sum()),
    "participation": lambda s: float(s.square().sum() ** 2 / s.pow(4).sum()),
}


def effective_rank(matrix: Float[Tensor, "m n"]) -> float:
    r"""exp(H) of the normalised singular values, p_i = s_i / sum s, H = - sum p_i log p_i.

    From 1 to min(m, n), however small the values are. Roy and Vetterli 2007 (EUSIPCO); DeMoss et
    al. 2024 (arXiv 2412.09810) follow it over grokking. InputError for a matrix of zeros, which has
    none. It does not say which directions the network reads.

    >>> round(effective_rank(torch.eye(3)), 6), round(effective_rank(torch.ones(3, 2)), 6)
    (3.0, 1.0)
    """
    return effective_ranks(matrix)["entropy_rank"]


def effective_ranks(matrix: Float[Tensor, "m n"]) -> dict[str, float]:
    r"""Four effective ranks of a matrix, from its singular values s in float64.

    entropy_rank          exp(H) of p_i = s_i / sum s (Roy and Vetterli 2007, EUSIPCO)
    entropy_rank_squared  exp(H) of p_i = s_i^2 / sum s^2, shares of the sum of squares
    stable_rank           sum s^2 / max s^2 (Rudelson and Vershynin 2007, arXiv math/0503442)
    participation         (sum s^2)^2 / sum s^4, 1 over the sum of the squared shares

    All are from 1 to the rank, equal to it where all nonzero values are equal, and do not depend on
    the scale of the matrix; stable_rank <= participation <= entropy_rank_squared <= entropy_rank.
    InputError for a matrix of zeros, and for entries that are not finite.

    >>> two_and_a_tail = torch.diag(torch.tensor([1.0, 1.0, *[0.1] * 8]))
    >>> {name: round(x, 2) for name, x in effective_ranks(two_and_a_tail).items()}
    {'entropy_rank': 5.41, 'entropy_rank_squared': 2.48, 'stable_rank': 2.08, 'participation': 2.16}
    """
    if not tensor("matrix", matrix, ndim=2).isfinite().all():
        raise InputError("a matrix with entries that are not finite has no effective rank.")
    singular = torch.linalg.svdvals(matrix.double())
    if not singular.sum() > 0:
        raise InputError("a matrix of zeros has no effective rank; leave it out.")
    return {name: rank(singular / singular.max()) for name, rank in DEFINITIONS.items()}


def participation_ratio(points: Float[Tensor, "n d"]) -> float:
    r"""In how many directions does a cloud spread? (sum l)^2 / sum l^2 of its variances l.

    l are the squared singular values of the points [n, d], their mean taken out (float64). From 1
    for points on a line to min(n - 1, d) where all variances are equal: 2 for a circle, 2 |K| for
    |K| circles of one size in planes of their own. It is the `participation` of `effective_ranks`.
    InputError for points that are all equal, or not finite.

    Few directions do not say what lies along them: a flat cloud has 2, as a circle does.

    >>> import math, torch
    >>> angles = 2 * math.pi * torch.arange(7) / 7
    >>> circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    >>> round(participation_ratio(circle + 10), 5)
    2.0
    """
    centred = cloud("points", points)
    return effective_ranks(centred - centred.mean(dim=0))["participation"]
