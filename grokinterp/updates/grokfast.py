"""What do slow gradients do? The two filters of Grokfast (Lee et al. 2024, arXiv 2405.20233).

Both add a multiple of an average of past gradients to each gradient, before the optimiser. Their
baseline has no weight decay and their filtered runs have: compare with a baseline that is tuned
too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from grokinterp.base.keys import key
from grokinterp.updates.changes import GradientFilter, State, register_gradient_filter

ADDED = "how much of the average is added to a gradient"
_UPDATES = ".updates"  # how many there have been; no weight has a name that begins with a dot


@register_gradient_filter("ema")
@dataclass(frozen=True, kw_only=True)
class GrokfastEMA(GradientFilter):
    r"""Grokfast-EMA: g + lambda mu, where mu <- alpha mu + (1 - alpha) g.

    mu begins at the first gradient, as in the released code, so that the first update is that of
    (1 + lambda) g. (Algorithm 2 of the paper begins with the weights, which is a misprint.)

    >>> import torch
    >>> ema = GrokfastEMA(filter_alpha=0.5, filter_lambda=2.0)
    >>> state = ema.start({"W": torch.zeros(1)})
    >>> [ema.filtered({"W": torch.tensor([g])}, state)["W"].item() for g in (1.0, 3.0, 0.0)]
    [3.0, 7.0, 2.0]
    """

    elementwise: ClassVar[bool] = True
    filter_alpha: float = key(0.98, least=0, most=1, help="the memory of the average of gradients")
    filter_lambda: float = key(2.0, least=0, most=1e30, help=ADDED)

    def start(self, weights: Mapping[str, Tensor]) -> State:
        """No updates yet, and an average of none."""
        return {_UPDATES: torch.tensor(0), **{n: torch.zeros_like(w) for n, w in weights.items()}}

    def filtered(self, gradients: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """Each gradient with its slow part once more."""
        first = not int(state[_UPDATES])
        state[_UPDATES] += 1
        found = {}
        for name, gradient in gradients.items():
            slow = state[name]
            slow.copy_(gradient) if first else slow.lerp_(gradient, 1 - self.filter_alpha)
            found[name] = gradient.add(slow, alpha=self.filter_lambda)
        return found


@register_gradient_filter("ma")
@dataclass(frozen=True, kw_only=True)
class GrokfastMA(GradientFilter):
    r"""Grokfast-MA: g + lambda times the mean of the last `filter_window` gradients, g among them.

    Only once there are so many: before, gradients are as they are. The window is kept whole, and
    with it `filter_window` times the memory of the weights, here and in a run to be resumed.

    >>> import torch
    >>> ma = GrokfastMA(filter_window=2, filter_lambda=5.0)
    >>> state = ma.start({"W": torch.zeros(1)})
    >>> [ma.filtered({"W": torch.tensor([g])}, state)["W"].item() for g in (1.0, 3.0, 0.0)]
    [1.0, 13.0, 7.5]
    """

    filter_window: int = key(100, least=1, most=10_000, help="how many gradients are averaged")
    filter_lambda: float = key(5.0, least=0, most=1e30, help=ADDED)

    def start(self, weights: Mapping[str, Tensor]) -> State:
        """No updates yet, and an empty window."""
        window = {n: w.new_zeros(self.filter_window, *w.shape) for n, w in weights.items()}
        return {_UPDATES: torch.tensor(0), **window}

    def filtered(self, gradients: Mapping[str, Tensor], state: State) -> Mapping[str, Tensor]:
        """Each gradient with the mean of its window, if that is full."""
        place = int(state[_UPDATES]) % self.filter_window
        state[_UPDATES] += 1
        for name, gradient in gradients.items():
            state[name][place] = gradient
        if int(state[_UPDATES]) < self.filter_window:
            return gradients
        return {
            name: gradient.add(state[name].mean(dim=0), alpha=self.filter_lambda)
            for name, gradient in gradients.items()
        }
