"""What numbers are in a log, under our names and in our units?

Losses are as they were logged. Accuracies are shares of 1: percent is told by a name, by a sign in
every cell, or by evidence over the whole log, and an error rate is 1 - accuracy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError
from grokinterp.reading.logs.cells import (
    as_numbers,
    is_named,
    left_out,
    percent_signs,
    plain_steps,
    shares_of_counts,
    single_column,
)  # fmt: skip
from grokinterp.reading.logs.columns import ROWS, Columns, Curve, chosen, without_side
from grokinterp.runs.metrics import ROUNDING

FEWEST_ABOVE = 2  # rows above 1 that tell percent: one is a slip
SHARE_ABOVE = 0.02  # of all rows, likewise
ONE_PERCENT = 0.01 * (1 + ROUNDING)
LEAST_PERCENT = 1.5  # the highest accuracy of a log in percent is not below it,
LEAST_ERROR = 20.0  # and the highest error not below this: it begins near 100


@dataclass(frozen=True)
class Numbers:
    """The columns of a log that are used, as numbers under our names, and how they were read."""

    table: pd.DataFrame  # its index are the rows of the log, from 0
    word: str  # theirs, for its steps
    taken: frozenset[str]  # their names
    notes: tuple[str, ...]


def numbers_in(
    frame: pd.DataFrame, source: str, *, columns: Columns, epochs: bool = False, used: Any = ()
) -> Numbers:
    """Steps, losses and accuracies of a table, as numbers; a row a row, or one a side.

    `epochs` takes epochs for the steps where both are there; `used` are columns that say which run
    a row is of, and so are not left out.
    """
    curves, axes = chosen(frame, columns, source, epochs=epochs)
    values: dict[str, pd.Series] = {}
    signs = []
    for one in curves:
        given = single_column(frame, one.theirs, source)
        if _is_share(one) and (shares := percent_signs(given)) is not None:
            values[one.ours] = shares
            signs.append(one.theirs)
        elif _is_share(one) and (shares := shares_of_counts(given)) is not None:
            values[one.ours] = shares
        else:
            values[one.ours] = as_numbers(given, f"{source}, column {one.theirs!r}")
    said = [f"{_said(axis)} as step" for axis in dict.fromkeys(axes.values()) if axis != "step"]
    said += [one.said for one in curves if one.said]
    units, cautions = _in_shares(values, [x for x in curves if x.theirs not in signs], source)
    said += units or ["percent"] * bool(signs)
    signed = [values[one.ours].max() for one in curves if one.theirs in signs]
    if signed and max(signed) <= ONE_PERCENT:
        cautions.append(
            f"{signs[0]} has a sign of percent in every cell, and never goes above 1 %; if these "
            "are shares, write them without it"
        )
    for one in curves:
        if one.is_error:
            values[one.ours] = 1 - values[one.ours]
    taken = frozenset((*axes.values(), *(one.theirs for one in curves)))
    unsaid = [name for name in without_side(frame) if name not in taken]
    notes = [f"read {', '.join(said)}"] if said else []
    notes += [*frame.attrs.get("notes", ()), *cautions]
    notes += [
        f"{name} is left out, as it does not say of which rows it is; --columns test_acc={name} "
        "does" for name in unsaid
    ]  # fmt: skip
    notes += left_out(frame, {*taken, *used, *unsaid})
    parts = []
    for axis in dict.fromkeys(axes.values()):
        own = {ours: values[ours].to_numpy() for ours, its in axes.items() if its == axis}
        parts.append(pd.DataFrame({"step": _column(frame, axis, source).to_numpy(), **own}))
    table = parts[0]
    if len(parts) > 1:  # each side has steps of its own: rows without them are of the others
        table = pd.concat([part[part["step"].notna()] for part in parts])
        table = table[["step", *values]]
    return Numbers(table, next(iter(axes.values())), taken, tuple(notes))


def _said(axis: str) -> str:
    return axis if is_named(axis) else "the first column, which has no name,"


def _column(frame: pd.DataFrame, name: str, source: str) -> pd.Series:
    if name == ROWS and name not in frame:
        return pd.Series(np.arange(len(frame)), frame.index, dtype=float)
    steps = plain_steps(single_column(frame, name, source))
    return as_numbers(steps, f"{source}, column {name!r}")


def _is_share(one: Curve) -> bool:
    return "_acc" in one.ours


def _in_shares(
    numbers: dict[str, pd.Series], taken: list[Curve], source: str
) -> tuple[list[str], list[str]]:
    """Divide what is percent by 100, in place; what to say of it, and a caution."""
    shares = [one for one in taken if _is_share(one)]
    told = [one for one in shares if one.is_percent]
    rest = {one.theirs: numbers[one.ours] for one in shares if not one.is_percent}
    for one in shares:
        most = numbers[one.ours].max()
        if one.is_error and not one.is_percent and 1 + ROUNDING < most < LEAST_ERROR:
            raise InputError(
                f"{source}, column {one.theirs!r} goes up to {most:.4g}, no error rate from 0 to 1 "
                f"or in percent; if it is a loss, say --columns {one.ours[:-3]}loss={one.theirs}."
            )
    why = in_percent(rest)
    if why and (full := _saturated(rest)):
        raise InputError(
            f"{source}: {why}, and {full} stays at 1 as a share does, so that they are of two "
            "units; say which is in percent, such as --columns 'train_acc=train_acc%'."
        )
    for one in shares if why else told:
        numbers[one.ours] = numbers[one.ours] / 100
    if not why:
        return ["percent"] * bool(told), []
    low = [name for name, x in rest.items() if x.max() <= 1 + ROUNDING]
    cautions = [
        f"{name} never goes above 1, and is read as percent too; if it is a share, say which are "
        "in percent, such as --columns 'train_acc=train_acc%'" for name in low
    ]  # fmt: skip
    return [f"percent ({why})"], cautions


def _saturated(accuracies: Mapping[str, pd.Series]) -> str | None:
    """A column that never leaves 1 behind and reaches it again and again."""
    return next(
        (
            name for name, x in accuracies.items()
            if x.max() <= 1 + ROUNDING and (abs(x - 1) <= ROUNDING).sum() >= FEWEST_ABOVE
        ), None,
    )  # fmt: skip


def in_percent(accuracies: Mapping[str, pd.Series]) -> str | None:
    """Why the accuracies of a log are percent, or None where they are shares.

    All columns decide together, over the whole log: an accuracy that never leaves 0.9 is chance in
    percent where another one ends at 100. `accuracies` may hold error rates too.

    >>> in_percent({"train_acc": pd.Series([1.0, 50, 100]), "test_acc": pd.Series([0.9, 0.8, 1.0])})
    'train_acc goes up to 100'
    >>> in_percent({"test_acc": pd.Series([0.1, 0.5, 1.0])}) is None
    True
    """
    finite = {name: x[np.isfinite(x)] for name, x in accuracies.items()}
    values = np.concatenate([x.to_numpy() for x in finite.values()] or [np.empty(0)])
    above = values > 1 + ROUNDING
    if not above.any() or values.max() > 100 * (1 + ROUNDING) or values.min() < -100 * ROUNDING:
        return None
    few = above.sum() < FEWEST_ABOVE and not above[values > 0].all()
    if few or above.mean() < SHARE_ABOVE or values.max() < LEAST_PERCENT:
        return None
    highest = max(finite, key=lambda name: finite[name].max() if len(finite[name]) else -1)
    return f"{highest} goes up to {finite[highest].max():.4g}"
