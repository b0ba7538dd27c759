"""The registry of measures: what can be measured of a checkpoint, and of a finished run.

    @measure("norm_of_embedding")
    def _norm_of_embedding(snapshot):
        return float(snapshot.weights["embed.W_E"].norm())

A measure of scope "snapshot" returns a number, or a dict with a number for each suffix of its
column prefix; one that a model lacks (InputError) is NaN. A measure of scope "run" returns a dict
of columns, of any values, as in a sweep: `grokinterp.encodings.run_measures` has most of ours.
"""

import contextlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, get_args

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.checks import listed, member, text, truth, word
from grokinterp.base.errors import InputError, shown
from grokinterp.base.memory import kept_memory
from grokinterp.base.plugins import strangers
from grokinterp.base.registry import Registry, check_function
from grokinterp.fourier import spectra
from grokinterp.fourier._key_frequencies import Keys, subject_of
from grokinterp.fourier.answers import LogitTally, checked_frequencies, usable_group
from grokinterp.fourier.basis import gini
from grokinterp.fourier.heldout import HeldoutTally, heldout_fit
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.models.architecture import is_bias
from grokinterp.models.cross_entropy import AnswerScores, answer_scores
from grokinterp.progress import losses, observables
from grokinterp.reading._load import Subject, progress_bar, run_of, steps_of
from grokinterp.runs._snapshot import Block, Snapshot, Tally
from grokinterp.runs.metrics import UNMIRRORED
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

Function = Callable[..., Any]
Scope = Literal["snapshot", "run"]
Columns = dict[str, object]  # of one row, by name


@dataclass(frozen=True)
class Measure:
    """A named measure, of a snapshot or of a run; `meaning` is one line about its numbers."""

    name: str
    function: Function
    scope: Scope = "snapshot"
    default: bool = True  # taken without being asked for
    needs_frequencies: bool = False  # without any to give it, it is null
    prefix: str = ""  # of the columns of a measure that returns several values
    of: type | str | None = None  # the tasks it is defined for: a class, or what they have
    meaning: str = ""

    def columns(self, snapshot: Snapshot, frequencies: Sequence[int] = ()) -> dict[str, float]:
        """The columns that a measure of snapshots adds to a row."""
        if not self.is_defined_for(snapshot.task):
            return {}
        if self.needs_frequencies and not frequencies:
            return {} if self.prefix else {self.name: math.nan}
        given = (snapshot, frequencies) if self.needs_frequencies else (snapshot,)
        try:
            value = self.function(*given)
        except InputError:  # the model lacks what this looks at, such as an MLP
            return {self.name: math.nan}
        except Exception as error:
            raise InputError(
                f"measure {self.name!r} raised {type(error).__name__}{_at(snapshot)} "
                f"({shown(str(error))}); mend its function."
            ) from error
        return {column: self._number(x, snapshot) for column, x in self._named(value).items()}

    def columns_of_run(self, run: Run) -> Columns:
        """The columns that a measure of runs adds to a row; InputError for what cannot be said."""
        if not self.is_defined_for(run.task):
            return {}
        with strangers(f"measure {self.name!r}", self.function):
            return self._named(self.function(run))

    def is_defined_for(self, task: Task) -> bool:
        """Whether it has columns for a task."""
        if isinstance(self.of, type):
            return isinstance(task, self.of)
        part = True if self.of is None else getattr(task, self.of)
        return bool(part() if callable(part) else part)

    def _named(self, value: object) -> Columns:
        if isinstance(value, Mapping):
            return {f"{self.prefix}{suffix}": each for suffix, each in value.items()}
        return {self.name: value}

    def _number(self, value: object, snapshot: Snapshot) -> float:
        """What a function returned as a float: a number, numpy's or a tensor of one too, or NaN."""
        with contextlib.suppress(Exception):  # whatever its class makes of it, it is no number
            if not isinstance(value, str | bytes):
                return float(value)  # type: ignore[arg-type]
        raise InputError(
            f"measure {self.name!r} gives {shown(value)}{_at(snapshot)}; give a number, or a dict "
            "of numbers."
        )


