"""What random walks around a checkpoint's weights found, and can the number be believed?"""

import math
from dataclasses import dataclass, field
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 0.5  # one direction that the loss alone decides counts 1 / 2
LEFT = 0.5  # of a model's own accuracy: with less, the walk is out of the basin
RISING, APART, HALVED_APART = 0.1, 0.25, 0.25  # of a value: where it warns
SETTLED = 3.0  # epsilon gamma times the draws before the kept ones: e^-3 of the way^2 is left


@dataclass(frozen=True, kw_only=True)
class SampledBasin:
    """The chains around one checkpoint.

    `losses` and `halved_losses` are what `langevin_chain` met on its batches, NaN after a chain
    that was not finite any more; those with half the step length have twice the draws. `radius` is
    sqrt(n_weights / gamma) / |theta|. `curvature` is the largest absolute eigenvalue of the Hessian
    where the first chain ended, by a power iteration on at most 1024 rows: a lower bound.
    """

    step: int | None
    loss: float
    accuracy: float
    n_rows: int
    n_weights: int
    n_beta: float
    gamma: float
    epsilon: float
    burn_in: float
    radius: float
    per_chain: tuple[float, ...]
    halved_per_chain: tuple[float, ...]
    losses: Float[Tensor, "chains draws"] = field(repr=False)
    halved_losses: Float[Tensor, "chains twice"] | None = field(repr=False)
    distances: tuple[float, ...]
    end_accuracies: tuple[float, ...]
    curvature: float

    @property
    def value(self) -> float:
        """The mean of the chains."""
        return fmean(self.per_chain)

    @property
    def spread(self) -> float:
        """The standard deviation over the chains; NaN of a single one, or if one ran away."""
        if len(self.per_chain) < 2:
            return math.nan
        return float(torch.tensor(self.per_chain, dtype=torch.float64).std())

    @property
    def halved(self) -> float:
        """The mean of the chains with half the step length; NaN where there are none."""
        return fmean(self.halved_per_chain) if self.halved_per_chain else math.nan

    @property
    def fifths(self) -> tuple[float, ...]:
        """N beta (mean loss - loss at the start) in each fifth of the chains."""
        parts = torch.tensor_split(self.losses, 5, dim=1)
        return tuple(self.n_beta * (float(part.mean()) - self.loss) for part in parts)

    @property
    def below(self) -> float:
        """The share of the kept draws whose batch has less loss than all rows have at the start."""
        kept = self.losses[:, math.floor(self.burn_in * self.losses.shape[1]) :]
        return float((kept < self.loss).double().mean())

    @property
    def distance(self) -> float:
        """How far the chains ended from the weights, mean over them."""
        return fmean(self.distances)

    @property
    def noise_distance(self) -> float:
        """sqrt(n_weights / gamma): how far noise alone would take them."""
        return math.sqrt(self.n_weights / self.gamma)

    @property
    def end_accuracy(self) -> float:
        """Of all rows where the chains ended, mean over them."""
        return fmean(self.end_accuracies)

    @property
    def stability(self) -> float:
        """Epsilon (n_beta curvature + gamma) / 4: beyond 1 a walk runs away."""
        return self.epsilon * (self.n_beta * self.curvature + self.gamma) / 4

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the number should not be taken as it is; empty where nothing speaks against it."""
        value, found = self.value, []
        if math.isnan(value):
            return ("unstable: a chain ran away; take a smaller epsilon",)
        if self.stability >= 1:
            found.append(
                f"unstable: epsilon (n_beta curvature + gamma) / 4 is {self.stability:.2g} where "
                "the chain ended; from 1 on a walk in a bowl runs away; take a smaller epsilon"
            )
        if self.end_accuracy < LEFT * self.accuracy:
            found.append(
                f"left the basin: the chains end with an accuracy of {self.end_accuracy:.2g}, the "
                f"weights have {self.accuracy:.2g}; take a smaller radius"
            )
        if value < 0:
            found.append(
                "negative: the chains find less loss than the weights have, which are no minimum"
            )
        elif value < LEAST:
            found.append(
                f"saturated: a value of {value:.2g} is less than one direction's 1/2; gamma, not "
                "the loss, holds the chains here; take a larger radius"
            )
        relaxed = self.epsilon * self.gamma * math.floor(self.burn_in * self.losses.shape[1])
        if relaxed < SETTLED:
            found.append(
                f"not settled: epsilon gamma times the draws of the burn-in is {relaxed:.2g}, and "
                f"the spring takes {SETTLED:g}; take more draws"
            )
        if value < LEAST:
            return tuple(found)
        third, fourth, last = self.fifths[2:]
        noise = 0.0 if math.isnan(self.spread) else self.spread
        if third < fourth < last and last - third > max(RISING * value, noise):
            found.append("not settled: the last three fifths still rise; take more draws")
        if self.spread > APART * value:
            found.append(f"spread large: {self.spread:.2g} over the chains; take more of them")
        if abs(self.halved - value) > HALVED_APART * value:
            found.append(
                f"step length: half of it gives {self.halved:.3g}, not {value:.3g}; take a smaller "
                "epsilon"
            )
        return tuple(found)

    def row(self) -> dict[str, object]:
        """Its numbers in a table."""
        names = (
            "step", "value", "spread", "halved", "loss", "accuracy", "n_beta", "gamma", "radius",
            "epsilon", "distance", "noise_distance", "end_accuracy", "below", "curvature",
            "stability",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names} | {
            "warnings": "; ".join(self.warnings)
        }
