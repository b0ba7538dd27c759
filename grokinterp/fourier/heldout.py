"""The held-out twin of the restricted loss: do key frequencies answer pairs that nobody gave away?

The restricted loss averages the logits of all pairs of one exponent, also of those trained on and
their mirrors, so a network that memorised has a low one too. The twin looks at the unmirrored test
rows alone (`Snapshot.unmirrored_rows`; in multiplication without a zero factor):

    fit(f) = beta_0 + sum_{k in K} beta_k cos(w_k f) + gamma_k sin(w_k f)

is the least-squares fit of the logits of these rows, beta and gamma a number for each of the p
answer classes. Its loss (nats) and accuracy on the same rows are held against a uniform answer,
ln p, and against placebos: fits by as many frequencies that are not in K. It depends on the
exponent f alone, so only sums over the rows of each exponent are kept.

Ours, after the restricted loss of Nanda et al. 2023 (arXiv 2301.05217, section 5.1). It does not
show that the network computes nothing else, nor how it computes, nor that anything breaks without
these directions: ablate for that.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.result import Result
from grokinterp.fourier.answers import ExponentSums, checked_frequencies, group_of
from grokinterp.fourier.basis import fourier_basis, n_frequencies
from grokinterp.models.cross_entropy import answer_scores
from grokinterp.runs._snapshot import Block, Snapshot
from grokinterp.tasks.task import has_mirrors

FEWEST_ROWS = 20  # below it the fits have nearly as many terms as there are rows
PLACEBOS = 50
FEW_PLACEBOS = {  # the note by how many there are, where they are few
    0: ("every frequency is key: no placebo is left, a uniform answer alone decides",),
    1: ("fewer frequencies are left than there are key ones: all of them are one placebo",),
}
CELLS = 2**22  # of fits in float64 that are held at once
NO_CIRCUIT = "no circuit that reaches inputs it was not trained on"
FIT_ROUNDING = 1e-9  # relative: fits that are the same but for rounding do not beat each other


@dataclass(frozen=True, kw_only=True)
class HeldoutFit(Result):
    """What key frequencies make of the unmirrored test rows, and what placebos make of them.

    `loss` is in nats. `placebo_loss` is the least loss of the placebos, `placebo_acc` their best
    accuracy; NaN without a placebo. That the fit passes says that the logits of unseen pairs lie
    along these directions and answer right, better than along others; a low accuracy that passes is
    that of a circuit which is only forming.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> early, late = (gi.fourier.heldout_fit(run, step=step) for step in (100, 10_000))
    >>> early.passes, late.passes
    (False, True)
    >>> late.n_rows, late.rows, late.acc, round(late.placebo_acc, 2)
    (122, 'unmirrored test pairs', 1.0, 0.43)
    """

    frequencies: tuple[int, ...]
    rows: str  # "unmirrored test pairs", or "test pairs" where there are no mirrors
    n_rows: int
    n_classes: int
    loss: float
    acc: float
    placebo_loss: float
    placebo_acc: float
    n_placebos: int

    @property
    def uniform_loss(self) -> float:
        """Loss of a uniform answer: ln p, in nats."""
        return math.log(self.n_classes)

    @property
    def decides(self) -> bool:
        """Whether there are rows enough to tell."""
        return self.n_rows >= FEWEST_ROWS

    @property
    def passes(self) -> bool:
        """Whether its loss is below that of a uniform answer and below every placebo's."""
        return self.why_not is None

    @property
    def why_not(self) -> str | None:
        """Why no circuit is claimed on these rows; None where one is."""
        if not self.decides:
            return (
                f"{NO_CIRCUIT} can be shown: there are {self.n_rows} {self.rows} to ask, fewer "
                f"than {FEWEST_ROWS}"
            )
        bounds = {f"that of a uniform answer, ln {self.n_classes}": self.uniform_loss}
        if self.n_placebos:
            best = f"the best of {self.n_placebos} placebos" if self.n_placebos > 1 else "a placebo"
            bounds[f"that of {best}"] = self.placebo_loss
        for what, bound in bounds.items():
            if not self.loss < bound * (1 - FIT_ROUNDING):  # NaN is not below anything
                placebos = f", placebos at most {self.placebo_acc:.3f}" if self.n_placebos else ""
                return (
                    f"{NO_CIRCUIT}: the fit of {self.n_rows} {self.rows} by the "
                    f"{len(self.frequencies)} frequencies chosen has loss {self.loss:.4g}, not "
                    f"below {what} = {bound:.4g} (accuracy {self.acc:.3f}{placebos})"
                )
        return None

    def table(self) -> pd.DataFrame:
        """One row: the fit by the key frequencies, and the best of the placebos."""
        columns = ("rows", "n_rows", "loss", "acc", "placebo_loss", "placebo_acc", "n_placebos")
        row = {name: getattr(self, name) for name in columns}
        return pd.DataFrame([row | {"passes": self.passes}])

    def _lines(self) -> list[str]:
        return [] if self.why_not is None else [self.why_not]


