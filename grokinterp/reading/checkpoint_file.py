"""Source: checkpoints of somebody else, and what their files say besides."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from grokinterp.base.errors import InputError, names, shown
from grokinterp.reading.companion_files import Beside, Log, beside, named_after, names_in, placed
from grokinterp.reading.file_contents import LossCurve, Said, named, said_in
from grokinterp.reading.words import Step, counts_epochs, is_known, step_in, step_of

# MERGED runs.foreign.parts: One checkpoint file: the step of its weights, and what it and the files of its name say.


NESTED = ("model", "state_dict", "model_state_dict", "net", "weights", "params")
LONGEST_NAME = 200  # of a weight
MOST_WEIGHTS = 20_000  # of a network of a thousand layers

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Source:
    """Checkpoints of somebody else: state dicts by step, and what their files say besides."""

    path: Path
    format: str
    states: dict[int, Callable[[], StateDict]]
    losses: dict[str, LossCurve] = field(default_factory=dict)  # train_loss, test_loss
    logged_steps: np.ndarray | None = None  # where losses between are only repeated
    config: Mapping[str, Any] = field(default_factory=dict)
    train_data: Tensor | None = None  # rows a*p + b, or pairs (a, b)
    log: pd.DataFrame | None = None  # losses or accuracies against step, of a CSV
    notes: tuple[str, ...] = ()
    configs: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # the same by file, each whole
    near: Mapping[int, float] = field(default_factory=dict)  # training losses of a checkpoint, or
    # of the weights one update before it; where none is known to be its own


def state_dict_in(data: Any, path: Path, *, whole: Any = None) -> StateDict:
    """The weights in what a file holds: the file itself, or what it keeps under a usual name.

    A network of few tensors is one too: what it is, who looks at its names finds out. `whole` is
    all that the file holds, for the message, where `data` is a part.
    """
    nested = [mapping(mapping(data).get(name)) for name in NESTED]
    for candidate, fewest in ((mapping(data), 4), *((each, 1) for each in nested)):
        weights = {key: x for key, x in candidate.items() if isinstance(x, Tensor)}
        if len(weights) >= fewest and len(weights) >= len(candidate) / 2:
            _check_names(weights, path)
            return weights
    if _is_network(mapping(data)):
        return {key: x for key, x in mapping(data).items() if isinstance(x, Tensor)}
    found = _what_it_is(data if whole is None else whole)
    raise InputError(f"{path} holds no weights that are known here: {found}.")


def _is_network(data: Mapping[Any, Any]) -> bool:
    """Whether a dictionary of few tensors has the matrices of a network."""
    matrices = [x for x in data.values() if isinstance(x, Tensor) and x.ndim >= 2]
    return 0 < len(data) <= 2 * len(matrices)


def _what_it_is(data: Any) -> str:
    """What a file holds instead of a state dict, and what to do about it."""
    found = mapping(data)
    give = "give a state dict, such as torch.save(model.state_dict(), path) writes"
    if not isinstance(data, Mapping):
        return f"it is {_kind(data)}; {give}"
    if not found:
        return f"it is an empty dictionary; {give}"
    inside = [key for key, x in found.items() if len(_tensors(x)) >= 4]
    if inside and all(type(key) is int for key in inside):
        return (
            f"it is a dictionary of state dicts by step, {names(inside)}; save each as a file of "
            "its own (step_100.pt) and give their folder"
        )
    if inside:
        return f"it has state dicts under {names(inside)}; save one of them as a file of its own"
    if key := next((key for key in NESTED if key in found), None):
        return f"its {key!r} is {_kind(found[key])}; {give}"
    return f"it is a dictionary of {names(found)}; {give}"


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in mapping(value).values() if isinstance(x, Tensor)]


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        inside = names(value) if value else "nothing"
        return f"a dictionary of {inside}, not of tensors"
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    if isinstance(value, (str, bytes)):
        return f"text, {shown(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    return f"of type {type(value).__name__}"


def _check_names(weights: Mapping[Any, Tensor], path: Path) -> None:
    if len(weights) > MOST_WEIGHTS:
        raise InputError(
            f"{path} has a state dict of {len(weights)} weights; a network of at most "
            f"{MOST_WEIGHTS} is read."
        )
    for name in weights:
        if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
            raise InputError(
                f"{path} has a weight of the name {shown(name)}; names are text of at most "
                f"{LONGEST_NAME} characters, such as embed.W_E."
            )


def mapping(value: Any) -> Mapping[Any, Any]:
    """The value where it is a mapping; otherwise an empty one."""
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class Part:
    """A file: its step, the other step that it or its name also says, and all else it says."""

    file: Path
    step: Step | None
    other: Step | None
    said: Said
    configs: tuple[tuple[str, Mapping[str, Any]], ...]
    named: bool  # whether its name has a step


def part_of(file: Path, data: Any, there: Collection[str]) -> Part:
    """What a file of weights says; `there` are the names of the files beside it."""
    inside = said_in(named(data, file.stem))
    if inside.train_rows is None and mapping(data).get("train_indices") is not None:
        raise InputError(
            f"{file}: its train_indices are no list of rows a*p + b; put them right, or leave them "
            "out and give train_indices=FILE."
        )
    configs = [(str(file), inside.config)] if inside.config else []
    said = inside
    for name, other in named_after(file, there):
        said = said.over(_as_a_record(other))
        configs.append((str(file.with_name(name)), other.config))
    step, other_step = step_of(said.step, file.stem)
    if said.train_rows is not None:  # not a view of a file that stays open
        said = replace(said, train_rows=said.train_rows.clone())
    return Part(file, step, other_step, said, tuple(configs), step_in(file.stem) is not None)


def weights_in(data: Any, path: Path) -> StateDict:
    """The weights in what a file holds, among which losses and rows that are tensors are none."""
    if not isinstance(data, Mapping) or len(data) > MOST_WEIGHTS:
        return state_dict_in(data, path)
    rest = {key: x for key, x in data.items() if not (isinstance(key, str) and is_known(key))}
    return state_dict_in(rest, path, whole=data)


def is_no_checkpoint(data: Any) -> bool:
    """Whether a file is plainly of something else than weights: an optimizer's state, a log."""
    if not isinstance(data, Mapping):
        return True
    if any(mapping(data.get(name)) for name in NESTED):
        return False
    weights = [
        key for key, x in data.items()
        if isinstance(x, Tensor) and x.ndim >= 2 and not is_known(str(key))
    ]  # fmt: skip
    return not weights


