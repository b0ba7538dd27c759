"""The training rows that a seed and a size stand for, by a published rule that is said or tried.

A configuration seldom says by which rule its code draws. Both published ones are tried then, and
one is taken only where the stored losses are those of its rows, or, where none are stored, where
the weights themselves tell its two sides apart beyond chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from grokinterp.errors import InputError
from grokinterp.runs.foreign.settings import Settings
from grokinterp.runs.foreign.splits import (
    Compared,
    Evidence,
    Split,
    compared,
    drawn_split,
    searched_split,
    sizes_of,
)
from grokinterp.tasks.splits import draw

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
