"""How do series of numbers, each with its own steps or with none, become one table?

Files that keep a list a metric (JSON, npz, pickles) or a record a metric (event files) give series:
a name, values, and the steps of these where they are known. In the table a series is a column, and
a step a row; where a series has one step twice, there are two rows of it, in the order of the file.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError, names
from grokinterp.reading.words import axis_word, counts_epochs, curve_of, step_word, words_of

MOST_COLUMNS = 1000
EVALUATED: dict[str | None, str] = {"validation": "test"}
MOST_NOTES = 10
MOST_CELLS = 50_000_000  # of a table
MOST_FALLS = (
    10  # of steps, in a log of several runs: those of batches, or shuffled, fall more often
)
FEW_STEPS = 3  # that a run has at least: one or two may be a check at the start or the end


class Series(NamedTuple):
    """Values under a name, at steps if these are known."""

    name: str
    values: np.ndarray
    steps: np.ndarray | None = None


def table_of(series: Sequence[Series], source: str) -> pd.DataFrame:
    """One table of them all; lists without steps get those of the list of steps of their length.

    >>> rows = table_of([Series("its", np.array([0, 5])), Series("acc", np.array([0.1, 1]))], "x")
    >>> rows.to_dict("list")
    {'its': [0, 5], 'acc': [0.1, 1.0]}
    """
    axes = [one for one in series if is_axis(one.name) and one.steps is None]
    curves = [one for one in series if not any(one is axis for axis in axes)]
    if not axes and all(one.steps is None for one in series):
        return _strided(series, source)
    plain = all(one.steps is None for one in series)
    of_sides = {_key(axis.values) for axis in axes if side_of_axis(axis.name)}
    if plain and len({len(one.values) for one in series}) == 1 and len(of_sides) < 2:
        return _side_by_side(series, source)  # its steps under their own name
    placed = [one._replace(steps=_steps_for(one, axes)) for one in curves]
    known = [one for one in placed if one.steps is not None]
    if not known:
        return _side_by_side(series, source)
    last = max(float(np.nanmax(one.steps)) for one in known if one.steps is not None)
    notes = []
    for one in [one for one in placed if one.steps is None]:
        stride = last / max(len(one.values) - 1, 1)
        if curve_of(words_of(one.name)) and stride >= 1 and stride % 1 == 0:
            known.append(one._replace(steps=stride * np.arange(len(one.values))))
            notes.append(_regular(one, int(stride)))
        else:
            notes.append(f"{one.name} is left out, as nothing says its steps")
    known, again = _of_last_run(known)
    joined = _by_step(known, source)
    joined.attrs["notes"] = [*again, *notes[:MOST_NOTES]]
    return joined


def begins_again(steps: np.ndarray, *, fewest: int = FEW_STEPS) -> int:
    """Where the last run begins in steps in the order of their file; 0 where all are of one run.

    A run begins where they fall to the first of all, or below, and pass it again; `fewest` steps
    stand before and after. A log that goes on from a checkpoint falls to the middle.

    >>> begins_again(np.array([0, 1, 2, 3, 0, 1, 2])), begins_again(np.array([0, 1, 2, 3, 2, 3, 4]))
    (4, 0)
    """
    falls = np.flatnonzero(np.diff(steps) < 0) + 1
    if len(falls) > min(MOST_FALLS, len(steps) / fewest - 1):
        return 0
    for at in falls[::-1].tolist():
        runs = len(np.unique(steps[:at])), len(np.unique(steps[at:]))
        if steps[at] <= steps[0] <= steps[at:].max() and min(runs) >= fewest:
            return int(at)
    return 0


def _of_last_run(series: Sequence[Series]) -> tuple[list[Series], list[str]]:
    """Of each series what is of the last run, where a curve begins again, and what was left out.

    One that does not is of the earlier run alone.
    """

    def starts(fewest: int) -> list[int]:
        return [begins_again(np.asarray(one.steps, float), fewest=fewest) for one in series]

    at = [
        start if curve_of(words_of(one.name)) else 0
        for one, start in zip(series, starts(FEW_STEPS), strict=True)
    ]
    if not any(at):
        return list(series), []
    first = next(one for one, start in zip(series, at, strict=True) if start)
    kept = [
        Series(one.name, one.values[start:], one.steps[start:])
        for one, start in zip(series, starts(1), strict=True) if start and one.steps is not None
    ]  # fmt: skip
    notes = [earlier_run(float(np.asarray(first.steps)[max(at)]), max(at))]
    if lost := [one for one, start in zip(series, starts(1), strict=True) if not start]:
        notes.append(f"left out, as they are of the earlier run alone: {_listed(lost)}")
    return kept, notes


def earlier_run(step: float, rows: int) -> str:
    """The note on rows that are of a run before the one that is read."""
    return (
        f"steps begin again at {step:.6g} in row {rows + 1}: the {rows} rows before it are of an "
        "earlier run and left out; give each run a column such as run, or its own file"
    )


def is_axis(name: str) -> bool:
    """Whether a name is of steps, and of nothing that is measured at them.

    >>> is_axis("its"), is_axis("eval_steps"), is_axis("train_loss_step")
    (True, True, False)
    """
    words = words_of(name)
    return curve_of(words) is None and bool(step_word(words) or axis_word(words))


def _key(steps: np.ndarray | None) -> bytes | None:
    return None if steps is None else np.asarray(steps, float).tobytes()


def _steps_for(one: Series, axes: Sequence[Series]) -> np.ndarray | None:
    """Its own steps, or a list of steps of its length: of its side before others, epochs last."""
    if one.steps is not None:
        return one.steps
    of_side, _ = curve_of(words_of(one.name)) or (None, "")
    possible = []
    for axis in axes:
        side = side_of_axis(axis.name)
        if len(axis.values) == len(one.values) and side in (EVALUATED.get(of_side, of_side), None):
            in_epochs = counts_epochs(words_of(axis.name)[-1])
            possible.append((side is None, in_epochs, axis.values))
    return min(possible, key=lambda each: each[:2])[2] if possible else None


def side_of_axis(axis: str) -> str | None:
    """The side whose steps a name is of, if those of one: all that is evaluated has the same.

    >>> side_of_axis("val/step"), side_of_axis("test_steps"), side_of_axis("step")
    ('test', 'test', None)
    """
    _, side = axis_word(words_of(axis)) or (None, None)
    return EVALUATED.get(side, side)


def _side_by_side(series: Sequence[Series], source: str) -> pd.DataFrame:
    """Lists of one length as the columns of a table; others than the longest kind are left out."""
    lengths = [len(one.values) for one in series]
    most = max(set(lengths), key=lambda n: (lengths.count(n), n)) if lengths else 0
    kept = [one for one in series if len(one.values) == most]
    others = [one for one in series if len(one.values) != most]
    _check_size(most, len(kept), source)
    frame = pd.DataFrame({one.name: one.values for one in kept})
    if others:
        frame.attrs["notes"] = [f"left out, as they are of another length: {_listed(others)}"]
    return frame


def _strided(series: Sequence[Series], source: str) -> pd.DataFrame:
    """Lists without steps: a shorter one is taken to be regular, one entry every so many steps.

    So are those of Nanda et al. 2023: a training loss of every epoch, a test loss of every 10th.
    """
    longest = max(len(one.values) for one in series)
    placed, notes = [], []
    for one in series:
        n = len(one.values)
        stride = round(longest / n)
        if abs(n - longest / stride) > 1:  # one more, or less, at an end
            notes.append(f"{one.name} is left out: a list of {n} does not say of which steps it is")
            continue
        if stride > 1 or n != longest:
            notes.append(_regular(one, stride))
        placed.append(one._replace(steps=stride * np.arange(n)))
    joined = _by_step(placed, source)
    joined.attrs["notes"] = ["it has no steps: entries are counted from 0", *notes]
    return joined


def _regular(one: Series, stride: int) -> str:
    every = "one a step" if stride == 1 else f"one every {stride} steps"
    return f"{one.name}: a list of {len(one.values)}, taken to be {every} from 0 on"


def _by_step(series: Sequence[Series], source: str) -> pd.DataFrame:
    """A row a step, and as many as a series has of it."""
    by_steps: dict[bytes, list[Series]] = {}
    for one in series:
        by_steps.setdefault(_key(one.steps) or b"", []).append(one)
    parts, n_columns = [], 0
    for group in by_steps.values():
        steps = pd.Series(np.asarray(group[0].steps))
        index = pd.MultiIndex.from_arrays([steps, steps.groupby(steps).cumcount()])
        columns = {one.name: one.values for one in group}
        n_columns += len(columns)
        _check_size(len(steps), n_columns, source)
        parts.append(pd.DataFrame(columns, index=index))
    rows = len(set().union(*(part.index for part in parts))) if len(parts) > 1 else len(parts[0])
    _check_size(rows, n_columns, source)
    joined = pd.concat(parts, axis=1).sort_index()
    if "step" not in joined:  # or those were numbers of rows, and a column says their steps
        joined.insert(0, "step", joined.index.get_level_values(0))
    return joined.reset_index(drop=True)


def _check_size(rows: int, columns: int, source: str) -> None:
    if rows * columns > MOST_CELLS:
        raise InputError(
            f"{source} has {columns} metrics at {rows} steps; a table of at most {MOST_CELLS:,} "
            "cells is read: keep the losses and accuracies."
        )


def _listed(series: Sequence[Series]) -> str:
    return names([one.name for one in series], spelled=str)
