"""One checkpoint, or several of known steps, as a `Source`: every step, and what the files say.

What a file says of itself counts before what the files of its name say (`x.json`), and these before
what lies next to all of them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from grokinterp.base.errors import InputError, names
from grokinterp.reading.companions import (
    Companions,
    companions_of,
    names_in,
    namesakes_of,
    with_name,
)
from grokinterp.reading.file_contents import (
    Configs,
    Contents,
    LossCurve,
    NumberList,
    contents_of,
)
from grokinterp.reading.logs.table import Log
from grokinterp.reading.pickled_objects import objects_in
from grokinterp.reading.stored_losses import intervals_in, place_lists, stride_of
from grokinterp.reading.tensor_files import (
    StateDict,
    as_mapping,
    other_weights,
    weights_in,
)
from grokinterp.reading.words import counts_epochs
from grokinterp.runs.metrics import COLUMNS, UNMIRRORED

COPIES = re.compile(r"best|last|latest|final|current|newest", re.IGNORECASE)  # of another file
_OF_RUN = re.compile(  # what tells runs apart in names, and is no step
    r"(?<![a-z])(?:seed|run|rank|trial|fold|replica|wd|weight_decay|lr|frac)[-_=.]?"
    r"\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\d.]*\d)",
    re.IGNORECASE,
)
_WORDS = (  # "ep" also ends "sweep"; "ba" is a batch, as Composer counts them
    "step", "iter(?:ation)?", "(?<![a-z])it", "(?<![a-z])ba", "epoch", "(?<![a-z])ep",
)  # fmt: skip
_NUMBER = r"(\d{1,3}(?:,\d{3})+|\d{1,3}(?:_\d{3})*_0\d\d(?:_\d{3})*|\d+)"  # 20,000 and 20_000


@dataclass(frozen=True)
class Source:
    """Checkpoints of somebody else: state dicts by step, and what their files say besides."""

    path: Path
    format: str
    states: dict[int, Callable[[], StateDict]]
    losses: dict[str, LossCurve] = field(default_factory=dict)  # train_loss, test_loss
    logged_steps: list[int] | None = None  # where losses between are only repeated
    config: Mapping[str, Any] = field(default_factory=dict)
    train_data: Tensor | None = None  # rows a*p + b, or pairs (a, b)
    log: pd.DataFrame | None = None  # losses or accuracies against step, of a CSV
    notes: tuple[str, ...] = ()
    configs: Configs = ()  # the same by file, each whole
    near: Mapping[int, float] = field(default_factory=dict)  # training losses of a checkpoint, or
    # of the weights one update before it; where none is known to be its own
    steps_known: bool = True  # otherwise checkpoints stand at their positions, 0, 1, ...

    def logged_metrics(self) -> pd.DataFrame:
        """One row per logged step: the columns of metrics.csv, NaN where nothing was logged."""
        frame = pd.DataFrame({"step": pd.Series(dtype="int64")}) if self.log is None else self.log
        for column, curve in self.losses.items():
            part = pd.DataFrame({"step": curve.steps, column: curve.values})
            if self.logged_steps is not None:
                part = part[part["step"].isin(self.logged_steps)]
            if column not in frame:
                frame = frame.merge(part[np.isfinite(part[column])], on="step", how="outer")
        frame = frame.reindex(columns=["step", *COLUMNS, *UNMIRRORED])
        return frame.sort_values("step", ignore_index=True)

    def noting(self, left_out: Mapping[str, list[str]]) -> "Source":
        """With a note for each reason why files are left out."""
        notes = tuple(
            f"left out, as they {reason}: {', '.join(names[:6])}"
            + (f" and {len(names) - 6} more" if len(names) > 6 else "")
            for reason, names in left_out.items()
            if names
        )
        return replace(self, notes=(*self.notes, *notes))

    def noting_objects(self, data: Any) -> "Source":
        """With a note about objects in the file."""
        return replace(self, notes=(*self.notes, *objects_in(data)))

    def with_companions(self, companions: Companions, word: str | None = None) -> "Source":
        """Checkpoints, and what the files next to all of them say where they themselves do not."""
        configs = self.configs or ((str(self.path), self.config),)
        own = Contents(config=self.config, train_rows=self.train_data, configs=configs)
        contents = own.over(companions.contents, its_own=False)
        last = max(self.states)
        lists, _, placed = place_lists(
            contents.lists, step=last, word=word, config=contents.config, fixed=True
        )
        table, more = _in_the_same_steps(companions.log, last, word)
        return replace(
            self, config=contents.config, configs=contents.configs,
            train_data=contents.train_rows, losses={**lists, **self.losses}, log=table,
            notes=(*self.notes, *contents.notes, *placed, *companions.notes, *more),
        )  # fmt: skip


@dataclass(frozen=True)
class StepFound:
    """A step, its word (None: it is a number in a name), and whether it is inside the file."""

    number: int
    word: str | None
    inside: bool

    @property
    def origin(self) -> str:
        """Where it is from, in a few words."""
        return f"its {self.word!r}" if self.inside else "the number in its name"

    @property
    def in_epochs(self) -> bool:
        """Whether it counts epochs."""
        return self.word is not None and counts_epochs(self.word)


def step_of(inside: tuple[int, str] | None, stem: str) -> tuple[StepFound | None, StepFound | None]:
    """The step of a file, and the other one that it also has and that differs.

    The one inside counts, but epochs inside do not count where the name has a step.
    """
    own = None if inside is None else StepFound(*inside, inside=True)
    found = step_in(stem)
    named = None if found is None else StepFound(*found, inside=False)
    if own is None or named is None:
        return own or named, None
    in_steps = named.word is not None and not named.in_epochs
    first, second = (named, own) if own.in_epochs and in_steps else (own, named)
    return first, second if first.number != second.number else None


def step_in(stem: str) -> tuple[int, str | None] | None:
    """The step in a file's name: after "step" or "epoch", else the only whole number in it.

    A seed or the number of a run is none, and of "step_10k" or "1e4" nothing is guessed.

    >>> [step_in(x) for x in ("step_00000100", "epoch=3-step=1200", "17", "step_20,000")]
    [(100, 'step'), (1200, 'step'), (17, None), (20000, 'step')]
    >>> [step_in(x) for x in ("best", "seed_3", "run_0", "step_10k", "step_1e+06", "sweep2_p7")]
    [None, None, None, None, None, None]
    """
    stem = _OF_RUN.sub("", stem)
    for word in _WORDS:
        form = rf"({word})s?[-_=.]?{_NUMBER}(?![\da-z]|[.,]\d)"
        if found := re.search(form, stem, re.IGNORECASE):
            return int(re.sub("[,_]", "", found[2])), found[1].lower()
    numbers = re.findall(
        r"(?<![\d.,a-zA-Z])(?<!e[+-])\d+(?![\d.,]|[a-zA-Z])", stem.replace("_", " ")
    )
    return (int(numbers[0]), None) if len(numbers) == 1 else None


def run_in(stem: str) -> str:
    """What a file's name says of the run that it is of.

    >>> run_in("seed0_step40"), run_in("wd-0.1_epoch_3"), run_in("lr1e-3_step_40")
    ('seed0', 'wd-0.1', '')
    """
    return ", ".join(x for x in _OF_RUN.findall(stem) if not x.lower().startswith("lr"))


@dataclass(frozen=True)
class Checkpoint:
    """One of several: its step, another step that it also has, and all else that it says."""

    where: str  # for messages
    name: str  # for notes
    step: StepFound | None
    other: StepFound | None
    contents: Contents
    named: bool  # whether its name has a step
    state: Callable[[], StateDict]


def checkpoint_of(
    data: Any,
    *,
    where: str,
    name: str,
    stem: str,
    state: Callable[[], StateDict],
    beside: Iterable[Contents] = (),
) -> Checkpoint:
    """What a checkpoint says; `stem` is its name, `beside` what the files of its name say."""
    contents = contents_of(with_name(data, stem))
    if contents.train_rows is None and as_mapping(data).get("train_indices") is not None:
        raise InputError(
            f"{where}: its train_indices are no list of rows a*p + b; put them right, or leave "
            "them out and give train_indices=FILE."
        )
    notes = (*contents.notes, *objects_in(data), *_left_unread(data))
    contents = replace(contents, configs=((where, contents.config),), notes=notes)
    for other in beside:
        if other.step is not None and counts_epochs(other.step[1]) and not other.losses:
            other = replace(other, step=None)  # of a configuration: the number that is planned
        contents = contents.over(other)
    step, other_step = step_of(contents.step, stem)
    if contents.train_rows is not None:  # not a view of a file that stays open
        contents = replace(contents, train_rows=contents.train_rows.clone())
    return Checkpoint(where, name, step, other_step, contents, step_in(stem) is not None, state)


def _left_unread(data: Any) -> tuple[str, ...]:
    """What of a file's weights is not read, and where in it they are."""
    notes: tuple[str, ...] = getattr(data, "notes", ())
    if others := other_weights(data):
        notes += (f"left out are other weights beside those that are read: {names(others)}",)
    return notes


