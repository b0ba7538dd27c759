"""Pruning masks: which entries of which tensors are zeroed at a fraction, by any score.

One shot, without retraining (Manning-Coe et al. 2025, arXiv 2502.01739, section 5). The smallest
score is zeroed first; a scope says among which entries scores are ranked:

layer               within each tensor, the same fraction of every one at once (their section 5)
global              among all tensors together
global_normalized   among all, each tensor's scores divided by their norm (their appendix F.2)
the name of one     within that tensor; nothing else is pruned (their appendix F.2)

All heads of `W_Q` and the like are one tensor, and so are all tokens of an embedding, "=" too. At
fraction q of n entries floor(q n + 1/2) are zeroed, of equal scores the earlier position first.

"fisher_softmax" and "fisher_logits" rank by `fisher_diagonal` itself, as the released code of
Manning-Coe et al. does with the latter, on at most 256 test inputs (of all inputs without a test
set); for others give a `FisherDiagonal`. F_ii w_i^2, the change of the output to second order, is
a function of the snapshot that can be given too.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import number, refused, tensor, tensors, truth, word
from grokinterp.base.errors import InputError
from grokinterp.geometry.fisher import VARIANTS, FisherDiagonal, fisher_diagonal
from grokinterp.models.architecture import Weights, is_bias
from grokinterp.runs._snapshot import Snapshot

SCOPES = ("layer", "global", "global_normalized")
MAGNITUDE = "magnitude"
FISHER = {f"fisher_{variant}": variant for variant in VARIANTS}

Given = Mapping[str, Tensor] | FisherDiagonal
Scores = str | Given | Callable[[Snapshot], Given]


def weight_names(weights: Mapping[str, Tensor], *, biases: bool = False) -> list[str]:
    """Names of the tensors that are pruned: matrices and kernels, with `biases` every parameter.

    Biases and the gains of a LayerNorm are few, and give a layer an output even at fraction 1.

    >>> weight_names({"conv.0.W": torch.ones(2, 1, 3, 3), "conv.0.b": torch.ones(2)})
    ['conv.0.W']
    """
    biases = truth("biases", biases)
    named = tensors("weights", weights).items()
    return [name for name, w in named if biases or (w.ndim > 1 and not is_bias(name))]


def n_pruned(n: int, fraction: float) -> int:
    """How many of n entries a fraction is: floor(q n + 1/2), so 0 at 0 and n at 1.

    >>> n_pruned(10, 0.25), n_pruned(100, 0.29), n_pruned(7, 1.0)
    (3, 29, 7)
    """
    share = number("fraction", fraction, least=0, most=1, such_as="0.5")
    return math.floor(share * n + 0.5)


@dataclass(frozen=True)
class PruningOrder:
    """In which order entries are zeroed: `ranks`, 0 first, among the `n` entries of one pool.

    Each tensor is a pool of its own, or all are one; `n` has the pool's size for each name.

    >>> import grokinterp as gi
    >>> weights = gi.load("mod31-small").weights()
    >>> two = {name: weights[name] for name in ("embed.W_E", "unembed.W_U")}
    >>> scores = gi.encodings.magnitudes(two)
    >>> order = gi.encodings.pruning_order(scores, scope="global")
    >>> order.n_weights, {name: int(kept.sum()) for name, kept in order.kept(0.9).items()}
    (2016, {'embed.W_E': 105, 'unembed.W_U': 97})
    """

    scope: str
    ranks: dict[str, Int[Tensor, "..."]] = field(repr=False)
    n: dict[str, int] = field(repr=False)

    def kept(self, fraction: float) -> dict[str, Bool[Tensor, "..."]]:
        """True where an entry stays, for every tensor in scope."""
        return {name: r >= n_pruned(self.n[name], fraction) for name, r in self.ranks.items()}

    @property
    def n_weights(self) -> int:
        """Number of entries in scope."""
        return sum(ranks.numel() for ranks in self.ranks.values())


def pruning_order(scores: Mapping[str, Tensor], *, scope: str = "layer") -> PruningOrder:
    """The order in which entries are zeroed, smallest score first; see the module for scopes.

    InputError for an unknown scope, no scores, and scores that are not numbers (NaN). It depends
    on the order of the scores alone: a small score need not mean that an entry is not needed.

    >>> order = pruning_order({"W": torch.tensor([3.0, 1.0, 2.0]), "V": torch.tensor([9.0])})
    >>> order.kept(0.4)["W"].tolist(), order.kept(0.4)["V"].tolist()
    ([True, False, True], [True])
    """
    if not tensors("scores", scores):
        raise InputError("there are no scores to prune by; give a tensor for every weight's name.")
    for name, score in scores.items():
        if score.isnan().any():
            raise InputError(f"the scores of {name!r} hold NaN; give a number for every entry.")
    word("scope", scope, [*SCOPES, *scores])
    pools = [[name] for name in ([scope] if scope in scores else scores)]
    if scope not in scores and scope != "layer":
        pools = [list(scores)]
    ranks, n = {}, {}
    for pool in pools:
        flat = [scores[name].flatten().double() for name in pool]
        if scope == "global_normalized":
            flat = [score / (score.norm() or 1) for score in flat]
        order = torch.cat(flat).argsort(stable=True)
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        for name, part in zip(pool, places.split([len(score) for score in flat]), strict=True):
            ranks[name], n[name] = part.view_as(scores[name]), len(places)
    return PruningOrder(scope, ranks, n)


def magnitudes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The score of magnitude pruning: |w| of every entry, in float64.

    >>> import grokinterp as gi, torch
    >>> gi.encodings.magnitudes({"W": torch.tensor([-2.0, 0.5])})["W"].tolist()
    [2.0, 0.5]
    """
    return {name: w.double().abs() for name, w in tensors("weights", weights).items()}


def prune(
    weights: Mapping[str, Tensor],
    fraction: float,
    *,
    scope: str = "layer",
    scores: Mapping[str, Tensor] | None = None,
    biases: bool = False,
) -> Weights:
    """The weights with the lowest-scoring fraction at zero; what is not touched is the same object.

    `scores` are magnitudes unless given. Raises what `pruning_order` does.

    >>> prune({"W": torch.tensor([[3.0, -1.0], [-2.0, 0.5]])}, 0.5)["W"].tolist()
    [[3.0, 0.0], [-2.0, 0.0]]
    """
    pruned = {name: weights[name] for name in weight_names(weights, biases=biases)}
    order = pruning_order(scored(pruned, scores), scope=scope)
    kept = order.kept(fraction)
    return dict(weights) | {
        name: weights[name].masked_fill(~keep, 0) for name, keep in kept.items() if not keep.all()
    }


def scored(
    weights: Mapping[str, Tensor], scores: Mapping[str, Tensor] | None
) -> Mapping[str, Tensor]:
    """The scores of these weights alone, magnitudes where none are given; refused if one lacks."""
    if scores is None:
        return magnitudes(weights)
    if not isinstance(scores, Mapping):
        raise refused("scores", scores, "a dict", "a tensor for every weight's name")
    for name, weight in weights.items():
        if name not in scores:
            raise InputError(f"the scores of {name!r} are missing; give one for every entry of it.")
        if tensor(f"scores[{name!r}]", scores[name]).shape != weight.shape:
            raise InputError(
                f"the scores of {name!r} have shape {tuple(scores[name].shape)}, expected shape "
                f"{tuple(weight.shape)}; give a score for every entry of it."
            )
    return {name: scores[name] for name in weights}


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
        word("scores", scores, [MAGNITUDE, *FISHER])
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
