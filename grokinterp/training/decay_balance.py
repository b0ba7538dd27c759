"""How much of the pull of weight decay does the loss cancel between checkpoints?

Decoupled decay alone would shrink every weight by lr * weight_decay an update. What the norm does
instead needs nothing but the checkpoints; which way the loss pulls takes its gradient.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import member, number, truth
from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import Result
from grokinterp.models.architecture import Gradients, Weights
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task
from grokinterp.updates.batches import rate_share
from grokinterp.updates.objectives import CrossEntropy, objective_of

WHOLE = "all"  # all trained parameters together, beside the names of single ones
LOGGED = ("update_loss", "update_decay", "cos_updates")  # by the training loop alone


@dataclass(frozen=True, kw_only=True)
class Balance(Result):
    r"""Norms of the trained parameters at checkpoints, and what moved them in between.

    Column 0 of the arrays is all parameters together ("all"), the others are those of `matrices`.
    `decays` is the rate at which decay alone would shrink each norm, mean over the updates of each
    interval: lr * weight_decay, where all weights decay alike. NaN where it is not known or does
    not act by itself (`notes` say why). `logged` is what the training loop wrote of its updates,
    where it did (`run.dynamics`).

    >>> import grokinterp as gi
    >>> found = gi.training.balance(gi.load("mod31-small"))
    >>> found.peak_step, round(found.grown, 2), round(found.shrunk, 2)
    (1000, 1.61, 0.75)
    >>> found.table()[["step", "end", "norm", "ratio", "cos_shrinking"]].round(2).iloc[[4, 13, 24]]
        step    end   norm  ratio  cos_shrinking
    4    200    300  24.79  -2.50          -0.36
    13  2000   2250  26.40   0.24           0.53
    24  8000  10000  21.74   0.01           0.13
    >>> {name: round(x, 2) for name, x in found.over(1500, 3000).items() if "ratio" in name}
    {'ratio': 0.22, 'ratio_least': 0.14, 'ratio_most': 0.29}
    """

    steps: tuple[int, ...]
    matrices: tuple[str, ...]
    norms: Float[Tensor, "k m"] = field(repr=False)
    cos_shrinking: Float[Tensor, "gaps m"] = field(repr=False)
    cos_gradient: Float[Tensor, "k m"] | None = field(repr=False)
    decays: Float[Tensor, "gaps m"] = field(repr=False)
    steps_known: bool = field(repr=False)
    logged: pd.DataFrame | None = field(repr=False)

    @property
    def peak_step(self) -> int:
        """The checkpoint with the largest norm, the first of equal ones."""
        return self.steps[int(self.norms[:, 0].nan_to_num(-1.0).argmax())]

    @property
    def grown(self) -> float:
        """The largest norm of all checkpoints over that of the first."""
        return float(self.norms[:, 0].max() / self.norms[0, 0])

    @property
    def shrunk(self) -> float:
        """The norm of the last checkpoint over the largest."""
        return float(self.norms[-1, 0] / self.norms[:, 0].max())

    def table(self, matrix: str = WHOLE) -> pd.DataFrame:
        """One row per checkpoint and what happened until the next, of one matrix or of all.

        `norm` is that at `step`; `k` = -d ln norm / d updates to `end`, `decay` what it would be by
        decay alone, `ratio` k / decay, `cancelled` 1 - ratio; `cos_shrinking` the cosine of
        the displacement with -weights, `cos_gradient` that of the gradient with the weights at
        `step`. The last row has no interval. `update_loss`, `update_decay` and `cos_updates` are
        means over the updates from `step` to `end` that were logged; of all parameters alone.
        """
        place = [WHOLE, *self.matrices].index(member(matrix, [WHOLE, *self.matrices], "matrix"))
        gaps = list(pairwise(range(len(self.steps))))
        k = [self._k(i, j, place) for i, j in gaps]
        decays = self.decays[:, place].tolist()
        ratio = [_over(x, decay) for x, decay in zip(k, decays, strict=True)]
        columns = {
            "k": k,
            "decay": decays,
            "ratio": ratio,
            "cancelled": [1 - x for x in ratio],
            "cos_shrinking": self.cos_shrinking[:, place].tolist(),
        }
        if self.logged is not None and matrix == WHOLE:
            columns |= {name: [self._mean_logged(name, *gap) for gap in gaps] for name in LOGGED}
        frame = pd.DataFrame(
            {
                "step": self.steps,
                "end": pd.array([*self.steps[1:], None], dtype="Int64"),
                "norm": self.norms[:, place].tolist(),
            }
        )
        for name, values in columns.items():
            frame[name] = [*values, math.nan]
        if self.cos_gradient is not None:
            frame["cos_gradient"] = self.cos_gradient[:, place].tolist()
        return frame

    def by_matrix(self) -> pd.DataFrame:
        """The same of all and of every matrix, one below the other, with the column `matrix`."""
        each = [self.table(name).assign(matrix=name) for name in (WHOLE, *self.matrices)]
        return pd.concat(each, ignore_index=True)

    def over(self, start: int, end: int, *, matrix: str = WHOLE) -> dict[str, float]:
        """The balance of a window between two checkpoints, and the range of its intervals.

        `k` and `ratio` are those from the first norm to the last; `_least` and `_most` are over the
        intervals between neighbouring checkpoints. A cosine over the whole window is that of
        `balance(run, steps=[start, end])`.
        """
        for step in (start, end):
            if step not in self.steps:
                raise InputError(
                    f"step {shown(step)} is no checkpoint of this balance; give two of its steps, "
                    f"such as {self.steps[0]} and {self.steps[-1]}."
                )
        first, last = self.steps.index(start), self.steps.index(end)
        if last <= first:
            raise InputError(f"the window from step {start} to {end} is empty; give start < end.")
        place = [WHOLE, *self.matrices].index(member(matrix, [WHOLE, *self.matrices], "matrix"))
        k = self._k(first, last, place)
        updates = [later - earlier for earlier, later in pairwise(self.steps)][first:last]
        decays = self.decays[first:last, place].tolist()
        decay = sum(x * n for x, n in zip(decays, updates, strict=True)) / sum(updates)
        inside = self.table(matrix).iloc[first:last]
        return {
            "start": start,
            "end": end,
            "norm_start": float(self.norms[first, place]),
            "norm_end": float(self.norms[last, place]),
            "k": k,
            "decay": decay,
            "ratio": _over(k, decay),
            "cancelled": 1 - _over(k, decay),
            **{
                f"{name}_{which}": float(bound)
                for name in ("ratio", "cos_shrinking")
                for which, bound in (("least", inside[name].min()), ("most", inside[name].max()))
            },
        }

    def _k(self, first: int, last: int, place: int) -> float:
        """The rate at which a norm fell: NaN where a norm is 0, or where steps date nothing."""
        one, other = float(self.norms[first, place]), float(self.norms[last, place])
        if not self.steps_known or not (0 < one < math.inf and 0 < other < math.inf):
            return math.nan
        return math.log(one / other) / (self.steps[last] - self.steps[first])

    def _mean_logged(self, name: str, first: int, last: int) -> float:
        assert self.logged is not None
        step = self.logged["step"]
        inside = (step >= self.steps[first]) & (step < self.steps[last])
        return float(self.logged.loc[inside, name].mean())

    def _lines(self) -> list[str]:
        """The norm at the start, at its largest and at the end; the ratio from there on."""
        peak = self.peak_step
        points = dict.fromkeys((self.steps[0], peak, self.steps[-1]))
        norms = ", ".join(
            f"{float(self.norms[self.steps.index(step), 0]):.4g} at step {step}" for step in points
        )
        lines = [f"norm of the trained parameters: {norms}"]
        if peak < self.steps[-1]:
            whole = self.over(peak, self.steps[-1])
            if math.isfinite(whole["ratio"]):
                lines.append(
                    f"after step {peak}: k / (lr x weight decay) = {whole['ratio']:.3g}, between "
                    f"checkpoints {whole['ratio_least']:.3g} to {whole['ratio_most']:.3g}"
                )
        return lines


def balance(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    gradients: bool = False,
    lr: float | None = None,
    weight_decay: float | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Balance:
    r"""Does weight decay shrink the weights unopposed, or does the loss hold them?

    With N the L2 norm of all trained parameters,

        k = -d ln N / dt    between neighbouring checkpoints, per update.

    Decoupled decay (AdamW: theta <- (1 - lr wd) theta - lr u) alone gives k = lr * wd, a stationary
    norm k = 0; 1 - k / (lr wd) is the share of the decay that the loss cancels. lr is the mean rate
    of the interval, by the schedule. The same holds for each matrix; where some weights decay less
    than others, lr wd of all is the mean of theirs, each weighted by its squared norm.
    Explanations by unopposed decay take k / (lr wd) for 1: the norm as exp(-wd t) in Liu et al.
    2023 (Omnigrok, arXiv 2210.01117), a delay of log(alpha) / wd in Lyu et al. 2024 (arXiv
    2311.18817).

    `cos_shrinking` = cos(theta' - theta, -theta) from one checkpoint to the next is 1 where all
    weights shrink alike, 0 where they move sideways. With `gradients`, `cos_gradient` =
    cos(grad L, theta) of the loss over all training rows at every checkpoint, in float64 (the
    slow part): -1 where the loss can only be lowered by longer weights, as at a stationary point
    with decay (Prieto et al. 2025, arXiv 2501.04697, call growth along that direction naive loss
    minimisation). Look at it by matrix: matrices with a large gradient and a small norm decide the
    cosine of all.

    The ratio is null, with the reason in `notes`, where decay does not act by itself: with an
    optimiser that mixes it into its moments (adam), without decay, without a recipe unless `lr` and
    `weight_decay` are given (which are then taken for a constant rate and decoupled decay), and
    where steps are not known. It does not show how large the two parts of single updates are: the
    moments of an optimiser are not saved. InputError for steps that are not saved, or not in order.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.training.balance(run, steps=[200, 2000, 10000], gradients=True)
    >>> found.table()[["step", "norm", "ratio", "cos_gradient"]].round(2)
        step   norm  ratio  cos_gradient
    0    200  24.79  -0.07         -0.43
    1   2000  26.40   0.05         -0.83
    2  10000  21.57    NaN         -0.99
    """
    run = run_of(x, task=task, train_mask=train_mask)
    chosen = rising_steps(run, steps)
    names = trained_names(run)
    rates, shares, notes = _decays(run, names, chosen, lr, weight_decay)
    if len(chosen) == 1:
        notes = ["one checkpoint has a norm, and no rate: that takes two"]
    find, reason = _gradients(run) if truth("gradients", gradients) else (None, "")
    notes += [reason] if reason else []
    norms: list[Tensor] = []
    moves: list[Tensor] = []
    slopes: list[Tensor] = []
    before: Weights | None = None
    for step in progress_bar(chosen, "balance", progress):
        every = {name: w.double() for name, w in run.weights(step).items()}
        weights = {name: every[name] for name in names}
        norms.append(_dots(weights, weights).sqrt())
        if before is not None:
            moved = {name: weights[name] - before[name] for name in names}
            moves.append(-_cosines(moved, before))
        if find is not None:
            try:
                slope = find(every)
            except InputError as error:  # of a module that cannot be differentiated so
                find, slopes = None, []
                notes.append(f"no gradients: {str(error).rstrip('.')}")
            else:
                slopes.append(_cosines({name: slope[name] for name in names}, weights))
        before = weights
    if bad := [step for step, norm in zip(chosen, norms, strict=True) if not norm.isfinite().all()]:
        notes.append(f"weights of step {bad[0]} are not finite, so there is no norm")
    return Balance(
        steps=tuple(chosen),
        matrices=tuple(names),
        norms=torch.stack(norms),
        cos_shrinking=torch.stack(moves) if moves else torch.empty(0, 1 + len(names)).double(),
        cos_gradient=torch.stack(slopes) if slopes else None,
        decays=_decay_of_norms(torch.stack(norms), rates, shares),
        steps_known=run.steps_known,
        logged=run.dynamics,
        notes=tuple(notes),
    )


def trained_names(run: Run) -> list[str]:
    """Names of the parameters that training moves; without a recipe, of all parameters."""
    if run.recipe is not None:
        return run.architecture.trained(run.recipe.biases)
    return list(run.architecture.parameters(run.weights(run.steps[0])))


def _decays(
    run: Run,
    names: Sequence[str],
    steps: Sequence[int],
    lr: float | None,
    weight_decay: float | None,
) -> tuple[list[float], list[float], list[str]]:
    """Lr * weight_decay of every parameter, the mean share of it in every interval, and notes."""
    recipe, notes = run.recipe, []
    rates: list[float] = []
    given = {
        "lr": None if lr is None else number("lr", lr, such_as="1e-3"),
        "weight_decay": None
        if weight_decay is None
        else number("weight_decay", weight_decay, least=0, such_as="1.0"),
    }
    missing = [name for name, value in given.items() if value is None]
    reason = ""
    if not run.steps_known:
        reason = "nobody knows how many updates lie between checkpoints"
    elif missing and recipe is None:
        reason = f"there is no recipe that says {' and '.join(missing)}: give lr= and weight_decay="
    elif missing and recipe is not None and not recipe.build("optimizer").decoupled:
        reason = f"weight decay of optimizer={recipe.optimizer!r} is no shrinking by itself"
    elif missing and recipe is not None:
        optimizer = recipe.replace(**{n: x for n, x in given.items() if x is not None})
        weights = {name: run.weights(steps[0])[name] for name in names}
        rates = list(optimizer.build("optimizer").decays(weights).values())
    else:
        rates = [math.prod(x for x in given.values() if x is not None)] * len(names)
    gaps = list(pairwise(steps))
    if not any(rates):
        reason = reason or "there is no weight decay that the loss could cancel"
        return [math.nan] * len(names), [math.nan] * len(gaps), [f"no ratio: {reason}"]
    if len(set(rates)) > 1:
        notes.append("not all weights decay alike: decay of all is the mean by squared norms")
    if recipe is not None and recipe.build("constraint").moves:
        notes.append(f"constraint={recipe.constraint!r} moves the weights, too")
    if recipe is None or lr is not None:
        return rates, [1.0] * len(gaps), notes
    return rates, [fmean(rate_share(recipe, i) for i in range(*gap)) for gap in gaps], notes


def _decay_of_norms(
    norms: Float[Tensor, "k m"], rates: Sequence[float], shares: Sequence[float]
) -> Float[Tensor, "gaps m"]:
    """How fast decay alone would shrink the norm of all, then of each; at the start of each gap."""
    each, squares = torch.tensor(rates, dtype=torch.float64), norms[:-1, 1:].square()
    # Equal rates are taken as they are, so that no rounding of a mean comes in.
    alike = each[:1].expand(len(squares)) if len(set(rates)) == 1 else (squares @ each)
    whole = alike if len(set(rates)) == 1 else alike / squares.sum(dim=1)
    together = torch.cat([whole[:, None], each.expand(len(squares), -1)], dim=1)
    return together * torch.tensor(shares, dtype=torch.float64)[:, None]


def _gradients(run: Run) -> tuple[Gradients | None, str]:
    """What finds the gradient of the run's loss over its training rows, or why nothing does."""
    if run.train_indices is None:
        return None, "no gradients: nobody knows which rows were trained on"
    if run.architecture.missing:
        return None, f"no gradients: {run.architecture.missing}"
    recipe = run.recipe
    objective = CrossEntropy() if recipe is None else objective_of(recipe)
    rows = run.train_indices.sort().values
    inputs = run.task.model_inputs[rows]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return run.architecture.gradients_on(inputs, run.task.targets[rows], objective), ""


def _dots(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Float[Tensor, " m"]:
    """Inner products of two sets of tensors: of all together, then of each."""
    each = torch.stack([(one[name] * other[name]).sum() for name in one])
    return torch.cat([each.sum()[None], each])


def _cosines(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Float[Tensor, " m"]:
    """The same as cosines; NaN beside what is 0."""
    return _dots(one, other) / (_dots(one, one) * _dots(other, other)).sqrt()


def _over(k: float, decay: float) -> float:
    return k / decay if decay > 0 else math.nan
