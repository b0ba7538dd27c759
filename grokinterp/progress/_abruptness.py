"""How abrupt is generalisation: do the margins jump, or do smooth ones cross a threshold?

Accuracy counts the test inputs whose margin is above 0. It can rise steeply while every margin
moves slowly, as any metric with a threshold can (Schaeffer et al. 2023, arXiv 2304.15004). So each
measure is dated by the same rule, and the speed of the mean margin at the transition is compared
with its speed before. The comparison, its split into two factors and its limits are this package's
own.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr
from torch import Tensor

from grokinterp.base.checks import listed, number, real, tensor
from grokinterp.base.errors import InputError, shown
from grokinterp.base.result import Result
from grokinterp.progress.curves import read_curves
from grokinterp.progress.levels import Thresholds, crossing
from grokinterp.progress.rises import Rise, rise_of, slope_at
from grokinterp.progress.scored_checkpoints import Scored, choose_rows, scored_checkpoints
from grokinterp.reading._load import Subject, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

FEWEST_BETWEEN = 4  # checkpoints from t10 to t90: with fewer, their spacing hides how fast it was
LEAST_RISE = 0.5  # of accuracy: with less there is no transition whose speed could be told
WIDTH_OF_NORMAL = 2.5631031310892007  # standard deviations from 10 to 90 % of a normal distribution
FALLING = ("loss", "log_loss")
MEASURED = ("accuracy", "correct_probability", "margin", "margin_over_norm", "loss", "log_loss")


@dataclass(frozen=True, kw_only=True)
class Abruptness(Result):
    """How test inputs come to be answered right: rises of six measures, speeds, and flip times.

    `curves` has a row per checkpoint: the measures, `moment_null` and `spread`, the standard
    deviation of the margins. `rises` has their 10, 50 and 90 % points from `after` on. What cannot
    be said is None (NaN in a rise), and `notes` say why. `flip_steps` has each input's last change
    of sign, interpolated (NaN: none), and `n_flips` how many it has; both are in the order of rows.

    >>> import grokinterp as gi
    >>> found = gi.progress.abruptness(gi.load("mod31-small"))
    >>> found.table()[["measure", "t10", "t50", "t90"]].round().head(3)
                   measure    t10     t50     t90
    0             accuracy  418.0  1450.0  3888.0
    1  correct_probability  451.0  1469.0  4043.0
    2               margin  640.0  2154.0  4793.0
    >>> round(found.acceleration, 2), found.threshold_share, found.notes[1]
    (1.66, None, 'threshold share is undetermined: accuracy takes as long as the margins do, or
    would at their mean speed, so nothing is sharpened')
    """

    rows: str
    n_rows: int
    steps: tuple[float, ...]
    after: float | None
    curves: pd.DataFrame = field(repr=False)
    rises: tuple[Rise, ...] = ()
    moment_null_rmse: float | None = None
    n_between: int = 0
    spread: float | None = None
    t_start: float | None = None
    mean_speed: float | None = None
    acceleration: float | None = None
    threshold_share: float | None = None
    flip_steps: Float[Tensor, " n"] = field(repr=False)
    n_flips: Int[Tensor, " n"] = field(repr=False)

    def rise(self, measure: str) -> Rise | None:
        """The rise of a measure of the table; None where there is none."""
        return next((each for each in self.rises if each.measure == measure), None)

    @property
    def width_at_mean_speed(self) -> float | None:
        """Steps in which accuracy would go from 10 to 90 % at the mean speed, R_0.

        2.563 `spread` / `mean_speed`, for margins of a normal distribution.
        """
        if self.spread is None or not self.mean_speed:
            return None
        return WIDTH_OF_NORMAL * self.spread / self.mean_speed

    @property
    def probability_ratio(self) -> float | None:
        """Width of the rise of the mean correct probability over that of accuracy.

        Near 1 the softmax is saturated, and the argmax adds nothing to the abruptness; above 1 the
        argmax sharpens.
        """
        accuracy, probability = self.rise("accuracy"), self.rise("correct_probability")
        if accuracy is None or probability is None or not accuracy.width > 0:
            return None
        return probability.width / accuracy.width

    @property
    def flip_quantiles(self) -> tuple[float, float, float] | None:
        """Steps by which 10, 50 and 90 % of the inputs that change have had their last change."""
        changed = self.flip_steps[self.n_flips > 0]
        if not len(changed):
            return None
        q10, median, q90 = np.quantile(changed.numpy(), (0.1, 0.5, 0.9)).tolist()
        return q10, median, q90

    @property
    def one_flip(self) -> float | None:
        """Share of the inputs whose margin changes sign exactly once, as far as checkpoints see."""
        return float((self.n_flips == 1).double().mean()) if self.n_rows else None

    def table(self) -> pd.DataFrame:
        """One row per measure: from which value to which, when, and how wide the rise is."""
        names = ("measure", "start", "end", "t_start", "t10", "t50", "t90", "width", "log10_ratio")
        rows = [[getattr(each, name) for name in names] for each in self.rises]
        return pd.DataFrame(rows, columns=list(names))

    def _lines(self) -> list[str]:
        if self.acceleration is None:
            return []
        lines = [f"the mean margin is {self.acceleration:.2f} times as fast at t50 as on average"]
        if self.threshold_share is not None:
            share = f"{self.threshold_share:.0%}"
            lines.append(f"{share} of the sharpening (of its logarithm) comes from the threshold")
        return lines


def abruptness(
    x: Subject,
    *,
    rows: str = "unmirrored",
    after: float | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Abruptness:
    r"""Is generalisation abrupt because the margins jump, or because accuracy has a threshold?

    The margin of a test input is its right logit minus the largest wrong one,
    m_i = z_y - max_{c != y} z_c. `rows` are the "unmirrored" test inputs (all where the task has no
    mirrors) or all "test" inputs. Measures, over these rows at every checkpoint: accuracy (share
    of m_i > 0), mean correct probability, mean margin mu, mean margin over the norm of the
    (centred) logits, cross-entropy (nats) and its natural logarithm.

    Rise: t10, t50 and t90 of each, of its way from the worst value from `after` on (the step at
    which training inputs are memorised, unless given) to the best one after that; width
    R = t90 - t10, in steps.

    Moment null: Phi(mu / sigma), sigma the standard deviation of the margins. Its RMSE against
    accuracy, from `after` on, says whether accuracy holds more than these two numbers.

    Acceleration: A = v(t50) / v_mean, the speed of mu where accuracy passes half of its rise, over
    its mean speed from its minimum (at t_0) to 90 % of its own rise. A = 1: constant drift.
    R_0 = 2.563 sigma(t50) / v_mean is the width of a normal population that crosses 0 at the mean
    speed; `threshold_share` = ln(D / R_0) / ln(D / R), D = t90 - t_0 of accuracy, is the part of
    the sharpening that crossing alone explains. These are None, with the reason in `notes`, with
    fewer than 4 checkpoints from t10 to t90, and where accuracy rises by less than 0.5.

    Flips: when each margin last changes its sign, and how often it does.

    Schaeffer et al. 2023 (arXiv 2304.15004) show that thresholds make smooth change look abrupt;
    the measures here are this package's own. The moment null says nothing about smoothness (it fits
    any jump), A is smeared by the spacing of checkpoints, and `threshold_share` never reaches 0.
    None of them says why the margins move.

    >>> import grokinterp as gi
    >>> found = gi.progress.abruptness(gi.load("mod31-small"))
    >>> found.rows, found.n_rows, found.after
    ('unmirrored', 122, 260)
    >>> [round(step) for step in found.flip_quantiles], round(found.one_flip, 2)
    ([311, 1387, 3962], 0.85)
    """
    run = run_of(x, task=task, train_mask=train_mask)
    chosen = choose_rows(run, rows)
    notes = [chosen.reason or chosen.note]
    if after is not None:
        after = number("after", after, least=0, such_as="run.steps[1]")
    elif chosen.reason == "":
        after, why = _memorized(run)
        notes += why
    seen = _Seen(chosen.name)
    for scored in scored_checkpoints(run, chosen.numbers, progress=progress):
        seen.add(scored)
    return seen.found(after, notes, steps_known=run.steps_known)


def abruptness_of_margins(
    margins: Float[Tensor, "k n"],
    steps: Sequence[float],
    *,
    losses: Float[Tensor, "k n"] | None = None,
    norms: Float[Tensor, "k n"] | None = None,
    after: float | None = None,
) -> Abruptness:
    """`abruptness` of margins of one's own: n inputs at each of k steps, which rise.

    `losses` (cross-entropies, nats) give the mean correct probability and the losses, `norms` (of
    the logits) the margin over them; without them these measures are left out. InputError for
    shapes that do not fit, for numbers that are not finite, and for losses or norms below 0.

    >>> import torch
    >>> import grokinterp as gi
    >>> margins = torch.linspace(-3, 3, 31)[:, None] + torch.linspace(-1, 1, 101)
    >>> found = gi.progress.abruptness_of_margins(margins, range(0, 3100, 100))
    >>> round(found.acceleration, 3), found.one_flip, round(found.rise("margin").t50)
    (1.0, 1.0, 1500)
    """
    given = {"margins": margins, "losses": losses, "norms": norms}
    tables = {name: tensor(name, x, ndim=2) for name, x in given.items() if x is not None}
    at = [real(step) for step in listed("steps", steps, such_as="range(0, 1000, 100)")]
    known = [step for step in at if step is not None]
    if len(known) < len(at) or any(b <= a for a, b in pairwise(known)):
        raise InputError(f"steps={shown(steps)} do not rise; give numbers, each larger.")
    shape = (len(at), margins.shape[1])
    for name, table in tables.items():
        if tuple(table.shape) != shape or 0 in shape:
            raise InputError(
                f"{name} has shape {tuple(table.shape)}; give [{shape[0]} steps, n inputs], the "
                "same n as the margins and at least one."
            )
        if not bool(table.isfinite().all()):
            raise InputError(f"{name} has numbers that are not finite; leave those steps out.")
        if name != "margins" and bool((table < 0).any()):
            raise InputError(f"{name} has numbers below 0, which no {name} are; give them as such.")
    if after is not None:
        after = number("after", after, least=-math.inf, such_as="steps[1]")
    seen = _Seen("given")
    for i, step in enumerate(known):
        seen.count(step, {name: table[i].double() for name, table in tables.items()})
    return seen.found(after, [])


class _Seen:
    """What is counted of the checkpoints one after the other: curves, and changes of sign."""

    def __init__(self, rows: str) -> None:
        self.rows = rows
        self.curves: list[dict[str, float]] = []
        self.left_out: list[float] = []
        self.last: Tensor | None = None
        self.n_flips = torch.empty(0, dtype=torch.int64)
        self.flip_steps = torch.empty(0, dtype=torch.float64)

    def add(self, seen: Scored) -> None:
        """Count a checkpoint, unless it has diverged."""
        if not seen.finite:
            self.left_out.append(seen.step)
            return
        tables = {"margins": seen.margins, "losses": seen.losses, "norms": seen.norms}
        self.count(seen.step, tables)

    def count(self, step: float, seen: dict[str, Tensor]) -> None:
        """Count finite numbers of every input at a step."""
        margins = seen["margins"]
        mean, spread = float(margins.mean()), float(margins.std(correction=0))
        row = {"step": step, "accuracy": float((margins > 0).double().mean())}
        row |= {"margin": mean, "spread": spread}
        row["moment_null"] = float(ndtr(mean / spread)) if spread > 0 else float(mean > 0)
        if "norms" in seen:  # a network that answers all classes alike has a margin of 0
            shares = torch.where(seen["norms"] > 0, margins / seen["norms"], 0.0)
            row["margin_over_norm"] = float(shares.mean())
        if "losses" in seen:
            loss = float(seen["losses"].mean())
            row["correct_probability"] = float((-seen["losses"]).exp().mean())
            row |= {"loss": loss, "log_loss": math.log(loss) if loss > 0 else math.nan}
        if self.last is None:
            self.n_flips = torch.zeros(len(margins), dtype=torch.int64)
            self.flip_steps = torch.full((len(margins),), torch.nan, dtype=torch.float64)
        else:
            before = self.curves[-1]["step"]
            flipped = (margins > 0) != (self.last > 0)
            share = self.last / (self.last - margins)
            self.n_flips += flipped
            self.flip_steps = torch.where(
                flipped, before + share * (step - before), self.flip_steps
            )
        self.last = margins
        self.curves.append(row)

    def found(
        self, after: float | None, notes: list[str], *, steps_known: bool = True
    ) -> Abruptness:
        """What follows from all of it."""
        frame = pd.DataFrame(self.curves)
        if self.left_out:
            listed = ", ".join(f"{step:g}" for step in self.left_out[:5])
            notes.append(f"{len(self.left_out)} checkpoints are not finite: {listed}")
        found: dict[str, object] = {}
        if len(frame) and not steps_known:
            notes.append("no rise is dated: nobody knows the steps of these checkpoints")
        elif len(frame):
            begin = frame["step"].iloc[0] if after is None else after
            late = frame[frame["step"] >= begin]
            if len(late) < 2:
                notes.append(
                    f"no rise: it takes 2 checkpoints from step {begin:g} on; there are {len(late)}"
                )
            else:
                found = _dated(late, frame, notes)
        return Abruptness(
            rows=self.rows, n_rows=len(self.n_flips), after=after, curves=frame,
            steps=tuple(row["step"] for row in self.curves), notes=tuple(notes),
            flip_steps=self.flip_steps, n_flips=self.n_flips, **found,  # type: ignore[arg-type]
        )  # fmt: skip


def _dated(late: pd.DataFrame, every: pd.DataFrame, notes: list[str]) -> dict[str, object]:
    """The rises, and what follows from them; what cannot be said is left out, with a note."""
    columns = [name for name in MEASURED if name in late]
    rises = {
        name: rise_of(name, known["step"].tolist(), known[name].tolist(), falls=name in FALLING)
        for name in columns
        if len(known := late[late[name].notna()])
    }
    errors = late["accuracy"] - late["moment_null"]
    accuracy, margin = rises["accuracy"], rises["margin"]
    between = late["step"].between(accuracy.t10, accuracy.t90)
    found: dict[str, object] = {
        "rises": tuple(rises.values()),
        "moment_null_rmse": math.sqrt(float((errors**2).mean())),
        "n_between": int(between.sum()),
    }
    rise = accuracy.end - accuracy.start
    if rise < LEAST_RISE:
        notes.append(
            f"no transition: from step {late['step'].iloc[0]:g} on accuracy rises by {rise:.2g} "
            f"only, and it takes {LEAST_RISE}"
        )
        return found
    if not margin.t90 > margin.t_start or accuracy.t50 <= margin.t_start:
        notes.append("no speed: the mean margin is least after accuracy has passed half its rise")
        return found
    steps = every["step"].to_numpy(float)
    speed = 0.9 * (margin.end - margin.start) / (margin.t90 - margin.t_start)
    spread = float(np.interp(accuracy.t50, steps, every["spread"]))
    found |= {"spread": spread, "t_start": margin.t_start, "mean_speed": speed}
    if found["n_between"] < FEWEST_BETWEEN:  # type: ignore[operator]
        notes.append(
            f"acceleration is undetermined: {found['n_between']} of the {FEWEST_BETWEEN} "
            "checkpoints that it takes from t10 to t90"
        )
        return found
    there = slope_at(steps, every["margin"].to_numpy(float), accuracy.t50)
    found["acceleration"] = there / speed
    whole, width = accuracy.t90 - margin.t_start, accuracy.width
    crossing_alone = WIDTH_OF_NORMAL * spread / speed
    if 0 < width < whole and 0 < crossing_alone < whole:
        found["threshold_share"] = math.log(whole / crossing_alone) / math.log(whole / width)
    else:
        notes.append(
            "threshold share is undetermined: accuracy takes as long as the margins do, or would "
            "at their mean speed, so nothing is sharpened"
        )
    return found


def _memorized(run: Run) -> tuple[float | None, Iterable[str]]:
    """When the training inputs are memorised, as `gi.detect_phases` has it; or why nobody knows."""
    curves = read_curves(run.metrics, str(run.path))
    found = crossing(curves.get("train_acc"), curves.get("train_loss"), "train", Thresholds())
    if found.step is not None:
        return found.step, ()
    return None, (f"rises are from the first checkpoint on: memorising is undated ({found.why})",)
