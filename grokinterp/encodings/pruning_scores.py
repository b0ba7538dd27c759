"""By what weights are pruned: their size, their Fisher information, or any scores that are given.

"fisher_softmax" and "fisher_logits" rank by the diagonal itself, smallest first, as the released
code of Manning-Coe et al. 2025 (arXiv 2502.01739) does with the latter; not by F_ii w_i^2, the
change of the output to second order, which a function of the snapshot can give. They are
`fisher_diagonal` with its defaults: on at most 256 test inputs, where there are none on 256 of all.
For other rows or samples, give a `FisherDiagonal`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from grokinterp.encodings.geometry.cotangents import VARIANTS
from grokinterp.encodings.geometry.fisher import FisherDiagonal, fisher_diagonal
from grokinterp.errors import InputError, nearest
from grokinterp.runs.snapshot import Snapshot

MAGNITUDE = "magnitude"
FISHER = {f"fisher_{variant}": variant for variant in VARIANTS}

Given = Mapping[str, Tensor] | FisherDiagonal
Scores = str | Given | Callable[[Snapshot], Given]


class NamedScores(NamedTuple):
    """Scores of weights under their name; `rows` and `n_samples` where inputs were looked at."""

    name: str
    values: Mapping[str, Tensor] | None = None  # None: magnitude, of whatever coordinates
    rows: str | None = None
    n_samples: int | None = None


def named_scores(scores: Scores, snapshot: Snapshot) -> NamedScores:
    """What scores are called, and what they are for this snapshot; InputError for an unknown name.

    A function is called by its own name, a `FisherDiagonal` by its variant, tensors "given".
    """
    if isinstance(scores, str):
        if scores == MAGNITUDE:
            return NamedScores(MAGNITUDE)
        if scores not in FISHER:
            raise InputError(
                f"scores={scores!r} is not known; {nearest(scores, [MAGNITUDE, *FISHER])}"
            )
        rows = "all" if snapshot.test_rows is None else "test"
        scores = fisher_diagonal(snapshot, variant=FISHER[scores], rows=rows)
    name = None
    if callable(scores):
        name = getattr(scores, "__name__", "given")
        scores = scores(snapshot)
    if isinstance(scores, FisherDiagonal):
        name = name or f"fisher_{scores.variant}"
        return NamedScores(name, scores.values, scores.rows, scores.n_samples)
    if isinstance(scores, Mapping):
        return NamedScores(name or "given", scores)
    raise InputError(
        f"scores of type {type(scores).__name__} score nothing; give a tensor for each weight's "
        f"name, a FisherDiagonal, a function of the snapshot, or one of {MAGNITUDE}, "
        f"{', '.join(FISHER)}."
    )
