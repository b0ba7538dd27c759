"""How well are inputs answered? Cross-entropy that stays exact when the loss is 1e-8, margins."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK_CELLS = 2**19  # float64 copies of more logits would fall out of the cache


@dataclass(frozen=True)
class AnswerScores:
    """How well every input is answered."""

    losses: Float[Tensor, " n"]  # cross-entropy in nats (float64)
    right: Bool[Tensor, " n"]  # see `right_answers`
    margins: Float[Tensor, " n"]  # right logit minus the largest wrong one (float64)


def cross_entropies(
    logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    r"""Cross-entropy of each row, in float64 (float32 on a device without it).

    With d_j = l_j - l_c over the wrong classes j and m = max(0, max_j d_j):

        loss = m + log1p( sum_j exp(d_j - m) + expm1(-m) )

    A loss of 1e-9 is a sum of small exponentials, not a difference of numbers near 1, and a wrong
    logit that leads by 1e4 does not overflow. Gradients are exact in the same sense.

    >>> cross_entropies(torch.tensor([[20.0, 0.0], [0.0, 1e4]]), torch.tensor([0, 0])).tolist()
    [2.061153620314381e-09, 10000.0]
    """
    if not torch.is_grad_enabled():
        return answer_scores(logits, labels).losses
    right = labels[:, None]
    exact = _exact(logits)
    difference = exact - exact.gather(1, right)
    lead = difference.detach().amax(dim=1)  # the right class is among them: at least 0
    wrong = (difference - lead[:, None]).exp().scatter(1, right, 0.0).sum(dim=1)
    return lead + torch.log1p(wrong + torch.expm1(-lead))


@torch.no_grad()
def answer_scores(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> AnswerScores:
    """The cross-entropies of all rows, and what follows from the same differences of logits.

    >>> scores = answer_scores(torch.tensor([[2.0, 0.5], [0.0, 1.0]]), torch.tensor([0, 0]))
    >>> scores.right.tolist(), scores.margins.tolist()
    ([True, False], [1.5, -1.0])
    """
    rows = max(1, BLOCK_CELLS // logits.shape[1])
    parts = [
        _block_scores(*block) for block in zip(logits.split(rows), labels.split(rows), strict=True)
    ]
    return AnswerScores(*map(torch.cat, zip(*parts, strict=True)))


def right_answers(
    logits: Float[Tensor, "*n classes"], labels: Int[Tensor, "*n"]
) -> Bool[Tensor, "*n"]:
    """Whether the largest logit is the right one's; of equal ones the first counts as the largest.

    An input with a NaN among its logits is never right: `argmax` takes NaN for the largest number,
    and would call a network that computes nothing right on the inputs whose answer is class 0.

    >>> right_answers(torch.tensor([[2.0, 1.0], [torch.nan, 1.0]]), torch.tensor([0, 0])).tolist()
    [True, False]
    """
    return (logits.argmax(dim=-1) == labels) & ~logits.isnan().any(dim=-1)


def _block_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    own = labels[:, None]
    exact = _exact(logits)
    # In place from here on: fresh memory takes longer than the exponentials.
    wrong = (exact - exact.gather(1, own)).scatter_(1, own, -torch.inf)
    margins = -wrong.amax(dim=1)
    lead = (-margins).clamp_min_(0)
    total = wrong.sub_(lead[:, None]).exp_().sum(dim=1)
    right = margins > 0
    unsure = ~(right | (margins < 0))  # a tie, or NaN
    if unsure.any():
        right[unsure] = right_answers(logits[unsure], labels[unsure])
    return lead + torch.log1p(total + torch.expm1(-lead)), right, margins


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.float32 if logits.device.type == "mps" else torch.float64)
