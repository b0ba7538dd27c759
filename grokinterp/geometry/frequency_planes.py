"""What of a cloud lies along each frequency, and is it a circle there?

The points of a cloud are in the order of a cyclic group, x = 0, ..., n - 1, their mean taken out.
Frequency k has the plane of C_k = sum_x cos(w_k x) X_x and S_k = sum_x sin(w_k x) X_x,
w_k = 2 pi k / n, in which the points of a perfect circle stand at the angle w_k x.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.fourier.basis import fourier_basis, n_frequencies, spectrum

FOLDS = 10
RIDGE = 0.1  # of the mean eigenvalue of the Gram matrix, so that it knows no scale
FEWEST_PHASES = 5  # points: with fewer every two phases are near


@dataclass(frozen=True)
class Frequencies:
    """One number per frequency k = 1, 2, ..., n // 2; NaN where there is none."""

    share: Float[Tensor, " n_frequencies"]
    circularity: Float[Tensor, " n_frequencies"]
    probe_r2: Float[Tensor, " n_frequencies"]


def frequencies_of(points: Float[Tensor, "n d"], *, seed: int = 0) -> Frequencies:
    """Share of the power, circularity and held-out R^2 of every frequency of a centred cloud.

    Circularity is s_2 / s_1, the singular values of the rows C_k and S_k: 1 for a circle, 0 for a
    line. It is near 1 for random points too, as two random vectors are of one length, so it means
    something only where the share does. The last k of an even n has no sine, and so no circle.

    >>> angles = 2 * torch.pi * torch.arange(9, dtype=torch.float64) / 9
    >>> found = frequencies_of(torch.stack([(2 * angles).cos(), 0.5 * (2 * angles).sin()], dim=1))
    >>> [round(x, 6) for x in found.share.tolist()], round(found.circularity[1].item(), 6)
    ([0.0, 1.0, 0.0, 0.0], 0.5)
    """
    n = len(points)
    power = spectrum(points).sum(dim=1)[1:]
    n_waves = (n - 1) // 2 * 2  # but for that of even n which alternates
    sizes = torch.linalg.svdvals((fourier_basis(n)[1 : n_waves + 1] @ points).unflatten(0, (-1, 2)))
    circularity = torch.full_like(power, torch.nan)
    if sizes.shape[1] == 2:
        circularity[: len(sizes)] = sizes[:, 1] / sizes[:, 0]
    return Frequencies(power / power.sum(), circularity, probe_scores(points, seed=seed))


def probe_scores(points: Float[Tensor, "n d"], *, seed: int = 0) -> Float[Tensor, " n_frequencies"]:
    """How well a linear probe finds cos and sin of w_k x of points that it was not fitted on.

    R^2 of both waves together, over ten folds of the points (leaving one out where there are fewer
    than ten), a ridge regression fitted on the others. Where a cloud has more dimensions than
    points, a probe that is scored on the points it was fitted on has R^2 = 1 for any target. Below
    0: worse than the mean of the targets.
    """
    n = len(points)
    waves = fourier_basis(n)[1:].T
    guessed = torch.empty_like(waves)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for fold in range(min(FOLDS, n)):
        held = torch.zeros(n, dtype=torch.bool)
        held[order[fold::FOLDS]] = True
        mean, targets = points[~held].mean(dim=0), waves[~held]
        fitted = points[~held] - mean
        ridge = RIDGE * float(fitted.square().sum()) / len(fitted)
        weights = ridge_weights(fitted, targets - targets.mean(dim=0), ridge)
        guessed[held] = (points[held] - mean) @ weights + targets.mean(dim=0)
    wrong, all_ = (guessed - waves).square().sum(dim=0), waves.square().sum(dim=0)
    k = torch.arange(len(all_)) // 2
    zero = all_.new_zeros(n_frequencies(n))
    return 1 - zero.index_add(0, k, wrong) / zero.index_add(0, k, all_)


def ridge_weights(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n m"], ridge: float
) -> Float[Tensor, "d m"]:
    """The W of least |x W - y|^2 + ridge |W|^2, by the smaller of the two systems."""
    n, d = x.shape
    if d <= n:
        return torch.linalg.solve(x.T @ x + ridge * torch.eye(d, dtype=x.dtype), x.T @ y)
    return x.T @ torch.linalg.solve(x @ x.T + ridge * torch.eye(n, dtype=x.dtype), y)


def phases_in(points: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """The angle of every point in the plane of k, with C_k and S_k at right angles.

    Coordinates are those of the least squares X = a C_k + b S_k, so that an ellipse is a circle.
    """
    plane = fourier_basis(len(points))[2 * k - 1 : 2 * k + 1] @ points
    a, b = (points @ torch.linalg.pinv(plane)).T
    return torch.atan2(b, a)


def phase_rqi(points: Float[Tensor, "n d"], k: int) -> float:
    r"""How often do phases add up as the points do? The share of quadruples with i + j = l + m.

    Over all (i, j, l, m) with i + j = l + m mod n, {i, j} not {l, m}: the share with
    |theta_i + theta_j - theta_l - theta_m| < 4 pi / n (mod 2 pi), theta the angle in the plane of
    k. 1 for a circle; chance is 4 / n, and a little more as the plane is fitted to the points. It
    is the representation quality index of Liu et al. 2022 (arXiv 2205.10343), whose
    E_i + E_j = E_l + E_m no circle obeys, with angles in place of embeddings; the change is this
    package's own. NaN for fewer than 5 points and for a frequency without a sine.
    """
    n = len(points)
    if n < FEWEST_PHASES or 2 * k == n:
        return math.nan
    within, each = 4 * math.pi / n, torch.arange(n)
    theta = phases_in(points, k)
    other = (each[:, None] - each) % n  # j for every sum i + j (rows) and i (columns)
    sums = ((theta + theta[other]) % (2 * math.pi)).sort(dim=1).values
    around = torch.cat([sums - 2 * math.pi, sums, sums + 2 * math.pi], dim=1)
    near = torch.searchsorted(around, sums + within) - torch.searchsorted(
        around, sums - within, right=True
    )
    the_same = 2 * n**2 - int((other == each).sum())  # i, j and j, i are one pair
    return (int(near.sum()) - the_same) / (n**3 - the_same)
