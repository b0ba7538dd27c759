"""Which runs lie in a folder, such as the one of a sweep or of controls, and which are alike?"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from grokinterp.base.errors import InputError, named, one_line
from grokinterp.progress.phases import Phases, phases_of_metrics
from grokinterp.reading._load import Subject, run_of
from grokinterp.recipe.keys import SAME_SETTING
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import RUN_JSON, is_run_folder
from grokinterp.runs.run import Run

NAMED = 4  # runs in a note

Runs = Subject | Sequence[Subject] | Mapping[str, Subject]


class RunsByName(dict[str, Run]):
    """Runs by name, in order; `notes` say what was left out, and why."""

    def __init__(self, runs: Mapping[str, Run] | None = None, notes: Sequence[str] = ()) -> None:
        super().__init__(runs or {})
        self.notes = tuple(notes)


def runs_in(x: Runs, **about: Any) -> RunsByName:
    """The runs that were given, by name: a run, a dict or a list of them, or a folder of runs.

    A folder of runs is one that has run folders in it, at any depth, as sweeps write them; the
    name of each is its path from there. What is damaged or unfinished in it is left out, with a
    note (a training that diverged has come to its end), and so is what is no run folder, without
    one. A list may have such folders among its runs; what is given by itself is taken as it is,
    finished or not. `about` is the task and the split of what does not know its own. InputError
    where nothing is left, and for two runs of one name: give a dict.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> list(runs_in([run])), list(runs_in({"mine": run}))
    (['mod31-small'], ['mine'])
    """
    if isinstance(x, Mapping):
        given = [(str(name), one) for name, one in x.items()]
        found = {name: run_of(one, **about) for name, one in given}
        return RunsByName(_some(found, x))
    if not isinstance(x, Sequence) or isinstance(x, str):
        return _of_one(x, about)
    runs, notes = RunsByName(), list[str]()
    for each in x:
        more = _of_one(each, about)
        notes += more.notes
        if twice := [name for name in more if name in runs]:
            raise InputError(
                f"two runs have folders of one name ({twice[0]}); give a dict of names and runs."
            )
        runs.update(more)
    return RunsByName(_some(runs, x), notes)


def _of_one(x: Subject, about: Mapping[str, Any]) -> RunsByName:
    """The runs of a folder of them; everything else is one run."""
    if isinstance(x, str | Path) and (folders := list(_run_folders(Path(x)))):
        return _of_folder(Path(x), folders)
    run = run_of(x, **about)
    return RunsByName({run.path.name: run})


def _run_folders(folder: Path) -> Iterator[Path]:
    """The run folders in a folder that is none itself, in order; hidden ones left out."""
    if not folder.is_dir() or is_run_folder(folder):
        return
    for file in sorted(folder.rglob(RUN_JSON)):
        inside = file.parent.relative_to(folder)
        if not any(part.startswith(".") for part in inside.parts) and is_run_folder(file.parent):
            yield file.parent


def _of_folder(folder: Path, folders: Sequence[Path]) -> RunsByName:
    runs, notes = dict[str, Run](), list[str]()
    for path in folders:
        name = path.relative_to(folder).as_posix()
        try:
            run = Run(path)
        except InputError as error:
            notes.append(
                f"left out: {name}, which cannot be read ({one_line(str(error), most=160)})"
            )
            continue
        if run.finished or has_diverged(run):
            runs[name] = run
        else:
            notes.append(f"left out: {name}, which is unfinished, at step {run.steps[-1]}")
    if not runs:
        raise InputError(f"{folder} has no finished run; {notes[0]}.")
    return RunsByName(runs, notes)


def has_diverged(run: Run) -> bool:
    """Whether its training ended because weights or losses were no longer finite."""
    losses = run.metrics["train_loss"]
    return len(losses) > 0 and not math.isfinite(losses.iloc[-1])


def _some(runs: Mapping[str, Run], x: object) -> Mapping[str, Run]:
    if not runs:
        raise InputError(f"{named(x)} is no run; give gi.load(path), a list of them, or a folder.")
    return runs


def alike(
    runs: Mapping[str, Run], *, but: Collection[str], of: Collection[str] = ()
) -> tuple[dict[str, Run], list[str]]:
    """The runs whose recipes agree in all keys but some, and notes about the others.

    They may differ in `but`, in seeds, and in how long and how training was watched. Where there
    are several such groups, the largest one is taken, by how many of the runs named in `of` are in
    it; a run without a recipe agrees with those that have none.
    """
    differs = {*but, *SAME_SETTING}
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        groups.setdefault(repr(_rest(run.recipe, differs)), []).append(name)
    if len(groups) < 2:
        return dict(runs), []
    largest = max(groups.values(), key=lambda those: (len({*of} & {*those}), len(those)))
    kept = {name: runs[name] for name in largest}
    usual = _rest(runs[largest[0]].recipe, differs)
    others: dict[str, list[str]] = {}
    for name in (name for name in runs if name not in kept):
        rest = _rest(runs[name].recipe, differs)
        keys = sorted(key for key in {*rest, *usual} if rest.get(key) != usual.get(key))
        reason = f"other {', '.join(keys)}" if rest and usual else "no recipe, as the others have"
        others.setdefault(reason, []).append(name)
    return kept, [left_out(names, why) for why, names in others.items()]


def left_out(names: Sequence[str], why: str) -> str:
    """The note about runs that are not looked at.

    >>> left_out(["a", "b"], "other lr"), left_out(list("abcdef"), "other lr")
    ('left out: a, b (other lr)', 'left out: a, b, c, d and 2 more (other lr)')
    """
    more = f" and {len(names) - NAMED} more" * (len(names) > NAMED)
    return f"left out: {', '.join(names[:NAMED])}{more} ({why})"


def budgets(runs: Iterable[Run]) -> tuple[int, int] | None:
    """The least and the largest number of updates that these runs had; None without a run."""
    steps = [run.steps[-1] for run in runs]
    return (min(steps), max(steps)) if steps else None


def dated(run: Run) -> Phases | None:
    """When a run learned, by its log alone; None where nothing finite was logged."""
    with suppress(InputError):
        return phases_of_metrics(run)
    return None


def _rest(recipe: Recipe | None, differs: Collection[str]) -> dict[str, Any]:
    """The keys of a recipe in which runs must agree; none without a recipe."""
    values = {} if recipe is None else recipe.to_dict()
    return {key: value for key, value in values.items() if key not in differs}
