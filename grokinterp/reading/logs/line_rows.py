"""How do lines with names and numbers become a table, a row a line?

Lines without a step go on with the last one; where the lines of a step come before it, it closes
them. What is not certain is left out with a note, or refused: a row at a wrong step is worse.
"""

import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from grokinterp.base.errors import InputError, names, shown
from grokinterp.reading.logs.line_lists import (
    table_of_dictionary,
    table_of_lists,
    without_lists,
)
from grokinterp.reading.logs.line_numbers import (
    NUMBER,
    SETTINGS,
    SPACES,
    Plan,
    Slot,
    plan_of,
)
from grokinterp.reading.logs.line_sides import Sides
from grokinterp.reading.logs.series import MOST_COLUMNS
from grokinterp.reading.words import counts_epochs, curve_of, words_of

LONGEST_LINE = 20_000  # characters; of longer ones, such as those of a bar, the last are read
ALIKE = 0.8  # two counts of steps end alike if one does so within this share of the other
FEW_ROWS = 2  # with more of them, a step that never changes is none
_LINE = re.compile(r"[^\r\n]+")
_COMMA = re.compile(r"\d,\d")
_GROUPS = re.compile(r"\d{1,3}(,\d{3})+(\.\d*)?([eE][+-]?\d+)?")
_POINTS = re.compile(r"[1-9]\d{0,2}(\.\d{3})+")
_TIMES = {"k": 1e3, "m": 1e6}
_WRAPPED = re.compile(
    r"(?:\b(?:np|numpy|torch|jnp|tf)\.)?\b(?:u?int(?:8|16|32|64|p)?|b?float(?:16|32|64)?_?|"
    r"tensor|as_tensor|array|asarray|Tensor|Array)\(\s*\[*\s*"
    r"([+-]?[\d.]+\.?(?:[eE][+-]?\d+)?|nan|inf|-inf)\s*\]*(?:,[^()\n]*)?\)"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_RECORDS = re.compile(r"\}\s*,\s*\{")  # of a list that Python printed
_OPENING = re.compile(
    r"\s*(?:\[\s*(\d{1,15})\s*(?:/\s*\d+\s*)?\]|(\d{1,15})(?:\s*/\s*\d+)?\s*:(?=\s))"
)
PLAIN, PERCENT, GROUPED, DECIMAL, SPACED, COMMA = range(6)  # how a number is written


def rows_of(text: str, path: Path) -> pd.DataFrame:
    """A row a line that has a known name with a number; no row where there is none."""
    whole = plain(text)
    if (table := table_of_dictionary(whole)) is not None:
        return table
    text, lists = without_lists(whole)
    lines = _Lines(_COMMA.search(text) is not None and any(map(_has_decimal_comma, _cut(text))))
    for line in _cut(text):
        lines.add(line)
    if lists and not any(x.kind in ("share", "loss") for x in lines.columns.values()):
        return table_of_lists(whole, path)
    frame = lines.table(path)
    if lists:
        frame.attrs["notes"].append(f"lists of numbers are left out: {names(lists, spelled=str)}")
    return frame


def plain(text: str) -> str:
    """Text without colours, types of numbers such as `np.float64(0.5)`, and lists in one line."""
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if re.match(r"\s*\[\s*\{", text):
        text = _RECORDS.sub("}\n{", text)
    return _WRAPPED.sub(r"\1", text) if "(" in text else text


def plans_in(text: str) -> Iterator[Plan]:
    """What is to be read in the lines that have anything, lists of numbers left out."""
    for line in _cut(without_lists(plain(text))[0]):
        if plan := plan_of(tuple(NUMBER.split(line)[::2])):
            yield plan


def _cut(text: str) -> Iterator[str]:
    """The lines of a text, the last part of longer ones."""
    for found in _LINE.finditer(text):
        yield found[0][-LONGEST_LINE:]


def _has_decimal_comma(line: str) -> bool:
    """Whether a number of a known name has a comma that groups no thousands."""
    if _COMMA.search(line) is None:
        return False
    parts = NUMBER.split(line)
    plan = plan_of(tuple(parts[::2]))
    if plan is None:
        return False
    tokens = (parts[2 * slot.at + 1].lstrip("+-") for slot in plan.slots)
    return any(
        "," in token and (token.startswith("0,") or not _GROUPS.fullmatch(token))
        for token in tokens
    )


class _Column:
    """The numbers of one name: in which lines, and how they are written."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.lines, self.values, self.marks = array("q"), array("d"), array("b")

    def add(self, line: int, value: float, mark: int) -> None:
        self.lines.append(line)
        self.values.append(value)
        self.marks.append(mark)


class _Lines:
    """The numbers of lines, by name."""

    def __init__(self, comma: bool) -> None:
        self.comma = comma
        self.n = 0  # lines with anything in them
        self.columns: dict[str, _Column] = {}
        self.runs: dict[str, dict[int, str]] = {}
        self.dropped: dict[str, None] = {}
        self.no_step: list[tuple[int, str]] = []  # the first few, and of which line
        self.sides = Sides()
        self.opening: dict[int, int] = {}  # the numbers that begin lines, where no name is before

    def add(self, line: str) -> None:
        line = self.sides.said_in(line)
        parts = NUMBER.split(line)
        plan = plan_of(tuple(parts[::2]))
        if plan is None:
            return
        if plan.has_curves and (opening := _OPENING.match(line)):
            self.opening[self.n] = int(opening[1] or opening[2])
        for slot in plan.slots:
            number = self._number(slot, parts)
            if number is None:
                self._no_number(slot, parts[2 * slot.at + 1], plan)
                continue
            column = self.columns.get(slot.name)
            if column is None:
                if len(self.columns) >= MOST_COLUMNS:
                    continue
                column = self.columns[slot.name] = _Column(slot.kind)
            column.add(self.n, *number)
        for name, value in plan.runs:
            self.runs.setdefault(name, {})[self.n] = value
        if plan.dropped:
            self.dropped.update(dict.fromkeys(plan.dropped))
        if plan.no_step:
            self._odd(plan.no_step, plan)
        self.n += 1

    def _odd(self, what: str, plan: Plan) -> None:
        if plan.has_curves and len(self.no_step) < MOST_COLUMNS:
            self.no_step.append((self.n, what))

    def _no_number(self, slot: Slot, token: str, plan: Plan) -> None:
        if slot.kind == "step":
            self.no_step.append((self.n, f"{slot.name} {token}"))
        elif slot.kind != "run":
            self.dropped[slot.name] = None

    def _number(self, slot: Slot, parts: list[str]) -> tuple[float, int] | None:
        """The value of a number and how it is written; None where that is not certain."""
        token = parts[2 * slot.at + 1]
        if slot.of is not None:
            share = _share(token, parts[2 * slot.of + 1])
            return None if share is None else (share, PLAIN)
        mark = PERCENT if slot.is_percent else PLAIN
        is_step = slot.kind == "step"
        if is_step and "." in token:
            mark = GROUPED if _POINTS.fullmatch(token) else DECIMAL
        try:
            value = float(token)
        except ValueError:
            return self._slow(token, is_step, mark)
        return None if is_step and math.isnan(value) else (value, mark)

    def _slow(self, token: str, is_step: bool, mark: int) -> tuple[float, int] | None:
        """A number with groups of digits, a decimal comma or thousands in words."""
        if " " in token:
            if not is_step:
                return float(token.split(" ")[0]), mark
            return (float(token.replace(" ", "")), SPACED) if token[0] != "0" else None
        bare = re.sub(rf"(?<=\d)[{SPACES}'\u2019](?=\d{{3}})", "", token)
        times = _TIMES.get(bare[-1].lower())
        if times is not None and not is_step:
            return None
        bare = bare[:-1] if times is not None else bare
        if "," in bare and self.comma:
            bare = bare.replace(".", "").replace(",", ".") if bare.count(",") == 1 else ""
        elif _GROUPS.fullmatch(bare.lstrip("+-")):
            mark = COMMA if "." not in bare and not is_step else mark
            bare = bare.replace(",", "")
        elif is_step and re.fullmatch(r"\d{1,3}(\.\d{3}){2,}", bare):
            bare, mark = bare.replace(".", ""), PLAIN
        try:
            value = float(bare)
        except ValueError:
            return None
        if times is not None:
            return round(value * times, 6), PLAIN
        return value, mark

    def table(self, path: Path) -> pd.DataFrame:
        """The rows, their steps, and notes on what was left out."""
        curves = {name: x for name, x in self.columns.items() if x.kind in ("share", "loss")}
        _check_groups(curves, path)
        has_curve = np.zeros(self.n, bool)
        for column in curves.values():
            has_curve[np.asarray(column.lines)] = True
        axes, of_axes = self._axes(has_curve, path)
        event, group = _groups(axes, has_curve, curves, path)
        curves, of_curves = self._certain(curves, group, path)
        data: dict[str, pd.Series] = {}
        for name in map(str, axes):
            filled = axes[name].to_numpy()[np.maximum(event, 0)]
            data[name] = pd.Series(np.where(event >= 0, filled, np.nan))
            if _counts_epochs(name) and _starts_again(axes.drop(columns=name)):
                data[name] = axes[name].ffill()  # batches of an epoch that a line before names
        data.update({name: self._cells(column) for name, column in curves.items()})
        runs = self._runs()
        frame = pd.DataFrame({**data, **runs}, index=range(self.n))[has_curve]
        frame = _with_settings(frame, [x for x in runs if x in SETTINGS], list(map(str, axes)))
        frame = frame.dropna(axis="columns", how="all").reset_index(drop=True)
        comma = ["numbers have a decimal comma"] if self.comma else []
        frame.attrs["notes"] = [*comma, *of_axes, *of_curves]
        return frame

    def _axes(self, has_curve: np.ndarray, path: Path) -> tuple[pd.DataFrame, list[str]]:
        """The steps that lines say, by name, without what cannot be steps."""
        axes = pd.DataFrame(
            {
                name: pd.Series(_steps(x, name, path), np.asarray(x.lines))
                for name, x in self.columns.items() if x.kind == "step"
            },
            index=range(self.n),
        )  # fmt: skip
        if axes.empty and (opening := self._opening_steps(has_curve)) is not None:
            return opening, ["the number that begins each line is taken as its step"]
        constant = [
            name for name in axes if axes[name].nunique() < 2 and has_curve.sum() > FEW_ROWS
        ]
        axes = axes.drop(columns=constant)
        self._check_steps(axes, path)
        axes, notes = _joined(axes, has_curve)
        return axes, [f"{name} is no step, as it has one value" for name in constant] + notes

    def _opening_steps(self, has_curve: np.ndarray) -> pd.DataFrame | None:
        """The numbers that begin all lines, where they rise as steps do."""
        lines = np.flatnonzero(has_curve).tolist()
        if len(lines) < 2 or not all(line in self.opening for line in lines):
            return None
        steps = np.array([float(self.opening[line]) for line in lines])
        if (np.diff(steps) < 0).any() or steps[0] == steps[-1]:
            return None
        return pd.DataFrame({"step": pd.Series(steps, lines)}, index=range(self.n))

    def _certain(
        self, curves: dict[str, _Column], group: np.ndarray, path: Path
    ) -> tuple[dict[str, _Column], list[str]]:
        """The curves whose numbers are certain; refused where none are."""
        loose = _unsure(curves, group)
        dropped = [*self.dropped, *(name for name in loose if name not in self.dropped)]
        if not dropped:
            return curves, []
        certain = {name: x for name, x in curves.items() if name not in loose}
        why = f"left out, as several numbers may be meant: {names(dropped, spelled=str)}"
        if not certain:
            raise InputError(
                f"{path} has lines whose numbers have no side of their own ({why}); write train or "
                "test before each."
            )
        return certain, [why]

    def _cells(self, column: _Column) -> pd.Series:
        """A column of numbers, with signs of percent where one has it."""
        marks, lines = np.asarray(column.marks), np.asarray(column.lines)
        if not (marks == PERCENT).any():
            return pd.Series(np.asarray(column.values), lines)
        cells = [
            f"{value!r}%" if mark == PERCENT else value
            for value, mark in zip(column.values, marks, strict=True)
        ]
        return pd.Series(cells, lines, dtype=object)

    def _runs(self) -> dict[str, pd.Series]:
        """Columns that tell runs apart: each value is of the lines after it, too."""
        found = {
            name: pd.Series(np.asarray(x.values), np.asarray(x.lines))
            for name, x in self.columns.items() if x.kind == "run"
        }  # fmt: skip
        for name, words in self.runs.items():
            if name not in found:
                found[name] = pd.Series(words, dtype=object)
        return {
            name: x.reindex(range(self.n)).ffill() for name, x in found.items() if x.nunique() > 1
        }

    def _check_steps(self, axes: pd.DataFrame, path: Path) -> None:
        """Refuse a line whose step is none, where others have steps: it is of no known step."""
        has_steps = axes.notna().any(axis=1).to_numpy()
        for line, what in self.no_step:
            if has_steps.any() and not has_steps[line]:
                raise InputError(
                    f"{path} has a line whose step is no number ({shown(what)}), so that its "
                    "values are of no known step; write steps as 1000, or leave that line out."
                )


def _with_settings(frame: pd.DataFrame, settings: list[str], axes: list[str]) -> pd.DataFrame:
    """Rows with the settings that may tell runs apart, and a row a step and setting.

    Of more values than a step comes again, such as those of a schedule, they tell nothing; without
    them the lines stay as they are.
    """
    often = max((int(frame[x].value_counts().max()) for x in axes if frame[x].any()), default=1)
    few = [x for x in settings if 1 < frame[x].nunique(dropna=False) <= often]
    frame = frame.drop(columns=[x for x in settings if x not in few])
    if not few:
        return frame
    keys = [x for x in frame if x in axes or x in few]
    groups = frame.groupby(keys, sort=False, dropna=False)
    return groups.first().reset_index() if groups.count().max(axis=None) == 1 else frame


def _check_groups(curves: dict[str, _Column], path: Path) -> None:
    """Refuse a loss or accuracy whose every number has a comma before three digits."""
    for name, column in curves.items():
        if set(column.marks) == {COMMA}:
            raise InputError(
                f"{path} has numbers of {name!r} with a comma before three digits, such as "
                f"{column.values[0]:,.0f}, which may be thousands or decimals; write a point for "
                "decimals, and nothing between thousands."
            )


def _share(part: str, whole: str) -> float | None:
    if not (part.isdigit() and whole.isdigit()) or not 0 < int(whole) >= int(part):
        return None
    return int(part) / int(whole)


def _steps(column: _Column, name: str, path: Path) -> np.ndarray:
    """The steps of a column, in which a point or a space may group thousands."""
    values, marks = np.array(column.values), np.asarray(column.marks)
    if (marks == GROUPED).any() and (marks == PLAIN).any() and not (marks == DECIMAL).any():
        values = np.where(marks == GROUPED, np.round(values * 1000), values)
    spaced = values[marks == SPACED]
    if len(spaced):
        ends = set(np.mod(spaced, 1000).tolist())
        plain_ones = values[marks != SPACED]
        if (len(ends) == 1 and ends != {0.0}) or (plain_ones >= 1000).any():
            raise InputError(
                f"{path} has '{name}' before two numbers, and may mean {spaced[0]:.0f}; write its "
                "steps without spaces."
            )
    return values


def _joined(axes: pd.DataFrame, has_curve: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    """Steps that lines have under several names as one column: `iter 10: ..` and `step 10: ..`.

    Where some lines have both an epoch and a step, and others the epoch alone, epochs count.
    """
    axes, notes = axes.copy(), []
    for one in map(str, list(axes)):
        for other in map(str, list(axes)):
            if one == other or one not in axes or other not in axes:
                continue
            first, second = axes[one], axes[other]
            if _counts_epochs(one) == _counts_epochs(other) and _is_same_count(first, second):
                axes[one] = first.fillna(second)
                axes = axes.drop(columns=other)
                notes.append(f"{other} is taken as {one} in lines that have no {one}")
    there = axes[has_curve].dropna(how="all")
    everywhere = [name for name in axes if len(there) and there[name].notna().all()]
    if everywhere:
        partly = [name for name in axes if there[name].notna().any() and name not in everywhere]
        axes = axes.drop(columns=partly)
        notes += [f"{name} is left out, as only some lines have it" for name in partly]
    return axes, notes


def _counts_epochs(name: str) -> bool:
    return any(counts_epochs(word) for word in words_of(name))


def _starts_again(axes: pd.DataFrame) -> bool:
    """Whether steps fall again and again, as those within an epoch do."""
    return any((np.diff(axes[name].dropna().to_numpy()) < 0).sum() > 1 for name in axes)


def _is_same_count(first: pd.Series, second: pd.Series) -> bool:
    """Whether two series of steps never stand in one line, rise, and end alike."""
    if (first.notna() & second.notna()).any():
        return False
    one, two = first.dropna().to_numpy(), second.dropna().to_numpy()
    rises = (np.diff(one) >= 0).all() and (np.diff(two) >= 0).all()
    return bool(rises) and ALIKE * max(one[-1], two[-1]) <= min(one[-1], two[-1])


def _groups(
    axes: pd.DataFrame, has_curve: np.ndarray, curves: dict[str, _Column], path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """For each line the one that says its step (-1: none does), and its group."""
    n = len(axes)
    has_step = axes.notna().any(axis=1).to_numpy() if axes.shape[1] else np.zeros(n, bool)
    said = np.flatnonzero(has_step)
    count = np.cumsum(has_step)
    if not len(said):
        return np.full(n, -1), np.arange(n)
    opening = np.concatenate([[-1], said])[count]
    if not has_curve[: said[0]].any():
        return opening, count
    before = _names_in(curves, 0, said[0])
    after_last = _names_in(curves, said[-1] + 1, n)
    of_steps = _names_at(curves, has_step)
    with_first = _names_in(curves, said[0] + 1, said[1]) if len(said) > 1 else set()
    if before & of_steps or not before & (of_steps | with_first | after_last):
        if len(said) > 1 and not with_first and not after_last:
            closing = np.concatenate([said, [-1]])[count - has_step]
            return (closing, count - has_step) if not before & of_steps else (opening, count)
        return opening, count  # some lines before training
    if not after_last:
        return np.concatenate([said, [-1]])[count - has_step], count - has_step
    raise InputError(
        f"{path} has losses or accuracies before its first step and after its last one, so that "
        "nothing says whether a step stands before or after its numbers; write them in one line."
    )


def _names_in(curves: dict[str, _Column], start: int, stop: int) -> set[str]:
    """The curves with a number in some lines."""
    found = set()
    for name, column in curves.items():
        lines = np.asarray(column.lines)
        if np.searchsorted(lines, start) < np.searchsorted(lines, stop):
            found.add(name)
    return found


def _names_at(curves: dict[str, _Column], lines: np.ndarray) -> set[str]:
    return {name for name, column in curves.items() if lines[np.asarray(column.lines)].any()}


def _unsure(curves: dict[str, _Column], group: np.ndarray) -> list[str]:
    """Names without a side that have several values at one step, where none like it has a side.

    Beside those of a test set they are of training: the last of a bar, as Keras prints it.
    """
    measures = {name: curve_of(words_of(name)) or (None, "") for name in curves}
    sided = {kind for side, kind in measures.values() if side}
    found = []
    for name, column in curves.items():
        side, kind = measures[name]
        if side or kind in sided:
            continue
        groups = pd.Series(np.asarray(column.values)).groupby(group[np.asarray(column.lines)])
        if (groups.max() > groups.min()).any():
            found.append(name)
    return found
