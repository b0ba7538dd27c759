"""What else than cross-entropy can be minimised? Squared error, StableMax, the hinge loss."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from grokinterp.base.keys import key
from grokinterp.updates.objectives import Objective, register_objective


@register_objective("mse")
@dataclass(frozen=True, kw_only=True)
class MeanSquaredError(Objective):
    r"""The mean over rows and classes of (logit - target)^2; the target is 1 of the right class.

    L = sum_ic (z_ic - [c = y_i])^2 / (n C), as torch's MSELoss on one-hot labels, which Liu et al.
    2023 (Omnigrok, arXiv 2210.01117) minimise on images. It is 1/C of the squared length of a row's
    error: with many classes gradients are small.

    >>> import torch
    >>> MeanSquaredError().loss(torch.tensor([[1.0, 2.0]]), torch.tensor([0])).item()
    2.0
    """

    mean_over_rows: ClassVar[bool] = True

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over rows and classes."""
        return _minus_one_hot(logits, labels).square().mean()

    def by_logits(self, logits: Tensor, labels: Tensor) -> Tensor:
        """2 (logit - target) / (n C)."""
        n_each = logits.shape[-1] * logits.shape[-2]
        return _minus_one_hot(logits, labels) * (2 / n_each)


@register_objective("stablemax")
@dataclass(frozen=True, kw_only=True)
class StableMax(Objective):
    r"""Cross-entropy with StableMax for softmax: the mean of -ln(s(z_y) / sum_c s(z_c)), float64.

    s(z) = z + 1 where z >= 0, 1 / (1 - z) elsewhere (Prieto et al. 2025, arXiv 2501.04697,
    section 4). It grows with the first power of a logit, so that the loss of a network that scales
    its logits up falls with the first power of the scale, not exponentially.

    >>> import torch
    >>> round(StableMax().loss(torch.tensor([[3.0, -1.0]]), torch.tensor([0])).item(), 6)  # ln 9/8
    0.117783
    """

    mean_over_rows: ClassVar[bool] = True

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over rows, of float64."""
        z = logits.double()
        # Both branches are computed: where one is not taken, it is of a number that suits it.
        s = torch.where(z >= 0, z.clamp_min(0) + 1, 1 / (1 - z.clamp_max(0)))
        right = labels[:, None]
        wrong = s.scatter(-1, right, 0.0).sum(dim=-1)
        return torch.log1p(wrong / s.gather(-1, right)[:, 0]).mean()


@register_objective("hinge")
@dataclass(frozen=True, kw_only=True)
class Hinge(Objective):
    r"""The mean over rows of max(0, m - margin); a row's margin is z_y - max over c != y of z_c.

    Of Crammer and Singer 2001 (J. Machine Learning Research 2, 265, eq. 5); of two classes it is
    the hinge loss of z_1 - z_0, which Merrill et al. 2023 (arXiv 2303.11873) minimise. Rows whose
    margin is above m have no gradient.

    >>> import torch
    >>> Hinge().loss(torch.tensor([[3.0, 2.5], [9.0, 0.0]]), torch.tensor([0, 0])).item()
    0.25
    """

    mean_over_rows: ClassVar[bool] = True
    margin: float = key(1.0, above=0, help="the margin from which on a row adds no loss")

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over rows."""
        right = labels[:, None]
        rival = logits.scatter(-1, right, -torch.inf).amax(dim=-1)
        margins = logits.gather(-1, right)[:, 0] - rival
        return (self.margin - margins).clamp_min(0).mean()


def _minus_one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    right = labels[..., None]
    return logits.scatter_add(-1, right, logits.new_full(right.shape, -1.0))
