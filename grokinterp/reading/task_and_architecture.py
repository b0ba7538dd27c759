"""Which task and architecture do the weights have, where their shapes cannot say it?

A trained network answers its task well under the right reading of its weights and badly under a
wrong one. Readings are compared by the mean log cross-entropy over a sample of the table; one is
taken where it beats every other by far, or assumed where it beats the usual one by far, or answers
a quarter of the table more; otherwise the usual one is assumed, and a note says so: the causal
mask, but none where a family of models is known to have none (`Recognised.usual`). So every usual
head count has to be among the readings. The activation function is never chosen so: networks that
were trained with ReLU give lower losses with GELU. What the answers leave open about the mask of
attention is asked of the stored losses.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import real
from grokinterp.base.errors import InputError
from grokinterp.models.architecture import BaseArchitecture, Weights, is_bias
from grokinterp.models.cross_entropy import answer_scores
from grokinterp.models.recognised import Recognised
from grokinterp.models.transformer import NetworkSizes, fitting_task
from grokinterp.reading.checkpoint_files import Source
from grokinterp.reading.input_layouts import (
    FAR_MORE,
    HALF,
    layouts_of_module,
    possible_inputs,
)
from grokinterp.reading.settings import Settings
from grokinterp.reading.stored_losses import (
    SMALLEST_LOSS,
    StoredNumber,
    best_fit,
    evenly_spread,
    uncertainty,
)
from grokinterp.reading.tensor_files import StateDict
from grokinterp.runs._snapshot import from_weights
from grokinterp.runs.forwards import BLOCK_ROWS, forward_of
from grokinterp.runs.metrics import COLUMNS, evaluate
from grokinterp.tasks.answer_group import UNDEFINED
from grokinterp.tasks.layout import USUAL
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.operations import get_operation
from grokinterp.tasks.splits import mask_of

SAMPLE = 2048  # rows of the table
SMALLEST_GAP = 0.25  # of the mean log losses, by which every rival has to be behind,
FAR_MORE_OF_FEW = 0.1  # of the table, where hardly any error is left
STANDARD_ERRORS = 10.0  # and in standard errors of the mean difference
TRIED: dict[str, tuple[Any, ...]] = {
    "operation": ("add", "subtract", "multiply", "divide", "x2xyy2"),  # the usual one first
    "n_heads": (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32),
    "attention_rate": (1.0, 0.0),
    "attention_dir": ("causal", "bidirectional"),
    "norm_position": ("post", "pre"),
}
SIDES = ("train", "test")
MOST_BYTES = 16 * 2**30  # p = 1600
_IN_CONFIG = {
    f"{prefix}{side}_{word}": f"{side}_{kind}"
    for prefix in ("", "final_")
    for side in SIDES
    for word, kind in (("loss", "loss"), ("acc", "acc"), ("accuracy", "acc"))
}


def task_of(
    architecture: BaseArchitecture, given: Settings, config: Settings, source: Source
) -> tuple[ModularTask, tuple[str, ...]]:
    """The operation, the modulus and the "=" token, which the sizes of the weights have to fit."""
    where = str(source.path)
    operation = given.operation or config.operation or TRIED["operation"][0]
    if operation == "random" and given.operation is None:
        raise InputError(
            f"{where} learned random labels, which nobody can draw again; give operation=random "
            "data_seed=... if they are those of this package."
        )
    p = config.p if given.p is None else given.p
    inputs = given.inputs() or config.inputs()
    if not architecture.named:  # a module: its own code says what it reads
        return _read_by_module(architecture, operation, p, given, inputs, where), ()
    sizes = NetworkSizes.of(architecture)
    classes = sizes.d_vocab_out
    notes: tuple[str, ...] = ()
    papers = source.format in ("paper", "trainer")  # whose code keeps the sizes of p = 113
    if papers and p is not None and p == config.p and sizes.inputs and p < sizes.inputs[0]:
        notes = (f"p={p} as its config says; {sizes} are more than it needs",)
        sizes = NetworkSizes(p + (sizes.inputs[1] == USUAL[True]), sizes.n_ctx, p)
    if sizes.inputs is not None and p not in (None, sizes.inputs[0]):
        where = (
            f"{where} says p={p} and" if given.p is None else f"p={p} contradicts {where}, which"
        )
    task = fitting_task(
        sizes, operation=operation, p=p, equals_token=given.equals_token,
        seed=given.data_seed or 0, what=where, layout=inputs.pop("layout", None), ids=inputs,
    )  # fmt: skip
    has_class = classes > task.p
    if given.equals_class is not None and given.equals_class != has_class:
        raise InputError(
            f"equals_class={given.equals_class} contradicts {source.path}, which has "
            f"{classes} classes for p={task.p}; leave it out."
        )
    return task, notes


def _read_by_module(
    architecture: BaseArchitecture,
    operation: str,
    p: int | None,
    given: Settings,
    inputs: dict[str, Any],
    where: str,
) -> ModularTask:
    """The task whose inputs a module reads: in the layout that is set, or the first usual one."""
    if p is None:
        raise InputError(f"{where} does not say p, which no module shows; give p=.")
    if "layout" not in inputs and given.equals_token is not None:
        inputs = {"layout": USUAL[given.equals_token], **inputs}
    first = None
    for task, reason in layouts_of_module(architecture, operation, p, inputs):
        if reason is None:
            return replace(task, seed=given.data_seed or 0)
        first = first or reason
    raise InputError(f"{where}: {first}; set layout= to what it reads.")


def check_biases(weights: Weights, given: str | None, where: str) -> None:
    """Refuse `biases=` ("none", "mlp" or "all") where another bias is not zero."""
    allowed = {"none": "no bias", "mlp": ".mlp.b_"}.get(given or "all", ".b")
    for name, weight in weights.items():
        if is_bias(name) and allowed not in name and weight.any():
            raise InputError(f"biases={given} contradicts {where}, whose {name!r} is not zero.")


def _check_affordable(recognised: Recognised, task: ModularTask, where: str) -> None:
    """Refuse sizes that a file of a few kilobytes can state and no machine can compute with."""
    # The table of pairs, its logits, and what a forward holds of one block of inputs.
    shown = recognised.architecture.named
    classes = NetworkSizes.of(recognised.architecture).d_vocab_out if shown else task.p
    held = recognised.held(min(task.n_inputs, BLOCK_ROWS))
    needed = 4 * (held + task.n_inputs * (12 + classes))
    if needed > MOST_BYTES:
        raise InputError(
            f"{where} needs {needed / 2**30:.0f} GiB for the {task.n_inputs} inputs of p={task.p}, "
            f"{recognised.parts}, more than the "
            f"{MOST_BYTES / 2**30:.0f} that are taken for a run; give a smaller one."
        )


@dataclass(frozen=True)
class Candidate:
    """One way to read the weights, and the log loss of every sampled row under it."""

    choices: Mapping[str, Any]  # the operation, and an answer to every open question
    log_losses: Float[Tensor, " rows"]
    accuracy: float


@dataclass(frozen=True)
class Inferred:
    """An answer to every open question, and a note for each."""

    recognised: Recognised
    task: ModularTask
    candidates: tuple[Candidate, ...]
    chosen: Mapping[str, Any]
    notes: Mapping[str, str]
    unsure: tuple[str, ...]  # what was assumed all the same

    @property
    def accuracy(self) -> float:
        """Of the sampled rows."""
        return self._taken.accuracy

    @property
    def answers_half(self) -> bool:
        """Whether it answers so much that no other layout of inputs is looked for."""
        return self.accuracy >= HALF

    @property
    def log_loss(self) -> float:
        """The mean log cross-entropy of the sampled rows."""
        return float(self._taken.log_losses.nanmean())

    @property
    def _taken(self) -> Candidate:
        return next(x for x in self.candidates if x.choices == self.chosen)

    @property
    def above_chance(self) -> bool:
        """Whether the weights so read answer more than chance."""
        n, chance = len(self.candidates[0].log_losses), 1 / self.task.p
        return self.accuracy > chance + 4 * (chance * (1 - chance) / n) ** 0.5

    @property
    def so_read(self) -> str:
        """How well the weights answer in this reading: a wrong one shows here."""
        task = self.task
        note = f"so read, its last checkpoint answers {self.accuracy:.1%} of the table right"
        if self.accuracy == 1:
            return note
        if self.above_chance:
            return f"{note} (if it answers more itself, its code uses the weights in another way)"
        return (
            f"{note}, no more than chance: it has not learned, or it is not {task.operation} mod "
            f'{task.p} of "{task.layout}", or its code uses the weights in another way'
        )


def infer(
    recognised: Recognised, state: StateDict, task: ModularTask, operation_known: bool, where: str
) -> Inferred:
    """The reading of weights that their answers speak for, or what is usual."""
    _check_affordable(recognised, task, where)
    candidates = tuple(_candidates(recognised, state, task, operation_known, where))
    best = min(candidates, key=lambda each: float(each.log_losses.nanmean()))
    notes: dict[str, str] = {}
    chosen: dict[str, Any] = {}
    unsure = []
    for key in (*recognised.assumed, *(() if operation_known else ("operation",))):
        value = best.choices[key]
        rivals = [each for each in candidates if each.choices[key] != value]
        usual, why = (TRIED[key][0], "") if key == "operation" else recognised.usual(key, chosen)
        if rivals and all(_by_far(best, rival) for rival in rivals):
            chosen[key] = value
            notes[key] = f"{key}={value}: it answers far better so than otherwise"
            continue
        unsure.append(key)
        of_usual = [rival for rival in rivals if rival.choices[key] == usual]
        if value != usual and all(_by_far(best, x) or _answers_more(best, x) for x in of_usual):
            chosen[key] = value
            notes[key] = f"{key}={value} is assumed: it answers best so (or set {key}=)"
        else:
            chosen[key] = usual
            reason = f", {why}" if why else ""
            notes[key] = f"{key}={usual} is assumed{reason} (set {key}= if it is another)"
    parts = {key: value for key, value in chosen.items() if key != "operation"}
    operation = chosen.setdefault("operation", task.operation)
    return Inferred(
        recognised.replace(**parts), replace(task, operation=operation), candidates, chosen,
        notes, tuple(unsure),
    )  # fmt: skip


def _candidates(
    recognised: Recognised, state: StateDict, task: ModularTask, operation_known: bool, where: str
) -> Iterator[Candidate]:
    operations = (task.operation,) if operation_known else TRIED["operation"]
    parts: list[Sequence[Any]] = []
    for key in recognised.assumed:
        usual = getattr(recognised.architecture, key)
        choices = dict.fromkeys((usual, *TRIED.get(key, ())))
        parts.append([x for x in choices if recognised.possible(key, x)])
    rows = torch.arange(task.n_inputs)[:: max(1, task.n_inputs // SAMPLE)]
    pairs = task.operands[rows]
    places = pairs[:, 0] * task.p + pairs[:, 1]
    labels = {name: get_operation(name).table(task.p, task.seed)[places] for name in operations}
    for values in itertools.product(*parts):
        chosen = dict(zip(recognised.assumed, values, strict=True))
        reading = recognised.replace(**chosen)
        weights = reading.weights(state, where)
        with torch.no_grad():
            logits, _ = forward_of(weights, reading.architecture)(task.tokens[rows], ())
        for name in operations:
            there = labels[name] != UNDEFINED
            scores = answer_scores(task.of_answers(logits), labels[name].clamp_min(0))
            log_losses = scores.losses.clamp_min(SMALLEST_LOSS).log().where(there, torch.nan)
            accuracy = float(scores.right[there].double().mean())
            yield Candidate({**chosen, "operation": name}, log_losses, accuracy)


def with_inputs(
    recognised: Recognised,
    inferred: Inferred | None,
    state: StateDict,
    operation: str | None,
    p: int | None,
    where: str,
) -> Inferred | None:
    """Where the usual layouts of inputs do not fit, or answer nothing: one that answers far more.

    `inferred` is the usual reading, None where no size is its; it is returned where no other is
    taken.
    """
    architecture, tried = recognised.architecture, []
    usual = operation or TRIED["operation"][0]
    tasks: Iterable[ModularTask] = ()
    if architecture.transformer is not None:
        tasks = possible_inputs(NetworkSizes.of(architecture), usual, p)
    elif not architecture.named and p is not None:
        tasks = (x for x, reason in layouts_of_module(architecture, usual, p, {}) if not reason)
    for task in tasks:
        with contextlib.suppress(InputError):  # larger than there is room for
            tried.append(infer(recognised, state, task, operation is not None, where))
    if not tried:
        return inferred
    best = max(tried, key=lambda each: (each.accuracy, -each.log_loss))
    rivals, renumbered = [0.0 if inferred is None else inferred.accuracy], [0.0]
    for each in tried:
        one, other = each.task, best.task
        if (one.layout, one.p) != (other.layout, other.p):
            rivals.append(each.accuracy)
        elif (one.operand_ids, one.answer_ids) != (other.operand_ids, other.answer_ids):
            renumbered.append(each.accuracy)  # else the ids of words alone differ
    rival = max(rivals)
    sure = 1 - best.accuracy <= (1 - max(renumbered)) / 2
    if best.accuracy < max(HALF, rival + FAR_MORE) or not sure:
        return inferred
    reads = best.task.reads
    ids = ", ".join(f"{word!r} {reads.id_of[word]}" for word in reads.others)
    first = {"operands": reads.operand_ids[0], "answers": reads.answer_ids[0]}
    ids += "".join(f", {name} from {start} on" for name, start in first.items() if start)
    note = (
        f'layout="{best.task.layout}"{f" with the ids {ids}" if ids else ""}: so read, it answers '
        f"{best.accuracy:.1%} of a sample right, in any other layout at most {rival:.1%} (set "
        "layout= if it is another)"
    )
    return replace(best, notes={"layout": note, **best.notes})


def among_readings(
    inferred: Inferred,
    state: StateDict,
    task_for: Callable[[Recognised], ModularTask],
    operation_known: bool,
    where: str,
) -> Inferred:
    """Where shapes allow other readings: one that answers far better, else the usual one."""
    others = []
    for reading in inferred.recognised.others:
        with contextlib.suppress(InputError):  # of a p that somebody gave another, for example
            task = task_for(reading)
            others.append(infer(reading, state, task, operation_known, where))
    if not others:
        return inferred
    best = max(others, key=lambda each: each.accuracy)
    if best.above_chance and _answers_more(best, inferred):
        other = inferred.recognised.described
        note = f"so, and not as {other}, as its shapes allow too: it answers far better"
        return replace(best, notes={"reading": note, **best.notes})
    if inferred.above_chance and _answers_more(inferred, best):
        return inferred
    which = best.recognised.described
    p = best.task.p
    by_p = f" (p={p} reads it so)" if p != inferred.task.p else ""
    note = f"this is assumed: its shapes allow {which} too{by_p}"
    return replace(inferred, notes={"reading": note, **inferred.notes})


def _answers_more(one: Candidate | Inferred, other: Candidate | Inferred) -> bool:
    """By a quarter of the table, or by a tenth with a quarter of the errors."""
    more = one.accuracy - other.accuracy
    return more > FAR_MORE or (
        more > FAR_MORE_OF_FEW and 4 * (1 - one.accuracy) <= 1 - other.accuracy
    )


def _by_far(best: Candidate, rival: Candidate) -> bool:
    difference = rival.log_losses - best.log_losses
    difference = difference[~difference.isnan()]  # of pairs that both have an answer to
    error = difference.std() / len(difference) ** 0.5
    return bool(difference.mean() > max(SMALLEST_GAP, STANDARD_ERRORS * float(error)))


def with_direction(
    inferred: Inferred, source: Source, rows: Int[Tensor, " n_train"] | None, size: Settings
) -> Inferred:
    """With the direction of attention under which the weights have the stored losses, if one is.

    Losses of training and test rows are compared where these `rows` are known, those of all rows
    where the `size` of the training set is set, of which both are means.
    """
    task = inferred.task
    train = None if rows is None else mask_of(rows, task.n_inputs)
    train_fraction = size.train_fraction or (size.n_train or 0) / task.n_inputs
    numbers = list(_stored_numbers(inferred, source, train, train_fraction))
    # Test losses may be those of the step before: they are not yet aligned.
    fit = best_fit(x for x in numbers if x.what.startswith("train_loss")) or best_fit(numbers)
    if fit is None:
        return inferred
    direction, number = fit
    note = (
        f"attention_dir={direction}: so read, {number.what} is {number.found[direction]:.6g}, "
        f"otherwise {number.other(direction):.6g}, and the files say {number.value:.6g}"
    )
    return replace(
        inferred,
        recognised=inferred.recognised.replace(attention_dir=direction),
        chosen={**inferred.chosen, "attention_dir": direction},
        notes={**inferred.notes, "attention_dir": note},
    )


def _stored_numbers(
    inferred: Inferred, source: Source, train: Bool[Tensor, " n_inputs"] | None, fraction: float
) -> Iterator[StoredNumber[str]]:
    """What the files keep of their checkpoints, and what it would be in either direction."""
    task = inferred.task
    stored = source.logged_metrics().set_index("step")
    if len(source.states) == 1:  # of a single one, also what its configuration says
        own = {
            _IN_CONFIG[key]: number for key, x in source.config.items()
            if key in _IN_CONFIG and (number := real(x)) is not None
        }  # fmt: skip
        index = pd.Index([*source.states], name="step")
        stored = stored.combine_first(pd.DataFrame(own, index, columns=[*COLUMNS], dtype=float))
    stored = stored[list(COLUMNS)].dropna(how="all")
    stored = stored[stored.index.isin(list(source.states))]
    rows = torch.ones(task.n_inputs, dtype=torch.bool) if train is None else train
    for step in evenly_spread(list(stored.index)):
        row, state, found = stored.loc[step].to_dict(), source.states[step](), {}
        for direction in TRIED["attention_dir"]:
            reading = inferred.recognised.replace(attention_dir=direction)
            weights = reading.weights(state, f"{source.path}, step {step}")
            logits = from_weights(weights, reading.architecture, task).all_logits
            found[direction] = evaluate(logits, task.targets, rows)
        for column in COLUMNS if train is not None else ():
            if math.isfinite(row[column]):
                means = {key: each[column] for key, each in found.items()}
                yield StoredNumber(f"{column} of step {step}", row[column], means)
        for kind in ("loss", "acc") if train is None and fraction else ():
            sides = [row[f"{side}_{kind}"] for side in SIDES]
            if all(map(math.isfinite, sides)):
                means = {key: each[f"train_{kind}"] for key, each in found.items()}
                mean = fraction * sides[0] + (1 - fraction) * sides[1]
                # The fraction may be rounded by a row, and the mean has the digits of its parts.
                unknown = abs(sides[0] - sides[1]) / task.n_inputs + max(map(uncertainty, sides))
                yield StoredNumber(f"the {kind} of all rows at step {step}", mean, means, unknown)
