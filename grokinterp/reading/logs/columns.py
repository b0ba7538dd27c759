"""Which columns of a log are its steps, losses and accuracies?

`--columns ours=theirs` decides; then a name of metrics.csv; then the words of a name, in any case
and joined in any way. Of several columns for one curve that with the most values counts, of these
the one with the plainest name; a validation set is the test set where there is no other.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from grokinterp.base.checks import refused, word
from grokinterp.base.errors import InputError, shown
from grokinterp.reading.logs.cells import as_numbers, column_names, left_out, percent_signs
from grokinterp.reading.logs.series import is_axis
from grokinterp.reading.words import STEPS, counts_epochs, curve_of, step_word, words_of
from grokinterp.runs.metrics import COLUMNS, ROUNDING, UNMIRRORED

OURS = ("step", *COLUMNS, *UNMIRRORED, "excluded_loss")  # that a column can be named to be
FEW_TIMES = 2  # a column with this many times the values of another comes before it
ROWS = "row"  # what `step=row` counts
FEWEST_ABOVE = 2  # rows above 1 that tell percent: one is a slip
SHARE_ABOVE = 0.02  # of all rows, likewise
LEAST_PERCENT = 1.5  # the highest accuracy of a log in percent is not below it

Columns = Mapping[str, str]


@dataclass(frozen=True)
class Curve:
    """A column that is taken: our name, theirs, and whether it is an error, 1 - accuracy."""

    ours: str
    theirs: str
    is_error: bool = False
    is_percent: bool = False  # as its name says, or who named it

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
    if not isinstance(given, Mapping) or not given:
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


@dataclass(frozen=True)
class Numbers:
    """The columns of a log that are used, as numbers under our names, and how they were read."""

    table: pd.DataFrame
    word: str  # theirs, for its steps
    notes: tuple[str, ...]


def numbers_in(
    frame: pd.DataFrame, source: str, *, columns: Columns, epochs: bool = False, used: Any = ()
) -> Numbers:
    """Steps, losses and accuracies of a table, as numbers.

    `epochs` takes epochs for the steps where both are there; `used` are columns that say which run
    a row is of, and so are not left out.
    """
    frame = _with_named_index(frame)
    in_percent = {ours for ours, theirs in columns.items() if theirs.endswith("%")}
    columns = {ours: _found(frame, theirs, ours, source) for ours, theirs in columns.items()}
    taken = [
        replace(one, is_percent=one.ours in in_percent or _says_percent(one.theirs))
        for one in _taken(frame, columns, source)
    ]
    step = _step_of(frame, columns, taken, source, epochs=epochs)
    numbers = pd.DataFrame(index=frame.index)
    numbers["step"] = _column(frame, step, source)
    signs = []
    for one in taken:
        given = _single(frame, one.theirs, source)
        if _is_share(one) and (shares := percent_signs(given)) is not None:
            numbers[one.ours] = shares
            signs.append(one.theirs)
        else:
            numbers[one.ours] = as_numbers(given, f"{source}, column {one.theirs!r}")
    said = [] if step == "step" else [f"{step} as step"]
    said += [one.said for one in taken if one.said]
    said += _in_shares(numbers, [one for one in taken if one.theirs not in signs], source)
    said += ["percent"] if signs and "percent" not in said else []
    for one in taken:
        if one.is_error:
            numbers[one.ours] = 1 - numbers[one.ours]
    notes = [f"read {', '.join(said)}"] if said else []
    notes += frame.attrs.get("notes", ())
    notes += [
        f"{name} is left out, as it does not say of which rows it is; --columns test_acc={name} "
        "does"
        for name in _without_side(frame)
        if name not in {one.theirs for one in taken}
    ]
    told = {step, *(one.theirs for one in taken), *used, *_without_side(frame)}
    notes += left_out(frame, told)
    return Numbers(numbers, step, tuple(notes))


def _without_side(frame: pd.DataFrame) -> list[str]:
    """Accuracies that may be of any rows."""
    return [
        name for name in dict.fromkeys(frame.columns)
        if isinstance(name, str) and curve_of(words_of(name)) == (None, "acc")
    ]  # fmt: skip


def _with_named_index(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose index is its steps, by the index's name, with these as a column."""
    name = frame.index.name
    if not isinstance(name, str) or name in frame or not is_axis(name):
        return frame
    return frame.reset_index()


def _found(frame: pd.DataFrame, theirs: str, ours: str, source: str) -> str:
    """The column that was named, by its name or, where there are none, its number."""
    if theirs in frame or (ours == "step" and theirs == ROWS):
        return theirs
    if theirs.endswith("%") and "_acc" in ours:
        return _found(frame, theirs[:-1].rstrip(), ours, source)
    by_word = [str(name) for name in frame.columns if words_of(str(name)) == words_of(theirs)]
    if len(by_word) == 1 and words_of(theirs):
        return by_word[0]
    if frame.attrs.get("headerless"):
        raise InputError(
            f"{source} has no header and {frame.shape[1]} columns, counted from 0; {ours}={theirs} "
            "is none of them."
        )
    raise InputError(
        f"{source} has no column {shown(theirs)} for {ours} (found: "
        f"{column_names(frame.columns)}); give one of these."
    )


def _single(frame: pd.DataFrame, name: str, source: str) -> pd.Series:
    """A column that stands there once."""
    given = frame[name]
    if isinstance(given, pd.DataFrame):
        times = "two" if given.shape[1] == 2 else f"{given.shape[1]}"
        raise InputError(f"{source} has {times} columns {name!r}; keep one.")
    return given