def _at(snapshot: Snapshot) -> str:
    return "" if snapshot.step is None else f" at step {snapshot.step}"


MEASURES: Registry[Measure] = Registry(
    "measure", reserved=dict.fromkeys(("step", *UNMIRRORED), "a column of every table")
)


def measure(
    name: str,
    *,
    needs_frequencies: bool = False,
    prefix: str = "",
    of: type | str | None = None,
    scope: Scope = "snapshot",
    default: bool | None = None,
    meaning: str | None = None,
) -> Callable[[Function], Function]:
    """Register a function as a measure; measures appear in tables in this order.

    `scope` says what it is a function of: a "snapshot" (and, with `needs_frequencies`, of the key
    frequencies), or a finished "run". A measure of snapshots is taken by `gi.progress_measures`,
    `grokinterp measure` and `grokinterp bench` unless `default` is False: then, and always for one
    of runs, it is taken where it is asked for by name. `of` says for which tasks it has columns: a
    class of tasks, or "modular" (arithmetic on operands) or "observables" for those that have one.
    `meaning` is one line about its numbers, the first one of the docstring unless given. InputError
    for a name that is taken (a cell of a notebook replaces its own), for what is no name, and for
    what is no such function.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> @gi.progress.measure("norm_of_positions", default=False)  # gi.register.measure is the same
    ... def norm_of_positions(snapshot):
    ...     return snapshot.weights["pos_embed.W_pos"].norm()
    >>> row = gi.progress.measure_snapshot(run, measures=["norm_of_positions"])
    >>> round(row["norm_of_positions"], 2)
    2.52
    >>> del gi.progress.MEASURES["norm_of_positions"]  # take it out again
    """
    MEASURES.named(name)
    truth("needs_frequencies", needs_frequencies)
    word("scope", scope, get_args(Scope))
    of_run = scope == "run"
    default = truth("default", not of_run if default is None else default)
    if of_run and (default or needs_frequencies):
        given = "default" if default else "needs_frequencies"
        raise InputError(f"{given}=True is for measures of snapshots; leave it out for a run.")
    text("prefix", prefix, such_as="'norm_'")
    if of is not None and not isinstance(of, type):
        word("of", of, ("modular", "observables"))

    def register(function: Function) -> Function:
        check_function("measure", name, function, (scope, "frequencies")[: 1 + needs_frequencies])
        written = function.func if isinstance(function, partial) else function
        about = meaning or (inspect.getdoc(written) or "").partition("\n")[0]
        entry = Measure(name, function, scope, default, needs_frequencies, prefix, of, about)
        MEASURES.add(name, entry, by=function)
        return function

    return register


def checked_measures(argument: str, names: object, scope: Scope) -> list[str]:
    """Names of measures of a scope, each once; others are refused."""
    known = [entry.name for entry in MEASURES.every() if entry.scope == scope]
    found: list[str] = []
    for name in listed(argument, names, such_as=f"[{known[0]!r}]"):
        member(name, known, f"measure of a {scope}")
        if name in found:
            raise InputError(f"measure {name!r} is asked for twice; name it once.")
        found.append(name)
    return found


class AnswerTally:
    """A `Tally` of how well every input is answered."""

    needs = ()

    def __init__(self, snapshot: Snapshot) -> None:
        self._blocks: list[AnswerScores] = []

    def add(self, block: Block) -> None:
        """Score a block."""
        self._blocks.append(answer_scores(block.logits, block.labels))

    @cached_property
    def scores(self) -> AnswerScores:
        """Of every input."""
        each = [(block.losses, block.right, block.margins) for block in self._blocks]
        return AnswerScores(*map(torch.cat, zip(*each, strict=True)))


