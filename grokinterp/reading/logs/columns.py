"""Which columns of a log are its steps, losses and accuracies?

`--columns ours=theirs` decides; then the words of a name, in any case and joined in any way. Of
several columns for one curve that with far more values counts, of these ours by its name, then the
plainest. A validation set is the test set, and a loss without a side that of training, where there
is no other.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.checks import refused, word
from grokinterp.base.errors import InputError, shown
from grokinterp.reading.logs.cells import column_names, is_named
from grokinterp.reading.logs.series import EVALUATED, is_axis, side_of_axis
from grokinterp.reading.words import (
    STEPS,
    counts_epochs,
    curve_of,
    step_word,
    words_of,
)
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED

OURS = ("step", *COLUMNS, *UNMIRRORED, "excluded_loss")  # that a column can be named to be
FEW_TIMES = 2  # a column with this many times the values of another comes before it
FEWEST = 3  # values of a column of training, before one that does not say its side comes for it
_LOGARITHM = {"log", "log2", "log10", "ln"}
ROWS = "row"  # what `step=row` counts

Columns = Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """A column that is taken: our name, theirs, its unit, and whether it stands in for another."""

    ours: str
    theirs: str
    is_error: bool = False  # 1 - accuracy
    is_percent: bool = False  # as its name says, or who named it
    stands_in: bool = False  # validation for test, no side for training

    @property
    def said(self) -> str:
        """How it is read, in words; "" where its name is ours."""
        if self.is_error:
            return f"1 - {self.theirs} as {self.ours}"
        return "" if self.theirs == self.ours else f"{self.theirs} as {self.ours}"


def columns_given(given: object) -> dict[str, str]:
    """The columns that somebody names, by ours, from a mapping or `ours=theirs,ours=theirs`.

    Text without "=" names them in their order, for a file without a header.

    >>> columns_given("step=epoch,test_acc=acc, val")
    {'step': 'epoch', 'test_acc': 'acc, val'}
    >>> columns_given("step,train_acc,test_acc")
    {'step': '0', 'train_acc': '1', 'test_acc': '2'}
    """
    if given is None:
        return {}
    if isinstance(given, str):
        given = _in_text(given)
    if not isinstance(given, Mapping):
        raise refused(
            "columns", given, "a dict", "such as {'step': 'epoch', 'test_acc': 'val/acc'}"
        )
    found = {}
    for ours, theirs in given.items():
        word("column", ours, OURS)
        if isinstance(theirs, bool) or not isinstance(theirs, str | int) or not str(theirs).strip():
            raise refused(f"columns[{ours!r}]", theirs, "the name of a column", "one of the log's")
        found[ours] = str(theirs).strip()
    return found


def _in_text(text: str) -> dict[str, str]:
    named = "|".join(OURS)
    if "=" not in text:
        parts = [part.strip() for part in text.split(",")]
        return {name: str(i) for i, name in enumerate(parts) if name not in ("", "-", "_")}
    parts = re.split(rf",\s*(?=(?:{named})\s*=)", text)
    pairs = [part.partition("=") for part in parts]
    twice = {ours.strip() for ours, _, _ in pairs}
    if len(twice) != len(pairs):
        raise InputError(f"columns={shown(text)} names a column twice; name each once.")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def chosen(
    frame: pd.DataFrame, columns: Columns, source: str, *, epochs: bool = False
) -> tuple[list[Curve], dict[str, str]]:
    """The columns of curves that are taken, and that of the steps of each, by our names."""
    in_percent = {ours for ours, theirs in columns.items() if theirs.endswith("%")}
    columns = {ours: _found(frame, theirs, ours, source) for ours, theirs in columns.items()}
    taken = [
        replace(one, is_percent=one.ours in in_percent or _says_percent(one.theirs))
        for one in _taken(frame, columns)
    ]
    axes = _axes_of(frame, columns, taken, source, epochs=epochs)
    if not taken:
        raise InputError(
            f"{source} has none of the columns {', '.join(COLUMNS)} (found: "
            f"{column_names(frame.columns)}); say which is which, such as --columns test_acc=NAME."
        )
    return taken, axes


def without_side(frame: pd.DataFrame) -> list[str]:
    """Accuracies that may be of any rows."""
    return [
        name for name in dict.fromkeys(frame.columns)
        if isinstance(name, str) and curve_of(words_of(name)) == (None, "acc")
    ]  # fmt: skip


def _found(frame: pd.DataFrame, theirs: str, ours: str, source: str) -> str:
    """The column that was named, by its name, its words or its number from 0."""
    if theirs in frame or (ours == "step" and theirs == ROWS):
        return theirs
    if theirs.endswith("%") and "_acc" in ours:
        return _found(frame, theirs[:-1].rstrip(), ours, source)
    by_word = [str(name) for name in frame.columns if words_of(str(name)) == words_of(theirs)]
    if len(by_word) == 1 and words_of(theirs):
        return by_word[0]
    if theirs.isdecimal() and int(theirs) < frame.shape[1]:
        return str(frame.columns[int(theirs)])
    if frame.attrs.get("headerless"):
        raise InputError(
            f"{source} has no header and {frame.shape[1]} columns, counted from 0; {ours}={theirs} "
            "is none of them."
        )
    raise InputError(
        f"{source} has no column {shown(theirs)} for {ours} (found: "
        f"{column_names(frame.columns)}); give one of these."
    )


def _taken(frame: pd.DataFrame, columns: Columns) -> list[Curve]:
    """The columns of curves, in the order of metrics.csv."""
    named = {ours: _given(theirs, ours) for ours, theirs in columns.items() if ours != "step"}
    spoken_for = set(columns.values())
    found: dict[tuple[str | None, str], list[str]] = {}
    for name in dict.fromkeys(frame.columns):
        if not isinstance(name, str) or name in spoken_for:
            continue
        if name == "excluded_loss":
            named.setdefault(name, Curve(name, name))
        elif (measure := curve_of(words_of(name))) is not None and not (
            measure[1] == "err" and _is_words(frame[name])
        ):
            found.setdefault(measure, []).append(name)
    for ours, (side, kind) in _wanted():
        if ours not in named and (best := _best(frame, list(_candidates(ours, side, kind, found)))):
            named[ours] = best
    return [named[ours] for ours in OURS if ours in named]


def _given(theirs: str, ours: str) -> Curve:
    """A column that was named: an error where its name says so and it is to be an accuracy."""
    _, kind = curve_of(words_of(theirs)) or (None, "")
    return Curve(ours, theirs, is_error="_acc" in ours and kind == "err")


def _wanted() -> Iterator[tuple[str, tuple[str, str]]]:
    for ours in (*COLUMNS, *UNMIRRORED):
        side, _, kind = ours.partition("_")
        yield ours, (side, kind)


def _candidates(
    ours: str, side: str, kind: str, found: Mapping[tuple[str | None, str], list[str]]
) -> Iterator[Curve]:
    """The columns that may be a curve: of its side, or of what stands in for it.

    An accuracy without a side stands in for that of training only beside one of other rows.
    """
    kinds = (kind, "err") if kind == "acc" else (kind,)
    beside = any((x, y) in found for x in ("test", "validation") for y in kinds)
    other = "validation" if side == "test" else None
    may_stand_in = side == "test" or kind == "loss" or (kind == "acc" and beside)
    for of_side in (side, other) if may_stand_in else (side,):
        for measured in kinds:
            for name in found.get((of_side, measured), ()):
                yield Curve(ours, name, is_error=measured == "err", stands_in=of_side != side)


def _best(frame: pd.DataFrame, candidates: list[Curve]) -> Curve | None:
    """Of several columns the one with far more values, then ours by name, then the plainest.

    One without a side comes for one of training only where that is a summary of a row or two: a
    loss of every batch is no better than the one that was evaluated.
    """
    counts = {one.theirs: _n_values(frame, one.theirs) for one in candidates}
    own = max((counts[x.theirs] for x in candidates if not x.stands_in), default=0)
    others = max((counts[x.theirs] for x in candidates if x.stands_in), default=0)
    is_train = any(one.ours.startswith("train") for one in candidates)
    enough = own >= min(FEWEST, others) if is_train else own * FEW_TIMES >= others
    use_own = enough and (own > 0 or not others)
    left = [one for one in candidates if one.stands_in != use_own]
    if not left:
        return None
    most = max(counts[one.theirs] for one in left)
    full = [one for one in left if counts[one.theirs] * FEW_TIMES >= most]
    return min(full, key=lambda one: (one.theirs != one.ours, len(words_of(one.theirs))))


def _n_values(frame: pd.DataFrame, name: str) -> int:
    given = frame[name]
    if isinstance(given, pd.DataFrame):  # refused when it is used
        return len(frame)
    return int(given.notna().sum())


def _is_words(given: pd.DataFrame | pd.Series) -> bool:
    """Whether a column has words alone, as one of error messages; numbers that are none do not."""
    if isinstance(given, pd.DataFrame) or given.dtype.kind in "biufc":
        return False
    cells = [str(cell) for cell in given.dropna().head(50).tolist()]
    return bool(cells) and not any(character.isdigit() for cell in cells for character in cell)


def _axes_of(
    frame: pd.DataFrame, columns: Columns, taken: list[Curve], source: str, *, epochs: bool
) -> dict[str, str]:
    """The column of the steps of each curve: of its own side where it has one, else that of all."""
    if "step" in columns:
        return {one.ours: columns["step"] for one in taken}
    curves = {one.theirs for one in taken}
    axes = [
        name for name in dict.fromkeys(frame.columns)
        if isinstance(name, str) and name not in curves and is_axis(name)
        and name not in columns.values() and not _are_logarithms(frame, name)
    ]  # fmt: skip
    axes.sort(key=lambda name: _order(frame, name, epochs))
    axes = axes or _index_in(frame)
    if not axes:
        raise _without_step(frame, taken, source)
    found = {}
    for one in taken:
        side, _ = curve_of(words_of(one.theirs)) or (None, "")
        known = frame[one.theirs].notna()
        known = known.any(axis=1) if isinstance(known, pd.DataFrame) else known
        sides = (None, EVALUATED.get(side, side))
        usable = [x for x in axes if _is_usable(frame, x, known) and _side(x) in sides]
        found[one.ours] = next(iter(usable), axes[0])
    return found


def _are_logarithms(frame: pd.DataFrame, name: str) -> bool:
    """Whether a column is of logged steps by its name, and of fractions: their logarithms."""
    given = frame[name]
    is_one = isinstance(given, pd.Series) and given.dtype.kind == "f"
    return "log" in words_of(name) and is_one and bool((given.dropna() % 1 != 0).any())


def _index_in(frame: pd.DataFrame) -> list[str]:
    """The first column as steps, where it has no name and does more than count the rows.

    pandas writes the index of a table so.
    """
    first = frame.columns[:1].tolist()
    if not first or is_named(first[0]) or frame.columns.tolist().count(first[0]) > 1:
        return []
    steps = frame.iloc[:, 0].to_numpy()
    if steps.dtype.kind not in "iu" or len(steps) < 2 or steps[0] < 0 or _counts_rows(steps):
        return []
    return first if (np.diff(steps) > 0).all() else []


def _counts_rows(steps: np.ndarray) -> bool:
    return bool((steps == np.arange(len(steps))).all())


def _side(axis: str) -> str | None:
    """The side whose steps a column has, if those of one."""
    return None if step_word(words_of(axis)) else side_of_axis(axis)


def _is_usable(frame: pd.DataFrame, axis: str, known: pd.Series) -> bool:
    """Whether a column has steps where a curve has values."""
    given = frame[axis]
    return isinstance(given, pd.DataFrame) or not known.any() or bool(given[known].notna().any())


def _order(frame: pd.DataFrame, name: str, epochs: bool) -> tuple[Any, ...]:
    """In which order columns count as steps: `step`, updates, W&B's own count, epochs.

    Last come those that cannot be steps: batches within an epoch, which fall again and again, and
    what is the same in all rows; and W&B's count before these, where it only counts the rows.
    """
    words = words_of(name)
    exact = step_word(words)
    in_epochs = counts_epochs(exact or words[-1])
    rank = STEPS.index(exact) if exact else len(STEPS)
    given = frame[name]
    is_one = isinstance(given, pd.Series) and given.dtype.kind in "iuf"
    numbers = given.dropna().to_numpy(float) if is_one else np.empty(0)
    falls = int((np.diff(numbers) < 0).sum()) >= FEW_TIMES if is_one else False
    constant = len(numbers) > 1 and bool((numbers == numbers[0]).all())
    own = name.startswith("_")
    counts_rows = own and len(numbers) > 2 and _counts_rows(numbers)
    by_kind = (epochs and not in_epochs, in_epochs, name != "step", own, rank)
    return (falls or constant, counts_rows, *by_kind)


def _may_be_steps(frame: pd.DataFrame, curves: set[str]) -> list[str]:
    """Columns under names that are not known whose numbers rise, as steps would.

    One without a name is called by its number.
    """
    return [
        str(name) if is_named(name) else str(i) for i, name in enumerate(frame.columns)
        if name not in curves and not _LOGARITHM.intersection(words_of(str(name)))
        and (x := frame.iloc[:, i]).dtype.kind in "iuf" and len(x) > 1
        and x.notna().all() and (np.diff(x.to_numpy(float)) > 0).all()
    ]  # fmt: skip


def _without_step(frame: pd.DataFrame, taken: list[Curve], source: str) -> InputError:
    if frame.attrs.get("headerless"):
        first = ", ".join(str(x) for x in frame.iloc[0].tolist()[:6]) if len(frame) else "nothing"
        return InputError(
            f"{source} has no header (its first row is {first}); say which column is which, "
            "counted from 0: --columns step=0,train_acc=1,test_acc=2."
        )
    found = _may_be_steps(frame, {one.theirs for one in taken})
    return InputError(
        f"{source} has no column 'step' (found: {column_names(frame.columns)}); say which column "
        f"is which, such as --columns step={found[0] if found else 'i'}"
        + (f", or --columns step={ROWS} to count rows." if taken else ",test_acc=val.")
    )


def _says_percent(name: str) -> bool:
    return "%" in name or bool({"percent", "pct", "percentage"} & set(words_of(name)))
