"""Models that are nothing but a table of logits, for what looks at logits alone."""

import torch
from torch import Tensor

import grokinterp as gi
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks import ModularTask


def table_snapshot(task: ModularTask, logits: Tensor, train_mask: Tensor | None) -> Snapshot:
    """A snapshot that answers row a*p + b with that row of the table."""

    def forward(tokens, names):
        if names:
            raise gi.InputError(f"a table has no activation {names[0]!r}.")
        return logits[tokens[:, 0] * task.p + tokens[:, 1]], {}

    return Snapshot(task, weights={}, n_layers=1, forward=forward, train_mask=train_mask)


def split(task: ModularTask, fraction: float, seed: int = 0) -> Tensor:
    """A random training mask."""
    order = torch.randperm(task.n_inputs, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(task.n_inputs, dtype=torch.bool)
    mask[order[: round(fraction * task.n_inputs)]] = True
    return mask


def memoriser(task: ModularTask, train_mask: Tensor, frequencies: tuple[int, ...]) -> Tensor:
    """Logits sum_k 10 cos w_k (f - c): right where the pair or its mirror is trained on.

    Everywhere else the answer is moved by a random number, so that nothing is known of it: the
    logits lie along the same frequencies on all rows.
    """
    p = task.p
    trained = train_mask.view(p, p)
    known = (trained | trained.T if task.commutative else trained).flatten()
    stream = torch.Generator().manual_seed(1)
    moved = torch.randint(1, p, (task.n_inputs,), generator=stream)
    answer = (task.labels + moved.masked_fill(known, 0)) % p
    distance = answer[:, None] - torch.arange(p)
    return sum(10 * torch.cos(2 * torch.pi * k * distance / p) for k in frequencies)
