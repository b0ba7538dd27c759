"""The training rows of somebody else's run: given, drawn again by a published rule, or found.

Whatever is said about the split is compared with the training losses that the files keep, where
they keep any: with the right rows the weights give the stored loss, with wrong ones a far larger
one.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.reading.settings import Settings
from grokinterp.reading.stored_numbers import Stored, told, uncertainty
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.splits import are_rows, draw

# MERGED runs.foreign.drawn: The training rows that a seed and a size stand for, by a published rule that is said or tried.
#
# A configuration seldom says by which rule its code draws. Both published ones are tried then, and
# one is taken only where the stored losses are those of its rows, or, where none are stored, where
# the weights themselves tell its two sides apart beyond chance.


SEEDS = (*range(100), 598, 999)  # 0 to 99, and the two of TransformerLens' Grokking_Demo
FRACTIONS = tuple(i / 100 for i in range(5, 100))
AGREES = 0.05  # largest difference of log losses that counts as the same loss,
AGREES_WHEN_TINY = 1.0  # and below 1e-5, where losses that others took in float32 are coarse
TINY = 1e-5
TELLS = 2.0  # times that, the difference that a wrong split would make
DECISIVE = 7.0  # standard errors between the two sides of a split that was searched for,
LEAD = 1.5  # and times as many as with the best other seed
NEAR = 0.25  # of the log ratio to all rows' loss, by which that of the update before may differ
SMALLEST_LOSS = 1e-30
CLEAR = math.log(4)  # of a likelihood ratio, by which a row looks like one side only
FOLLOWING = 20  # rows after the last training row, of which some have to look untrained

RowLosses = Callable[[int], Float[Tensor, " n_inputs"]]


@dataclass(frozen=True)
class Split:
    """Training rows in drawing order (None: unknown), what is known of their origin, and notes."""

    rows: Int[Tensor, " n_train"] | None
    described: Mapping[str, Any] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What a split can be compared with."""

    task: ModularTask
    steps: Sequence[int]  # of the checkpoints
    losses_of: RowLosses  # cross-entropy of every row under the weights of a step
    stored: Mapping[int, float]  # training losses of checkpoints, as the files keep them
    near: bool = False  # whether these may be those of the weights an update before

    def looked_at(self, most: int = 6) -> list[int]:
        """A few checkpoints, evenly spread."""
        stride = max(1, -(-len(self.steps) // most))
        return list(self.steps)[::-1][::stride]


def rows_of(data: Tensor, task: ModularTask) -> Int[Tensor, " n_train"]:
    """Rows a*p + b of the rows, pairs or mask that a file keeps, refused if they are none."""
    if data.dtype == torch.bool and tuple(data.shape) == (task.n_inputs,):
        data = data.nonzero().flatten()  # a mask
    data = (
        data.long() if not (data.is_floating_point() or data.is_complex()) else data.real.double()
    )
    if data.ndim == 2 and data.shape[1] in (2, 3) and not data.is_floating_point():
        inside = (data[:, :2] >= 0).all() and (data[:, :2] < task.p).all()
        data = data[:, 0] * task.p + data[:, 1] if inside else data[:, 0].new_full((1,), -1)
    if data.is_floating_point() or data.ndim != 1 or len(data) == 0:
        raise InputError(f"train_indices has shape {tuple(data.shape)}, not rows a*p + b.")
    if not are_rows(data, task.n_inputs):
        raise InputError(
            f"train_indices must be rows a*p + b from 0 to {task.n_inputs - 1}, each once."
        )
    return data.contiguous()


def given_split(rows: Int[Tensor, " n_train"], origin: str, evidence: Evidence) -> Split:
    """A split that is stated outright, compared with the stored losses."""
    described = {"rule": "stated", "origin": origin}
    return Split(rows, described, (_verified(rows, evidence, f"training rows of {origin}"),))


def drawn_split(
    rule: str,
    seed: int,
    sizes: Sequence[int],
    described: Mapping[str, Any],
    evidence: Evidence,
    *,
    cuts_off: bool = False,
) -> Split:
    """The first rows of a shuffle, by a published rule.

    Codes make a number of training rows of a fraction in two ways, `int` and `round`. Where `sizes`
    are two, the stored losses decide if they are exact enough; otherwise the row in question does,
    if it looks like one side only. What nothing tells is cut off, as both published codes do;
    with `cuts_off`, code that is known to do so wrote the files, and the row alone is no evidence.
    """
    order = draw(evidence.task.n_inputs, rule=rule, seed=seed)
    size, decided = _size_among(sizes, order, evidence, cuts_off=cuts_off)
    verified = _verified(order[:size], evidence, f"split={rule} data_seed={seed}")
    notes = (verified, *decided, *_too_few(order, size, evidence))
    return Split(order[:size], described, notes)


def _size_among(
    sizes: Sequence[int], order: Int[Tensor, " n"], evidence: Evidence, *, cuts_off: bool
) -> tuple[int, tuple[str, ...]]:
    """One of the sizes that a fraction can mean, and a note of how it was decided."""
    if len(sizes) == 1:
        return sizes[0], ()
    small, large = sorted(sizes)

    def taken(size: int, why: str) -> tuple[int, tuple[str, ...]]:
        return size, (f"{size} training rows, not {small + large - size}: {why}",)

    if told := _told_by_losses(small, large, order, evidence):
        return told[0], (told[1],)
    untold = "the stored losses cannot tell" if evidence.stored else "no losses are stored"
    ratio = 0.0 if cuts_off else _trained_on(order, small, evidence)
    if ratio > CLEAR:
        return taken(large, f"{untold}, and the row between has losses as if it were trained on")
    if ratio < -CLEAR:
        return taken(small, f"{untold}, and the row between has losses as if it were not")
    row = "" if cuts_off else ", nor can the row between"
    return taken(small, f"{untold}{row}, so it is cut off as published code does (or set n_train=)")


def _told_by_losses(
    small: int, large: int, order: Int[Tensor, " n"], evidence: Evidence
) -> tuple[int, str] | None:
    """The size whose training losses are the stored ones, and a note; None where none tells."""
    numbers = []
    for step in _comparable(evidence):
        losses = evidence.losses_of(step)[order]
        found = {n: float(losses[:n].mean()) for n in (small, large)}
        numbers.append(Stored(f"step {step}", evidence.stored[step], found))
    if (found_size := told(numbers)) is None:
        return None
    size, number = found_size
    note = (
        f"{size} training rows, not {small + large - size}: at {number.what} these have loss "
        f"{number.found[size]:.9g}, those {number.other(size):.9g}, and the files say "
        f"{number.value:.9g}"
    )
    return size, note


def searched_split(
    evidence: Evidence, *, fraction: float | None, n_train: int | None, seed: int | None
) -> Split:
    """The published rule, seed and size whose two sides differ most in mean log loss.

    A plain mean would miss it: a handful of large losses drown the thousands of small ones. Only a
    match far beyond chance and beyond every other seed is taken.
    """
    task = evidence.task
    fractions = [fraction] if fraction else FRACTIONS
    of_size = {n: f for f in fractions for n in sizes_of(f, task)}
    sizes = [n_train] if n_train else sorted(of_size)
    if not sizes or not 0 < sizes[0] < task.n_inputs:
        raise InputError(
            f"split=search needs both training and test rows among the {task.n_inputs} of this "
            "table; leave train_fraction and n_train out."
        )
    logs = [_log(evidence.losses_of(step)) for step in evidence.looked_at()]
    best: list[tuple[float, str, int, int]] = []
    for rule in ("torch", "python"):
        for candidate in SEEDS if seed is None else (seed,):
            order = draw(task.n_inputs, rule=rule, seed=candidate)
            score, size = max(_separation(log[order], sizes) for log in logs)
            best.append((score, rule, candidate, size))
    best.sort(reverse=True)
    score, rule, found, size = best[0]
    second = best[1][0] if len(best) > 1 else 0.0
    facts = (
        f"the best of {len(best)} shuffles ({rule}, seed {found}, {size} training rows) sets its "
        f"two sides {score:.1f} standard errors of the mean log loss apart, the next {second:.1f}"
    )
    if score < DECISIVE or score < LEAD * second:
        return Split(None, None, (f"no split was found: {facts}",))
    if n_train is None:  # the fraction is found; whether it was cut off or rounded is not
        fraction = of_size[size]
        sizes = sizes_of(fraction, task)
    described = {"rule": rule, "data_seed": found, "train_fraction": fraction, "origin": "search"}
    split = drawn_split(rule, found, sizes, described, evidence)
    return Split(split.rows, split.described, (f"split: {facts}", *split.notes))


def sizes_of(fraction: float, task: ModularTask) -> list[int]:
    """The numbers of training rows that codes make of a fraction: cut off, and rounded."""
    exact = fraction * task.n_inputs
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


def _trained_on(order: Int[Tensor, " n"], position: int, evidence: Evidence) -> float:
    """How much rather the row at a position of the shuffle has a loss of those before it.

    The log of a likelihood ratio, normal in the log loss, summed over a few checkpoints; negative
    where it has one of those after it.
    """
    ratio = 0.0
    for step in evidence.looked_at():
        log = _log(evidence.losses_of(step))[order]
        sides = log[:position], log[position + 1 :]
        train, test = (
            -(((log[position] - side.mean()) / side.std()) ** 2) / 2 - side.std().log()
            for side in sides
        )
        ratio += float(train - test)
    return ratio


def _too_few(order: Int[Tensor, " n"], size: int, evidence: Evidence) -> tuple[str, ...]:
    """A note where the training set seems to go on: part of it has the training loss of the whole.

    So the stored loss cannot tell a train_fraction that is too small.
    """
    following = range(size, min(size + FOLLOWING, len(order) - 2))
    if len(following) < FOLLOWING or size < FOLLOWING:
        return ()
    if not all(_trained_on(order, position, evidence) > CLEAR for position in following):
        return ()
    return (
        f"the {FOLLOWING} rows after these {size} in the same shuffle look trained on too: "
        "train_fraction is larger, it seems, which a training loss does not show",
    )


@dataclass(frozen=True)
class Compared:
    """A training loss that the files keep, and what some rows have at that step."""

    step: int
    stored: float
    found: float
    agrees: bool


def compared(rows: Int[Tensor, " n_train"], evidence: Evidence) -> Compared | None:
    """The stored training loss that tells best whether a split is right; None if none can tell.

    It is that which differs most, for its tolerance, from the loss of all rows. Losses that may be
    of an update before are taken by a majority, as one update can be a jump; the last one is shown.
    """
    each = []
    for step in _comparable(evidence):
        losses, stored = evidence.losses_of(step), evidence.stored[step]
        gap = _off(float(losses.mean()), stored)
        tolerance = _tolerance(stored)
        if evidence.near:
            tolerance = max(tolerance, NEAR * gap)
        if gap >= TELLS * tolerance:
            found = float(losses[rows].mean())
            each.append((gap / tolerance, gap, step, stored, found, _off(found, stored)))
    if not each:
        return None
    by_tolerance = [off <= gap / telling for telling, gap, *_, off in each]
    agrees = by_tolerance[each.index(max(each))]
    if evidence.near:
        agrees = 2 * sum(by_tolerance) >= len(each)
    shown = [one for one, fits in zip(each, by_tolerance, strict=True) if fits == agrees]
    _, _, step, stored, found, _ = shown[-1] if evidence.near else max(shown)
    return Compared(step, stored, found, agrees)


def _verified(rows: Int[Tensor, " n_train"], evidence: Evidence, what: str) -> str:
    """What the stored training losses say about a split; a wrong one is refused."""
    seen = compared(rows, evidence)
    if seen is None:
        return (
            f"{what}: not verified, no training loss is stored for a step whose weights are"
            if not evidence.stored
            else f"{what}: not verified, train and test losses are too alike to tell"
        )
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


def _off(found: float, stored: float) -> float:
    """How far the log of a loss is from what the stored one may have been before it was rounded."""
    unknown = uncertainty(stored)
    return abs(log_ratio(found, min(max(found, stored - unknown), stored + unknown)))


def _tolerance(stored: float) -> float:
    return AGREES if stored >= TINY else AGREES_WHEN_TINY


def _comparable(evidence: Evidence, most: int = 6) -> Iterator[int]:
    steps = sorted(evidence.stored)
    yield from steps[:: max(1, -(-len(steps) // most))]


def log_ratio(x: float, y: float) -> float:
    """log(x / y) of two losses, which may be 0."""
    return math.log(max(x, SMALLEST_LOSS) / max(y, SMALLEST_LOSS))


def _log(losses: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return losses.clamp_min(SMALLEST_LOSS).log()


RULES = ("torch", "python")
UNKNOWN = "the training rows are not known, so measures that need them are null"


@dataclass(frozen=True)
class _Try:
    """A rule with a seed, and what the stored losses say about its rows."""

    rule: str
    seed: int
    seen: Compared


def drawn(rule: str, asked: Settings, origin: str, evidence: Evidence) -> Split:
    """The rows that a published rule draws, with the seed and the size that were said."""
    sizes = _sizes(asked, evidence)
    if asked.data_seed is None or not sizes:
        raise InputError(
            f"split={rule} needs data_seed and train_fraction (or n_train) of this table of "
            f"{evidence.task.n_inputs} rows; give such as data_seed=0 train_fraction=0.3."
        )
    seed, fraction = asked.data_seed, asked.train_fraction
    described = {"rule": rule, "data_seed": seed, "train_fraction": fraction, "origin": origin}
    cuts_off = origin == "config"  # of the paper's code, which does
    return drawn_split(rule, seed, sizes, described, evidence, cuts_off=cuts_off)


def tried(said: Settings, asked: Settings, seeds: Sequence[int], evidence: Evidence) -> Split:
    """The rows of that published rule under which the weights have the stored losses.

    `said` is what somebody set, which has to be right; what a configuration says may be the seed of
    something else, and then the rows are not known.
    """
    set_by_hand = ", ".join(
        f"{key}={value}"
        for key in ("data_seed", "train_fraction", "n_train")
        if (value := getattr(said, key)) is not None
    )
    sizes = _sizes(asked, evidence)
    if not seeds or not sizes:
        if said.data_seed is not None:
            raise InputError(
                "data_seed needs split=torch or python and a size (or operation=random); give such "
                "as split=torch train_fraction=0.3."
            )
        raise InputError(
            "train_fraction and n_train need split=torch, python or search; give one of them."
        )
    rules = RULES if asked.split not in RULES else (asked.split,)
    tries = []
    for seed in seeds:
        for rule in rules:
            order = draw(evidence.task.n_inputs, rule=rule, seed=seed)
            seen = [compared(order[:size], evidence) for size in sizes]
            tries += [_Try(rule, seed, one) for one in seen if one is not None]
    for each in tries:
        if each.seen.agrees:
            return _taken(each, asked, set_by_hand, evidence)
    if not tries:
        return _told_by_weights(asked, seeds, rules, set_by_hand, evidence)
    what = set_by_hand or " or ".join(f"seed {seed}" for seed in seeds) + " of its configuration"
    best = min(tries, key=lambda each: each.seen.found / each.seen.stored)
    losses = ", ".join(
        f"{each.seen.found:.6g} by {each.rule}" for each in
        {each.rule: each for each in tries if each.seed == best.seed}.values()
    )  # fmt: skip
    refusal = (
        f"{what} is not the split of this run: at step {best.seen.step} its training rows have "
        f"loss {losses}, the files say {best.seen.stored:.6g}"
    )
    if set_by_hand:
        raise InputError(f"{refusal}; give the right one, or split=search.")
    return Split(None, None, (f"{UNKNOWN}: {refusal}; set split=, or try split=search",))


def _taken(found: _Try, asked: Settings, set_by_hand: str, evidence: Evidence) -> Split:
    described = {
        "rule": found.rule, "data_seed": found.seed, "train_fraction": asked.train_fraction,
        "origin": "settings" if set_by_hand else "config",
    }  # fmt: skip
    sizes = _sizes(asked, evidence)
    return drawn_split(found.rule, found.seed, sizes, described, evidence)


def _told_by_weights(
    asked: Settings,
    seeds: Sequence[int],
    rules: Sequence[str],
    set_by_hand: str,
    evidence: Evidence,
) -> Split:
    """Where no stored loss tells, the rule whose sides differ beyond chance in their losses."""
    why = "are too alike to tell" if evidence.stored else "are not stored"
    if set_by_hand:
        raise InputError(
            f"{set_by_hand} needs split=torch or python: the losses that would tell which {why}; "
            "data_seed needs split=, train_fraction and n_train need split= too."
        )
    for seed in seeds:
        try:
            found = searched_split(
                evidence, fraction=asked.train_fraction, n_train=asked.n_train, seed=seed
            )
        except InputError:
            continue
        if found.rows is not None and (found.described or {}).get("rule") in rules:
            return found
    size = (
        f"train_fraction={asked.train_fraction:.6g}"
        if asked.train_fraction
        else f"n_train={asked.n_train}"
    )
    return Split(None, None, (
        f"{UNKNOWN}: its configuration has the seed {seeds[0]} and {size}, not the rule, and "
        f"losses that would tell {why} (set split=torch or split=python, or train_indices=)",
    ))  # fmt: skip


def _sizes(asked: Settings, evidence: Evidence) -> list[int]:
    """The numbers of training rows that can be meant; none where nothing or the impossible is."""
    task = evidence.task
    if asked.n_train:
        return [asked.n_train] if asked.n_train <= task.n_inputs else []
    return sizes_of(asked.train_fraction, task) if asked.train_fraction else []
