"""How much of a model can be pruned: accuracy against the fraction pruned, its area, and c.

Manning-Coe et al. 2025 (arXiv 2502.01739), section 5, eq. 5: a is the area under the accuracy a(q)
from fraction q = 0 to 1, and c = 1 / (1 - a).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import finite, number, truth
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits.ablation import Score, score
from grokinterp.encodings._sizes import sizes_of
from grokinterp.encodings.bases import coordinates
from grokinterp.encodings.pruning import (
    MAGNITUDE,
    Scores,
    named_scores,
    pruning_order,
    scored,
    weight_names,
)
from grokinterp.fourier.spectra import answer_order, token_order
from grokinterp.reading._load import Subject, progress_bar, run_of, snapshot_of, steps_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

# The default grid: steps of 0.02, and finer where an encoding of a few coordinates breaks down.
GRID = (*(i / 50 for i in range(50)), 0.985, 0.99, 0.9925, 0.995, 0.9975, 0.999, 1.0)
KEEP = 0.95  # of the unpruned accuracy, for `prunable`
LEARNT = 0.9  # of a run's best test accuracy: before it, c is that of chance


@dataclass(frozen=True, kw_only=True)
class PruningCurve(Result):
    """Accuracy and loss of a model with a fraction of its weights at zero, fraction by fraction.

    `kept` coordinates stay of the `n_weights` in scope, and `parameters` are the numbers they take
    to store: as many, but m + n for each singular value of an m x n matrix. Losses in nats and
    accuracies are over the answer classes, on train, test and all inputs (train and test NaN
    without a split). `area`, `c` and `prunable` are of `rows`: test where there is a split, else
    all. Between grid points the curve is the straight line, by definition. Fisher scores are of
    `score_samples` of the `score_rows` inputs.

    What c does not show: pruning is one shot, and a model may do with less after retraining. Chance
    is in it, so tasks cannot be compared (with two balanced classes a is 0.5 or so whatever the
    model), and the `prunable` of a model at chance is noise. It is no size in bits.

    >>> import grokinterp as gi
    >>> found = gi.encodings.pruning_curve(gi.load("mod31-small"))
    >>> round(found.c, 2), [round(end, 2) for end in found.c_interval]
    (2.05, [2.01, 2.09])
    >>> round(found.prunable, 2), round(found.weights_needed, 2), found.n_weights
    (0.34, 0.66, 16448)
    >>> found.table()[["fraction", "kept", "acc_test"]].iloc[[0, 20, 50]].round(2)
        fraction   kept  acc_test
    0       0.00  16448      0.99
    20      0.40   9867      0.85
    50      0.98    245      0.04
    >>> found.settings["scope"], found.settings["basis"]
    ('layer', 'weights')
    """

    fractions: Float[Tensor, " m"] = field(repr=False)
    kept: Int[Tensor, " m"] = field(repr=False)
    parameters: Int[Tensor, " m"] = field(repr=False)
    acc_train: Float[Tensor, " m"] = field(repr=False)
    acc_test: Float[Tensor, " m"] = field(repr=False)
    acc_all: Float[Tensor, " m"] = field(repr=False)
    loss_train: Float[Tensor, " m"] = field(repr=False)
    loss_test: Float[Tensor, " m"] = field(repr=False)
    loss_all: Float[Tensor, " m"] = field(repr=False)
    rows: Literal["test", "all"]
    scope: str
    score: str
    basis: str
    biases: bool
    keep: float
    n_weights: int
    step: int | None
    score_rows: str | None = None
    score_samples: int | None = None

    def __repr__(self) -> str:
        return (
            f"PruningCurve(c={self.c:.6g}, area={self.area:.6g}, prunable={self.prunable:.6g}, "
            f"rows={self.rows!r}, scope={self.scope!r}, score={self.score!r}, "
            f"basis={self.basis!r}, step={self.step})"
        )

    @property
    def accuracy(self) -> Float[Tensor, " m"]:
        """The accuracy that `area`, `c` and `prunable` are of: on `rows`."""
        return self.acc_test if self.rows == "test" else self.acc_all

    @property
    def area(self) -> float:
        """The integral of the accuracy over the fraction, a of eq. 5 (trapezoids)."""
        return 1 - self._lost

    @property
    def c(self) -> float:
        """Compressibility 1 / (1 - area); inf where no accuracy is ever lost.

        For example 1 / (1 - 0.96) = 25: on average over the fractions 4 % of answers are lost.
        """
        return 1 / self._lost if self._lost > 0 else math.inf

    @property
    def c_interval(self) -> tuple[float, float]:
        """Between which c lies, whatever the curve does between grid points, if it is monotone.

        Within a grid step h the area is then between h times the lower and h times the higher
        accuracy: the error of `area` is at most half a step times the total variation.
        """
        ends = torch.stack([self.accuracy[:-1], self.accuracy[1:]])
        steps = self.fractions.diff()
        most, least = ((1 - edge) @ steps for edge in (ends.amin(dim=0), ends.amax(dim=0)))
        low, high = (1 / x if x > 0 else math.inf for x in (float(most), float(least)))
        return low, high

    @property
    def prunable(self) -> float:
        """Largest grid fraction up to which the accuracy stays at `keep` of the unpruned or more.

        A model that answers nothing right has nothing to lose: 1.
        """
        enough = self.accuracy >= self.keep * self.accuracy[0]
        return float(self.fractions[int(enough.cumprod(dim=0).sum()) - 1])

    @property
    def weights_needed(self) -> float:
        """Fraction that has to stay, 1 - prunable."""
        return 1 - self.prunable

    def table(self) -> pd.DataFrame:
        """One row per fraction; what was asked and found stands in `.attrs`."""
        frame = pd.DataFrame({"fraction": self.fractions.numpy()})
        for column in ("kept", "parameters", *vars(self.unpruned)):
            frame[column] = getattr(self, column).numpy()
        frame.attrs |= self.settings | {"c": self.c, "area": self.area, "prunable": self.prunable}
        return frame

    @property
    def unpruned(self) -> Score:
        """Losses and accuracies of the model as it is."""
        return Score(*(float(getattr(self, column.name)[0]) for column in fields(Score)))

    @property
    def settings(self) -> dict[str, object]:
        """What was asked: all but the numbers of the curve itself, and the notes."""
        asked = {name: value for name, value in vars(self).items() if name != "notes"}
        return {name: value for name, value in asked.items() if not isinstance(value, Tensor)}

    @property
    def _lost(self) -> float:
        """1 - area, exactly 0 where nothing is lost."""
        return float(torch.trapezoid(1 - self.accuracy, self.fractions))


def pruning_curve(
    x: Subject,
    *,
    step: int = -1,
    scope: str = "layer",
    scores: Scores = MAGNITUDE,
    basis: str = "weights",
    fractions: Sequence[float] | Float[Tensor, " m"] | None = None,
    biases: bool = False,
    keep: float = KEEP,
    test_only: bool = False,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> PruningCurve:
    """Prune a model at every fraction, once each and without retraining, and evaluate it.

    `x` is a run (at `step`), a snapshot, or a model with `task`. `scope` says among which weights
    scores are ranked: "layer" (each tensor, all at once), "global", "global_normalized" or one
    tensor's name; `scores` are "magnitude", "fisher_softmax" or "fisher_logits" (256 test inputs),
    a `FisherDiagonal`, a tensor for every weight's name, or a function of the snapshot that gives
    these (`grokinterp.encodings.pruning`). `basis` says in which coordinates weights are scored by
    magnitude and zeroed: "weights", "fourier" or "singular" (`grokinterp.encodings.bases`); they
    are turned back in float64 and evaluated in the model's own type. Tensors of which nothing is
    zeroed are exactly the model's.

    `fractions` rise from 0 to 1 (`GRID` unless given). `test_only` evaluates the test inputs alone,
    where there is a split: c is the same (but for the rounding of a smaller batch), the columns of
    train and all are NaN. InputError for other fractions, unknown names, a basis that the task
    lacks, given scores in another basis than "weights", and for a model whose weights alone do not
    say what it computes.

    Manning-Coe et al. 2025, section 5 and appendix F.2. `PruningCurve` says what it does not show.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for basis in ("weights", "fourier"):
    ...     found = gi.encodings.pruning_curve(run, basis=basis)
    ...     print(basis, round(found.c, 2), round(found.prunable, 2))
    weights 2.05 0.34
    fourier 2.4 0.42
    """
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    grid = _checked_grid(fractions)
    keep = number("keep", keep, most=1, such_as="0.95")
    test_only = truth("test_only", test_only)
    finite("the logits", snapshot.logits)
    names = weight_names(snapshot.weights, biases=biases)
    pruned = {name: snapshot.weights[name] for name in names}
    found = coordinates(pruned, basis, **_places(snapshot) if basis == "fourier" else {})
    if basis != "weights" and scores != MAGNITUDE:
        raise InputError(
            f"scores of weights do not score coordinates in basis={basis!r}; give "
            "scores='magnitude', or basis='weights'."
        )
    by = named_scores(scores, snapshot)
    order = pruning_order(scored(found.values, by.values), scope=scope)
    test_only = test_only and snapshot.test_rows is not None
    evaluated = snapshot.test_rows if test_only else None
    counts, parameters, points = [], [], []
    for fraction in grid.tolist():
        kept = order.kept(fraction)
        counts.append(sum(int(mask.sum()) for mask in kept.values()))
        parameters.append(sum(int(mask.sum()) * found.cost[n] for n, mask in kept.items()))
        weights = dict(snapshot.weights)
        for name, mask in kept.items():
            if not mask.all():
                left = found.values[name].masked_fill(~mask, 0)
                weights[name] = found.restore(name, left).to(weights[name].dtype)
        logits = snapshot.logits_with(weights, rows=evaluated)
        points.append(vars(score(snapshot, logits, test_only=test_only)))
    columns: dict[str, Any] = {
        name: torch.tensor([point[name] for point in points], dtype=torch.float64)
        for name in points[0]
    }
    return PruningCurve(
        fractions=grid,
        kept=torch.tensor(counts),
        parameters=torch.tensor(parameters),
        **columns,
        rows="all" if columns["acc_test"].isnan().any() else "test",
        scope=scope,
        score=by.name,
        basis=basis,
        biases=biases,
        keep=keep,
        n_weights=order.n_weights,
        step=snapshot.step,
        score_rows=by.rows,
        score_samples=by.n_samples,
    )


def _places(snapshot: Snapshot) -> dict[str, Tensor]:
    """Where operand tokens and answer classes stand, in the order of the task's group."""
    if snapshot.task.modular is None:
        return {}
    reads = snapshot.task.modular.reads
    return {
        "tokens": reads.operand_rows[token_order(snapshot)],
        "answers": reads.answer_columns[answer_order(snapshot)],
    }


