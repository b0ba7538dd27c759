"""The length of a path at spacing 0, extrapolated from its length at three spacings."""

import math
from dataclasses import dataclass

LEAST_ORDER = 0.5  # below, the limit lies further off than the last two halvings came


@dataclass(frozen=True)
class Limit:
    """The length that ever denser checkpoints would tend to, or why there is none to be told.

    `straightness` is the geodesic distance of the ends over that length. `order` is q of
    L(h) = length - C h^q, None where the lengths do not define it: a smooth path has q = 2,
    independent noise at every checkpoint q = -1, a random walk q = -1/2. `reason` is empty where
    there is nothing to explain.
    """

    length: float | None
    straightness: float | None
    order: float | None
    reason: str


def limit_of(one: float, two: float, four: float, *, geodesic: float) -> Limit:
    """Richardson's extrapolation of a length to spacing 0, from spacings 1, 2 and 4.

    With L(h) = L0 - C h^q: q = log2((L2 - L4) / (L1 - L2)) and L0 = L1 + (L1 - L2) / (2^q - 1).
    No limit is told where every halving adds as much as the one before, or more (q <= 0: rough at
    this spacing, as the path of a noisy optimiser is), nor for q < 1/2, where it would lie further
    off than both halvings came together.

    >>> limit_of(10 - 0.01, 10 - 0.04, 10 - 0.16, geodesic=5.0)
    Limit(length=10.0..., straightness=0.5..., order=2.0..., reason='')
    >>> limit_of(4.0, 2.0, 1.0, geodesic=0.5).reason
    'halving the spacing added 1, then 2: no sign of a limit'
    """
    last, before = one - two, two - four
    if last <= 1e-12 * one:  # nothing but rounding
        length, order, reason = one, None, "the last halving of the spacing added nothing"
    else:
        order = math.log2(before / last) if before > 0 else None
        if order is None or order < LEAST_ORDER:
            verdict = (
                "no sign of a limit" if order is None or order <= 0 else "the limit is far off"
            )
            added = f"halving the spacing added {before:.3g}, then {last:.3g}"
            return Limit(None, None, order, f"{added}: {verdict}")
        length, reason = one + last / (2**order - 1), ""
    return Limit(length, geodesic / length if length > 0 else None, order, reason)
