"""The registry of progress measures: one more measure is one decorated function.

    @measure("norm_of_embedding")
    def _norm_of_embedding(snapshot):
        return float(snapshot.weights["embed.W_E"].norm())

A measure is a function of a snapshot (and, with `needs_frequencies`, of the key frequencies) that
returns a number, or a dict with a number for each suffix of its column prefix. One `of` a kind of
task has no column for other tasks; one that a model lacks (InputError) is NaN. Whatever else a
function raises, and what is no number, is refused in one line that names the measure.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.checks import truth
from grokinterp.base.errors import InputError, shown
from grokinterp.base.memory import kept_memory
from grokinterp.base.names import check_free, check_function, checked_name
from grokinterp.fourier._key_frequencies import Keys, accepted
from grokinterp.fourier.answers import (
    LogitTally,
    checked_frequencies,
    no_frequencies_reason,
    usable_group,
)
from grokinterp.fourier.basis import gini
from grokinterp.fourier.heldout import HeldoutTally
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.fourier.spectra import (
    embedding_spectrum,
    embedding_top_share,
    neuron_logit_spectrum,
    unembedding_spectrum,
)
from grokinterp.models.architecture import is_bias
from grokinterp.models.cross_entropy import AnswerScores, answer_scores
from grokinterp.progress import losses
from grokinterp.progress.observables import (
    layer_correlation,
    observables,
    observed_rows,
    pre_activations,
)
from grokinterp.reading._load import RunOrPath, check_snapshot, run_of
from grokinterp.runs._snapshot import Block, Snapshot, Tally
from grokinterp.runs.metrics import UNMIRRORED
from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.modular import ModularTask

# MERGED progress.table: All progress measures of a run, a row per checkpoint.


Value = float | dict[int, float] | dict[str, float]


@dataclass(frozen=True)
class Measure:
    """A named measure; without frequencies to give it, one that needs them is null."""

    name: str
    function: Callable[..., Value]
    needs_frequencies: bool
    prefix: str  # of the columns of a measure that returns several numbers
    of: type | None  # the kind of task it is defined for; None for all

    def columns(self, snapshot: Snapshot, frequencies: Sequence[int]) -> dict[str, float]:
        """The columns this measure adds to a row."""
        if self.of is not None and not isinstance(snapshot.task, self.of):
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
        named = value if isinstance(value, Mapping) else {None: value}
        return {
            self.name if suffix is None else f"{self.prefix}{suffix}": self._number(x, snapshot)
            for suffix, x in named.items()
        }

    def _number(self, value: object, snapshot: Snapshot) -> float:
        """What a function returned as a float: a number, numpy's or a tensor of one too, or NaN."""
        try:
            if not isinstance(value, str | bytes):
                return float(value)  # type: ignore[arg-type]
        except Exception:  # whatever its class makes of it, it is no number
            pass
        raise InputError(
            f"measure {self.name!r} gives {shown(value)}{_at(snapshot)}; give a number, or a dict "
            "of numbers."
        )


def _at(snapshot: Snapshot) -> str:
    return "" if snapshot.step is None else f" at step {snapshot.step}"


MEASURES: dict[str, Measure] = {}
RESERVED = ("step", *UNMIRRORED)  # columns that tables have beside the measures