def single_source(path: Path, data: Any, *, step: int | None, metrics: str | None) -> Source:
    """A file with the weights of one step; `step` is what somebody set, `metrics` a log of it."""
    state = weights_in(data, path)
    part = checkpoint_of(
        data, where=str(path), name=path.name, stem=path.stem, state=lambda: state,
        beside=namesakes_of(path, names_in(path.parent)),
    )  # fmt: skip
    in_epochs = part.step is not None and part.step.in_epochs
    companions = companions_of(path, epochs=in_epochs, metrics=metrics)
    contents = part.contents.over(companions.contents, its_own=False)
    own = part.step if step is None else None
    at, word = (step, None) if own is None else (own.number, own.word)
    notes: list[str] = []
    log = companions.log
    if at is None and log is not None and len(log.table):
        at, word = int(log.table["step"].max()), log.word
        notes = [f"no step in the file or its name: taken to be {at}, the last of its log"]
    lists, found, placed = place_lists(
        contents.lists, step=at, word=word, config=contents.config, fixed=step is not None
    )
    if found is None:
        notes = ["no step in the file or its name: it stands at step 0 (give step=)"]
    elif own is not None and found == own.number:
        notes = [f"step {at} is {own.origin} (set step= if it counts otherwise)"]
        notes += _other_steps((part,))
    at = found or 0
    table, more = _in_the_same_steps(log, at, word)
    curves = _with_single(lists, {at: contents.losses})
    single, curve = contents.losses.get("train_loss"), curves.get("train_loss")
    if single is None and curve is not None and 0 <= at - curve.steps[-1] <= 1:
        single = float(curve.values[-1])
    notes += (*_what_they_say((part,), contents.lists), *contents.notes)
    return Source(
        path, "state_dict", {at: lambda: state}, curves, None, contents.config,
        contents.train_rows, table, (*notes, *placed, *companions.notes, *more),
        configs=contents.configs,
        near={} if single is None or not np.isfinite(single) else {at: single},
    )  # fmt: skip


