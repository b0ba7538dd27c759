"""Which rows was somebody else's run trained on: given, drawn again by a published rule, or found?

Whatever is known of the split is compared with the training losses that the files keep, where they
keep any: with the right rows the weights give the stored loss, with wrong ones a far larger one. A
configuration seldom says by which rule its code draws. Both published ones are tried then, and one
is taken only where the stored losses are those of its rows, or, where none are stored, where the
weights themselves tell its two sides apart beyond chance.
"""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.errors import LONGEST_VALUE, InputError, one_line
from grokinterp.base.paths import file_at
from grokinterp.reading.checkpoint_files import Source
from grokinterp.reading.companions import LARGEST_JSON
from grokinterp.reading.file_contents import whole_tensor
from grokinterp.reading.settings import RULES, Settings, seeds_in
from grokinterp.reading.stored_losses import (
    SMALLEST_LOSS,
    Compared,
    LossEvidence,
    StoredNumber,
    best_fit,
    compared,
)
from grokinterp.reading.tensor_files import read_file
from grokinterp.runs.manifest import missing_split
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.splits import are_rows, draw

SEEDS = (*range(100), 598, 999)  # 0 to 99, and the two of TransformerLens' Grokking_Demo
FRACTIONS = tuple(i / 100 for i in range(5, 100))
DECISIVE = 7.0  # standard errors between the two sides of a split that was searched for,
LEAD = 1.5  # and times as many as with the best other seed
CLEAR = math.log(4)  # of a likelihood ratio, by which a row looks like one side only
FOLLOWING = 20  # rows after the last training row, of which some have to look untrained
UNKNOWN = "the training rows are not known, so measures that need them are null"


@dataclass(frozen=True)
class Split:
    """Notes, training rows in drawing order (None: unknown), and what is known of their origin."""

    notes: tuple[str, ...]
    rows: Int[Tensor, " n_train"] | None = None
    described: Mapping[str, Any] = field(default_factory=dict)


def find_split(given: Settings, config: Settings, source: Source, evidence: LossEvidence) -> Split:
    """The split that was set (`given`), that the files keep, or that their `config` fixes."""
    kept = None if source.train_data is None else rows_of(source.train_data, evidence.task)
    if given.train_fraction is not None or given.n_train is not None:
        config = replace(config, train_fraction=None, n_train=None)  # another size was set
    combined = given.over(config)
    if given.split is not None and given.train_indices is not None:
        raise InputError("split and train_indices are both set; set one of them.")
    if given.train_indices is not None:
        file = Path(given.train_indices)
        split = _listed_split(rows_of(_rows_in(file), evidence.task), file.name, evidence)
    elif given.split == "search":
        split = _search(given, evidence)
    elif given.split is not None:
        split = _drawn_split(combined, "settings", evidence)
    elif _sets_a_part(given):
        split = _try_rules(given, combined, _seeds(given, source), evidence)
    elif kept is not None:
        return _listed_split(kept, source.path.name, evidence)
    elif (found := _of_the_papers_code(config, source, evidence)) is not None:
        return found
    elif _seeds(given, source) and (config.train_fraction or config.n_train):
        return _try_rules(given, config, _seeds(given, source), evidence)
    else:
        return Split((f"{UNKNOWN}; {missing_split(source.path.name)}",))
    if kept is None or split.rows is None or set(kept.tolist()) == set(split.rows.tolist()):
        return split
    step = evidence.steps[-1]
    losses = evidence.losses_of(step)
    raise InputError(
        f"the split that was set is not the one {source.path} keeps: at step {step} its training "
        f"rows have loss {float(losses[split.rows].mean()):.6g}, those kept "
        f"{float(losses[kept].mean()):.6g}; leave it out."
    )


def rows_without_losses(
    given: Settings, config: Settings, source: Source, evidence: LossEvidence
) -> Tensor | None:
    """The training rows that are listed or drawn by a rule that was set, without trying any."""
    outright = given.split in RULES or given.train_indices is not None
    nothing_set = given.split is None and not _sets_a_part(given)
    if not outright and not (nothing_set and source.train_data is not None):
        return None
    return find_split(given, config, source, evidence).rows