def measure(
    name: str, *, needs_frequencies: bool = False, prefix: str = "", of: type | None = None
) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Register a function as a measure; measures appear in the table in this order.

    InputError for a name that is taken (a notebook cell run twice replaces its own), for what is no
    name, and for what is no function of a snapshot (and, with `needs_frequencies`, of the key
    frequencies).
    """
    checked_name("measure", name)
    truth("needs_frequencies", needs_frequencies)
    if not isinstance(prefix, str):
        raise InputError(f"prefix={shown(prefix)} is no text; give such as 'norm_'.")
    if of is not None and not isinstance(of, type):
        raise InputError(f"of={shown(of)} is no kind of task; give such as gi.ModularTask.")
    if name in RESERVED:
        raise InputError(f"measure {name!r} is a column of every table; give another name.")

    def register(function: Callable[..., Value]) -> Callable[..., Value]:
        given = ("snapshot", "frequencies") if needs_frequencies else ("snapshot",)
        check_function("measure", name, function, given)
        known = {each.name: each.function for each in MEASURES.values()}
        check_free("measure", name, function, known)
        MEASURES[name] = Measure(name, function, needs_frequencies, prefix, of)
        return function

    return register


class AnswerTally:
    """A `Tally` of how well every input is answered."""

    needs = ()

    def __init__(self, snapshot: Snapshot) -> None:
        self._blocks: list[AnswerScores] = []

    def add(self, block: Block) -> None:
        """Score a block."""
        self._blocks.append(answer_scores(block.logits, block.labels))

    @cached_property
    def losses(self) -> Float[Tensor, " n_inputs"]:
        """Cross-entropy of every input."""
        return torch.cat([block.losses for block in self._blocks])

    @cached_property
    def right(self) -> Float[Tensor, " n_inputs"]:
        """1 where the answer is right, else 0."""
        return torch.cat([block.right for block in self._blocks]).double()

    @cached_property
    def margins(self) -> Float[Tensor, " n_inputs"]:
        """Right logit minus the largest wrong one."""
        return torch.cat([block.margins for block in self._blocks])


def count(snapshot: Snapshot) -> None:
    """Run the forward once for all that the measures count over the table."""
    tallies: list[Callable[[Snapshot], Tally]] = [AnswerTally]
    if usable_group(snapshot) is not None:
        tallies.append(LogitTally)
        if snapshot.unmirrored_rows is not None:
            tallies.append(HeldoutTally)
        with contextlib.suppress(InputError):  # a model without an MLP
            snapshot.tally_all(*tallies, losses.NeuronTally)
    snapshot.tally_all(*tallies)


def _losses(snapshot: Snapshot) -> Float[Tensor, " n_inputs"]:
    return snapshot.tally(AnswerTally).losses


def _right(snapshot: Snapshot) -> Float[Tensor, " n_inputs"]:
    return snapshot.tally(AnswerTally).right


def _train_mask(snapshot: Snapshot) -> Bool[Tensor, " n_inputs"] | None:
    return snapshot.train_mask


def _test_mask(snapshot: Snapshot) -> Bool[Tensor, " n_inputs"] | None:
    return None if snapshot.train_mask is None else ~snapshot.train_mask


def _mean(values: Float[Tensor, " n_inputs"], mask: Bool[Tensor, " n_inputs"] | None) -> float:
    return math.nan if mask is None else float(values[mask].mean())


def _average(
    values: Callable[[Snapshot], Tensor], rows: Callable[[Snapshot], Tensor | None]
) -> Callable[[Snapshot], float]:
    return lambda snapshot: _mean(values(snapshot), rows(snapshot))


for _name, _values, _rows in (
    ("train_loss", _losses, _train_mask),
    ("test_loss", _losses, _test_mask),
    ("train_acc", _right, _train_mask),
    ("test_acc", _right, _test_mask),
):
    measure(_name)(_average(_values, _rows))

measure("restricted_loss", needs_frequencies=True)(losses.restricted_loss)
measure("excluded_loss", needs_frequencies=True)(losses.excluded_loss)
measure("trig_loss", needs_frequencies=True)(losses.trig_loss)


@measure("sum_sq_weights")
def _sum_sq_weights(snapshot: Snapshot) -> float:
    """Sum of squares of all parameters, biases included."""
    return sum(_squares(snapshot).values())


@measure("gini_embedding")
def _gini_embedding(snapshot: Snapshot) -> float:
    """Gini of the per-frequency norms of W_E along the tokens; constant left out."""
    return gini(embedding_spectrum(snapshot)[1:].sqrt())


@measure("gini_unembedding")
def _gini_unembedding(snapshot: Snapshot) -> float:
    """Gini of the per-frequency norms of W_U along the answer classes; constant left out."""
    return gini(unembedding_spectrum(snapshot)[1:].sqrt())


@measure("gini_neuron_logit", of=ModularTask)
def _gini_neuron_logit(snapshot: Snapshot) -> float:
    """The same of W_out W_U, the W_L of the paper's Gini curve."""
    return gini(neuron_logit_spectrum(snapshot)[1:].sqrt())


@measure("embedding_top5_share", of=ModularTask)
def _embedding_top5_share(snapshot: Snapshot) -> float:
    """Share of the power of W_E in its five strongest frequencies; constant left out."""
    return embedding_top_share(snapshot)


measure("trig_variance_explained", needs_frequencies=True, of=ModularTask)(
    losses.trig_variance_explained
)
measure("restricted_loss_demo", needs_frequencies=True, of=ModularTask)(losses.restricted_loss_demo)
measure("excluded_loss_demo", needs_frequencies=True, of=ModularTask)(losses.excluded_loss_demo)


@measure("ipr_input", of=ModularTask)
def _ipr_input(snapshot: Snapshot) -> float:
    """Mean IPR of what the neurons read of each operand, real basis."""
    return _ipr(snapshot)["ipr_input"]


@measure("ipr_output", of=ModularTask)
def _ipr_output(snapshot: Snapshot) -> float:
    """Mean IPR of what the neurons write to the answers, real basis."""
    return _ipr(snapshot)["ipr_output"]


def _ipr(snapshot: Snapshot) -> dict[str, float]:
    return snapshot.memo("ipr", lambda: neuron_ipr(snapshot).means)


@measure("observables", of=IsingTask)
def _observables(snapshot: Snapshot) -> dict[str, float]:
    """Median |r| of the hidden layer's pre-activations with energy, |M| and M, test lattices."""
    rows = observed_rows(snapshot)
    hidden = pre_activations(snapshot)["hidden"][rows]
    return {
        f"median_r_{name}": layer_correlation(hidden, values[rows]).median
        for name, values in observables(snapshot).items()
    }


