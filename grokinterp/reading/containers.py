"""The weights of several steps in one file: a dictionary by step, or a list.

By step: keys are numbers, or text such as "100", "step_100" or "epoch_3". A list has its steps in
its entries, or in a list of as many whole numbers beside it; of one that has neither nobody knows
the steps, so that its checkpoints stand at their positions 0, 1, 2, ... Either is the file itself,
or is in it under a usual name; an entry is a state dict, or one with what belongs to it (its loss,
its step). What stands beside is used as that of any other file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from grokinterp.base.errors import one_line, shown
from grokinterp.models.network_in import has_layers
from grokinterp.reading.checkpoint_files import (
    Checkpoint,
    Checkpoints,
    Source,
    StepFound,
    checkpoint_of,
)
from grokinterp.reading.companions import Companions, companions_of
from grokinterp.reading.file_contents import GROUPS, MOST_KEYS, LossCurve, contents_of, numbers_in
from grokinterp.reading.pickled_objects import objects_in
from grokinterp.reading.tensor_files import (
    StateDict,
    as_mapping,
    holds_weights,
    refuse_mostly_shared,
    refuse_too_many,
    weights_in,
)
from grokinterp.reading.words import counts_epochs, words_of
from grokinterp.runs.manifest import LARGEST_STEP

USUAL = (  # names under which several checkpoints are kept, in the order in which they count
    "checkpoints", "state_dicts", "snapshots", "model_checkpoints", "saved_checkpoints", "ckpts",
    "checkpoint_list", "model_states", "model_state_dicts", "saved_models", "saved_states",
    "all_models", "all_weights", "all_state_dicts", "saved_weights", "models", "states", "weights",
    "params", "parameters", "weight_history", "weights_history", "state_dict_history",
    "model_history", "param_history", "params_history", "trajectory", "history", "records",
)  # fmt: skip
AXES = {  # words of a list of steps
    "step", "steps", "epoch", "epochs", "iteration", "iterations", "iter", "iters", "it", "its",
    "update", "updates",
}  # fmt: skip
OF_SAVES = {  # and words with which it is of checkpoints rather than of a log
    "checkpoint", "checkpoints", "ckpt", "ckpts", "save", "saved", "snapshot", "snapshots", "state",
    "states", "model", "models", "weight", "weights",
}  # fmt: skip
_STEP = re.compile(
    r"(?:epoch[-_=]?\d+[-_])?"
    r"(?:(step|global_step|iter|iteration|it|update|epoch|ep|checkpoint|ckpt|snapshot|t|state|model"
    r"_step|weight)s?[-_=. ]*)?(\d{1,16})(?:\.(?:pt|pth|ckpt|bin|safetensors))?",
    re.IGNORECASE,
)
DEEPEST = 3  # container in a container in which weights are looked for,
MOST_LOOKED_AT = 10_000  # and how many things are
_COUNTS = ("step", "global_step", "iter", "iteration", "it", "update", "epoch", "ep")


@dataclass(frozen=True)
class Entry:
    """One of several checkpoints of a file: what it is called there, and its step if that is."""

    label: str
    data: Any
    step: StepFound | None


@dataclass(frozen=True)
class Series:
    """Several checkpoints of a file, where in it they are, and what stands beside them."""

    entries: tuple[Entry, ...]
    at: str  # "its 'checkpoints'"; "" where they are the file itself
    beside: Mapping[Any, Any] = field(default_factory=dict)
    without_step: tuple[str, ...] = ()  # weights beside them, of nobody knows which step
    others: tuple[str, ...] = ()  # other checkpoints of several steps


class Opened(dict[Any, Any]):
    """What a file holds, with what was inside one of its containers; notes say which."""

    notes: tuple[str, ...] = ()


def opened(data: Any) -> Any:
    """The data of a file; where its weights are deeper in it and in one place, as if they were not.

    What stands beside them is kept. A place is one that holds a network by the names of its layers.
    """
    if holds_weights(data) or not isinstance(data, Mapping) or series_in(data) is not None:
        return data
    if len(data) > MOST_KEYS:
        return data
    found, left = [], [MOST_LOOKED_AT]
    for key, value in data.items():
        if _holds_network(value, DEEPEST, left):
            found.append(key)
    if len(found) != 1 or left[0] <= 0:
        return data
    (key,) = found
    inner = opened(data[key]) if isinstance(data[key], Mapping) else data[key]
    result = Opened({name: x for name, x in data.items() if name != key})
    if isinstance(inner, Mapping) and has_layers(inner):
        result["state_dict"] = inner
    elif isinstance(inner, (list, tuple)) or _by_step(inner, "") is not None:
        result["checkpoints"] = inner
    else:
        result.update(inner)
    result.notes = (f"read is its {shown(key)}", *getattr(inner, "notes", ()))
    return result


def _holds_network(value: Any, depth: int, left: list[int]) -> bool:
    """Whether there are weights of a network in what a file holds."""
    if not isinstance(value, (Mapping, list, tuple)):
        return False
    left[0] -= len(value)
    if left[0] <= 0:
        return False
    if isinstance(value, Mapping) and has_layers(value):
        return True
    inside = value.values() if isinstance(value, Mapping) else value
    return depth > 0 and any(_holds_network(each, depth - 1, left) for each in inside)


def series_in(data: Any) -> Series | None:
    """The checkpoints of several steps that a file holds; None where it is no such file."""
    if isinstance(data, (list, tuple)):
        return _of_list(data, {}, "")
    top = as_mapping(data)
    if len(top) > MOST_KEYS:  # as no file of checkpoints has
        return None
    if (found := _by_step(top, "")) is not None:
        return found
    by_name = {"_".join(words_of(key)): key for key in top if isinstance(key, str)}
    for key in (by_name[name] for name in USUAL if name in by_name):
        value, beside = top[key], {name: x for name, x in top.items() if name != key}
        at = f"its {shown(key)}"
        if isinstance(value, (list, tuple)):
            found = _of_list(value, beside, at)
        elif (found := _by_step(as_mapping(value), at)) is not None:
            found = replace(found, beside={**beside, **found.beside})
        if found is not None:
            return replace(
                found,
                without_step=(*found.without_step, *(
                    shown(key) for key, x in beside.items()
                    if holds_weights({key: x}) or holds_weights(x)
                )),
                others=tuple(shown(key) for key, x in beside.items() if _is_series(x)),
            )  # fmt: skip
    return None


def _is_series(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(holds_weights(state) for _, state in map(_pair, value[:MOST_LOOKED_AT]))
    return isinstance(value, Mapping) and _by_step(value, "") is not None


def _by_step(data: Mapping[Any, Any], at: str) -> Series | None:
    """A dictionary by step, if that is what it is."""
    steps = {key: step for key in data if (step := _step_of_key(key)) is not None}
    states = {key: _pair(data[key])[1] for key in steps}  # (state, loss) is its state
    if not any(map(holds_weights, states.values())):
        return None
    entries = tuple(Entry(shown(key), states[key], step) for key, step in steps.items())
    beside = {key: x for key, x in data.items() if key not in steps}
    others = tuple(shown(key) for key, x in beside.items() if holds_weights(x))
    return Series(entries, at, beside, others)


def _step_of_key(key: Any) -> StepFound | None:
    """The step that a key is.

    >>> [_step_of_key(x).number for x in (100, "00100", "step_100", "epoch_3")]
    [100, 100, 100, 3]
    >>> _step_of_key("layer_1") is _step_of_key("best") is _step_of_key(True) is None
    True
    """
    if isinstance(key, str) and (found := _STEP.fullmatch(key)):
        word = (found[1] or "").lower()
        return StepFound(int(found[2]), word if word in _COUNTS else None, inside=False)
    whole = isinstance(key, (int, float)) and not isinstance(key, bool) and key % 1 == 0
    if not whole or not 0 <= key < LARGEST_STEP:
        return None
    return StepFound(int(key), None, inside=False)


def _of_list(data: Sequence[Any], beside: Mapping[Any, Any], at: str) -> Series | None:
    """A list of checkpoints, each with the step that a list beside them says."""
    pairs = [_pair(each) for each in data]
    if not any(holds_weights(state) for _, state in pairs):
        return None
    listed = [step for step, _ in pairs]
    if None in listed:
        listed = steps_beside(beside, len(data)) or [None] * len(data)
    entries = (
        Entry(f"number {i}", state, step)
        for i, ((_, state), step) in enumerate(zip(pairs, listed, strict=True))
    )
    return Series(tuple(entries), at or "its list", beside)


def _pair(entry: Any) -> tuple[StepFound | None, Any]:
    """An entry of a list, and the step in it where it is (step, state), (state, step, loss) ..."""
    if not isinstance(entry, (list, tuple)) or not 2 <= len(entry) <= 4:
        return None, entry
    states = [x for x in entry if isinstance(x, Mapping)]
    beside = [x for x in entry if not isinstance(x, Mapping)]
    if len(states) != 1:
        return None, entry
    if all(isinstance(x, (int, float)) for x in beside):
        return _step_of_key(next((x for x in beside if isinstance(x, int)), beside[0])), states[0]
    return (_step_of_key(beside[0]), states[0]) if len(beside) == 1 else (None, entry)


def steps_beside(beside: Mapping[Any, Any], n: int) -> list[StepFound | None] | None:
    """The steps of n checkpoints in a list beside them, that of checkpoints before others."""
    possible = []
    groups = [as_mapping(value) for key, value in beside.items() if key in GROUPS]
    for key, value in chain(beside.items(), *(group.items() for group in groups)):
        words = words_of(key) if isinstance(key, str) else ()
        axis = next((word for word in words if word in AXES), None)
        if axis is None or not set(words) <= AXES | OF_SAVES | {"global", "at", "of", "list"}:
            continue
        if isinstance(value, Sequence | np.ndarray) or hasattr(value, "shape"):
            steps = numbers_in(value)
            if steps is not None and _are_steps(steps, n):
                order = (not OF_SAVES.intersection(words), counts_epochs(axis))
                possible.append((order, axis.removesuffix("s"), [int(x) for x in steps]))
    if not possible:
        return None
    _, word, numbers = min(possible)
    return [StepFound(number, word, inside=True) for number in numbers]


def _are_steps(found: np.ndarray, n: int) -> bool:
    whole = found.ndim == 1 and len(found) == n and np.isfinite(found).all()
    return bool(
        whole and not (found % 1).any() and (found >= 0).all() and (found < LARGEST_STEP).all()
        and len(np.unique(found)) == n
    )  # fmt: skip


def series_source(path: Path, series: Series, *, metrics: str | None) -> Source:
    """Several checkpoints of one file, with what stands beside them and next to the file."""
    checkpoints = Checkpoints()
    for label in series.without_step:
        checkpoints.leave_out("have no step", label)
    for label in series.others:
        checkpoints.leave_out("are another series of checkpoints", label)
    refuse_too_many((_size(entry.data) for entry in series.entries), path)
    parts = list(_parts(path, series))
    refuse_mostly_shared([part.state() for part in parts], path)
    known = all(part.step is not None for part in parts)
    for i, part in enumerate(parts):
        step = part.step if known else None
        checkpoints.add(part, step or StepFound(i, None, inside=False))
    companions = companions_of(path, epochs=checkpoints.last.in_epochs, metrics=metrics)
    own = contents_of(series.beside)
    own = replace(
        own, step=None, losses={}, configs=((str(path), own.config),),
        notes=(*own.notes, *objects_in(series.beside)),
    )  # fmt: skip
    companions = replace(companions, contents=own.over(companions.contents, its_own=False))
    if known:
        source = checkpoints.source(path, "steps", companions)
        plain = [x.step.number for x in series.entries if x.step and _is_plain(x.step)]
        if not plain:
            return source
        note = (
            f"the numbers by which its checkpoints are kept, {min(plain)} to {max(plain)}, are "
            "taken to be steps"
        )
        return replace(source, notes=(note, *source.notes))
    source = checkpoints.source(path, "steps", _at_positions(companions, len(parts)))
    note = (
        f"nobody says the steps of its {len(parts)} checkpoints: they stand at their positions 0 "
        f"to {len(parts) - 1}, which date nothing{_other_lengths(series)}"
    )
    return replace(source, steps_known=False, notes=(note, *source.notes))


def _parts(path: Path, series: Series) -> Iterator[Checkpoint]:
    """What every entry says; what holds no weights is refused."""
    for entry in series.entries:
        label = one_line(f"{series.at}, {entry.label}" if series.at else f"its {entry.label}")
        where = f"{path}, {label}"
        state = weights_in(entry.data, where)
        part = checkpoint_of(
            entry.data, where=where, name=label, stem="", state=partial(_given, state)
        )
        if entry.step is not None:
            part = replace(part, step=entry.step, other=None, named=True)
        yield part


def _other_lengths(series: Series) -> str:
    """What is said of lists beside checkpoints that have steps by their names, but not as many."""
    lengths = [
        f"{shown(key)} has {len(value)}"
        for key, value in series.beside.items()
        if isinstance(key, str) and {*words_of(key)} & AXES and isinstance(value, (list, tuple))
        if len(value) != len(series.entries)
    ]
    return f"; {', '.join(lengths[:2])}" if lengths else ""


def _is_plain(step: StepFound) -> bool:
    return step.word is None and not step.inside


def _size(entry: Any) -> int:
    """How many things are in an entry, and in its parts."""
    held = as_mapping(entry)
    return len(held) + sum(len(as_mapping(x)) for x in held.values())


def _given(state: StateDict) -> StateDict:
    return state


def _at_positions(companions: Companions, n: int) -> Companions:
    """Of what is logged, that with one entry a checkpoint: the steps of all else are not theirs."""
    lists = companions.contents.lists
    kept = {x: v for x, v in lists.items() if not isinstance(v, LossCurve) and len(v) == n}
    left = sorted({*lists} - {*kept}) + (["a log"] if companions.log is not None else [])
    note = f"left out, as nobody says the steps of the checkpoints: {', '.join(left)}"
    contents = replace(companions.contents, lists=kept)
    return Companions(contents, None, (*companions.notes, *((note,) if left else ())))