def _with_single(
    lists: Mapping[str, LossCurve], losses: Mapping[int, Mapping[str, float]]
) -> dict[str, LossCurve]:
    """The curves of lists, and single numbers by step, unless these end their list a step later."""
    found = dict(lists)
    for column in dict.fromkeys(column for each in losses.values() for column in each):
        known = lists.get(column)
        points = {
            step: each[column] for step, each in losses.items() if column in each
            if known is None or known.steps[-1] >= step or known.values[-1] != each[column]
        }  # fmt: skip
        if points:
            curve = LossCurve.by_step(points)
            found[column] = curve if known is None else known.over(curve)
    return found


def _in_the_same_steps(
    log: Log | None, last: int, word: str | None
) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """The table of a log, if it counts what the checkpoints count, and notes about it."""
    if log is None:
        return None, ()
    end = int(log.table["step"].max()) if len(log.table) else 0
    differ = word is not None and counts_epochs(word) != counts_epochs(log.word)
    if differ and not end / 2 <= last <= end * 1.05 + 1:  # together: a batch is a whole table
        return None, (
            f"its log is left out: it counts {log.word!r} up to {end}, the checkpoints {word!r} up "
            f"to {last}",
        )
    return log.table, log.notes


def _what_they_say(parts: Collection[Checkpoint], lists: Iterable[str]) -> tuple[str, ...]:
    """A note of what files say besides weights; `lists` are columns of which there are lists."""
    words: list[str] = []
    for x in (part.contents for part in parts):
        words += [x.step[1]] if x.step else []
        of_step = {x.step[1]} if x.step else set()
        words += ["a configuration"] if {*x.config} - of_step else []
        words += [*x.losses, *(["training rows"] if x.train_rows is not None else [])]
    words += [f"a list of {column}" for column in lists]
    one = len({part.where.partition(", ")[0] for part in parts}) == 1
    what = "the file says" if one else f"its {len(parts)} files say"
    return (f"besides weights, {what}: {', '.join(dict.fromkeys(words))}",) if words else ()


def _other_steps(parts: Iterable[Checkpoint]) -> tuple[str, ...]:
    """A note where files and their names say different steps."""
    differing = [(x.name, x.step, x.other) for x in parts if x.step and x.other]
    if not differing:
        return ()
    name, step, other = differing[0]
    where = "inside" if other.inside else "in the name"
    more = f" (and {len(differing) - 1} more files so)" if len(differing) > 1 else ""
    return (
        f"{name} is of step {step.number}, {step.origin}, although it has {other.number} "
        f"{where}{more}",
    )