@measure("mirrored_pairs", prefix="test_", of=ModularTask)
def _mirror(snapshot: Snapshot) -> dict[str, float]:
    """Test loss and accuracy on pairs whose mirror (b, a) is trained on, and on the others.

    Only for a commutative operation, where the mirror's answer is the same: null otherwise.
    """
    names = ("loss_mirrored", "loss_unmirrored", "acc_mirrored", "acc_unmirrored")
    test = _test_mask(snapshot)
    if test is None or not snapshot.task.commutative:
        return dict.fromkeys(names, math.nan)
    assert snapshot.train_mask is not None
    mirrored = snapshot.modular_task.mirrored(snapshot.train_mask)
    parts = (mirrored, test & ~mirrored)
    values = [_mean(x, part) for x in (_losses(snapshot), _right(snapshot)) for part in parts]
    return dict(zip(names, values, strict=True))


@measure("logit_margin", prefix="logit_margin_")
def _logit_margin(snapshot: Snapshot) -> dict[str, float]:
    """Right logit minus the largest wrong one over all pairs: mean, and the 1 % quantile."""
    margins = snapshot.tally(AnswerTally).margins
    return {"mean": float(margins.mean()), "q01": float(torch.quantile(margins, 0.01))}


measure("excluded_loss_each", needs_frequencies=True, prefix="excluded_loss_k")(
    losses.excluded_loss_each
)


@measure("sum_sq_each", prefix="sum_sq_")
def _sum_sq(snapshot: Snapshot) -> dict[str, float]:
    """Sum of squares by parameter, under the canonical name without its path in one-layer models.

    That of a convolution is `sum_sq_conv_0_W`. All biases together are `sum_sq_biases`.
    """
    return _squares(snapshot)


def _squares(snapshot: Snapshot) -> dict[str, float]:
    def compute() -> dict[str, float]:
        sums: dict[str, float] = {}
        for path, weight in snapshot.weights.items():
            *_, part, name = f".{path}".split(".")
            if is_bias(path):
                name = "biases"
            elif name == "w":
                name = f"{part}_w"  # of a LayerNorm
            elif path.startswith("conv."):
                name = f"conv_{part}_{name}"
            elif snapshot.n_layers > 1 and path.startswith("blocks."):
                name = f"{path.split('.')[1]}_{name}"
            square = torch.linalg.vector_norm(weight, dtype=torch.float64).square()
            sums[name] = sums.get(name, 0.0) + float(square)
        return sums

    return snapshot.memo("squares", compute)


for _heldout in (
    losses.restricted_loss_heldout,
    losses.restricted_acc_heldout,
    losses.restricted_loss_heldout_placebo,
    losses.restricted_acc_heldout_placebo,
):
    measure(_heldout.__name__, needs_frequencies=True, of=ModularTask)(_heldout)


def progress_measures(
    run: RunOrPath,
    *,
    frequencies: Sequence[int] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """One row a checkpoint, one column a measure; see `grokinterp.progress.MEASURES`.

    Losses and accuracies are over the p answer classes, in nats. The key frequencies are those of
    the last checkpoint (`gi.key_frequencies`) unless given, for every row, so that rows can be
    compared; they stand in `.attrs["frequencies"]` (None for a task without Fourier directions).
    Measures that need them are NaN where there are none, and `.attrs["reason"]` says why.
    `.attrs["note"]` is a caveat, such as that memorisation was not ruled out, or None.
    """
    run = run_of(run)
    bar = tqdm(run.steps, desc="measure", unit="checkpoint", disable=None if progress else True)
    rows = []
    with kept_memory():
        last = run.snapshot()
        key = _key_frequencies(last, frequencies)
        for step in bar:
            snapshot = last if step == last.step else run.snapshot(step)
            rows.append({"step": step} | measure_snapshot(snapshot, key))
    frame = pd.DataFrame(rows)
    frame.attrs = {
        "frequencies": None if usable_group(last) is None else list(key),
        "reason": key.reason,
        "note": "; ".join(key.notes) or None,
    }
    return frame


def measure_snapshot(snapshot: Snapshot, frequencies: Sequence[int]) -> dict[str, float]:
    """Every registered measure of one snapshot; a column that two of them give is refused."""
    check_snapshot(snapshot)
    group = usable_group(snapshot)
    frequencies = () if group is None else checked_frequencies(frequencies, group)
    count(snapshot)
    row: dict[str, float] = {}
    by: dict[str, str] = {}
    for entry in MEASURES.values():
        columns = entry.columns(snapshot, frequencies)
        for column in columns:
            if column == "step" or column in row:
                other = by.get(column, "every table")
                raise InputError(
                    f"measure {entry.name!r} gives a column {shown(column)}, which {other} has "
                    "already; give it another prefix or name."
                )
            by[column] = f"measure {entry.name!r}"
        row |= columns
    return row


def _key_frequencies(last: Snapshot, given: Sequence[int] | None) -> Keys:
    group = usable_group(last)
    if group is None:
        return Keys(reason=no_frequencies_reason(last))
    if given is None:
        count(last)  # what the measures of this checkpoint need is counted in the same forward
        return accepted(last).keys
    return Keys(checked_frequencies(given, group), reason=None if given else "none were given")
