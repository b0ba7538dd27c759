"""Which rows of the table are trained on? The two published rules.

Both shuffle the rows `a*p + b` and train on the first `int(train_fraction * n)` of them.
"""

import random
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, real, refused, whole, word
from grokinterp.base.errors import InputError, shown
from grokinterp.base.keys import key

SplitRule = Literal["torch", "python"]
WHOLE_NUMBERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, kw_only=True)
class DrawnSplit:
    """How the training rows of a task without a split of its own are drawn."""

    train_fraction: float = key(
        0.3, help="the share of the inputs to train on", synonyms=("frac_train",)
    )
    split: SplitRule = key(  # noqa: RUF009
        "torch", help="rule that draws the training rows: torch.randperm or random.shuffle"
    )
    data_seed: int = key(
        0, least=0, most=2**40, help="of the split, and of the labels of a random operation"
    )


def train_indices(
    n_inputs: int, train_fraction: float, *, rule: str, seed: int
) -> Int[Tensor, " n_train"]:
    """Rows of the training set, in the order in which the rule draws them.

    `rule="torch"` is `torch.randperm` after `torch.manual_seed(seed)` (TransformerLens'
    Grokking_Demo); `rule="python"` is `random.shuffle` after `random.seed(seed)` (the released
    code of Nanda et al. 2023, arXiv 2301.05217). Neither touches the global random state.

    >>> train_indices(113 * 113, 0.3, rule="torch", seed=598)[0].item() == 21 * 113 + 31
    True
    """
    return draw(n_inputs, rule=rule, seed=seed)[: n_training_rows(n_inputs, train_fraction)]


def draw(n_inputs: int, *, rule: str, seed: int) -> Int[Tensor, " n_inputs"]:
    """All rows of the table as a rule shuffles them; the first ones are trained on."""
    word("split", rule, get_args(SplitRule))
    n_inputs = whole("n_inputs", n_inputs, least=0, such_as="12769")
    seed = whole("seed", seed, least=-LARGEST_SEED - 1, most=LARGEST_SEED, such_as="0")
    if rule == "torch":
        return torch.randperm(n_inputs, generator=torch.Generator().manual_seed(seed))
    rows = list(range(n_inputs))
    random.Random(seed).shuffle(rows)
    return torch.tensor(rows, dtype=torch.int64)


def mask_of(rows: Int[Tensor, " n_train"], n_inputs: int) -> Bool[Tensor, " n_inputs"]:
    """True at these rows of a table, on their device.

    >>> mask_of(torch.tensor([2, 0]), 4).tolist()
    [True, False, True, False]
    """
    mask = torch.zeros(n_inputs, dtype=torch.bool, device=rows.device)
    mask[rows] = True
    return mask


def are_rows(rows: Int[Tensor, "..."], n_inputs: int) -> bool:
    """Whether these are rows of a table, at least one and each once.

    >>> are_rows(torch.tensor([2, 0]), 4), are_rows(torch.tensor([2, 2]), 4)
    (True, False)
    """
    if rows.ndim != 1 or not len(rows):
        return False
    return bool(rows.min() >= 0 and rows.max() < n_inputs and len(rows.unique()) == len(rows))


def n_training_rows(n_inputs: int, train_fraction: float) -> int:
    """`int(train_fraction * n_inputs)`, refused when the fraction is outside (0, 1] or gives 0."""
    share = real(train_fraction)
    if share is None or not 0 < share <= 1:
        give = "the share of the inputs to train on, such as 0.3"
        raise refused("train_fraction", train_fraction, "between 0 and 1", give)
    if (n_train := int(share * n_inputs)) == 0:
        left = f"train_fraction={share} of {n_inputs} inputs leaves nothing to train on"
        raise InputError(f"{left}; give a larger one.")
    return n_train


def checked_rows(given: object, n_inputs: int) -> Int[Tensor, " n"]:
    """Training rows of a table, copied to the CPU; InputError for what are none."""
    last = n_inputs - 1
    advice = f"give a tensor or list of different numbers from 0 to {last}"
    try:
        rows = torch.as_tensor(given).cpu()
    except Exception:  # torch knows many ways to say that it is no tensor
        raise InputError(f"train_indices={shown(given)} are no rows; {advice}.") from None
    fault = None
    if rows.dtype not in WHOLE_NUMBERS or rows.ndim != 1:
        fault = f"is {rows.dtype} of shape {tuple(rows.shape)}, which are no rows"
    elif not len(rows):
        fault = "names no row"
    elif outside := [row for row in rows.tolist() if not 0 <= row <= last]:
        fault = f"names row {outside[0]}, which the table does not have"
    elif len(rows.unique()) != len(rows):
        fault = "names a row twice"
    if fault:
        raise InputError(f"train_indices {fault}; {advice}.")
    return rows.to(torch.int64, copy=True)