class Checkpoints:
    """Checkpoints of one run that are looked at one after the other, and what was left out."""

    def __init__(self) -> None:
        self.parts: dict[int, Checkpoint] = {}
        self.left_out: dict[str, list[str]] = {}
        self._lists = _ListsOfFiles()

    def leave_out(self, reason: str, name: str) -> None:
        """Note that one is left out, as they "have no step" or whatever the reason is."""
        self.left_out.setdefault(reason, []).append(name)

    def add(self, part: Checkpoint, step: StepFound) -> None:
        """One more; of two of the same step one has to be a copy by its name."""
        if (rival := self.parts.get(step.number)) is not None:
            copies = [x for x in (part, rival) if not x.named and COPIES.search(x.name)]
            if len(copies) != 1 or not (part.named or rival.named):
                number = step.number
                raise InputError(
                    f"{rival.where} and {part.name} are both of step {number}; keep one."
                )
            self.leave_out("are of the step of another file", copies[0].name)
            if copies[0] is part:
                return
        self._lists.add(step.number, part.contents.lists)
        self.parts[step.number] = replace(
            part, contents=replace(part.contents, lists={}), step=step
        )

    @property
    def last(self) -> StepFound:
        """The last step."""
        step = self.parts[max(self.parts)].step
        assert step is not None
        return step

    def source(self, path: Path, format: str, companions: Companions) -> Source:
        """All of them, with what lies next to them."""
        parts, last = dict(sorted(self.parts.items())), self.last
        source = _source_of_parts(path, format, parts, self._lists, last)
        return source.with_companions(companions, last.word).noting(self.left_out)


def _source_of_parts(
    path: Path, format: str, parts: dict[int, Checkpoint], lists: "_ListsOfFiles", last: StepFound
) -> Source:
    configs = [pair for part in parts.values() for pair in part.contents.configs]
    config = next((x.contents.config for x in reversed(parts.values()) if x.contents.config), {})
    kept = [(x, rows) for x in parts.values() if (rows := x.contents.train_rows) is not None]
    for part, found in kept[1:]:
        first, same = kept[0]
        if same.shape != found.shape or not (same == found).all():
            raise InputError(
                f"{first.where} and {part.name} keep other training rows: they are not of one run; "
                "keep the files of one."
            )
    curves, placed = lists.placed(last, config)
    losses = {step: part.contents.losses for step, part in parts.items()}
    near = {step: each["train_loss"] for step, each in losses.items() if "train_loss" in each}
    words = dict.fromkeys(x.step.word for x in parts.values() if x.step and x.step.in_epochs)
    notes = [
        f"steps are {' and '.join(map(repr, words))} as the files count them: of one update each, "
        "unless a log says otherwise"
    ] * bool(words)
    notes += [*_other_steps(parts.values()), *_what_they_say(parts.values(), curves)]
    notes += dict.fromkeys(note for part in parts.values() for note in part.contents.notes)
    return Source(
        path, format, {step: part.state for step, part in parts.items()},
        _with_single(curves, losses), None, config, kept[0][1] if kept else None, None,
        (*notes, *placed), configs=configs, near=near,
    )  # fmt: skip


class _ListsOfFiles:
    """The lists that files of a folder keep, of which the later ones usually hold the earlier."""

    def __init__(self) -> None:
        self._last = -1
        self._loose: dict[str, np.ndarray] = {}  # without steps, of the last file
        self._lengths: list[tuple[int, dict[str, int]]] = []
        self._stepped: dict[str, LossCurve] = {}

    def add(self, step: int, lists: Mapping[str, NumberList]) -> None:
        loose = {column: x for column, x in lists.items() if not isinstance(x, LossCurve)}
        self._lengths.append((step, {column: len(x) for column, x in loose.items()}))
        if loose and step > self._last:
            self._last, self._loose = step, loose
        for column, found in lists.items():
            if isinstance(found, LossCurve):
                known = self._stepped.get(column)
                self._stepped[column] = found if known is None else found.over(known)

    def placed(
        self, last: StepFound, config: Mapping[str, Any]
    ) -> tuple[dict[str, LossCurve], list[str]]:
        """All of them on the axis of the checkpoints, and notes."""
        intervals = intervals_in(config)
        whole, notes = {}, []
        for column, found in self._loose.items():
            strides = {
                stride_of(n[column], step, intervals)
                for step, n in self._lengths if column in n and n[column] > 1
            }  # fmt: skip
            if len(strides - {None}) > 1:
                notes.append(
                    f"{column}: the lists of the files do not hold those of the files before, so "
                    "that nothing says of which steps they are; they are left out"
                )
            else:
                whole[column] = found
        at = self._last if whole else last.number
        lists, _, more = place_lists(whole, step=at, word=last.word, config=config, fixed=True)
        return {**lists, **self._stepped}, notes + more
