"""From which size of the training set on is generalising cheaper than memorising?

Cheap is a circuit that needs a small parameter norm for a given logit. Memorising gets dearer with
every training row, generalising does not, so that there is a size where the two cross.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from scipy import stats
from torch import Tensor

from grokinterp.base.checks import listed, number, real, refused
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.models.cross_entropy import right_answers
from grokinterp.progress.levels import Thresholds
from grokinterp.reading._load import Subject, named_runs, progress_bar
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task
from grokinterp.training.decay_balance import trained_names
from grokinterp.updates.changes import norm_of

MEMORIZING, GENERALIZING, NEITHER = "memorizing", "generalizing", ""  # what a run stands for
CONFIDENCE = 0.95
MOST = math.log(sys.float_info.max)


@dataclass(frozen=True, kw_only=True)
class EfficiencyFit:
    """Where the norm that memorising needs crosses the one that generalising needs.

    p_mem(D) = `factor` * D^`exponent`; `p_gen` and `p_gen_sd` are the mean and the standard
    deviation of the generalising runs (NaN of one). `d_crit` is the crossing, with the interval
    `d_low` to `d_high`, and `reason` says what is missing, NaN here: see `efficiency_fit`.
    """

    exponent: float
    factor: float
    p_gen: float
    p_gen_sd: float
    d_crit: float
    d_low: float
    d_high: float
    n_memorizing: int
    n_generalizing: int
    reason: str

    def p_mem(self, size: float) -> float:
        """The normalised norm that memorising so many rows takes."""
        size = number("size", size, such_as="500")
        return self.factor * _exp(self.exponent * math.log(size))


def efficiency_fit(
    sizes: Sequence[float], p_mem: Sequence[float], p_gen: Sequence[float]
) -> EfficiencyFit:
    r"""The crossing of p_mem = factor * D^exponent with the level of p_gen, from plain numbers.

    `sizes` and `p_mem` are of the memorising runs, in step, `p_gen` of the generalising ones. The
    power law is the least-squares line of log p_mem on log D, the level g the mean of log p_gen,
    and log D_crit = (g - log factor) / exponent. Its 95 % interval is by the delta method,

        var = (s^2 (1/n + (log D_crit - mean)^2 / S_xx) + s_g^2 / m) / exponent^2,

    with s^2 the residual variance over n - 2 degrees of freedom and s_g^2 that of the m levels over
    m - 1, times Student's t with the degrees of Welch and Satterthwaite. With four sizes that is
    wide, and it should be.

    There is no crossing with fewer than two sizes, without a generalising run, and where the norm
    does not rise with D; no interval with fewer than three memorising runs or two generalising
    ones, and where the slope is not told from 0. Then they are NaN, with the `reason`. InputError
    for numbers that are not above 0, and for lists of unequal length.

    >>> fit = efficiency_fit([100, 400, 900], [10, 20, 30], [25, 25])
    >>> round(fit.exponent, 6), round(fit.factor, 6), round(fit.d_crit, 6)
    (0.5, 1.0, 625.0)
    >>> efficiency_fit([100, 400], [10, 20], []).reason
    'no crossing: there is no generalising run'
    """
    size, mem = _positive("sizes", sizes), _positive("p_mem", p_mem)
    gen = _positive("p_gen", p_gen)
    if len(size) != len(mem):
        raise InputError(f"{len(size)} sizes and {len(mem)} numbers of p_mem; give one for each.")
    x, y, levels = np.log(size), np.log(mem), np.log(gen)
    n, m = len(x), len(levels)
    exponent = factor = d_crit = low = high = math.nan
    reason, centred = "", x - x.mean() if n else x
    if len(set(x)) < 2:
        reason = f"no power law: {len(set(x))} sizes of memorising runs, which takes two"
    else:
        exponent = float(centred @ y / (centred @ centred))
        factor = _exp(float(y.mean()) - exponent * float(x.mean()))
        if not m:
            reason = "no crossing: there is no generalising run"
        elif exponent <= 0:
            reason = "no crossing: memorising does not get dearer with more rows"
        else:
            at = float(levels.mean() - y.mean()) / exponent  # log D_crit from the mean of the logs
            if abs(float(x.mean()) + at) < MOST:
                d_crit = math.exp(float(x.mean()) + at)
                low, high, reason = _interval(x, y, levels, exponent, at)
            else:
                reason = "no crossing: memorising hardly gets dearer with more rows"
    return EfficiencyFit(
        exponent=exponent,
        factor=factor,
        p_gen=float(gen.mean()) if m else math.nan,
        p_gen_sd=float(gen.std(ddof=1)) if m > 1 else math.nan,
        d_crit=d_crit,
        d_low=low,
        d_high=high,
        n_memorizing=n,
        n_generalizing=m,
        reason=reason,
    )


def _interval(
    x: np.ndarray, y: np.ndarray, levels: np.ndarray, slope: float, at: float
) -> tuple[float, float, str]:
    """The interval of exp(mean of x + at), or the reason why there is none."""
    n, m = len(x), len(levels)
    if n < 3 or m < 2:
        given = f"{n} memorising and {m} generalising"
        return math.nan, math.nan, f"no interval: {given} runs, which takes three and two"
    centred = x - x.mean()
    spread = float(centred @ centred)
    residual = float(((y - y.mean() - slope * centred) ** 2).sum()) / (n - 2)
    if abs(slope) < stats.t.ppf((1 + CONFIDENCE) / 2, n - 2) * math.sqrt(residual / spread):
        return math.nan, math.nan, "no interval: the slope of log p_mem is not told from 0"
    of_line = residual * (1 / n + at**2 / spread)
    of_level = float(levels.var(ddof=1)) / m
    both = of_line + of_level
    degrees = both**2 / (of_line**2 / (n - 2) + of_level**2 / (m - 1)) if both > 0 else 1.0
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * math.sqrt(both) / slope
    middle = float(x.mean()) + at
    if abs(middle) + half >= MOST:
        return math.nan, math.nan, "no interval: its end is larger than all numbers"
    return math.exp(middle - half), math.exp(middle + half), ""


def _exp(x: float) -> float:
    return math.exp(x) if x < MOST else math.inf


def _positive(name: str, given: Sequence[float]) -> np.ndarray:
    found = [real(x) for x in listed(name, given, such_as="[200, 400]")]
    for value, x in zip(given, found, strict=True):
        if x is None or x <= 0:
            raise refused(name, value, "a number above 0", "finite ones, such as [200, 400]")
    return np.array(found, dtype=float)


@dataclass(frozen=True, kw_only=True)
class Efficiency(Result):
    """Norm and logit of every run, what each stands for, and where the two curves cross.

    >>> import grokinterp as gi
    >>> found = gi.encodings.efficiency(gi.load("mod31-small"))
    >>> found.table()[["run", "labels", "n_train", "norm", "logit", "normalized_norm"]].round(2)
               run labels  n_train   norm  logit  normalized_norm
    0  mod31-small   true      624  21.57  46.94             3.15
    """

    rows: tuple[dict[str, object], ...] = field(repr=False)
    fit: EfficiencyFit
    exponent: float

    @property
    def p_mem_exponent(self) -> float:
        """The exponent b of p_mem ~ D^b; NaN with runs of fewer than two sizes."""
        return self.fit.exponent

    def p_mem(self, size: float) -> float:
        """The normalised norm that memorising so many training rows takes, by the power law."""
        return self.fit.p_mem(size)

    @property
    def p_gen(self) -> float:
        """Mean normalised norm of the generalising runs; NaN without one."""
        return self.fit.p_gen

    @property
    def d_crit(self) -> float:
        """The number of training rows at which memorising costs what generalising costs."""
        return self.fit.d_crit

    @property
    def d_crit_interval(self) -> tuple[float, float]:
        """Its 95 % interval; NaN where there is none."""
        return self.fit.d_low, self.fit.d_high

    def table(self) -> pd.DataFrame:
        """One row per run; `stands_for` is "memorizing", "generalizing" or "" (in neither fit)."""
        return pd.DataFrame(list(self.rows))

    def _lines(self) -> list[str]:
        """The two curves, and where they cross."""
        fit, lines = self.fit, []
        if math.isfinite(fit.exponent):
            lines.append(f"memorising: {fit.factor:.3g} x D^{fit.exponent:.3g}")
        if math.isfinite(fit.p_gen):
            spread = f", standard deviation {fit.p_gen_sd:.2g}" * math.isfinite(fit.p_gen_sd)
            lines.append(f"generalising: {fit.p_gen:.4g}{spread}")
        if math.isfinite(fit.d_crit):
            within = f", 95 % interval {fit.d_low:.4g} to {fit.d_high:.4g}"
            lines.append(f"they cross at D = {fit.d_crit:.4g}{within * math.isfinite(fit.d_low)}")
        return lines


def efficiency(
    runs: Subject | Sequence[Subject] | Mapping[str, Subject],
    *,
    exponent: float = 0.5,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Efficiency:
    r"""Which parameter norm do memorising and generalising take, and at which size do they cross?

    `runs` are of one model at several sizes D of the training set, some of them with random labels
    (`operation="random"`), which can only be memorised, some with true ones; a list, or a dict of
    them by name. Of each, at its last checkpoint (or `step`): N, the L2 norm of all trained
    parameters; the logit of the right answer, centred over the classes, as a mean over the training
    rows; and the normalised norm N / logit^exponent, what a unit logit costs. In a network that is
    homogeneous of degree L, scaling all weights by c scales the logits by c^L, so that 1/L takes
    scale out: 1/2 for an MLP with one hidden layer (but for its biases). A transformer has paths of
    several degrees: try other exponents, up to 1, there.

    Memorising runs are those of random labels with a train accuracy of .99, generalising ones those
    of true labels that answer .95 of the test inputs right (of a commutative operation those whose
    mirror is not trained on); runs with `label_noise` are neither. `efficiency_fit` has p_mem ~ D^b
    of the first, the level p_gen of the second, and D_crit where they cross.

    Varma et al. 2023 (arXiv 2309.02390, section 5) predict grokking above D_crit and
    "ungrokking" below. What is learned also depends on the way there: a run may need more rows from
    its initial weights, and forget with fewer. It is one number of a norm: it does not say which
    circuit is there, and runs of random labels stand for the memorising part of others.

    What a run does not know (its split, say) is NaN; what too few runs cannot say is NaN with the
    reason in `notes`. InputError for two runs with folders of one name: give a dict.

    >>> import grokinterp as gi
    >>> found = gi.encodings.efficiency(gi.load("mod31-small"))
    >>> found.notes[0]
    'no power law: 0 sizes of memorising runs, which takes two'
    """
    exponent = number("exponent", exponent, most=1, such_as="0.5")
    named = named_runs(runs, task=task, train_mask=train_mask)
    names = list(named)
    rows = [
        {"run": names[i], **_row(named[names[i]], step, exponent)}
        for i in progress_bar(range(len(names)), "efficiency", progress)
    ]
    found = pd.DataFrame(rows)
    mem, gen = (found[found["stands_for"] == kind] for kind in (MEMORIZING, GENERALIZING))
    fit = efficiency_fit(
        mem["n_train"].tolist(), mem["normalized_norm"].tolist(), gen["normalized_norm"].tolist()
    )
    return Efficiency(
        rows=tuple(rows), fit=fit, exponent=exponent, notes=tuple(_notes(named, found, fit))
    )


def _row(run: Run, step: int, exponent: float) -> dict[str, Any]:
    """The numbers of one run."""
    seen = run.snapshot(step)
    norm = norm_of({name: seen.weights[name] for name in trained_names(run)})
    noisy = run.recipe is not None and run.recipe.label_noise > 0
    random = getattr(seen.task, "operation", None) == "random"
    row: dict[str, Any] = {
        "labels": "noisy" if noisy else "random" if random else "true",
        "step": seen.step,
        "n_train": math.nan,
        "norm": norm,
        "logit": math.nan,
        "normalized_norm": math.nan,
        "train_acc": math.nan,
        "test_acc": math.nan,
        "stands_for": NEITHER,
    }
    if seen.train_mask is None or run.architecture.missing:
        return row  # without its module a run has weights alone
    logits, labels = seen.logits, seen.task.labels
    right = right_answers(logits, labels).double()
    train = seen.train_mask
    of_train = logits[train].double()
    own = of_train.gather(1, labels[train][:, None]).flatten() - of_train.mean(dim=1)
    row |= {"n_train": int(train.sum()), "logit": float(own.mean())}
    row["train_acc"] = float(right[train].mean())
    if row["logit"] > 0:
        row["normalized_norm"] = norm / row["logit"] ** exponent
    if seen.unmirrored_rows is not None:
        row["test_acc"] = float(right[seen.unmirrored_rows].mean())
    limits = Thresholds()
    if noisy or not math.isfinite(row["normalized_norm"]):
        return row  # what is partly memorised stands for neither
    if random and row["train_acc"] >= limits.train_acc:
        row["stands_for"] = MEMORIZING
    elif not random and row["test_acc"] >= limits.test_acc * seen.task.ceiling:
        row["stands_for"] = GENERALIZING
    return row


def _notes(named: Mapping[str, Run], found: pd.DataFrame, fit: EfficiencyFit) -> list[str]:
    """What to read with the numbers."""
    notes = [fit.reason] if fit.reason else []
    if any(run.task.commutative for run in named.values()):
        notes.append("test accuracy of a commutative operation is on unmirrored pairs")
    if left := found.loc[found["stands_for"] == NEITHER, "run"].tolist():
        notes.append(f"{len(left)} of {len(found)} runs neither memorise random labels nor "
                     f"generalise, and are in no fit: {', '.join(map(str, left[:4]))}"
                     f"{' ...' * (len(left) > 4)}")  # fmt: skip
    memorized = found.loc[found["stands_for"] == MEMORIZING, "n_train"]
    if math.isfinite(fit.d_crit) and not memorized.min() <= fit.d_crit <= memorized.max():
        notes.append("the crossing lies beyond the sizes of the memorising runs: extrapolated")
    if len({str(run.architecture) for run in named.values()}) > 1:
        notes.append("the runs are of different models, whose norms cannot be compared")
    return notes