def single_source(path: Path, data: Any, *, step: int | None, metrics: str | None) -> Source:
    """A file with the weights of one step; `step` is what somebody set, `metrics` a log of it."""
    state = weights_in(data, path)
    part = part_of(path, data, names_in(path.parent))
    found = beside(path, epochs=part.step is not None and part.step.in_epochs, metrics=metrics)
    said = part.said
    for _, other in found.said:
        said = said.over(other, its_own=False)
    at, word = step, None
    if step is None and part.step is not None:
        at, word = part.step.number, part.step.word
    notes: list[str] = []
    log = found.log
    if at is None and log is not None and len(log.table):
        at, word = int(log.table["step"].max()), log.word
        notes = [f"no step in the file or its name: taken to be {at}, the last of its log"]
    lists = placed(said.lists, step=at, word=word, config=said.config, fixed=step is not None)
    if lists.step is None:
        notes = ["no step in the file or its name: it stands at step 0 (give step=)"]
    elif step is None and part.step is not None and lists.step == part.step.number:
        notes = [f"step {at} is {part.step.origin} (set step= if it counts otherwise)"]
        notes += other_steps((part,))
    at = lists.step or 0
    table, more = in_the_same_steps(log, at, word if step is None else None)
    curves = with_single(lists.curves, at, said.losses, lists.curves)
    return Source(
        path, "state_dict", {at: lambda: state}, curves, None, said.config, said.train_rows, table,
        (*notes, *told((part,), said.lists), *said.notes, *lists.notes, *found.notes, *more),
        configs=(*part.configs, *_configs(path.parent, found)), near=_near(at, said, curves),
    )  # fmt: skip


def with_single(
    curves: Mapping[str, LossCurve],
    step: int,
    losses: Mapping[str, float],
    lists: Mapping[str, LossCurve],
) -> dict[str, LossCurve]:
    """The curves, and single numbers at a step that they do not have.

    A number that is the last of its list is not given a second time, a step later.
    """
    found = dict(curves)
    for column, value in losses.items():
        listed, curve = lists.get(column), found.get(column)
        if listed is not None and listed.steps[-1] < step and listed.values[-1] == value:
            continue
        if curve is None:
            found[column] = LossCurve(np.array([step]), np.array([value]))
        elif step not in curve.steps:
            steps, values = np.append(curve.steps, step), np.append(curve.values, value)
            order = np.argsort(steps, kind="stable")
            found[column] = LossCurve(steps[order], values[order])
    return found


