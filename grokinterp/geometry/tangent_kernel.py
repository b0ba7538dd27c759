"""The tangent kernel of a run over training: does it stay as it began (lazy), or move (rich)?

The gradients of the logits by all trained weights, at some inputs, say how the network would learn
if it were linear in its weights. Where their inner products, the kernel, stay the same, it does
learn so; where they change, it learns features.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, tensor, whole, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.geometry.fisher import logits_of
from grokinterp.geometry.inputs import check_finite
from grokinterp.geometry.logit_gradients import kernels_of
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import phases_of_metrics
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task, unmirrored_rows

ROWS = ("unmirrored", "test", "train", "all")
LAZY_BELOW = 0.1  # distance when it has memorised
RICH_SHARE, RICH_GROWTH = 0.25, 1.5  # of the last distance, and of the alignment, in the transition


def centred_alignment(one: Float[Tensor, "n n"], other: Float[Tensor, "n n"]) -> float:
    """Centred kernel alignment: the cosine of two kernels whose rows and columns have mean 0.

    <HKH, HLH> / (|HKH| |HLH|) with H = 1 - 1/n, from 0 to 1 for kernels; the scale of either is
    nothing to it. NaN where a centred kernel is 0. Cortes, Mohri and Rostamizadeh 2012 (JMLR 13).

    >>> import grokinterp as gi
    >>> line = torch.tensor([[1.0], [2.0], [4.0]])
    >>> round(gi.geometry.centred_alignment(line @ line.T, 3 * line @ line.T + 5), 6)
    1.0
    """
    one, other = (tensor("kernel", each, ndim=2).double() for each in (one, other))
    if one.shape != other.shape or one.shape[0] != one.shape[1]:
        raise InputError(
            f"kernels of shapes {tuple(one.shape)} and {tuple(other.shape)} do not compare; give "
            "two square ones over the same inputs."
        )
    one, other = (
        each - each.mean(0) - each.mean(1)[:, None] + each.mean() for each in (one, other)
    )
    lengths = float(one.norm()) * float(other.norm())
    return float((one * other).sum()) / lengths if lengths > 0 else math.nan


@dataclass(frozen=True, kw_only=True)
class TangentKernel(Result):
    """A run's kernels on some inputs over training: how far they moved, and towards the labels.

    All have a row per step and a column per set of probes: `distances` is 1 - alignment with the
    first step's kernel (0 there), `alignments` that with the labels' (1 for inputs of one class, 0
    for others), `sizes` the mean of the kernel's diagonal, a mean squared gradient norm. `kernels`
    [k, n, n] is the mean over the sets. `inputs` are the rows of the task's table.

    `lazy` says whether the kernel had hardly moved when the run had memorised (distance below 0.1
    at `memorization_step`), `rich` whether it moved in the transition: between the ends of
    memorisation and cleanup (`transition`) fell at least a quarter of the last distance, and the
    alignment grew to 1.5 times. Numbers between checkpoints are on straight lines. None where dates
    are not known, and where sets of probes disagree. The thresholds are own choices. Of exact
    kernels there is one set, and `probes` is None.

    >>> import grokinterp as gi
    >>> found = gi.geometry.kernel(gi.load("mod31-small"), steps=[0, 300, 10000], probes=1, sets=2)
    >>> found.lazy, found.rich
    (False, False)
    >>> found.table()[["step", "distance", "distance_spread", "alignment"]].round(2)
        step  distance  distance_spread  alignment
    0      0      0.00             0.00       0.20
    1    300      0.69             0.02       0.38
    2  10000      0.61             0.12       0.41
    """

    steps: tuple[int, ...]
    distances: Float[Tensor, "k sets"] = field(repr=False)
    alignments: Float[Tensor, "k sets"] = field(repr=False)
    sizes: Float[Tensor, "k sets"] = field(repr=False)
    kernels: Float[Tensor, "k n n"] = field(repr=False)
    rows: str
    inputs: Int[Tensor, " n"] = field(repr=False)
    n_classes: int
    n_weights: int
    probes: int | None
    sets: int
    seed: int
    memorization_step: float | None
    transition: tuple[float, float] | None

    @property
    def distance_at_memorization(self) -> float:
        """Mean over the sets; NaN without a `memorization_step` among the steps looked at."""
        return float(self._at(self.distances, self.memorization_step).mean())

    @property
    def share_in_transition(self) -> float:
        """Of the last distance, what it grew by in the transition; mean over the sets."""
        return float(self._shares.mean())

    @property
    def growth_in_transition(self) -> float:
        """The alignment at the end of the transition over that at its start; mean over the sets."""
        return float(self._growths.mean())

    @property
    def lazy(self) -> bool | None:
        """Whether the kernel was still that of the start when the run had memorised."""
        return _agreed(self._at(self.distances, self.memorization_step), lambda x: x < LAZY_BELOW)

    @property
    def rich(self) -> bool | None:
        """Whether the kernel moved in the transition, and towards the labels."""
        moved = _agreed(self._shares, lambda x: x >= RICH_SHARE)
        aligned = _agreed(self._growths, lambda x: x >= RICH_GROWTH)
        if moved is False or aligned is False:
            return False
        return True if moved and aligned else None

    @property
    def lazy_then_rich(self) -> bool | None:
        """Both: lazy while memorising, rich in the transition."""
        if self.lazy is False or self.rich is False:
            return False
        return True if self.lazy and self.rich else None

    @property
    def _shares(self) -> Float[Tensor, " sets"]:
        start, end = (self._at(self.distances, step) for step in self.transition or (None, None))
        return (end - start) / self.distances[-1]

    @property
    def _growths(self) -> Float[Tensor, " sets"]:
        start, end = (self._at(self.alignments, step) for step in self.transition or (None, None))
        return end / start

    def _at(self, values: Float[Tensor, "k sets"], step: float | None) -> Float[Tensor, " sets"]:
        """Values at a step, on straight lines between those looked at; NaN beyond them."""
        at = math.nan if step is None else step
        found = [
            np.interp(at, self.steps, each, left=math.nan, right=math.nan)
            for each in values.T.tolist()
        ]
        return torch.tensor(found, dtype=torch.float64)

    def table(self) -> pd.DataFrame:
        """One row per step: distance, alignment and size, each the mean over the sets of probes.

        `_spread` is the largest less the smallest of the sets, NaN of a single one.
        """
        columns: dict[str, object] = {"step": self.steps}
        for name, values in (("distance", self.distances), ("alignment", self.alignments)):
            columns[name] = values.mean(dim=1).tolist()
            spread = values.amax(dim=1) - values.amin(dim=1)
            columns[f"{name}_spread"] = spread.tolist() if self.sets > 1 else math.nan
        return pd.DataFrame(columns | {"size": self.sizes.mean(dim=1).tolist()})

    def to_dict(self) -> dict[str, Any]:
        """Plain values of all fields but the kernels themselves."""
        return {key: x for key, x in super().to_dict().items() if key != "kernels"}

    def _lines(self) -> list[str]:
        probes = "every class" if self.probes is None else f"{self.sets} x {self.probes} probes"
        lines = [
            f"{len(self.inputs)} {self.rows} inputs of {self.n_classes} classes, {probes}, "
            f"{self.n_weights} weights"
        ]
        if self.memorization_step is not None:
            at = self.distance_at_memorization
            lines.append(f"lazy at memorisation: {word_of(self.lazy)} (distance {at:.3g})")
        if self.transition is not None:
            share, growth = self.share_in_transition, self.growth_in_transition
            lines.append(
                f"rich at the transition: {word_of(self.rich)} ({share:.1%} of the distance, "
                f"alignment x {growth:.3g})"
            )
        return lines


def kernel(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    rows: str = "unmirrored",
    classes: int = 12,
    per_class: int = 8,
    probes: int | None = 2,
    sets: int = 3,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> TangentKernel:
    r"""Does a network's tangent kernel stay while it memorises (lazy), and move later (rich)?

    K_ij = mean over probes v of <grad v.z(x_i), grad v.z(x_j)>, with z the logits of the C answer
    classes, grad by all trained weights, and v normal / sqrt(C), the same for all inputs and steps:
    its expectation is the mean over the classes of the kernels of one logit each. `probes` are
    averaged in a kernel, which is made `sets` times; how far these are apart says what the choice
    of probes does. `probes=None`, or as many as there are classes, takes every class once instead:
    exact, without a spread, at the price of C probes. Few probes make noise, and with it distances
    somewhat larger. Distance is 1 - `centred_alignment`(K_t, K_0), with K_0 the first of
    `steps`; alignment is that of K_t with the labels.

    The inputs are up to `per_class` of up to `classes` answer classes, drawn by `seed` among the
    `rows`: "unmirrored" (test inputs whose mirror is not trained on either, all test inputs where
    there are no mirrors), "test", "train" or "all"; classes with too few are drawn last. Without a
    split all inputs are taken, and a note says so.

    Everything is in float64. Gradients are held for all n inputs, 256 MB of them at once: of more
    weights than fit, they are computed part by part. The kernel of a step takes 8 n^2 bytes.

    The kernel grows with the logits, so judge by the distance, not by the size. It is about these
    inputs alone, and says how the network would learn from here, not what it has learnt: a kernel
    that stays is lazy whether or not the network generalises. Distances of few inputs, probes and
    seeds are rough. Lazy and rich training: Chizat, Oyallon and Bach 2019 (arXiv 1812.07956); as an
    account of grokking: Kumar et al. 2024 (arXiv 2310.06110). InputError for weights that are not
    finite, and for a model whose weights alone do not say what it computes.

    >>> import grokinterp as gi
    >>> found = gi.geometry.kernel(gi.load("mod31-small"), steps=[0, 10000], probes=1, sets=1)
    >>> found.kernels.shape, round(float(found.distances[-1]), 2)
    (torch.Size([2, 79, 79]), 0.65)
    """
    run = run_of(x, task=task, train_mask=train_mask)
    chosen = rising_steps(run, steps)
    word("rows", rows, ROWS)
    classes = whole("classes", classes, least=1, such_as="12")
    per_class = whole("per_class", per_class, least=1, such_as="8")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    among, rows, notes = rows_of(run, rows)
    inputs = draw_by_class(run.task.labels, among, classes, per_class, _generator(seed))
    directions = _probes(run.task.n_classes, probes, sets, _generator(seed))
    labels = run.task.labels[inputs]
    of_labels = (labels[:, None] == labels).double()
    n_classes = len(labels.unique())
    if n_classes == 1:
        notes.append("no alignment: the inputs are of one class")
    elif n_classes == len(labels):
        notes.append("every input is of a class of its own: alignment knows no likeness of labels")
    trained = run.architecture.trained("all" if run.recipe is None else run.recipe.biases)
    shape = len(chosen), len(directions)
    distances, alignments, sizes = (torch.empty(shape, dtype=torch.float64) for _ in range(3))
    mean_kernels = torch.empty(len(chosen), *of_labels.shape, dtype=torch.float64)
    first = None
    for place, step in enumerate(progress_bar(chosen, "kernel", progress)):
        snapshot = run.snapshot(step)
        check_finite(snapshot.weights, step)
        exact = {name: weight.detach().double() for name, weight in snapshot.weights.items()}
        names = [name for name in exact if name in trained]
        if not names:
            raise InputError("no weight of this model is trained; there is no tangent kernel.")
        found = kernels_of(
            logits_of(snapshot), exact, snapshot.task.model_inputs[inputs], directions, names
        )
        first = found if first is None else first
        for i, (one, start) in enumerate(zip(found, first, strict=True)):
            distances[place, i] = 1 - centred_alignment(one, start)
            alignments[place, i] = centred_alignment(one, of_labels)
        sizes[place] = found.diagonal(dim1=1, dim2=2).mean(dim=1)
        mean_kernels[place] = found.mean(dim=0)
    if len(chosen) == 1:
        distances[:] = math.nan
        notes.append("no distance: one checkpoint has nothing to be distant from")
    elif bool(distances.isnan().any()):
        notes.append("no distance where the centred kernel is 0, or that of the first step is")
    distances[0] = distances[0].abs() * 0  # from itself: all but NaN is rounding
    memorization_step, transition, why = _dates(run, chosen)
    result = TangentKernel(
        steps=tuple(chosen),
        distances=distances.clamp(min=0),  # 1 less a cosine that rounding took beyond 1
        alignments=alignments,
        sizes=sizes,
        kernels=mean_kernels,
        rows=rows,
        inputs=inputs,
        n_classes=n_classes,
        n_weights=sum(exact[name].numel() for name in names),
        probes=None if directions.shape[1] >= run.task.n_classes else probes,
        sets=len(directions),
        seed=seed,
        memorization_step=memorization_step,
        transition=transition,
        notes=(*notes, *why),
    )
    split = [
        f"{name} is undetermined: the sets of probes disagree, or a number is NaN; more probes may "
        "tell"
        for name, date in (("lazy", memorization_step), ("rich", transition))
        if date is not None and getattr(result, name) is None
    ]
    return replace(result, notes=(*result.notes, *split))


def draw_by_class(
    labels: Int[Tensor, " n_inputs"],
    among: Int[Tensor, " some"],
    classes: int,
    per_class: int,
    generator: torch.Generator,
) -> Int[Tensor, " n"]:
    """Up to so many rows of up to so many classes, in table order; classes with too few come last.

    >>> labels = torch.tensor([0, 1, 1, 2, 2, 2])
    >>> rows = draw_by_class(labels, torch.arange(6), 2, 2, torch.Generator().manual_seed(0))
    >>> labels[rows].tolist()
    [1, 1, 2, 2]
    """
    shuffled = among[torch.randperm(len(among), generator=generator)]
    found = labels[shuffled]
    present = found.unique()
    order = present[torch.randperm(len(present), generator=generator)].tolist()
    drawn = sorted((shuffled[found == label][:per_class] for label in order), key=len, reverse=True)
    return torch.cat(drawn[:classes]).sort().values


def rows_of(run: Run, rows: str) -> tuple[Int[Tensor, " some"], str, list[str]]:
    """The numbers of the rows to draw from, what they are called, and what is to be said of it."""
    train, notes = run.train_mask, []
    if rows != "all" and train is None:
        rows, notes = "all", ["the split is not known, so inputs are drawn from all of the table"]
    if rows == "all" or train is None:
        chosen = torch.ones(run.task.n_inputs, dtype=torch.bool)
    elif rows == "unmirrored":
        chosen = unmirrored_rows(run.task, train)
        notes.append("unmirrored: test inputs whose mirror is not trained on either")
    else:
        chosen = train if rows == "train" else ~train
    if not bool(chosen.any()):
        raise InputError(f"rows={rows!r} are none in this split; give rows='all'.")
    return chosen.nonzero().flatten(), rows, notes


def _probes(
    n_classes: int, probes: int | None, sets: int, generator: torch.Generator
) -> Float[Tensor, "sets probes classes"]:
    sets = whole("sets", sets, least=1, such_as="3")
    if probes is None or whole("probes", probes, least=1, such_as="2") >= n_classes:
        return torch.eye(n_classes, dtype=torch.float64)[None]
    drawn = torch.randn(sets, probes, n_classes, dtype=torch.float64, generator=generator)
    return drawn / n_classes**0.5


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _dates(
    run: Run, steps: Sequence[int]
) -> tuple[float | None, tuple[float, float] | None, list[str]]:
    """When a run had memorised, from when to when its transition was, and why not."""
    if len(steps) == 1:
        return None, None, []
    if not run.steps_known:
        return None, None, ["not judged: nobody knows the steps of the checkpoints"]
    if steps[0] != 0:
        return None, None, [f"not judged: distances are from step {steps[0]}, not from the start"]
    try:
        phases = phases_of_metrics(run)
    except InputError as error:
        return None, None, [f"not judged: {error}"]
    memorized, why = phases.memorization_step, []
    if memorized is None or memorized > steps[-1]:
        memorized = None
        why.append("lazy is not judged: there is no memorization_step among these steps")
    ends = {phase.name: phase.end for phase in phases.phases or ()}
    start, end = ends.get("memorization"), ends.get("cleanup")
    if start is None or end is None or end > steps[-1]:
        why.append(
            f"rich is not judged: a run labelled {phases.label} without the ends of memorisation "
            "and of cleanup among these steps has no transition"
        )
        return memorized, None, why
    return memorized, (start, end), why


def _agreed(values: Float[Tensor, " sets"], holds: Callable[[Tensor], Tensor]) -> bool | None:
    """Whether it holds in every set of probes; None where they disagree, or nothing is known."""
    if bool(values.isnan().any()):
        return None
    found = holds(values)
    return bool(found[0]) if bool((found == found[0]).all()) else None


def word_of(verdict: bool | None) -> str:
    """A verdict as it is told."""
    return {True: "yes", False: "no", None: "undetermined"}[verdict]


@measure("kernel", scope="run", default=False, prefix="kernel_")
def _kernel(run: Run) -> Columns:
    """How far the tangent kernel moves, in all and before and in the transition."""
    found = kernel(run)
    if len(found.steps) < 2:
        raise InputError("one checkpoint has no distance; save more steps.")
    last = found.table().iloc[-1]
    return {
        "distance": last.distance,
        "distance_spread": last.distance_spread,
        "distance_at_memorization": found.distance_at_memorization,
        "share_in_transition": found.share_in_transition,
        "alignment": last.alignment,
        "growth_in_transition": found.growth_in_transition,
    }