def count_over_table(snapshot: Snapshot) -> None:
    """Run the forward once for all that the measures count over the table, where there is one."""
    if snapshot.architecture is not None and snapshot.architecture.missing:
        return
    tallies: list[Callable[[Snapshot], Tally]] = [AnswerTally]
    if usable_group(snapshot) is not None:
        tallies.append(LogitTally)
        if snapshot.unmirrored_rows is not None:
            tallies.append(HeldoutTally)
        with contextlib.suppress(InputError):  # a model without an MLP
            snapshot.tally_all(*tallies, losses.NeuronTally)
    snapshot.tally_all(*tallies)


def _mean(snapshot: Snapshot, *, of: str, rows: str | Bool[Tensor, " n_inputs"] | None) -> float:
    """Mean of one of the `AnswerScores` over some rows, or those of a name; NaN without a split."""
    mask = getattr(snapshot, rows) if isinstance(rows, str) else rows
    if mask is None:
        return math.nan
    values: Tensor = getattr(snapshot.tally(AnswerTally).scores, of)
    return float(values[mask].double().mean())


for _name, _of, _rows, _meaning in (
    ("train_loss", "losses", "train_mask", "Mean cross-entropy of the training inputs, nats."),
    ("test_loss", "losses", "test_rows", "Mean cross-entropy of the other inputs, nats."),
    ("train_acc", "right", "train_mask", "Share of the training inputs that are answered right."),
    ("test_acc", "right", "test_rows", "Share of the other inputs that are answered right."),
):
    measure(_name, meaning=_meaning)(partial(_mean, of=_of, rows=_rows))

for _loss in (losses.restricted_loss, losses.excluded_loss, losses.trig_loss):
    measure(_loss.__name__, needs_frequencies=True)(_loss)


@measure("sum_sq_weights")
def _sum_sq_weights(snapshot: Snapshot) -> float:
    """Sum of squares of all parameters, biases included."""
    return sum(_squares(snapshot).values())


def _gini(snapshot: Snapshot, *, of: Callable[[Snapshot], Tensor]) -> float:
    return gini(of(snapshot)[1:].sqrt())


for _name, _spectrum, _task, _what in (
    ("gini_embedding", spectra.embedding_spectrum, None, "W_E along the tokens"),
    ("gini_unembedding", spectra.unembedding_spectrum, None, "W_U along the answer classes"),
    ("gini_neuron_logit", spectra.neuron_logit_spectrum, "modular", "W_out W_U, the paper's W_L"),
):
    _meaning = f"Gini of the per-frequency norms of {_what}; constant left out."
    measure(_name, of=_task, meaning=_meaning)(partial(_gini, of=_spectrum))


@measure("embedding_top5_share", of="modular")
def _embedding_top5_share(snapshot: Snapshot) -> float:
    """Share of the power of W_E in its five strongest frequencies; constant left out."""
    power = spectra.embedding_spectrum(snapshot)[1:]
    return float(power.sort(descending=True).values[:5].sum() / power.sum())


for _loss in (
    losses.trig_variance_explained, losses.restricted_loss_demo, losses.excluded_loss_demo
):  # fmt: skip
    measure(_loss.__name__, needs_frequencies=True, of="modular")(_loss)


def _ipr(snapshot: Snapshot, *, name: str) -> float:
    return snapshot.memo("ipr", lambda: neuron_ipr(snapshot).means)[name]


for _name, _what in (("ipr_input", "read of each operand"), ("ipr_output", "write to the answers")):
    _meaning = f"Mean IPR of what the neurons {_what}, real basis."
    measure(_name, of="modular", meaning=_meaning)(partial(_ipr, name=_name))