def in_the_same_steps(
    log: Log | None, last: int, word: str | None
) -> tuple[pd.DataFrame | None, tuple[str, ...]]:
    """The table of a log, if it counts what the checkpoints count, and notes about it.

    Epochs and updates are the same where a whole table is one batch: then both end together.
    """
    if log is None:
        return None, ()
    end = int(log.table["step"].max()) if len(log.table) else 0
    differ = word is not None and counts_epochs(word) != counts_epochs(log.word)
    if differ and not end / 2 <= last <= end * 1.05 + 1:
        return None, (
            f"its log is left out: it counts {log.word!r} up to {end}, the checkpoints {word!r} up "
            f"to {last}",
        )
    return log.table, log.notes


def told(parts: Collection[Part], lists: Collection[str] = ()) -> tuple[str, ...]:
    """A note of what files say besides weights; `lists` are columns of which there are lists."""
    words = dict.fromkeys(
        word for part in parts
        for word in (
            *([part.said.step[1]] if part.said.step else []),
            *(["a configuration"] if part.said.config else []),
            *part.said.losses,
            *(["training rows"] if part.said.train_rows is not None else []),
        )
    )  # fmt: skip
    words |= dict.fromkeys(f"a list of {column}" for column in lists)
    what = "the file says" if len(parts) == 1 else f"its {len(parts)} files say"
    return (f"beside weights, {what}: {', '.join(words)}",) if words else ()


def _near(step: int, said: Said, curves: Mapping[str, LossCurve]) -> dict[int, float]:
    """The training loss that a file keeps with its weights: of these, or of the update before."""
    single, curve = said.losses.get("train_loss"), curves.get("train_loss")
    if single is None and curve is not None and 0 <= step - curve.steps[-1] <= 1:
        single = float(curve.values[-1])
    return {} if single is None or not np.isfinite(single) else {step: single}


def other_steps(parts: Collection[Part]) -> tuple[str, ...]:
    """A note where files and their names say different steps."""
    differing = [part for part in parts if part.step is not None and part.other is not None]
    if not differing:
        return ()
    first = differing[0]
    assert first.step is not None
    assert first.other is not None
    where = "inside" if first.other.inside else "in the name"
    more = f" (and {len(differing) - 1} more files so)" if len(differing) > 1 else ""
    return (
        f"{first.file.name} is of step {first.step.number}, {first.step.origin}, although it has "
        f"{first.other.number} {where}{more}",
    )


def _as_a_record(said: Said) -> Said:
    """A JSON with a checkpoint's name; an "epoch" in a configuration is a planned number."""
    if said.step is not None and counts_epochs(said.step[1]) and not said.losses:
        return replace(said, step=None)
    return said


def _configs(folder: Path, found: Beside) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    return tuple((str(folder / name), said.config) for name, said in found.said if said.config)


def with_beside(source: Source, folder: Path, found: Beside, word: str | None) -> Source:
    """Checkpoints, and what the files beside all of them say where they themselves do not."""
    said = Said(config=source.config, train_rows=source.train_data)
    for _, other in found.said:
        said = said.over(other, its_own=False)
    last = max(source.states)
    lists = placed(said.lists, step=last, word=word, config=said.config, fixed=True)
    table, more = in_the_same_steps(found.log, last, word)
    if source.log is not None:
        table, more = source.log, ()
    curves = {**lists.curves, **source.losses}
    notes = (*source.notes, *said.notes, *lists.notes, *found.notes, *more)
    own = source.configs or (((str(source.path), source.config),) if source.config else ())
    return replace(
        source, config=said.config, configs=(*own, *_configs(folder, found)),
        train_data=said.train_rows, losses=curves, log=table, notes=notes,
    )  # fmt: skip


def refuse_other_rows(parts: Collection[Part]) -> None:
    """Refuse files of one run that keep other training rows."""
    first: Part | None = None
    for part in parts:
        rows = part.said.train_rows
        if rows is None:
            continue
        if first is None:
            first = part
            continue
        kept = first.said.train_rows
        assert kept is not None
        if kept.shape != rows.shape or not (kept == rows).all():
            raise InputError(
                f"{first.file} and {part.file.name} keep other training rows: they are not of one "
                "run; keep the files of one."
            )
