"""Where does a noisy walk go that a loss pulls down and a spring pulls home?

Stochastic gradient Langevin dynamics around one place: of any loss that gives its value and its
gradient on some of its rows. It knows nothing of networks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, number, tensor, whole
from grokinterp.base.errors import InputError, shown

FIFTHS = 5


# The mean loss of some rows at a flat vector of weights, and its gradient there.
BatchLoss = Callable[[Tensor, Tensor], tuple[float, Tensor]]


@dataclass(frozen=True, kw_only=True)
class LangevinChain:
    """The losses that one walk met, and where it ended.

    `losses[t]` is that of its t-th place on the t-th batch; the first place is the start.
    `distances[t]` is how far that place is from the start. Both are shorter than was asked for
    where a loss was not finite: the walk stops there.

    >>> import grokinterp as gi
    >>> bowl = lambda w, rows: (float(w @ w / 2), w)
    >>> chain = gi.geometry.langevin_chain(
    ...     bowl, torch.zeros(100), n_rows=1, n_beta=50, gamma=50, epsilon=0.002, n_draws=400
    ... )
    >>> round(chain.estimate(0.0), 1)  # 100 / 2 times 50 / (50 + 50), and 1 / 0.95 too wide
    26.3
    """

    losses: Float[Tensor, " draws"] = field(repr=False)
    distances: Float[Tensor, " draws"] = field(repr=False)
    end: Float[Tensor, " n_weights"] = field(repr=False)
    n_beta: float
    gamma: float
    epsilon: float
    finite: bool

    def kept(self, burn_in: float = 0.5) -> Float[Tensor, " kept"]:
        """The losses after the first `burn_in` of the chain, at least one of them."""
        n, burn_in = len(self.losses), number("burn_in", burn_in, least=0, most=0.9, such_as="0.5")
        return self.losses[min(math.floor(burn_in * n), n - 1) :]

    def estimate(self, start_loss: float, *, burn_in: float = 0.5) -> float:
        """N beta (mean loss after `burn_in` - the loss at the start); NaN if it ran away."""
        if not self.finite:
            return math.nan
        return self.n_beta * (float(self.kept(burn_in).mean()) - start_loss)

    def fifths(self) -> tuple[float, ...]:
        """Mean loss of each fifth of the chain (NaN where a fifth has no draw)."""
        parts = torch.tensor_split(self.losses, FIFTHS)
        return tuple(float(part.mean()) for part in parts)


def langevin_chain(
    loss: BatchLoss,
    start: Float[Tensor, " n_weights"],
    *,
    n_rows: int,
    n_beta: float,
    gamma: float,
    epsilon: float,
    n_draws: int = 200,
    batch_size: int = 1024,
    seed: int = 0,
) -> LangevinChain:
    r"""A walk w_0, w_1, ... through weights, from w_0 = w* = `start`.

        d_t = n_beta grad L_batch(w_t) + gamma (w_t - w*)
        w_t+1 = w_t - epsilon / 2 d_t + sqrt(epsilon) N(0, 1)

    Stochastic gradient Langevin dynamics (Welling and Teh 2011) of the density
    exp(-n_beta L(w) - gamma / 2 |w - w*|^2), as Lau et al. 2023 (arXiv 2308.12108, section 4) use
    it. `loss(theta, rows)` gives the mean loss of rows (numbers below `n_rows`) at a flat vector
    and its gradient. A batch is `batch_size` rows without replacement, drawn anew at each step, or
    all where there are no more. Places are float64; noise and batches come from `seed`.

    A direction of curvature h relaxes in 2 / (epsilon a) steps, with a = n_beta h + gamma, and the
    walk is 1 / (1 - epsilon a / 4) too wide in it: it needs epsilon a / 4 well below 1, and beyond
    1 it runs away. Gradient noise of batches widens it too, and is not corrected. InputError for
    numbers out of range and a start that is no vector.

    >>> import grokinterp as gi
    >>> flat = lambda w, rows: (0.0, torch.zeros_like(w))
    >>> chain = gi.geometry.langevin_chain(
    ...     flat, torch.zeros(1000), n_rows=1, n_beta=1, gamma=10, epsilon=0.01, n_draws=200
    ... )
    >>> round(float(chain.distances[-1]), 1)  # sqrt(1000 / 10) = 10, in the limit of small steps
    10.2
    """
    home = tensor("start", start, ndim=1).detach().double()
    n_rows = whole("n_rows", n_rows, least=1, such_as="1000")
    n_beta = number("n_beta", n_beta, least=0, such_as="464")
    gamma = number("gamma", gamma, least=0, such_as="1000")
    epsilon = number("epsilon", epsilon, such_as="5e-5")
    n_draws = whole("n_draws", n_draws, least=2, such_as="200")
    batch_size = whole("batch_size", batch_size, least=1, such_as="1024")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    if not bool(home.isfinite().all()):
        raise InputError(f"start is not finite: {shown(start)}; give finite weights.")
    generator = torch.Generator().manual_seed(seed)
    everything = torch.arange(n_rows)
    away = torch.zeros_like(home)  # w - w*: exact where a walk stays near
    losses: list[float] = []
    distances: list[float] = []
    finite = True
    for _ in range(n_draws):
        rows = everything
        if batch_size < n_rows:
            rows = torch.randperm(n_rows, generator=generator)[:batch_size]
        value, gradient = _value_and_gradient(loss, home + away, rows)
        if not (math.isfinite(value) and bool(gradient.isfinite().all())):
            finite = False
            break
        losses.append(value)
        distances.append(float(away.norm()))
        drift = gradient.double().mul(n_beta).add_(away, alpha=gamma)
        # Noise of single precision is a quarter of the time, and as good.
        noise = torch.randn(len(home), generator=generator)
        away = away.sub_(drift, alpha=epsilon / 2).add_(noise, alpha=math.sqrt(epsilon))
    if not losses:
        raise InputError("the loss at the start is not finite; look at an earlier step.")
    options: dict[str, Any] = {"n_beta": n_beta, "gamma": gamma, "epsilon": epsilon}
    return LangevinChain(
        losses=torch.tensor(losses, dtype=torch.float64),
        distances=torch.tensor(distances, dtype=torch.float64),
        end=home + away,
        finite=finite,
        **options,
    )


def _value_and_gradient(loss: BatchLoss, at: Tensor, rows: Tensor) -> tuple[float, Tensor]:
    """What the loss gives, if it is a number and a vector as long as the weights."""
    found = loss(at, rows) if callable(loss) else None
    if isinstance(found, tuple) and len(found) == 2:
        value, gradient = found
        scalar = isinstance(value, int | float) or (isinstance(value, Tensor) and value.ndim == 0)
        if scalar and isinstance(gradient, Tensor) and gradient.shape == at.shape:
            return float(value), gradient
    raise InputError(
        f"loss gives {shown(found)}; give a function of weights and row numbers that returns the "
        f"mean loss, a number, and its gradient, a tensor of shape {tuple(at.shape)}."
    )