def _column(frame: pd.DataFrame, name: str, source: str) -> pd.Series:
    if name == ROWS and name not in frame:
        return pd.Series(np.arange(len(frame)), frame.index, dtype=float)
    return as_numbers(_single(frame, name, source), f"{source}, column {name!r}")


def _taken(frame: pd.DataFrame, columns: Columns, source: str) -> list[Curve]:
    """The columns of curves, in the order of metrics.csv."""
    named = {ours: _given(theirs, ours) for ours, theirs in columns.items() if ours != "step"}
    spoken_for = set(columns.values())
    found: dict[tuple[str | None, str], list[str]] = {}
    for name in dict.fromkeys(frame.columns):
        if not isinstance(name, str) or name in spoken_for:
            continue
        if name in OURS:
            key: tuple[str | None, str] = tuple(name.split("_", 1))  # type: ignore[assignment]
            if name == "excluded_loss":
                named.setdefault(name, Curve(name, name))
            elif name != "step":
                found.setdefault(key, []).append(name)
        elif (measure := curve_of(words_of(name))) is not None and not (
            measure[1] == "err" and _is_words(frame[name])
        ):
            found.setdefault(measure, []).append(name)
    for ours, (side, kind) in _wanted():
        if ours in named:
            continue
        candidates = [
            Curve(ours, name, is_error=measured == "err")
            for measured in ((kind, "err") if kind == "acc" else (kind,))
            for of_side in _sides(side, kind, found)
            for name in found.get((of_side, measured), ())
        ]
        if best := _best(frame, candidates):
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


def _sides(side: str, kind: str, found: Mapping[Any, Any]) -> list[str | None]:
    """Whose columns may be those of a side: validation is test where nothing else is.

    A loss without a side is that of training; an accuracy without one, only beside one of others.
    """
    if side == "test":
        known = [("test", kind), ("test", "err")] if kind == "acc" else [("test", kind)]
        return ["test"] if any(key in found for key in known) else ["validation"]
    others = any((x, y) in found for x in ("test", "validation") for y in (kind, "err"))
    alone = kind == "loss" or (kind == "acc" and others)
    return ["train", None] if alone else ["train"]


def _best(frame: pd.DataFrame, candidates: list[Curve]) -> Curve | None:
    """Of several columns the one with far more values, then ours by name, then the plainest."""
    if not candidates:
        return None
    n_values = [_n_values(frame, one.theirs) for one in candidates]
    most = max(n_values)
    full = [one for one, n in zip(candidates, n_values, strict=True) if n * FEW_TIMES >= most]
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


def _step_of(
    frame: pd.DataFrame, columns: Columns, taken: list[Curve], source: str, *, epochs: bool
) -> str:
    """The column of steps: the one that is named, or that its name and its numbers say."""
    if "step" in columns:
        return columns["step"]
    curves = {one.theirs for one in taken}
    axes = [
        name for name in dict.fromkeys(frame.columns)
        if isinstance(name, str) and name not in curves and is_axis(name)
        and name not in columns.values()
    ]  # fmt: skip
    if "step" in axes and not epochs and isinstance(frame["step"], pd.DataFrame):
        return "step"  # which is refused
    known = frame[[one.theirs for one in taken]].notna().any(axis=1) if taken else None
    axes = [
        name for name in axes
        if isinstance(frame[name], pd.Series)
        and (known is None or not len(frame) or frame[name][known].notna().any())
    ]  # fmt: skip
    axes.sort(key=lambda name: _order(name, epochs))
    steady = [name for name in axes if _falls(frame[name]) < FEW_TIMES]
    if axes:
        return (steady or axes)[0]
    raise _without_step(frame, taken, source)


def _order(name: str, epochs: bool) -> tuple[Any, ...]:
    """In which order columns count as steps: `step`, updates, W&B's own count, epochs."""
    words = words_of(name)
    exact = step_word(words)
    in_epochs = counts_epochs(exact or words[-1])
    rank = STEPS.index(exact) if exact else len(STEPS)
    return (epochs and not in_epochs, in_epochs, name != "step", name.startswith("_"), rank)


def _falls(steps: pd.Series) -> int:
    """How often a column of numbers falls: a batch within an epoch does again and again."""
    if steps.dtype.kind not in "iuf":
        return 0
    return int((np.diff(steps.dropna().to_numpy(float)) < 0).sum())


def _may_be_steps(frame: pd.DataFrame, curves: set[str]) -> list[str]:
    """Columns under names that are not known whose numbers rise, as steps would."""
    return [
        str(name) for i, name in enumerate(frame.columns)
        if name not in curves and (x := frame.iloc[:, i]).dtype.kind in "iuf" and len(x) > 1
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


def _is_share(one: Curve) -> bool:
    return "_acc" in one.ours


def _in_shares(numbers: pd.DataFrame, taken: list[Curve], source: str) -> list[str]:
    """Divide what is percent by 100, in place; what to say of it."""
    shares = [one for one in taken if _is_share(one)]
    told = [one for one in shares if one.is_percent]
    rest = {one.theirs: numbers[one.ours] for one in shares if not one.is_percent}
    why = in_percent(rest)
    if why and (full := _saturated(rest)):
        raise InputError(
            f"{source}: {why}, and {full} stays at 1 as a share does, so that they are of two "
            "units; say which is in percent, such as --columns 'train_acc=train_acc%'."
        )
    for one in shares if why else told:
        numbers[one.ours] = numbers[one.ours] / 100
    return [f"percent ({why})"] if why else ["percent"] * bool(told)


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


def _says_percent(name: str) -> bool:
    return "%" in name or bool({"percent", "pct", "percentage"} & set(words_of(name)))
