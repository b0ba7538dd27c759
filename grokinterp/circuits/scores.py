"""Loss and accuracy on train, test and all inputs."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.models.cross_entropy import cross_entropies, right_answers
from grokinterp.runs.snapshot import Snapshot


@dataclass(frozen=True)
class Score:
    """Cross-entropy in nats and accuracy over the p classes, on three sets of inputs.

    NaN on train and test without a split, and on sets that were not evaluated.
    """

    loss_train: float
    loss_test: float
    loss_all: float
    acc_train: float
    acc_test: float
    acc_all: float


def score(snapshot: Snapshot, logits: Float[Tensor, "n p"], *, test_only: bool = False) -> Score:
    """Loss and accuracy of these logits on train, test and all inputs.

    `test_only`: the logits are of `snapshot.test_rows` alone.
    """
    labels = snapshot.task.labels
    if test_only:
        labels = labels[snapshot.test_rows]
    losses = cross_entropies(logits, labels)
    right = right_answers(logits, labels).double()
    train = snapshot.train_mask
    every = torch.ones(len(labels), dtype=torch.bool)
    if test_only:
        sets: tuple[Tensor | None, ...] = (None, every, None)
    else:
        sets = (None, None, every) if train is None else (train, ~train, every)
    values = [
        math.nan if rows is None else float(x[rows].mean())
        for x in (losses, right)
        for rows in sets
    ]
    return Score(*values)
