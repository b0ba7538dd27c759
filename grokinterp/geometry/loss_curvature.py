"""How sharply does the loss curve around a model's weights, and is it flat or merely confident?

A confident model's loss is flat because it is near 0, whatever the shape of its basin. So every
number of the loss as it is stands beside that at the temperature that gives one loss to all.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import number, truth, whole
from grokinterp.base.errors import InputError
from grokinterp.figures._figure import at
from grokinterp.geometry.density_of_eigenvalues import SpectralDensity, spectral_density
from grokinterp.geometry.inputs import Sampled
from grokinterp.geometry.loss_surface import LossSurface, loss_surface
from grokinterp.geometry.spectrum_by_products import (
    Product,
    block_traces,
    lanczos,
    mean_and_error,
    rademacher,
)
from grokinterp.progress.measures import Columns, measure
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task
from grokinterp.updates.objectives import CrossEntropy, objective_of

MOST_LANCZOS = 1000  # steps, each of which keeps a vector as long as the weights
FIRM = 0.02  # an error of the largest eigenvalue, as a share of it, that needs no note
SHOWN = [
    "step", "loss_is", "temperature", "loss", "lambda_max", "lambda_min", "trace", "trace_se",
    "lambda_max_scaled", "trace_per_tensor",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """What is known of the eigenvalues of one matrix: the outer ones, and traces of its blocks.

    An eigenvalue lies within `largest_error` of `largest`, and so for the smallest. `traces` has a
    row per probe and a column per tensor of weights, in their order: the mean of a column is the
    trace of that tensor's own block of the matrix, the mean of the rows' sums that of all.
    """

    largest: float
    largest_error: float
    smallest: float
    smallest_error: float
    traces: Float[Tensor, "n_probes tensors"] = field(repr=False)

    def numbers(self, norms: Float[Tensor, " tensors"]) -> dict[str, float]:
        """The columns of a table, with the squared norm of each tensor of weights."""
        squares = float(norms.sum())
        trace, error = mean_and_error(self.traces.sum(dim=1))
        each, error_of_each = mean_and_error(self.traces @ norms)
        return {
            "lambda_max": self.largest,
            "lambda_max_error": self.largest_error,
            "lambda_min": self.smallest,
            "lambda_min_error": self.smallest_error,
            "trace": trace,
            "trace_se": error,
            "lambda_max_scaled": self.largest * squares,
            "trace_scaled": trace * squares,
            "trace_per_tensor": each,
            "trace_per_tensor_se": error_of_each,
        }


@dataclass(frozen=True, kw_only=True)
class CurvatureAt:
    """The curvature of one loss at one step: the loss as it is ("raw"), or at `temperature`.

    `norms` are the squared norms of the tensors of trained weights, by name. Where no temperature
    gives the loss that was asked for, the numbers are NaN and there are no spectra.
    """

    step: int | None
    loss_is: str
    temperature: float
    loss: float
    accuracy: float
    norms: dict[str, float] = field(repr=False)
    hessian: Spectrum | None
    gauss_newton: Spectrum | None
    weight_decay: float  # what the penalty adds to every eigenvalue; NaN where there is none

    def row(self) -> dict[str, object]:
        """The row of a table."""
        norms = torch.tensor(list(self.norms.values()), dtype=torch.float64)
        found: dict[str, object] = {
            "step": self.step,
            "loss_is": self.loss_is,
            "temperature": self.temperature,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "norm_squared": float(norms.sum()),
        }
        for prefix, spectrum in (("", self.hessian), ("ggn_", self.gauss_newton)):
            if spectrum is not None:
                found |= {prefix + name: x for name, x in spectrum.numbers(norms).items()}
        if self.hessian is not None:
            found["lambda_max_penalised"] = self.hessian.largest + self.weight_decay
            found["lambda_min_penalised"] = self.hessian.smallest + self.weight_decay
        return found


@dataclass(frozen=True, kw_only=True)
class Curvature(Sampled):
    """Eigenvalues and traces of the Hessian of a loss, and of its Gauss-Newton part, at steps.

    `found` has one or two entries per step: the loss as it is, and at matched temperature.
    `densities` has one per step where they were asked for.

    >>> import grokinterp as gi
    >>> found = gi.geometry.curvature(
    ...     gi.load("mod31-small"), [300, 10000], n_samples=64, n_lanczos=8, n_probes=2
    ... )
    >>> found.table()[["step", "loss_is", "temperature", "lambda_max", "trace"]].round(2)
        step  loss_is  temperature  lambda_max   trace
    0    300      raw         1.00       43.82  477.39
    1    300  matched         1.36       53.20  620.51
    2  10000      raw         1.00        0.00    0.00
    3  10000  matched         4.96        5.80   71.55
    """

    match_loss: float | None
    n_weights: int
    n_lanczos: int
    n_probes: int
    found: tuple[CurvatureAt, ...] = field(repr=False)
    densities: tuple[SpectralDensity, ...] = field(default=(), repr=False)

    def table(self) -> pd.DataFrame:
        """One row per step and loss (`loss_is`: "raw" or "matched").

        `temperature` divides the logits; `loss` in nats, `accuracy` and `norm_squared` (of the
        trained weights) say where one is. `lambda_max`, `lambda_min` and `trace` are of the Hessian
        of that loss, with an eigenvalue within `_error` of each and the standard error
        `trace_se` over probes. Columns that end in _scaled are times norm_squared; trace_per_tensor
        is the sum over tensors of squared norm times trace of the tensor's block. Columns that
        begin with ggn_ are the same of the Gauss-Newton part, those that end in _penalised of the
        raw loss plus the L2 penalty of the run's optimiser.
        """
        frame = pd.DataFrame([each.row() for each in self.found])
        return self._frame(frame.reindex(columns=_COLUMNS), match_loss=self.match_loss)

    def by_tensor(self) -> pd.DataFrame:
        """One row per step, loss and tensor: squared norm, trace of its block, and the error."""
        rows = []
        for each in self.found:
            for i, (name, norm) in enumerate(each.norms.items()):
                row = {"step": each.step, "loss_is": each.loss_is, "tensor": name}
                rows.append(row | {"norm_squared": norm})
                for prefix, spectrum in (("", each.hessian), ("ggn_", each.gauss_newton)):
                    pair = (math.nan, math.nan)
                    if spectrum is not None:
                        pair = mean_and_error(spectrum.traces[:, i])
                    rows[-1] |= {f"{prefix}trace": pair[0], f"{prefix}trace_se": pair[1]}
        return pd.DataFrame(rows)

    def _short_table(self) -> pd.DataFrame:
        return self.table()[SHOWN]

    def _lines(self) -> list[str]:
        return [
            f"over {self.n_samples} of {self.n_rows} {self.rows} inputs, {self.n_weights} trained "
            f"weights; {self.n_lanczos} Lanczos steps, {self.n_probes} probes"
        ]


_NUMBERS = list(
    Spectrum(
        largest=0, largest_error=0, smallest=0, smallest_error=0, traces=torch.zeros(1, 1)
    ).numbers(torch.zeros(1))
)
_COLUMNS = [
    "step", "loss_is", "temperature", "loss", "accuracy", "norm_squared", *_NUMBERS,
    "lambda_max_penalised", "lambda_min_penalised", *(f"ggn_{name}" for name in _NUMBERS),
]  # fmt: skip


def curvature(
    x: Subject,
    step: int | Sequence[int] | str = -1,
    *,
    rows: str = "train",
    match_loss: float | None = 0.1,
    n_samples: int | None = None,
    n_lanczos: int = 20,
    n_probes: int = 16,
    density: bool = False,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Curvature:
    r"""How sharply does the loss curve around the weights, as it is and at one loss for all?

    The loss L is the mean cross-entropy over the inputs that `rows` names, as a function of the
    weights that training moves (biases that a recipe froze are left out), everything in float64. H
    is its Hessian, G its Gauss-Newton part J^T (diag p - p p^T) J, with J = d logits / d theta and
    p the answer probabilities: G is never negative, and H - G vanishes with the loss. For both:

        lambda_max, lambda_min   `n_lanczos` steps of Lanczos iteration, fully orthogonalised
        trace                    the mean of v^T H v over `n_probes` vectors of signs (Hutchinson)
        lambda_max |theta|^2     the same if all weights are scaled and the function is kept so
        sum_l |theta_l|^2 tr H_ll    the same if each tensor l is: of the Hessian's own blocks

    Raw curvature falls with the loss by confidence alone: once all answers are right, longer
    weights make L, H and G small, whatever the basin. "matched" is the loss of logits / T, at the T
    at which it is `match_loss` (own choice: 0.1 nats): look at that to compare steps or runs. It is
    NaN, with a note, where no T gives that loss (an untrained model); None leaves it out.

    `x` is a run (`step` is one checkpoint, -1 the last, several in order, or "all"), a path, a
    snapshot, or a model with `task`. `rows` is "train", "test" or "all"; of more than `n_samples`,
    so many are drawn by `seed`, as in `fisher_diagonal`. Large tables need that: time grows with
    the inputs. `density` finds the `spectral_density` of every step besides, of 1,000 inputs, at
    matched loss if there is one.

    Decay that an optimiser adds to the gradient (sgd, adam) is a term wd |theta|^2 / 2 of the loss,
    and adds wd to every eigenvalue: `lambda_max_penalised`. That of AdamW is a term of no loss.

    Curvature is about the weights next to these alone: not about the size of a basin, nor what it
    generalises to; `noise_radius` looks further. lambda_max is one direction of many and may move
    while the trace does not. Eigenvalues that lie close to each other converge late (`_error`
    says so). InputError for a model that is no function of its weights here, weights that are not
    finite, and rows that there are none of.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> options = {"n_samples": 64, "n_lanczos": 8, "n_probes": 2}
    >>> table = gi.geometry.curvature(run, **options).table()
    >>> [f"{x:.2g}" for x in table.loss], [f"{x:.2g}" for x in table.lambda_max]
    (['2.2e-08', '0.1'], ['3.5e-05', '5.8'])
    """
    run = run_of(x, task=task, train_mask=train_mask)
    steps = rising_steps(run, step)
    target = None if match_loss is None else number("match_loss", match_loss, such_as="0.1")
    n_lanczos = whole("n_lanczos", n_lanczos, least=2, most=MOST_LANCZOS, such_as="20")
    n_probes = whole("n_probes", n_probes, least=1, such_as="16")
    truth("density", density)
    found: list[CurvatureAt] = []
    densities, notes = [], []
    for each in progress_bar(steps, "curvature", progress):
        surface = loss_surface(run, step=each, rows=rows, n_samples=n_samples, seed=seed)
        decay, of_decay = _penalty(run, surface)
        notes += [*surface.notes, *of_decay]
        found.append(_look(surface, "raw", decay, n_lanczos, n_probes))
        matched = None
        if target is not None:
            try:
                matched = surface.matched(target)
            except InputError as error:
                notes.append(f"no matched loss{at(surface.step)}: {str(error).rstrip('.')}")
            found.append(
                _unknown(found[-1])
                if matched is None
                else _look(matched, "matched", math.nan, n_lanczos, n_probes)
            )
        if density:
            of = None if matched is None else target
            try:
                densities.append(spectral_density(run, each, rows=rows, match_loss=of, seed=seed))
            except InputError as error:  # fewer inputs, which may not reach the loss of all
                notes.append(f"no density{at(surface.step)}: {str(error).rstrip('.')}")
    notes += list(_doubts(found, run))
    return Curvature(
        match_loss=target,
        n_weights=surface.n_weights,
        n_lanczos=n_lanczos,
        n_probes=n_probes,
        found=tuple(found),
        densities=tuple(densities),
        notes=tuple(dict.fromkeys(notes)),
        **surface.record,
    )


def _look(
    surface: LossSurface, loss_is: str, decay: float, n_lanczos: int, n_probes: int
) -> CurvatureAt:
    """The curvature of a loss, to which decay adds so much."""
    seed, products = surface.record["seed"], surface.products()

    def spectrum(product: Product) -> Spectrum:
        start = rademacher(surface.n_weights, torch.Generator().manual_seed(seed))
        ritz = lanczos(product, start, n_lanczos)
        return Spectrum(
            largest=float(ritz.values[-1]),
            largest_error=float(ritz.errors[-1]),
            smallest=float(ritz.values[0]),
            smallest_error=float(ritz.errors[0]),
            traces=block_traces(
                product, surface.n_weights, surface.parts.values(), n_probes=n_probes, seed=seed
            ),
        )

    weights = surface.tensors(surface.theta)
    return CurvatureAt(
        step=surface.step,
        loss_is=loss_is,
        temperature=surface.temperature,
        loss=surface.loss(),
        accuracy=surface.accuracy(),
        norms={name: float(weight.square().sum()) for name, weight in weights.items()},
        hessian=spectrum(products.hessian),
        gauss_newton=spectrum(products.gauss_newton),
        weight_decay=decay,
    )


def _unknown(raw: CurvatureAt) -> CurvatureAt:
    """What is known of the matched loss where no temperature gives it."""
    return replace(
        raw, loss_is="matched", temperature=math.nan, loss=math.nan, weight_decay=math.nan,
        hessian=None, gauss_newton=None,
    )  # fmt: skip


def _penalty(run: Run, surface: LossSurface) -> tuple[float, list[str]]:
    """What the L2 penalty that a run minimises adds to every eigenvalue, or why there is none."""
    if run.recipe is None:
        return math.nan, []
    optimizer = run.recipe.build("optimizer")
    if optimizer.penalises:
        decays = set(optimizer.decays(surface.tensors(surface.theta)).values())
        if len(decays) == 1:
            return run.recipe.weight_decay, []
        return math.nan, ["no penalised eigenvalues: not all weights decay alike"]
    if getattr(optimizer, "weight_decay", 0) > 0:
        return math.nan, [
            f"no penalised eigenvalues: the decay of optimizer={run.recipe.optimizer!r} is no term "
            "of a loss"
        ]
    return 0.0, []


def _doubts(found: Sequence[CurvatureAt], run: Run) -> Iterator[str]:
    """What is to be said of the numbers."""
    yield (
        "raw curvature falls as the answers grow certain, whatever the basin: compare steps and "
        "runs at matched loss"
    )
    if run.recipe is not None and objective_of(run.recipe) != CrossEntropy():
        yield "this is the cross-entropy, which is not what the run minimised"
    rough = [
        each.loss_is + at(each.step)
        for each in found
        if each.hessian and each.hessian.largest_error > FIRM * abs(each.hessian.largest)
    ]
    if rough:
        yield (
            f"lambda_max is known no better than to {FIRM:.0%}: {'; '.join(rough)}; more n_lanczos "
            "helps"
        )


@measure("curvature", scope="run", default=False, prefix="curvature_")
def _curvature(run: Run) -> Columns:
    """How sharply the loss curves at the last checkpoint: at a loss of 0.1, and as it is."""
    table = curvature(run).table().set_index("loss_is")
    raw, matched = table.loc["raw"], table.loc["matched"]
    return {
        "temperature": matched.temperature,
        "lambda_max": matched.lambda_max,
        "trace": matched.trace,
        "trace_se": matched.trace_se,
        "trace_per_tensor": matched.trace_per_tensor,
        "lambda_max_raw": raw.lambda_max,
        "trace_raw": raw.trace,
    }