def _checked_grid(fractions: Sequence[float] | Tensor | None) -> Float[Tensor, " m"]:
    if fractions is None:
        return torch.tensor(GRID, dtype=torch.float64)
    try:
        grid = torch.as_tensor(fractions, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InputError("fractions are not numbers; give such as [0, 0.5, 0.9, 1].") from None
    ends = grid.ndim == 1 and len(grid) > 1 and (grid[0], grid[-1]) == (0, 1)
    if not ends or not bool((grid.diff() > 0).all()):
        raise InputError("fractions do not rise from 0 to 1; give such as [0, 0.5, 0.9, 1].")
    return grid.clone()


def learnt_steps(run: Run) -> list[int]:
    """The checkpoints whose test accuracy is at least 0.9 of the best that the run logged."""
    accuracy = run.metrics.drop_duplicates("step", keep="last").set_index("step").test_acc
    return [step for step in run.steps if accuracy.get(step, 0) >= LEARNT * accuracy.max()]


def compressibility(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    scope: str = "layer",
    scores: Scores = MAGNITUDE,
    basis: str = "weights",
    fractions: Sequence[float] | Float[Tensor, " m"] | None = None,
    biases: bool = False,
    keep: float = KEEP,
    test_only: bool = False,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compressibility over training: a row per checkpoint of a run, `steps` or all.

    c, c_low and c_high (`c_interval`), area and prunable of `pruning_curve`, whose settings stand
    in `.attrs`; losses and accuracies of the unpruned model, NaN without a split (c is then of all
    inputs: `.attrs["rows"]`) and on train with `test_only`; `gini` and `mean_effective_rank` of
    `sizes`. Before a model has learnt, c is that of chance (near 1 with many classes) and prunable
    is noise.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.encodings.compressibility(run, steps=[2000, 5000, 10000])
    >>> found[["step", "c", "prunable", "test_acc"]].round(2)
        step     c  prunable  test_acc
    0   2000  1.61      0.18      0.86
    1   5000  1.97      0.30      0.99
    2  10000  2.05      0.34      0.99
    """
    run = run_of(x, task=task, train_mask=train_mask)
    table = []
    for step in progress_bar(steps_of(run, steps), "prune", progress):
        snapshot = run.snapshot(step)
        curve = pruning_curve(
            snapshot, scope=scope, scores=scores, basis=basis, fractions=fractions, biases=biases,
            keep=keep, test_only=test_only,
        )  # fmt: skip
        low, high = curve.c_interval
        row = {"step": snapshot.step, "c": curve.c, "c_low": low, "c_high": high}
        row |= {"area": curve.area, "prunable": curve.prunable}
        for quantity in ("loss", "acc"):
            for side in ("train", "test"):
                row[f"{side}_{quantity}"] = getattr(curve.unpruned, f"{quantity}_{side}")
        table.append({**row, **sizes_of(snapshot)})
    frame = pd.DataFrame(table)
    frame.attrs |= {key: value for key, value in curve.settings.items() if key != "step"}
    return frame
