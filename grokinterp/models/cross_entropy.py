"""Cross-entropy that stays exact when the loss is 1e-8."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK_CELLS = 2**19  # float64 copies of more logits would fall out of the cache


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
    block = max(1, BLOCK_CELLS // logits.shape[1])
    if len(logits) > block:
        blocks = zip(logits.split(block), labels.split(block), strict=True)
        return torch.cat([cross_entropies(*block) for block in blocks])
    exact = logits.to(torch.float32 if logits.device.type == "mps" else torch.float64)
    difference = exact - exact.gather(1, labels[:, None])
    lead = difference.detach().amax(dim=1)  # the right class is among them: at least 0
    if torch.is_grad_enabled():
        wrong = (difference - lead[:, None]).exp().scatter(1, labels[:, None], 0.0)
    else:  # the same in place: fresh memory takes longer than the exponentials
        wrong = difference.sub_(lead[:, None]).exp_().scatter_(1, labels[:, None], 0.0)
    return lead + torch.log1p(wrong.sum(dim=1) + torch.expm1(-lead))
