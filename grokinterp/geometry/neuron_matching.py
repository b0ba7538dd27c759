"""Which neurons and heads of one network are those of another, up to their order?

Neurons of a layer, heads of an attention layer and channels of a convolution can change places
without any change of what the network computes. Of all orders the one is found in which two
networks' weights have the largest inner product (weight matching of Ainsworth, Hayase and
Srinivasa 2023, arXiv 2209.04836, section 3.2).
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from grokinterp.models.architecture import Weights
from grokinterp.models.interchangeable_units import Place, Units

ROUNDS = 100  # over all layers; it takes a few
ROUNDING = 1e-9  # relative: a gain that is smaller is none


def match_units(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], units: Units
) -> tuple[Weights, dict[str, Int[Tensor, " units"]]]:
    """The `others` with their units in the order of those in `weights`, and that order.

    Kinds of units are taken one after the other, each by the best assignment given the rest, until
    none changes: exact where no weight belongs to two kinds, as in a transformer, else an optimum
    that no single kind can better.
    """
    found = dict(others)
    orders = {name: torch.arange(len(places[0].rows(weights))) for name, places in units.items()}
    for _ in range(ROUNDS):
        changed = False
        for name, places in units.items():
            order = _best_order(weights, found, places)
            if order is None:
                continue
            changed = True
            orders[name] = orders[name][order]
            for place in places:
                found[place.weight] = place.ordered(found[place.weight], order)
        if not changed:
            break
    return found, orders


def _best_order(
    weights: Mapping[str, Tensor], others: Mapping[str, Tensor], places: Sequence[Place]
) -> Int[Tensor, " units"] | None:
    """The order of the others' units with the largest inner product; None where theirs has it."""
    likeness = torch.stack([p.rows(weights) @ p.rows(others).T for p in places]).sum(dim=0)
    _, columns = linear_sum_assignment(likeness.numpy(), maximize=True)
    order = torch.from_numpy(columns)
    gain = likeness.gather(1, order[:, None]).sum() - likeness.trace()
    return order if gain > ROUNDING * likeness.diagonal().abs().sum() else None
