"""Is there a barrier of loss on the straight line between two networks' weights?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, listed, truth, whole, word
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.result import Result
from grokinterp.geometry.inputs import check_finite, logits_on_batches, other_end
from grokinterp.geometry.loss_surface import LossSurface
from grokinterp.geometry.neuron_matching import match_units
from grokinterp.models.architecture import Weights
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import phases_of_metrics
from grokinterp.reading._load import Subject, progress_bar, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task, has_mirrors, unmirrored_rows

SIDES = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class ModeConnectivity(Result):
    """Loss and accuracy along the straight line between the weights of two checkpoints.

    `ends` are the two runs' names and `steps` the steps; `n_rows` says over how many inputs of
    each side. `moved` has how many units of each kind are in another place where the second end is
    aligned with the first (empty where it was not asked for, or cannot be). `distance` is that of
    the ends, in units of weight, and `aligned_distance` that after aligning.

    >>> import grokinterp as gi
    >>> found = gi.geometry.mode_connectivity(gi.load("mod31-small"), n_points=5)
    >>> found.steps, round(found.barrier, 2), round(found.aligned_barrier, 2)
    ((300, 10000), 0.56, 0.58)
    >>> found.table()[["alpha", "train_loss", "train_accuracy", "test_loss"]].round(2).head(5)
       alpha  train_loss  train_accuracy  test_loss
    0   0.00        0.04            1.00       7.35
    1   0.25        0.51            0.84       4.76
    2   0.50        0.58            0.83       2.53
    3   0.75        0.03            0.99       0.52
    4   1.00        0.00            1.00       0.04
    """

    ends: tuple[str, str]
    steps: tuple[int, int]
    n_rows: dict[str, int]
    curves: pd.DataFrame = field(repr=False)
    moved: dict[str, int]
    distance: float
    aligned_distance: float
    n_weights: int
    n_samples: int | None
    seed: int

    @property
    def barrier(self) -> float:
        """The height of the barrier on the training inputs, in nats (see `barriers`)."""
        return self._barrier("straight")

    @property
    def aligned_barrier(self) -> float:
        """The same with the second end's units in the order of the first's; NaN if not asked."""
        return self._barrier("aligned")

    def _barrier(self, path: str) -> float:
        found = self.barriers()
        mine = found[(found["path"] == path) & (found["rows"] == found["rows"].iloc[0])]
        return float(mine["barrier"].iloc[0]) if len(mine) else math.nan

    def table(self) -> pd.DataFrame:
        """One row per path and point: `alpha` is 0 at the first end and 1 at the second.

        Losses are in nats; `excess` is the loss above that of the straight line between the ends'
        losses, (1 - alpha) L(0) + alpha L(1).
        """
        return self.curves.copy()

    def barriers(self) -> pd.DataFrame:
        """One row per path and side: the largest excess, where it is, and the lowest accuracy."""
        rows = []
        for path, points in self.curves.groupby("path", sort=False):
            for side in self.n_rows:
                top = int(points[f"{side}_excess"].to_numpy().argmax())
                rows.append(
                    {
                        "path": path,
                        "rows": side,
                        "barrier": points[f"{side}_excess"].iloc[top],
                        "alpha": points["alpha"].iloc[top],
                        "loss_0": points[f"{side}_loss"].iloc[0],
                        "loss_1": points[f"{side}_loss"].iloc[-1],
                        "lowest_accuracy": points[f"{side}_accuracy"].min(),
                    }
                )
        return pd.DataFrame(rows)

    def _short_table(self) -> pd.DataFrame:
        return self.barriers()

    def _lines(self) -> list[str]:
        (one, other), (start, end) = self.ends, self.steps
        where = (
            f"steps {start} and {end}" if one == other else f"{one} at {start}, {other} at {end}"
        )
        return [f"between {where}, {self.distance:.4g} apart"]


def mode_connectivity(
    x: Subject,
    steps: Sequence[int] | None = None,
    *,
    other: Subject | None = None,
    n_points: int = 21,
    align: bool = True,
    rows: Sequence[str] = SIDES,
    n_samples: int | None = 8192,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> ModeConnectivity:
    r"""Are two checkpoints in one valley of the loss, or is there a barrier on the line between?

    The barrier is max over alpha of

        L((1 - alpha) theta_0 + alpha theta_1) - ((1 - alpha) L(theta_0) + alpha L(theta_1))

    at `n_points` equally spaced alpha from 0 to 1, both ends among them, so at least 0 (Frankle et
    al. 2020, arXiv 1912.05671, section 2, for the error; here for the mean cross-entropy, nats, in
    float64). All weights move. `rows` are the "train" inputs, and of "test" those whose mirror is
    not trained on either (by neither run); of more than `n_samples` so many are drawn by `seed`.

    `steps` are two of `x`; by default the first checkpoint from `memorization_step` on, and the
    last. With `other`, the second is one of that run, and by default both are the last; the runs
    are of one task and one architecture. With `align`, the line is taken again to the second end
    with its neurons, heads and channels in the order that is most like the first's, which changes
    nothing of what it computes (Ainsworth et al. 2023, arXiv 2209.04836, section 3.2: the largest
    inner product of the weights, by linear assignment). It matters between two runs. Within one,
    units keep their places as long as they are as they were; after grokking most neurons are small,
    and which of them is like which is chance.

    A barrier between points of the grid that are far apart can be missed. That there is none on
    this line shows one valley; that there is one does not show two, as a curved path may avoid it.
    What else two networks may have in another basis is not aligned: the residual stream, the inside
    of heads. InputError for one checkpoint without `other`, for ends of different shapes, and for
    weights that are not finite.

    >>> import grokinterp as gi
    >>> found = gi.geometry.mode_connectivity(gi.load("mod31-small"), (300, 400), n_points=5)
    >>> found.barriers()[["path", "rows", "barrier", "alpha"]].round(3)
           path   rows  barrier  alpha
    0  straight  train    0.000   0.00
    1  straight   test    0.001   0.75
    2   aligned  train    0.000   0.00
    3   aligned   test    0.001   0.75
    """
    run = run_of(x, task=task, train_mask=train_mask)
    second = run if other is None else other_end(run, other)
    n_points = whole("n_points", n_points, least=3, such_as="21")
    align = truth("align", align)
    sides = tuple(word("rows", x, SIDES) for x in listed("rows", rows, such_as="('train', 'test')"))
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    if n_samples is not None:
        n_samples = whole("n_samples", n_samples, least=1, such_as="8192")
    (start, end), notes = _ends(run, second, steps)
    one, two = _weights(run, start), _weights(second, end)
    if {x: w.shape for x, w in one.items()} != {x: w.shape for x, w in two.items()}:
        raise InputError(
            "the two ends' weights have other names or shapes; give runs of one architecture."
        )
    inputs, more = _inputs(run, second, sides, n_samples, seed)
    notes += more
    if run.architecture.buffers:
        notes.append("running statistics are taken along the line too")
    surface = _surface(run, start, one)
    paths = {"straight": _flat(two)}
    moved: dict[str, int] = {}
    units = run.architecture.interchangeable_units() if align else {}
    if align and not units:
        notes.append(
            f"not aligned: nobody knows which neurons of this {run.architecture.kind} can change "
            "places"
        )
    if units:
        found, orders = match_units(one, two, units)
        moved = {x: int((order != torch.arange(len(order))).sum()) for x, order in orders.items()}
        paths["aligned"] = _flat(found)
        if not any(moved.values()):
            notes.append("aligned as they are: no unit is more like another one")
    curves: list[pd.DataFrame] = []
    for path in paths:
        if path == "aligned" and not any(moved.values()):
            curves.append(curves[0].assign(path=path))
            continue
        along = _along(surface, paths[path], inputs, n_points, progress=progress)
        curves.append(along.assign(path=path))
    away = {path: float((theta - surface.theta).norm()) for path, theta in paths.items()}
    every = pd.concat(curves, ignore_index=True)
    return ModeConnectivity(
        ends=(run.path.name, second.path.name),
        steps=(start, end),
        n_rows={side: len(some) for side, some in inputs.items()},
        curves=every[["path", *every.columns.drop("path")]],
        moved=moved,
        distance=away["straight"],
        aligned_distance=away.get("aligned", math.nan),
        n_weights=surface.n_weights,
        n_samples=n_samples,
        seed=seed,
        notes=tuple(notes),
    )


def _ends(run: Run, second: Run, steps: Sequence[int] | None) -> tuple[tuple[int, int], list[str]]:
    """The steps of both ends, and how they were chosen."""
    if second is run and len(run.steps) < 2:
        raise InputError("one checkpoint has no other end; give a run with several, or other=.")
    if steps is not None:
        given = [whole_number(x) for x in listed("steps", steps, such_as="(300, 10_000)")]
        known = [at for at in given if at is not None]
        if len(given) != 2 or len(known) != 2:
            raise InputError(f"steps={shown(steps)} are no two steps; give such as (300, 10_000).")
        start, end = known
        start = run.steps[-1] if start == -1 else start
        end = second.steps[-1] if end == -1 else end
        if second is run and start == end:
            raise InputError(f"both ends are step {start}; give two steps, or other=.")
        return (start, end), []
    last = run.steps[-1]
    if second is not run:
        return (last, second.steps[-1]), []
    memorized, why = None, "nobody knows the steps of the checkpoints"
    if run.steps_known:
        try:
            memorized = phases_of_metrics(run).memorization_step
            why = "there is no memorization_step"
        except InputError as error:
            why = str(error)
    first = next((x for x in run.steps[:-1] if memorized is not None and x >= memorized), None)
    if first is None:
        return (run.steps[0], last), [f"from the first checkpoint on: {why}"]
    return (first, last), [f"from the first checkpoint after memorization_step {memorized}"]


def _weights(run: Run, step: int) -> Weights:
    """All weights of a checkpoint in float64, running statistics too."""
    weights = run.weights(step)
    check_finite(weights, step)
    return {x: weight.double() for x, weight in weights.items()}


def _flat(weights: Weights) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights.values()])


def _surface(run: Run, step: int, weights: Weights) -> LossSurface:
    """The loss by all weights, over inputs that are to be given."""
    snapshot = run.snapshot(step)
    return LossSurface(
        logits_fn=logits_on_batches(snapshot),
        shapes={x: tuple(weight.shape) for x, weight in weights.items()},
        theta=_flat(weights),
        fixed={},
        inputs=run.task.model_inputs,
        labels=run.task.labels,
        record={},
        step=step,
    )


def _inputs(
    run: Run, second: Run, sides: Sequence[str], n_samples: int | None, seed: int
) -> tuple[dict[str, Tensor], list[str]]:
    """The rows of each side, and what is to be said of them."""
    task, masks = run.task, [run.train_mask, second.train_mask]
    found, notes = {}, []
    if masks[0] is None or masks[1] is None:
        found["all"] = torch.ones(task.n_inputs, dtype=torch.bool)
        notes.append("the split is not known, so losses are over all inputs")
    else:
        seen = masks[0] | masks[1]
        found = {"train": masks[0], "test": unmirrored_rows(task, seen)}
        found = {side: found[side] for side in sides}
        if has_mirrors(task) and "test" in sides:
            notes.append("test inputs are those whose mirror is not trained on")
        if not torch.equal(masks[0], masks[1]):
            notes.append("training inputs are those of the first run, test inputs those of neither")
        for side in [side for side, mask in found.items() if not bool(mask.any())]:
            notes.append(f"no {side} inputs: there are none in this split")
            del found[side]
    if not found:
        raise InputError(f"rows={shown(tuple(sides))} are none in this split; give others.")
    rows = {side: mask.nonzero().flatten() for side, mask in found.items()}
    stream = torch.Generator().manual_seed(seed)
    for side, some in rows.items():
        if n_samples is not None and n_samples < len(some):
            rows[side] = some[torch.randperm(len(some), generator=stream)[:n_samples]]
    return rows, notes


def _along(
    surface: LossSurface,
    end: Tensor,
    inputs: dict[str, Tensor],
    n_points: int,
    *,
    progress: bool,
) -> pd.DataFrame:
    """Losses and accuracies at points from the surface's weights to others."""
    alphas = torch.linspace(0, 1, n_points, dtype=torch.float64)
    found: dict[str, list[float]] = {"alpha": alphas.tolist()}
    for side, rows in inputs.items():
        there = replace(surface, inputs=surface.inputs[rows], labels=surface.labels[rows])
        scores = [
            there.scores(torch.lerp(surface.theta, end, alphas[i]))
            for i in progress_bar(range(n_points), side, progress)
        ]
        losses = torch.stack([each.losses.mean() for each in scores])
        found[f"{side}_loss"] = losses.tolist()
        found[f"{side}_accuracy"] = [float(each.right.double().mean()) for each in scores]
        found[f"{side}_excess"] = (losses - torch.lerp(losses[0], losses[-1], alphas)).tolist()
    return pd.DataFrame(found)


@measure("mode_connectivity", scope="run", default=False, prefix="barrier_")
def _mode_connectivity(run: Run) -> Columns:
    """The barrier on the line from the memorising checkpoint to the last one, and where it is."""
    found = mode_connectivity(run, align=False).barriers().set_index("rows")
    heights: Columns = {str(side): float(x) for side, x in found["barrier"].items()}
    return {**heights, **{f"{side}_alpha": float(x) for side, x in found["alpha"].items()}}