def _sets_a_part(given: Settings) -> bool:
    """Whether a seed or a size was set without a rule; the seed of random labels is another."""
    seed = given.data_seed is not None and given.operation != "random"
    return seed or given.train_fraction is not None or given.n_train is not None


def _seeds(given: Settings, source: Source) -> tuple[int, ...]:
    if given.data_seed is not None and given.operation != "random":
        return (given.data_seed,)
    return tuple(dict.fromkeys(seed for _, seed in seeds_in(source.config)))


def _of_the_papers_code(config: Settings, source: Source, evidence: LossEvidence) -> Split | None:
    """The rows that the paper's code draws for its configuration, unless the losses contradict."""
    seed = source.config.get("seed")
    known = source.format in ("paper", "trainer") and config.train_fraction
    if not known or type(seed) is not int or dict(seeds_in(source.config)) != {"seed": seed}:
        return None
    try:
        drawn = replace(config, split="python", data_seed=seed)
        return _drawn_split(drawn, "config", evidence, cuts_off=True)
    except InputError as error:  # nobody set it: without it, the rest works
        other = _try_rules(Settings(), config, (seed,), evidence)
        unknown = Split((f"the training rows are not known: {error}",))
        return unknown if other.rows is None else other


def _rows_in(path: Path) -> Tensor:
    data = _listed_in(path) if path.suffix == ".json" else read_file(path)
    if isinstance(data, Mapping):
        data = next(iter(data.values())) if len(data) == 1 else data.get("train_indices")
    if (rows := whole_tensor(data)) is None:
        raise InputError(f"{path} holds no 'train_indices'; give rows a*p + b as one tensor.")
    return rows