@measure("observables", of="observables")
def _observables(snapshot: Snapshot) -> dict[str, float]:
    """Median |r| of the last hidden layer's units with energy, |M| and M, over test lattices."""
    rows = observables.observed_rows(snapshot)
    *_, last, _ = observables.pre_activations(snapshot).values()  # the last ones are the logits
    hidden = last[rows]
    return {
        f"median_r_{name}": observables.layer_correlation(hidden, values[rows]).median
        for name, values in observables.observables(snapshot).items()
    }


@measure("mirrored_pairs", prefix="test_", of="modular")
def _mirror(snapshot: Snapshot) -> dict[str, float]:
    """Test loss and accuracy on pairs whose mirror (b, a) is trained on, and on the others.

    Only for a commutative operation, where the mirror's answer is the same: null otherwise.
    """
    names = ("loss_mirrored", "loss_unmirrored", "acc_mirrored", "acc_unmirrored")
    train = snapshot.train_mask
    if train is None or not snapshot.task.commutative:
        return dict.fromkeys(names, math.nan)
    mirrored = snapshot.modular_task.mirrored(train)
    parts = (mirrored, ~train & ~mirrored)
    values = [_mean(snapshot, of=of, rows=part) for of in ("losses", "right") for part in parts]
    return dict(zip(names, values, strict=True))


@measure("logit_margin", prefix="logit_margin_")
def _logit_margin(snapshot: Snapshot) -> dict[str, float]:
    """Right logit minus the largest wrong one over all pairs: mean, and the 1 % quantile."""
    margins = snapshot.tally(AnswerTally).scores.margins
    return {"mean": float(margins.mean()), "q01": float(torch.quantile(margins, 0.01))}


by_frequency = measure("excluded_loss_each", needs_frequencies=True, prefix="excluded_loss_k")
by_frequency(losses.excluded_loss_each)


@measure("sum_sq_each", prefix="sum_sq_")
def _squares(snapshot: Snapshot) -> dict[str, float]:
    """Sum of squares by parameter, under the canonical name without its path in one-layer models.

    That of a convolution is `sum_sq_conv_0_W`. All biases together are `sum_sq_biases`.
    """

    def compute() -> dict[str, float]:
        sums: dict[str, float] = {}
        for path, weight in snapshot.weights.items():
            *_, part, name = f".{path}".split(".")
            if is_bias(path):
                name = "biases"
            elif not snapshot.named_weights:  # of a module of one's own
                name = path.replace(".", "_")
            elif path.startswith("conv."):
                name = f"conv_{part}_{name}"
            elif name == "w":
                name = f"{part}_w"  # of a LayerNorm
            elif snapshot.n_layers > 1 and path.startswith("blocks."):
                name = f"{path.split('.')[1]}_{name}"
            square = torch.linalg.vector_norm(weight, dtype=torch.float64).square()
            sums[name] = sums.get(name, 0.0) + float(square)
        return sums

    return snapshot.memo("squares", compute)


def _heldout(snapshot: Snapshot, frequencies: Sequence[int], *, of: str) -> float:
    """A number of `heldout_fit`, the held-out twin of the restricted loss; NaN without such rows.

    Its accuracy rises above its placebos while the network still answers these rows wrongly,
    because what it memorised outweighs the circuit. A few right rows prove nothing: the loss
    decides.
    """
    fit = heldout_fit(snapshot, frequencies)
    return math.nan if fit is None else float(getattr(fit, of))


for _name, _of, _meaning in (
    ("loss_heldout", "loss", "CE over unmirrored test rows of their logits' fit by 1, cos, sin."),
    ("acc_heldout", "acc", "Accuracy of the same fit on the same rows, from 0 to 1."),
    ("loss_heldout_placebo", "placebo_loss", "The least loss of fits by as many others, 50 sets."),
    ("acc_heldout_placebo", "placebo_acc", "The best accuracy of the same placebos."),
):
    measure(f"restricted_{_name}", needs_frequencies=True, of="modular", meaning=_meaning)(
        partial(_heldout, of=_of)
    )