class HeldoutTally(ExponentSums):
    """A `Tally` of the logits of unmirrored test rows, summed over the rows of each exponent."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__(group_of(snapshot), rows=snapshot.unmirrored_rows)
        self.counts = torch.bincount(self._exponents, minlength=self.group.order + 1)[:-1]

    def add(self, block: Block) -> None:
        """Count a block."""
        self.count(block.rows, block.logits)


def heldout_fit(snapshot: Snapshot, frequencies: Sequence[int]) -> HeldoutFit | None:
    """The fit of these frequencies and its placebos; None without a split that leaves test rows.

    There are 50 placebos, the same ones for the same frequencies; one of all other frequencies
    where fewer are left than were given, none where none is left.

    `gi.fourier.heldout_fit` takes a run too (with `step`), a path, or a model with `task`; without
    frequencies, its key ones.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> gi.fourier.heldout_fit(run).passes  # by the key frequencies
    True
    >>> others = gi.fourier.heldout_fit(run, [2, 3, 5])
    >>> others.passes, round(others.loss, 1), round(others.uniform_loss, 1)
    (False, 9.0, 3.4)
    """
    group = group_of(snapshot)
    if snapshot.unmirrored_rows is None:
        return None
    keys = checked_frequencies(frequencies, group)
    rows = "unmirrored test pairs" if has_mirrors(snapshot.task) else "test pairs"

    def compute() -> HeldoutFit:
        tally = snapshot.tally(HeldoutTally)
        labels = group.tokens  # the answer of each exponent
        draws = _placebos(keys, n_frequencies(group.order))
        sets = [torch.tensor([keys]), draws]
        if draws.shape[1] == len(keys):  # all in one batch
            sets = [torch.cat(sets)]
        scores = torch.cat([_scores(each, tally, labels) for each in sets], dim=1)
        (loss, *losses), (acc, *accs) = scores.tolist()
        finite = all(map(math.isfinite, losses))
        return HeldoutFit(
            frequencies=keys,
            rows=rows,
            n_rows=int(tally.counts.sum()),
            n_classes=snapshot.task.n_classes,
            loss=loss,
            acc=acc,
            placebo_loss=min(losses) if losses and finite else math.nan,
            placebo_acc=max(accs) if accs and finite else math.nan,
            n_placebos=len(losses),
            notes=FEW_PLACEBOS.get(len(losses), ()),
        )

    return snapshot.memo(f"held-out fit of {keys}", compute)


def _placebos(keys: tuple[int, ...], highest: int) -> Int[Tensor, "draws n_frequencies"]:
    """One row per placebo: as many other frequencies as there are key ones, each once."""
    others = torch.tensor(sorted(set(range(1, highest + 1)) - set(keys)), dtype=torch.int64)
    if len(others) < len(keys):
        return others[None] if len(others) else torch.empty(0, len(keys), dtype=torch.int64)
    stream = torch.Generator().manual_seed(0)  # of its own: draws depend on the keys alone
    order = torch.rand(PLACEBOS, len(others), generator=stream, dtype=torch.float64).argsort(dim=1)
    return others[order[:, : len(keys)]]


def _scores(
    sets: Int[Tensor, "n_sets n_frequencies"], tally: HeldoutTally, labels: Int[Tensor, " order"]
) -> Float[Tensor, "2 n_sets"]:
    """Loss and accuracy of the fit by each set of frequencies."""
    counts, sums = tally.counts.double(), tally.sums
    there = counts > 0
    if not there.any() or not sums.isfinite().all():
        return torch.full((2, len(sets)), math.nan, dtype=torch.float64)
    weights, own_labels = counts[there] / counts.sum(), labels[there]
    found = []
    for some in sets.split(max(1, CELLS // sums.numel())):
        fits = _fits(some, counts, sums)
        scores = answer_scores(fits.flatten(0, 1), own_labels.repeat(len(some)))
        each = torch.stack([scores.losses, scores.right.double()]).unflatten(1, (len(some), -1))
        found.append(each @ weights)
    return torch.cat(found, dim=1)


def _fits(
    sets: Int[Tensor, "n_sets n_frequencies"],
    counts: Float[Tensor, " order"],
    sums: Float[Tensor, "order n_classes"],
) -> Float[Tensor, "n_sets n_present n_classes"]:
    """The least-squares fit by each set, at every exponent that has rows."""
    order = len(counts)
    # Rows: the constant, cos and sin of w_1 f, ...; a last one of zeros is the sine of 2k = order.
    waves = torch.cat([fourier_basis(order), torch.zeros(1, order, dtype=torch.float64)])
    constant = torch.zeros(len(sets), 1, dtype=torch.int64)
    columns = torch.cat([constant, 2 * sets - 1, 2 * sets], dim=1)
    there = counts > 0
    if there.all():
        # The waves are orthogonal over all exponents, so the normal equations are as well
        # conditioned as the counts are even.
        gram = (waves * counts) @ waves.T
        gram[order, order] = 1.0
        factor = torch.linalg.cholesky(gram[columns[:, :, None], columns[:, None, :]])
        beta = torch.cholesky_solve((waves @ sums)[columns], factor)
        return waves.T[:, columns].permute(1, 0, 2) @ beta
    root = counts[there].sqrt()[:, None]
    design = waves.T[there][:, columns].permute(1, 0, 2)
    wanted = (sums[there] / root).expand(len(sets), -1, -1)
    beta = torch.linalg.lstsq(root * design, wanted, driver="gelsd").solution
    return design @ beta