def _listed_in(path: Path) -> Any:
    """What a file of JSON holds; refused where it is none, or larger than a list of rows is."""
    wanted = "give a list of rows a*p + b, or of pairs [a, b]"
    size = file_at(path, wanted=wanted).stat().st_size
    if size > LARGEST_JSON:
        raise InputError(f"{path} is larger than {LARGEST_JSON / 1e6:.0f} MB; {wanted}.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        reason = one_line(str(error), most=LONGEST_VALUE) or type(error).__name__
        raise InputError(f"{path} cannot be read as JSON ({reason}); {wanted}.") from None


def rows_of(data: Tensor, task: ModularTask) -> Int[Tensor, " n_train"]:
    """Rows of the table of the rows, pairs, inputs or mask that a file keeps, else refused.

    Of pairs [a, b], or of what the network reads, such as [a, op, b, =] in its own ids.
    """
    if data.dtype == torch.bool and tuple(data.shape) == (task.n_inputs,):
        data = data.nonzero().flatten()  # a mask
    inexact = data.is_floating_point() or data.is_complex()
    data = data.real.double() if inexact else data.long()
    if data.ndim == 2 and data.shape[1] in (2, 3, len(task.reads.words)) and not inexact:
        data = _rows_of_pairs(_pairs_in(data, task), task)
    if inexact or data.ndim != 1 or len(data) == 0:
        raise InputError(f"train_indices has shape {tuple(data.shape)}, not rows a*p + b.")
    if not are_rows(data, task.n_inputs):
        raise InputError(
            f"train_indices must be rows a*p + b from 0 to {task.n_inputs - 1}, each once."
        )
    return data.contiguous()


def _pairs_in(data: Int[Tensor, "n columns"], task: ModularTask) -> Int[Tensor, "n 2"]:
    """The operands of inputs in the task's layout and ids, or those of plain pairs."""
    reads = task.reads
    if data.shape[1] == 2 or data.shape[1] != len(reads.words):
        return data[:, :2]
    pairs = data[:, list(reads.operand_places)]
    same = pairs[:, :, None] == reads.operand_rows
    return same.long().argmax(dim=2).where(same.any(dim=2), -1)


def _rows_of_pairs(pairs: Int[Tensor, "n 2"], task: ModularTask) -> Int[Tensor, " n"]:
    inside = bool(((pairs >= 0) & (pairs < task.p)).all())
    return task.row_of[pairs[:, 0], pairs[:, 1]] if inside else pairs[:, 0].new_full((1,), -1)


def _listed_split(rows: Int[Tensor, " n_train"], origin: str, evidence: LossEvidence) -> Split:
    """Rows that are listed, compared with the stored losses."""
    verified = _verified(rows, evidence, f"training rows of {origin}")
    return Split((verified,), rows, {"rule": "stated", "origin": origin})


def _try_rules(
    given: Settings, combined: Settings, seeds: Sequence[int], evidence: LossEvidence
) -> Split:
    """The rows of that published rule under which the weights have the stored losses.

    What was set (`given`) has to be right; the seed of a configuration may be of something else.
    """
    said, keys = given.said(), ("data_seed", "train_fraction", "n_train")
    by_hand = ", ".join(f"{key}={said[key]}" for key in keys if key in said)
    sizes = _sizes(combined, evidence.task)
    if not seeds or not sizes:
        if given.data_seed is not None:
            raise InputError(
                "data_seed needs split=torch or python and a size (or operation=random); give such "
                "as split=torch train_fraction=0.3."
            )
        raise InputError(
            "train_fraction and n_train need split=torch, python or search; give one of them."
        )
    tries: list[tuple[str, int, Compared]] = []
    for seed in seeds:
        for rule in _rules(combined):
            order = draw(evidence.task.n_inputs, rule=rule, seed=seed)
            seen = [compared(order[:size], evidence) for size in sizes]
            tries += [(rule, seed, one) for one in seen if one is not None]
    for rule, seed, one in tries:
        if one.agrees:
            found = replace(combined, split=rule, data_seed=seed)
            return _drawn_split(found, "settings" if by_hand else "config", evidence)
    if not tries:
        return _rule_by_weights(combined, seeds, by_hand, evidence)
    what = by_hand or " or ".join(f"seed {seed}" for seed in seeds) + " of its configuration"
    _, best_seed, best = min(tries, key=lambda each: each[2].found / each[2].stored)
    by_rule = {rule: one.found for rule, seed, one in tries if seed == best_seed}
    losses = ", ".join(f"{found:.6g} by {rule}" for rule, found in by_rule.items())
    refusal = (
        f"{what} is not the split of this run: at step {best.step} its training rows have loss "
        f"{losses}, the files say {best.stored:.6g}"
    )
    if by_hand:
        raise InputError(f"{refusal}; give the right one, or split=search.")
    return Split((f"{UNKNOWN}: {refusal}; set split=, or try split=search",))


def _rule_by_weights(
    combined: Settings, seeds: Sequence[int], by_hand: str, evidence: LossEvidence
) -> Split:
    """Where no stored loss tells, the rule whose sides differ beyond chance in their losses."""
    why = "are too alike to tell" if evidence.stored else "are not stored"
    if by_hand:
        raise InputError(
            f"{by_hand} needs split=torch or python: the losses that would tell which {why}; "
            "data_seed needs split=, train_fraction and n_train need split= too."
        )
    for seed in seeds:
        with contextlib.suppress(InputError):
            found = _search(replace(combined, data_seed=seed), evidence)
            if found.described.get("rule") in _rules(combined):
                return found
    fraction = combined.train_fraction
    size = f"train_fraction={fraction:.6g}" if fraction else f"n_train={combined.n_train}"
    return Split((
        f"{UNKNOWN}: its configuration has the seed {seeds[0]} and {size}, not the rule, and "
        f"losses that would tell {why} (set split=torch or split=python, or train_indices=)",
    ))  # fmt: skip


def _drawn_split(
    drawn: Settings, origin: str, evidence: LossEvidence, *, cuts_off: bool = False
) -> Split:
    """The first rows of a shuffle, by the published rule, the seed and the size of `drawn`."""
    rule, seed, sizes = str(drawn.split), drawn.data_seed, _sizes(drawn, evidence.task)
    if seed is None or not sizes:
        raise InputError(
            f"split={rule} needs data_seed and train_fraction (or n_train) of this table of "
            f"{evidence.task.n_inputs} rows; give such as data_seed=0 train_fraction=0.3."
        )
    order = draw(evidence.task.n_inputs, rule=rule, seed=seed)
    size, decided = _size_among(sizes, order, evidence, cuts_off=cuts_off)
    verified = _verified(order[:size], evidence, f"split={rule} data_seed={seed}")
    notes = (verified, *decided, *_too_few(order, size, evidence))
    described = {
        "rule": rule, "data_seed": seed, "train_fraction": drawn.train_fraction, "origin": origin,
    }  # fmt: skip
    return Split(notes, order[:size], described)


def _size_among(
    sizes: Sequence[int], order: Int[Tensor, " n"], evidence: LossEvidence, *, cuts_off: bool
) -> tuple[int, tuple[str, ...]]:
    """One of the sizes that a fraction can mean, and a note of how it was decided.

    The stored losses decide if they are exact enough; otherwise the row in question does, if it
    looks like one side only. What nothing tells is cut off, as both published codes do; with
    `cuts_off`, such code wrote the files, and the row alone is no evidence.
    """
    if len(sizes) == 1:
        return sizes[0], ()
    small, large = sorted(sizes)
    numbers = []
    for step in evidence.stored_steps():
        losses = evidence.losses_of(step)[order]
        found = {n: float(losses[:n].mean()) for n in (small, large)}
        numbers.append(StoredNumber(f"step {step}", evidence.stored[step], found))
    if fit := best_fit(numbers):
        size, number = fit
        why = (
            f"at {number.what} these have loss {number.found[size]:.9g}, those "
            f"{number.other(size):.9g}, and the files say {number.value:.9g}"
        )
    else:
        why = "the stored losses cannot tell" if evidence.stored else "no losses are stored"
        ratio = 0.0 if cuts_off else _trained_on(order, small, evidence)
        size = large if ratio > CLEAR else small
        if abs(ratio) > CLEAR:
            looks = "as if it were trained on" if ratio > 0 else "as if it were not"
            why += f", and the row between has losses {looks}"
        else:
            row = "" if cuts_off else ", nor can the row between"
            why += f"{row}, so it is cut off as published code does (or set n_train=)"
    return size, (f"{size} training rows, not {small + large - size}: {why}",)


def _search(asked: Settings, evidence: LossEvidence) -> Split:
    """The published rule, seed and size whose two sides differ most in mean log loss.

    A plain mean would miss it: a handful of large losses drown the thousands of small ones. Only a
    match far beyond chance and beyond every other seed is taken. `asked` narrows the search.
    """
    task, fraction, n_train = evidence.task, asked.train_fraction, asked.n_train
    fractions = [fraction] if fraction else FRACTIONS
    of_size = {n: f for f in fractions for n in _sizes(Settings(train_fraction=f), task)}
    sizes = [n_train] if n_train else sorted(of_size)
    if not sizes or not 0 < sizes[0] < task.n_inputs:
        raise InputError(
            f"split=search needs both training and test rows among the {task.n_inputs} of this "
            "table; leave train_fraction and n_train out."
        )
    logs = [_log(evidence.losses_of(step)) for step in evidence.some_steps()]
    best: list[tuple[float, str, int, int]] = []
    for rule in RULES:
        for seed in SEEDS if asked.data_seed is None else (asked.data_seed,):
            order = draw(task.n_inputs, rule=rule, seed=seed)
            score, size = max(_separation(log[order], sizes) for log in logs)
            best.append((score, rule, seed, size))
    (score, rule, seed, size), (second, *_) = sorted(best, reverse=True)[:2]
    facts = (
        f"the best of {len(best)} shuffles ({rule}, seed {seed}, {size} training rows) sets its "
        f"two sides {score:.1f} standard errors of the mean log loss apart, the next {second:.1f}"
    )
    if score < DECISIVE or score < LEAD * second:
        return Split((f"no split was found: {facts}",))
    if n_train is None:  # the fraction is found; whether it was cut off or rounded is not
        fraction = of_size[size]
    drawn = Settings(split=rule, data_seed=seed, train_fraction=fraction, n_train=n_train)
    split = _drawn_split(drawn, "search", evidence)
    return replace(split, notes=(f"split: {facts}", *split.notes))


def _rules(settings: Settings) -> Sequence[str]:
    return (settings.split,) if settings.split in RULES else RULES


def _sizes(settings: Settings, task: ModularTask) -> list[int]:
    """The numbers of training rows that can be meant: of a fraction, cut off and rounded.

    None where no size is set, or one that is impossible.
    """
    if settings.n_train:
        return [settings.n_train] if settings.n_train <= task.n_inputs else []
    exact = (settings.train_fraction or 0) * task.n_inputs
    return sorted({n for n in (int(exact), round(exact)) if 0 < n < task.n_inputs})


def _separation(log: Float[Tensor, " n"], sizes: Sequence[int]) -> tuple[float, int]:
    """The size at which the first rows lie furthest below the others, in standard errors."""
    n = torch.tensor(sizes)
    sums, squares = log.cumsum(0)[n - 1], log.square().cumsum(0)[n - 1]
    total, total_squares, rest = log.sum(), log.square().sum(), len(log) - n
    train, test = sums / n, (total - sums) / rest
    within = (squares - n * train**2) + (total_squares - squares - rest * test**2)
    error = (within / len(log) * (1 / n + 1 / rest)).clamp_min(1e-12).sqrt()
    score = (test - train) / error
    position = int(score.argmax())
    return float(score[position]), sizes[position]


def _trained_on(order: Int[Tensor, " n"], position: int, evidence: LossEvidence) -> float:
    """How much rather the row at a position has a loss of those before it than of those after.

    The log of a likelihood ratio, normal in the log loss, summed over a few checkpoints.
    """
    ratio = 0.0
    for step in evidence.some_steps():
        log = _log(evidence.losses_of(step))[order]
        sides = log[:position], log[position + 1 :]
        train, test = (
            -(((log[position] - side.mean()) / side.std()) ** 2) / 2 - side.std().log()
            for side in sides
        )
        ratio += float(train - test)
    return ratio


def _too_few(order: Int[Tensor, " n"], size: int, evidence: LossEvidence) -> tuple[str, ...]:
    """A note where the training set seems to go on, whose loss is that of this part of it too."""
    following = range(size, min(size + FOLLOWING, len(order) - 2))
    if not len(following) == FOLLOWING <= size or not all(
        _trained_on(order, position, evidence) > CLEAR for position in following
    ):
        return ()
    return (
        f"the {FOLLOWING} rows after these {size} in the same shuffle look trained on too: "
        "train_fraction is larger, it seems, which a training loss does not show",
    )


def _verified(rows: Int[Tensor, " n_train"], evidence: LossEvidence, what: str) -> str:
    """What the stored training losses say about a split; a wrong one is refused."""
    seen = compared(rows, evidence)
    if seen is None:
        none = "no training loss is stored for a step whose weights are"
        why = "train and test losses are too alike to tell" if evidence.stored else none
        return f"{what}: not verified, {why}"
    if not seen.agrees:
        raise InputError(
            f"{what} is not the split of this run: at step {seen.step} its training rows have loss "
            f"{seen.found:.6g}, the file says {seen.stored:.6g}; give the right one, or "
            "split=search."
        )
    return (
        f"{what}: verified at step {seen.step}, training loss {seen.found:.6g}, the files say "
        f"{seen.stored:.6g}"
    )


def _log(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return losses.clamp_min(SMALLEST_LOSS).log()