def progress_measures(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    frequencies: Sequence[int] | None = None,
    measures: Sequence[str] | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """One row per checkpoint (`steps`, or all), one column per measure (`gi.progress.MEASURES`).

    Losses (nats) and accuracies are over the p answer classes. The key frequencies are those of the
    last checkpoint (`gi.key_frequencies`) unless given, for every row, so that rows can be
    compared; they stand in `.attrs["frequencies"]` (None for a task without Fourier directions).
    Measures that need them are NaN where there are none: `.attrs["reason"]` says why, and
    `.attrs["note"]` is a caveat, such as that memorisation was not ruled out, or None. `measures`
    names further registered measures of snapshots, which are not taken by default.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> table = gi.progress_measures(run).set_index("step")
    >>> table.attrs["frequencies"]
    [1, 8, 14]
    >>> columns = ["excluded_loss", "gini_embedding", "sum_sq_weights", "test_acc_unmirrored"]
    >>> table.loc[[0, 300, 2000, 10_000], columns].round(2)
           excluded_loss  gini_embedding  sum_sq_weights  test_acc_unmirrored
    step
    0               3.49            0.06          323.75                 0.05
    300            12.79            0.22          789.16                 0.11
    2000           24.47            0.33          696.72                 0.62
    10000          10.45            0.49          465.43                 0.98
    """
    run = run_of(x, task=task, train_mask=train_mask)
    further = [] if measures is None else checked_measures("measures", measures, "snapshot")
    rows = []
    with kept_memory():
        last = run.snapshot()
        if frequencies is None:
            count_over_table(last)  # for the measures of this checkpoint too
        missing = run.architecture.missing
        key = Keys(reason=missing) if missing else subject_of(last, frequencies=frequencies)[1]
        for step in progress_bar(steps_of(run, steps), "measure", progress):
            snapshot = last if step in (-1, run.steps[-1]) else run.snapshot(step)
            step = run.steps[-1] if snapshot is last else step
            rows.append({"step": step} | measure_snapshot(snapshot, key, measures=further))
    frame = pd.DataFrame(rows)
    frame.attrs = {
        "frequencies": None if missing or usable_group(last) is None else list(key),
        "reason": key.reason,
        "note": "; ".join(key.notes) or None,
    }
    return frame


def measure_snapshot(
    snapshot: Snapshot, frequencies: Sequence[int], *, measures: Sequence[str] = ()
) -> dict[str, float]:
    """The default measures of one snapshot and those named; two with one column are refused.

    `gi.progress.measure_snapshot` takes a run too (with `step`), a path, or a model with `task`;
    without frequencies, the key ones of the last checkpoint.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> for step in (300, 10_000):
    ...     row = gi.progress.measure_snapshot(run, step=step)
    ...     print(step, round(row["test_acc_unmirrored"], 2), round(row["gini_embedding"], 2))
    300 0.11 0.22
    10000 0.98 0.49
    >>> gi.progress.measure_snapshot(run, step=300)["train_acc"]
    1.0
    """
    group = usable_group(snapshot)
    frequencies = () if group is None else checked_frequencies(frequencies, group)
    further = checked_measures("measures", measures, "snapshot")
    count_over_table(snapshot)
    taken = [entry for entry in MEASURES.every() if entry.default or entry.name in further]
    return measured_row(taken, snapshot, frequencies)


def measured_row(
    measures: Iterable[Measure], snapshot: Snapshot, frequencies: Sequence[int]
) -> dict[str, float]:
    """The columns of some measures of one snapshot; two with one column are refused."""
    row: dict[str, float] = {}
    by = {"step": "every table"}
    for entry in measures:
        columns = entry.columns(snapshot, frequencies)
        for column in columns:
            if column in by:
                raise InputError(
                    f"measure {entry.name!r} gives a column {shown(column)}, which {by[column]} "
                    "has already; give it another prefix or name."
                )
            by[column] = f"measure {entry.name!r}"
        row |= columns
    return row
