"""How are the eigenvalues of a loss's Hessian spread: how many are large, small, negative?"""

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import number, whole
from grokinterp.geometry.inputs import Sampled
from grokinterp.geometry.loss_surface import LossSurface, loss_surface
from grokinterp.geometry.spectrum_by_products import quadrature
from grokinterp.reading._load import Subject, progress_bar
from grokinterp.tasks.task import Task

MOST_STEPS = 1000  # each of which keeps a vector as long as the weights
SAMPLES = 1000  # inputs: hundreds of products with all of them would take minutes
STEPS, STARTS = 80, 10  # of Lanczos iteration
BROADENING = 0.01  # of the span of the spectrum


@dataclass(frozen=True, kw_only=True)
class SpectralDensity(Sampled):
    """The spread of a Hessian's eigenvalues, as weighted nodes: the weights add up to 1.

    A weight is a share of all `n_weights` eigenvalues. `loss_is` is "matched" where the logits were
    divided by a `temperature` that makes the mean `loss` what was asked for, else "raw".

    >>> import grokinterp as gi
    >>> found = gi.geometry.spectral_density(
    ...     gi.load("mod31-small"), n_samples=64, n_steps=8, n_starts=2
    ... )
    >>> round(float(found.weights.sum()), 9), len(found.table()), found.loss_is
    (1.0, 16, 'matched')
    """

    step: int | None
    loss_is: str
    temperature: float
    loss: float
    n_weights: int
    n_steps: int
    n_starts: int
    nodes: Float[Tensor, " nodes"] = field(repr=False)
    weights: Float[Tensor, " nodes"] = field(repr=False)

    def moment(self, k: int) -> float:
        """tr(H^k) / n_weights: the mean of the k-th powers of the eigenvalues."""
        return float(self.weights @ self.nodes**k)

    def number_above(self, threshold: float) -> float:
        """How many eigenvalues are larger, as the nodes have it: sure for gaps, rough elsewhere."""
        limit = number("threshold", threshold, above=-math.inf, such_as="1.0")
        return self.n_weights * float(self.weights[self.nodes > limit].sum())

    def width(self, broadening: float = BROADENING) -> float:
        """That share of the span of the nodes, in units of lambda."""
        low, high = float(self.nodes.min()), float(self.nodes.max())
        return broadening * ((high - low) or abs(high) or 1.0)  # where all are one

    def curve(
        self, *, broadening: float = BROADENING, points: int = 400
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Values of lambda, and the density there: shares of all eigenvalues per unit of lambda.

        Each node is a Gaussian whose standard deviation is `broadening` times the span of the
        nodes; the integral over lambda is 1. Peaks are no narrower than that.
        """
        width = self.width(number("broadening", broadening, such_as="0.01"))
        points = whole("points", points, least=2, such_as="400")
        low, high = float(self.nodes.min()), float(self.nodes.max())
        at = torch.linspace(low - 4 * width, high + 4 * width, points, dtype=torch.float64)
        away = (at[:, None] - self.nodes) / width
        density = (-away.square() / 2).exp() @ self.weights / (width * math.sqrt(2 * math.pi))
        return at.numpy(), density.numpy()

    def table(self) -> pd.DataFrame:
        """One row per node, rising: lambda, its share of all eigenvalues, and so many of them."""
        order = self.nodes.argsort()
        shares = self.weights[order]
        return self._frame(
            {
                "eigenvalue": self.nodes[order].tolist(),
                "share": shares.tolist(),
                "count": (shares * self.n_weights).tolist(),
            },
            step=self.step, loss_is=self.loss_is, temperature=self.temperature,
        )  # fmt: skip

    def _lines(self) -> list[str]:
        low, high = float(self.nodes.min()), float(self.nodes.max())
        return [
            f"{self.loss_is} loss {self.loss:.3g} (temperature {self.temperature:.3g}) over "
            f"{self.n_samples} of {self.n_rows} {self.rows} inputs",
            f"{self.n_weights} eigenvalues from {low:.3g} to {high:.3g}, mean "
            f"{self.moment(1):.3g}; {self.number_above(high / 10):.3g} above a tenth of that",
        ]


def spectral_density(
    x: Subject,
    step: int = -1,
    *,
    rows: str = "train",
    match_loss: float | None = 0.1,
    n_samples: int | None = SAMPLES,
    n_steps: int = STEPS,
    n_starts: int = STARTS,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> SpectralDensity:
    r"""How are the eigenvalues of the loss's Hessian spread?

    By stochastic Lanczos quadrature: with `n_starts` random vectors of signs v and `n_steps` of
    Lanczos iteration each, sum_i weight_i f(node_i) estimates tr f(H) / n_weights (Ubaru, Chen and
    Saad 2017; of loss surfaces Ghorbani et al. 2019, arXiv 1901.10159, section 2). `x`, `rows`,
    `n_samples`, `match_loss` and `seed` are those of `curvature`; None for `match_loss` looks at
    the loss as it is. Takes n_steps * n_starts products with H.

    A few large eigenvalues stand out of a bulk at 0. A single one of n_weights has the weight
    1 / n_weights on average over starts, and with few starts only roughly so. It does not show
    which directions these are. InputError as of `curvature`, and where no temperature gives the
    loss that is asked for.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.geometry.spectral_density(run, n_samples=64, n_steps=10, n_starts=1)
    >>> round(found.loss, 3), bool(found.nodes.max() > 10 * -found.nodes.min())
    (0.1, True)
    """
    surface = loss_surface(
        x, step=step, rows=rows, n_samples=n_samples, seed=seed, task=task, train_mask=train_mask
    )
    return density_of(
        surface if match_loss is None else surface.matched(match_loss),
        matched=match_loss is not None, n_steps=n_steps, n_starts=n_starts, progress=progress,
    )  # fmt: skip


def density_of(
    surface: LossSurface,
    *,
    matched: bool,
    n_steps: int = STEPS,
    n_starts: int = STARTS,
    progress: bool = False,
) -> SpectralDensity:
    """The same of a loss surface, whose seed and inputs are taken."""
    n_steps = whole("n_steps", n_steps, least=2, most=MOST_STEPS, such_as="80")
    n_starts = whole("n_starts", n_starts, least=1, such_as="10")
    nodes, weights = quadrature(
        surface.products().hessian, surface.n_weights, n_steps=n_steps,
        starts=progress_bar(range(n_starts), "starts", progress), seed=surface.record["seed"],
    )  # fmt: skip
    return SpectralDensity(
        step=surface.step,
        loss_is="matched" if matched else "raw",
        temperature=surface.temperature,
        loss=surface.loss(),
        n_weights=surface.n_weights,
        n_steps=n_steps,
        n_starts=n_starts,
        nodes=nodes,
        weights=weights,
        notes=surface.notes,
        **surface.record,
    )
