"""The real orthonormal Fourier basis on n points, for odd and even n, and transforms into it.

Rows: constant; then cos and sin of w_k x for k = 1, 2, ... (w_k = 2 pi k / n), each divided by its
norm. For even n the last row is the alternating one, cos(pi x), which has no sine partner.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.checks import tensor, whole
from grokinterp.base.errors import InputError

MOST_POINTS = 20_000  # beyond them a basis of n by n fits into no memory
DENSE_POINTS = 256  # up to here a matrix product is faster than a transform of prime length


def n_frequencies(n: int) -> int:
    """Number of frequencies k >= 1 on n points, n // 2.

    >>> n_frequencies(113), n_frequencies(6)
    (56, 3)
    """
    return n // 2


def fourier_basis(n: int) -> Float[Tensor, "n n"]:
    """Orthonormal rows: constant, cos w_1, sin w_1, cos w_2, ... (float64).

    The order is that of Nanda et al. 2023 (cos before sin); TransformerLens' demo has sin first.

    >>> basis = fourier_basis(6)
    >>> torch.allclose(basis @ basis.T, torch.eye(6, dtype=torch.float64))
    True
    """
    return _fourier_basis(whole("n", n, least=1, most=MOST_POINTS, such_as="113")).clone()


@cache
def _fourier_basis(n: int) -> Float[Tensor, "n n"]:
    x = torch.arange(n, dtype=torch.float64)
    rows = [torch.ones(n, dtype=torch.float64)]
    for k in range(1, n_frequencies(n) + 1):
        angle = 2 * torch.pi * ((k * x) % n) / n
        rows.append(angle.cos())
        if 2 * k != n:
            rows.append(angle.sin())
    return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def transform(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """Coefficients in `fourier_basis` along the first axis; sums of squares are kept (Parseval).

    >>> import torch
    >>> import grokinterp as gi
    >>> wave = 2 * torch.cos(2 * torch.pi * 3 * torch.arange(7) / 7)
    >>> gi.fourier.transform(wave).square().round(decimals=3).tolist()  # 1, cos 1, sin 1, ...
    [0.0, 0.0, 0.0, 0.0, 0.0, 14.0, 0.0]
    >>> round(wave.square().sum().item(), 3)
    14.0
    """
    x = _checked(x)
    return torch.tensordot(_fourier_basis(len(x)).to(x.device), x, dims=1)


def transform_2d(x: Float[Tensor, "n n ..."]) -> Float[Tensor, "n n ..."]:
    """Coefficients of a function of (a, b) along both of its first two axes.

    >>> import torch
    >>> import grokinterp as gi
    >>> x = 2 * torch.pi * torch.arange(5) / 5
    >>> product = torch.cos(x)[:, None] * torch.sin(2 * x)  # cos 1 of a, sin 2 of b
    >>> found = gi.fourier.transform_2d(product)
    >>> (found.abs() > 1e-3).nonzero().tolist(), round(found[1, 4].item(), 3)
    ([[1, 4]], 2.5)
    """
    x = _checked(x, axes=2)
    return transform(transform(x).transpose(0, 1)).transpose(0, 1)


def spectrum(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n_frequencies_and_constant ..."]:
    """Sum of squares per frequency along the first axis, cos and sin merged; row 0 is constant.

    Equal to merging the squares of `transform(x)`; beyond 256 points by a fast transform.

    >>> power = spectrum(torch.cos(2 * torch.pi * 2 * torch.arange(7.0) / 7))
    >>> [round(value, 4) for value in power.tolist()]
    [0.0, 0.0, 3.5, 0.0]
    """
    x = _checked(x)
    n = len(x)
    if n <= DENSE_POINTS:
        square = transform(x).square()
        power, sines = torch.cat([square[:1], square[1::2]]), square[2::2]
        power[1 : 1 + len(sines)] += sines
        return power
    power = torch.fft.rfft(x, dim=0, norm="ortho").abs().square()
    power[1 : (n + 1) // 2] *= 2  # the conjugate half; the alternating row of even n has none
    return power


def _checked(x: Float[Tensor, "n ..."], axes: int = 1) -> Float[Tensor, "n ..."]:
    """What is to be transformed along its first axes, in float64."""
    if tensor("x", x).ndim < axes or len(x) == 0 or x.is_complex():
        raise InputError(
            f"x is {x.dtype} of shape {tuple(x.shape)}; give real numbers with at least {axes} "
            f"{'axis' if axes == 1 else 'axes'} and one value."
        )
    if len(x) > MOST_POINTS:
        raise InputError(f"x has {len(x)} points, too many; give at most {MOST_POINTS}.")
    return x.double()


def gini(values: Float[Tensor, " m"]) -> float:
    r"""Gini coefficient of non-negative values, 0 (all equal) to nearly 1 (one holds all).

    1 - 2 sum_i (v_(i) / |v|_1) (m - i + 1/2) / m over values sorted upwards (Hurley and Rickard
    2009, arXiv 0811.4706).

    >>> gini(torch.ones(4)), gini(torch.tensor([0.0, 0.0, 0.0, 1.0]))
    (0.0, 0.75)
    """
    tensor("values", values, ndim=1)
    if not len(values) or values.is_complex() or bool((values < 0).any()):
        raise InputError("values are none, or some are negative; give numbers from 0 on.")
    ascending = values.double().sort().values
    total = ascending.sum()
    if total == 0:
        return float("nan")
    rank = torch.arange(len(values), 0, -1, dtype=torch.float64) - 0.5
    return float(1 - 2 * (ascending / total * rank).sum() / len(values))
