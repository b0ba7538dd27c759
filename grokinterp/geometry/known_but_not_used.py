"""Is the answer to unseen inputs in the activations before the network gives it?

A linear decoder is fitted on some test inputs and asked about others. Where it reads the answer
more often than the network gives it, the answer is known and not used: what the network memorised
lies over it (interference), or its unembedding does not read it (readout).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, listed, text, whole
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.answers import LogitTally, group_of, usable_group
from grokinterp.fourier.spectra import neuron_logit_map
from grokinterp.geometry.fourier_decoder import FoldedRidge, class_answers, wave_answers, waves
from grokinterp.geometry.what_to_decode import Asked, Kept, usual_hooks
from grokinterp.models.blocks import normed
from grokinterp.models.cross_entropy import answer_scores, right_answers
from grokinterp.progress.curves import Step
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import Phase, phases_of_metrics
from grokinterp.progress.scored_checkpoints import choose_rows
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

THIN = 1e-10  # relative; directions thinner than this are float64 rounding


@dataclass(frozen=True, kw_only=True)
class Routing(Result):
    """Where the answer to unseen inputs can be read, and how often the network gives it.

    `hooks` are in the order of the forward, the last one what the unembedding reads. `frequencies`
    are those of the decoder; None where it reads classes, as there are none. A number that cannot
    be had is NaN, and `notes` say why. `phases` and the two steps are those of the
    run's metrics.

    >>> import grokinterp as gi
    >>> found = gi.geometry.routing(gi.load("mod31-small"), [0, 400, 10_000])
    >>> found.table()[["step", "hook", "presence", "placebo", "accuracy", "gap"]].round(2).tail(3)
        step                      hook  presence  placebo  accuracy   gap
    3    400  blocks.0.hook_resid_post      0.30     0.07      0.20  0.10
    4  10000    blocks.0.mlp.hook_post      0.80     0.09      0.98 -0.18
    5  10000  blocks.0.hook_resid_post      0.98     0.08      0.98  0.00
    """

    steps: tuple[int, ...]
    hooks: tuple[str, ...]
    frequencies: tuple[int, ...] | None
    n_rows: int
    folds: int
    placebos: int
    seed: int
    by_hook: pd.DataFrame = field(repr=False)
    by_step: pd.DataFrame = field(repr=False)
    phases: tuple[Phase, ...] | None = field(default=None, repr=False)
    memorization_step: Step | None = None
    grok_step: Step | None = None

    @property
    def peak(self) -> tuple[int, float] | None:
        """The step with the largest gap at the last hook, and that gap; None where none is known.

        The largest of many is above 0 by chance too: see how large placebos are.
        """
        known = self.by_step.dropna(subset=["gap"])
        if not len(known):
            return None
        step, gap = max(zip(known["step"], known["gap"], strict=True), key=lambda each: each[1])
        return int(step), float(gap)

    def table(self) -> pd.DataFrame:
        """One row per step and hook: how often the answer is read there, and what to compare with.

        `presence` is the decoder's accuracy, `placebo` the mean and `placebo_max` the largest of
        those of its placebos, `accuracy` the network's on the same rows, `gap` presence less
        accuracy. `lens` is the accuracy of the unembedding (with the norm before it) applied to
        the stream there; NaN for what is no residual stream.
        """
        return self.by_hook.copy()

    def split(self) -> pd.DataFrame:
        """One row per step: the gap at the last hook, and what it is made of.

        `key_share` is the share of the key frequencies in the (centred) logits of these rows.
        `key_accuracy` is the network's with the part of the last MLP's neurons that its unembedding
        does not read as a key frequency set to its mean. So gap = `interference` + `readout`:
        key_accuracy less accuracy, and presence less key_accuracy. `restricted_accuracy` is that of
        the key part of all inputs' logits, averaged over the inputs of an answer, trained ones
        included: presence in the mean, not in an input.
        """
        return self.by_step.copy()

    def _short_table(self) -> pd.DataFrame:
        last = self.by_hook[self.by_hook["hook"] == self.hooks[-1]]
        return last.drop(columns=["hook", "lens"], errors="ignore")

    def _lines(self) -> list[str]:
        if self.peak is None:
            return []
        step, gap = self.peak
        most = self.by_hook["placebo_max"].max()
        lines = [f"largest gap at {self.hooks[-1]}: {gap:.3g}, at step {step}"]
        return lines if math.isnan(most) else [*lines, f"placebos reach {most:.3g} at the most"]


def routing(
    x: Subject,
    step: int | Sequence[int] | str = "all",
    *,
    hooks: Sequence[str] | None = None,
    frequencies: Sequence[int] | None = None,
    folds: int = 5,
    placebos: int = 10,
    seed: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Routing:
    r"""Is the answer to unseen inputs there before the network gives it?

    Presence at a hook is the share of test rows whose answer a linear decoder reads there, fitted
    on the other folds of such rows: a ridge regression from activations X (centred, scaled to a
    mean square of 1) to cos w_k f and sin w_k f of the answer's exponent f and every key frequency
    k of the last checkpoint (or `frequencies`), beta = (X^T X + 1e-3 n I)^-1 X^T Y, with the answer

        argmax over f of sum_k (y_k cos w_k f + z_k sin w_k f).

    Rows are test inputs whose mirror (b, a) is not trained on either; (a, b) and (b, a) are in one
    fold, since a network that is symmetric would give one away by the other. Of more than 16,384
    rows so many are drawn. Placebos are the same decoder with as many frequencies that are not key
    (nor multiples of a key one, which nonlinearities make of it): they stay near chance, one in
    as many classes as there are.

    `hooks`: by default every layer's neurons and the residual stream after it, then the final norm
    where there is one, of an MLP or a CNN its layers, of a module of one's own its hidden layers.
    The last of them stands for what the unembedding reads, and the gap is presence there less the
    network's own accuracy on the same rows. `split()` says how much of it is interference.

    Without key frequencies the decoder is one of classes (one-hot), with shuffled classes as
    placebos. With many classes and few rows it misses much of what is there (Hastie, Tibshirani
    and Friedman 2009, section 4.2, on masking), so its presence is a lower bound; a note says so.
    It may also do by itself what the network has not learned, from features that are random: see
    what it reads at step 0.

    The definition is this package's own. That a decoder reads an answer does not say that the
    network could; a gap below 0 says that its readout is better than a regression on few numbers.
    A decoder fitted on few rows reads less than is there. InputError without a split, without
    unmirrored test rows, and for fewer rows than folds.

    >>> import grokinterp as gi
    >>> found = gi.geometry.routing(gi.load("mod31-small"), [0, 400, 10_000])
    >>> found.split()[["step", "accuracy", "presence", "key_share", "key_accuracy"]].round(2)
        step  accuracy  presence  key_share  key_accuracy
    0      0      0.05      0.02       0.10          0.05
    1    400      0.20      0.30       0.82          0.20
    2  10000      0.98      0.98       0.91          0.98
    """
    run = run_of(x, task=task, train_mask=train_mask)
    steps = rising_steps(run, step)
    folds = whole("folds", folds, least=2, such_as="5")
    placebos = whole("placebos", placebos, least=0, such_as="10")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    chosen = choose_rows(run, "unmirrored")
    if chosen.reason:
        raise InputError(f"nothing to decode: {chosen.reason.partition(';')[0]}.")
    notes = [chosen.note]
    last, keys = subject_of(run, frequencies=frequencies)
    if frequencies is not None:
        group_of(last)  # refuses a task without any
    if hooks is None:
        names, why = usual_hooks(last)
        notes += why
    else:
        given = listed("hooks", hooks, such_as="['blocks.0.hook_resid_post']")
        names = tuple(text("hook", each, such_as="'blocks.0.hook_resid_post'") for each in given)
        if not names:
            raise InputError("hooks=[] names no activation; leave it out, or name one.")
    if not names:
        raise InputError(
            f"this {last.kind} has no usual hooks to decode from; give hooks=, the names of "
            "activations (model.hook_dict lists them)."
        )
    asked = Asked.of(last, chosen.numbers, names, keys, folds, placebos, seed)
    notes += asked.notes
    by_hook, by_step = [], []
    for each in progress_bar(steps, "routing", progress):
        snapshot = last if each == run.steps[-1] else run.snapshot(each)
        rows, row = _look(snapshot, asked)
        by_hook += [{"step": each} | one for one in rows]
        by_step.append({"step": each} | row)
    hooked, stepped = pd.DataFrame(by_hook), pd.DataFrame(by_step)
    if bool(stepped["accuracy"].isna().any()):
        lost = stepped["step"][stepped["accuracy"].isna()].tolist()
        notes.append(f"activations are not finite at {', '.join(map(str, lost[:5]))}")
    dates = None
    if len(run.steps) > 1 and run.steps_known:
        try:
            dates = phases_of_metrics(run)
        except InputError as error:
            notes.append(f"no phases: {str(error).rstrip('.')}")
    return Routing(
        steps=tuple(steps), hooks=names, frequencies=asked.frequencies, n_rows=len(asked.rows),
        folds=folds, placebos=len(asked.sets) - 1 if asked.sets else asked.shuffles, seed=seed,
        by_hook=hooked, by_step=stepped, notes=tuple(notes),
        phases=None if dates is None else dates.phases,
        memorization_step=None if dates is None else dates.memorization_step,
        grok_step=None if dates is None else dates.grok_step,
    )  # fmt: skip


def _look(snapshot: Snapshot, asked: Asked) -> tuple[list[dict[str, object]], dict[str, float]]:
    """The rows of the two tables for one checkpoint."""
    group, mean = usable_group(snapshot), None
    if asked.frequencies:  # whose share is that of all inputs
        kept = Kept(snapshot, asked)

        def kind(_: Snapshot) -> Kept:
            return kept

        snapshot.tally_all(kind, LogitTally)
        logits, found, mean = kept.take()
    else:
        logits, seen = snapshot.on_rows(asked.rows, *asked.hooks)
        found = {name: x.flatten(1) for name, x in seen.items()}
    labels = snapshot.task.labels[asked.rows]
    finite = bool(logits.isfinite().all())
    accuracy = float(right_answers(logits, labels).double().mean()) if finite else math.nan
    hooks: list[dict[str, object]] = []
    for name in asked.hooks:
        read = _presence(found[name], asked)
        read |= {"accuracy": accuracy, "gap": read["presence"] - accuracy}
        hooks.append({"hook": name, **read, "lens": _lens(snapshot, name, found[name], labels)})
    row = {name: read[name] for name in ("accuracy", "presence", "placebo", "gap")}
    row |= dict.fromkeys(
        ("key_share", "key_accuracy", "interference", "readout", "restricted_accuracy"), math.nan
    )
    if asked.frequencies and group is not None and finite:
        along = waves(asked.targets, asked.frequencies, asked.order)
        row["key_share"] = _share(logits.double(), along)
        table = snapshot.tally(LogitTally).spectrum
        mine = right_answers(table.component(asked.frequencies) + table.mean, group.tokens)
        row["restricted_accuracy"] = float(mine.double() @ group.counts.double()) / group.n_inputs
        if asked.neurons is not None and mean is not None:
            of_classes = waves(torch.arange(asked.order), asked.frequencies, asked.order)
            to_logits = neuron_logit_map(snapshot)
            rest = _without(to_logits, to_logits[:, group.tokens] @ of_classes)
            left = (found[asked.neurons].double() - mean) @ rest
            only_keys = logits.double() - snapshot.task.of_answers(left)
            row["key_accuracy"] = float(answer_scores(only_keys, labels).right.double().mean())
            row["interference"] = row["key_accuracy"] - accuracy
            row["readout"] = row["presence"] - row["key_accuracy"]
    return hooks, row


def _presence(activations: Tensor, asked: Asked) -> dict[str, float]:
    """How many of the rows a decoder reads, and how many its placebos do."""
    unknown = dict.fromkeys(("presence", "placebo", "placebo_max"), math.nan)
    if not bool(activations.isfinite().all()):
        return unknown
    ridge = FoldedRidge.of(activations, asked.fold)
    if asked.sets:
        answers = wave_answers(ridge, asked.targets, asked.sets, asked.order)
    else:
        stream = torch.Generator().manual_seed(asked.seed)
        n = len(asked.targets)
        shuffled = [
            asked.targets[torch.randperm(n, generator=stream)] for _ in range(asked.shuffles)
        ]
        answers = [class_answers(ridge, x, asked.order) for x in (asked.targets, *shuffled)]
    first, *others = (float(right.double().mean()) for right in answers)
    mean = sum(others) / len(others) if others else math.nan
    return {"presence": first, "placebo": mean, "placebo_max": max(others, default=math.nan)}


def _lens(snapshot: Snapshot, name: str, stream: Tensor, labels: Tensor) -> float:
    """The accuracy of the final norm and the unembedding, applied to the stream at a hook."""
    shape, weights = snapshot.transformer, snapshot.weights
    if shape is None or ".hook_resid_" not in name:
        return math.nan
    read = normed(weights, shape, "ln_final", stream) if shape.final_norm else stream
    logits = snapshot.task.of_answers(read @ weights["unembed.W_U"] + weights["unembed.b_U"])
    return float(right_answers(logits, labels).double().mean())


def _share(logits: Float[Tensor, "n classes"], along: Float[Tensor, "n m"]) -> float:
    """Share of the variance of logits along some functions of the rows, all centred."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    centred = centred - centred.mean(dim=0)
    basis = _basis(along - along.mean(dim=0))
    total = float(centred.square().sum())
    return float((basis.T @ centred).square().sum()) / total if total else math.nan


def _without(read: Float[Tensor, "m classes"], keys: Float[Tensor, "m r"]) -> Tensor:
    """What is read of neurons apart from their part along the key directions."""
    basis = _basis(keys)
    return read - basis @ (basis.T @ read)


def _basis(columns: Float[Tensor, "n m"]) -> Float[Tensor, "n r"]:
    """Orthonormal columns with the same span."""
    left, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > THIN * sizes.max()]


@measure("routing", scope="run", default=False, prefix="routing_")
def _routing(run: Run) -> Columns:
    """How many more answers to unseen inputs can be decoded than are given."""
    found = routing(run)
    if found.peak is None:
        raise InputError(f"{found.notes[-1]}.")
    step, gap = found.peak
    last = found.by_step.iloc[-1]
    return {
        "gap": gap,
        "gap_step": step,
        "gap_at_end": last["gap"],
        "presence_at_end": last["presence"],
        "placebo": float(found.by_hook["placebo_max"].max()),
    }
