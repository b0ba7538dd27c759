"""How well are test inputs answered at every checkpoint? Margins, losses and norms of logits."""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import word
from grokinterp.models.cross_entropy import answer_scores
from grokinterp.progress.measures import MEASURES
from grokinterp.reading._load import progress_bar
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.manifest import missing_split
from grokinterp.runs.metrics import UNMIRRORED
from grokinterp.runs.run import Run
from grokinterp.tasks.task import has_mirrors, unmirrored_rows

ROWS = ("unmirrored", "test")
_UNSEEN: WeakKeyDictionary[Run, pd.DataFrame] = WeakKeyDictionary()  # two measures ask for it


@dataclass(frozen=True)
class ChosenRows:
    """The rows of a task that are looked at, and what is to be said about them.

    `reason` says why there are none; it is empty where there are some.
    """

    name: str  # one of `ROWS`
    numbers: Int[Tensor, " n"]
    note: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Scored:
    """How a checkpoint answers some rows, in float64.

    `norms` are those of the logits less their mean over the classes, which answers nothing.
    """

    step: int
    right: Bool[Tensor, " n"]
    margins: Float[Tensor, " n"]  # right logit minus the largest wrong one
    losses: Float[Tensor, " n"]  # nats
    norms: Float[Tensor, " n"]  # L2

    @property
    def finite(self) -> bool:
        """Whether all of it is finite, as of no run that diverged."""
        return all(bool(x.isfinite().all()) for x in (self.margins, self.losses, self.norms))


def choose_rows(run: Run, rows: str) -> ChosenRows:
    """The test rows whose mirror is not trained on ("unmirrored"), or all test rows ("test").

    Where a task has no mirrors both are the same. There are none where the split is not known or
    leaves none, and where the code of the network is missing.
    """
    name, train, task = word("rows", rows, ROWS), run.train_mask, run.task
    none = torch.empty(0, dtype=torch.int64)
    if (missing := run.architecture.missing) is not None:
        return ChosenRows(name, none, reason=missing)
    if train is None:
        return ChosenRows(name, none, reason=missing_split((run.manifest.source or {}).get("file")))
    n_test = int((~train).sum())
    if not n_test:
        return ChosenRows(name, none, reason="every input is trained on: there are none to test on")
    chosen = unmirrored_rows(task, train) if name == "unmirrored" else ~train
    numbers = chosen.nonzero().flatten()
    if not len(numbers):
        reason = "all test pairs have their mirror in training; rows='test' looks at them"
        return ChosenRows(name, none, reason=reason)
    if not has_mirrors(task):
        note = f"over all {n_test} test inputs; {task.title} has no mirrors"
    elif name == "unmirrored":
        note = f"over the {len(numbers)} of {n_test} test pairs whose mirror is not trained on"
    else:
        note = f"over all {n_test} test pairs, also those whose mirror is trained on"
    return ChosenRows(name, numbers, note=note)


def scored_checkpoints(
    run: Run, numbers: Int[Tensor, " n"], *, progress: bool = False
) -> Iterator[Scored]:
    """Every checkpoint's answers to rows of these numbers; of none where there are no rows."""
    for step in progress_bar(run.steps, "score", progress) if len(numbers) else ():
        yield score(run.snapshot(step), numbers, step)


def score(snapshot: Snapshot, numbers: Int[Tensor, " n"], step: int) -> Scored:
    """One checkpoint's answers to rows of these numbers, of which there is at least one."""
    labels = snapshot.task.labels
    parts = []
    for some, logits in snapshot.logit_blocks(numbers):
        scores = answer_scores(logits, labels[some])
        centred = logits.double() - logits.double().mean(dim=1, keepdim=True)
        parts.append((scores.right, scores.margins, scores.losses, centred.norm(dim=1)))
    return Scored(step, *map(torch.cat, zip(*parts, strict=True)))


def unseen_measures(run: Run, *, progress: bool = False) -> pd.DataFrame:
    """The columns of `gi.progress_measures` that test rows and weights give, at every checkpoint.

    step, sum_sq_weights and, where a task has mirrors whose rows are known, test_loss_unmirrored
    and test_acc_unmirrored: a tenth of the work. Kept as long as the run is.
    """
    if run not in _UNSEEN:
        _UNSEEN[run] = _unseen(run, progress=progress)
    return _UNSEEN[run].copy()


def _unseen(run: Run, *, progress: bool) -> pd.DataFrame:
    chosen = choose_rows(run, "unmirrored")
    mirrored = has_mirrors(run.task) and len(chosen.numbers) > 0
    rows: list[dict[str, float]] = []
    for step in progress_bar(run.steps, "measure", progress):
        snapshot = run.snapshot(step)
        squares: float = MEASURES["sum_sq_weights"].function(snapshot)
        rows.append({"step": step, "sum_sq_weights": squares})
        if mirrored:
            seen = score(snapshot, chosen.numbers, step)
            means = (float(seen.losses.mean()), float(seen.right.double().mean()))
            rows[-1] |= dict(zip(UNMIRRORED, means, strict=True))
    return pd.DataFrame(rows)
