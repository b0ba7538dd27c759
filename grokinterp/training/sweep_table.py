"""Train and measure a sweep: a folder of runs and one table, whole after every run."""

import contextlib
import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from grokinterp.errors import InputError, Interrupted, whole_number
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.files import sha256, write_whole
from grokinterp.runs.manifest import RUN_JSON
from grokinterp.runs.run import Run
from grokinterp.training.loop import refuse_another_recipe, train
from grokinterp.training.sweep import Sweep

RESULTS = "results.csv"
SWEEP = "sweep.toml"
TRUTHS = {"True": True, "False": False}
RUN, NOTE, FINGERPRINT = "run", "note", "fingerprint"  # the columns that every table has

Row = dict[str, str]  # cells as the file has them, so that a row read back is the row written
Measure = Callable[[Run], Mapping[str, object]]


def run_sweep(
    sweep: Sweep, out: str | Path, *, measure: Measure | None = None, progress: bool = True
) -> pd.DataFrame:
    """Train every recipe of a sweep into `out`/NAME, measure it, and return `out`/results.csv.

    A row a run: run, the keys that vary, what `measure` returns for the run (it may have a `note`),
    note, fingerprint. What is there already is not done again: finished runs are not trained,
    unfinished ones go on, and a row stays while its fingerprint, a sha256 of the run's run.json
    (which has those of its files) and of `sweep.measures`, is that of its run, its keys are those
    of the recipe, and its note is empty. Rows that were measured otherwise leave the table. The
    file is written whole after every run, and `out`/sweep.toml has the sweep: `out` takes another
    one only if it has all of those runs under the same names, so more values are fine.

    A run that cannot be trained or measured keeps its row, and its note says why; it is tried again
    the next time. `measure` is trusted to be the one that measured the rows: delete results.csv to
    use another under the same names. Ctrl-C raises `Interrupted`; nothing is lost. InputError for
    an `out` of another sweep, and for a results.csv that is damaged or has other columns.
    """
    if not isinstance(sweep, Sweep):
        raise InputError(f"{type(sweep).__name__} is no sweep; give Sweep.from_toml(path).")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder for the runs.")
    recipes = sweep.recipes()
    _refuse_another_sweep(folder, recipes)
    names = ",".join(sweep.measures) if measure is not None else "nothing"
    marks = {name: _fingerprint(folder / name, names) for name in recipes}
    rows = {
        name: row
        for name, row in _read(folder / RESULTS, keys=sweep.keys, runs=recipes).items()
        if row[FINGERPRINT] == marks[name] != ""
        and row.items() >= _own(name, recipes[name], sweep.keys).items()
    }
    if not (folder / SWEEP).is_file() or (folder / SWEEP).read_text() != sweep.to_toml():
        write_whole(folder / SWEEP, sweep.to_toml().encode())
    for name, recipe in recipes.items():
        mark, found = "", {}
        try:
            run = train(recipe, folder / name, resume=True, progress=progress)
            if name in rows and not rows[name][NOTE]:
                continue
            found = {} if measure is None else dict(measure(run))
            mark = _fingerprint(folder / name, names)
        except InputError as error:
            found = {NOTE: str(error)}
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped at {name}, with {len(rows)} of {len(recipes)} runs in the table; nothing "
                f"is lost, sweep into {folder} again to go on."
            ) from None
        own = _own(name, recipe, sweep.keys)
        if taken := [column for column in found if column in {*own, FINGERPRINT}]:
            raise InputError(f"measure returns {taken[0]!r}, a column of its own; rename it.")
        values = {NOTE: "", **own, **found, FINGERPRINT: mark}
        rows[name] = {column: _cell(value) for column, value in values.items()}
        rows = {other: rows[other] for other in recipes if other in rows}
        _write(folder / RESULTS, list(rows.values()), sweep.keys)
    return _typed(list(rows.values()), sweep.keys)


def _own(name: str, recipe: Recipe, keys: Iterable[str]) -> Row:
    """The cells of a row that follow from the recipe: the run's name, and the keys that vary."""
    return {RUN: name} | {key: _cell(getattr(recipe, key)) for key in keys}


def _refuse_another_sweep(folder: Path, recipes: Mapping[str, Recipe]) -> None:
    if not (folder / SWEEP).is_file():
        return
    for name, there in Sweep.from_toml(folder / SWEEP).recipes().items():
        if name not in recipes:
            raise InputError(
                f"{folder} holds another sweep: {name} is not asked for; give another folder, or a "
                "sweep with all of its runs."
            )
        refuse_another_recipe(folder / name, there, recipes[name])


def _fingerprint(run: Path, measures: str) -> str:
    """What a row rests on; "" where there is no run."""
    path = run / RUN_JSON
    return sha256(path.read_bytes() + measures.encode())[:16] if path.is_file() else ""


def _read(path: Path, *, keys: tuple[str, ...], runs: Mapping[str, object]) -> dict[str, Row]:
    """The rows of a table by run; none where there is no file."""
    if not path.exists():
        return {}
    advice = "move it away, and the rows are measured again."
    try:
        lines = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); {advice}") from None
    header = lines[0] if lines else []
    first, last = header[: 1 + len(keys)], header[-2:]
    if first != [RUN, *keys] or last != [NOTE, FINGERPRINT] or len({*header}) < len(header):
        raise InputError(f"{path} has other columns than this sweep's; {advice}")
    found = {}
    for line in lines[1:]:
        if len(line) != len(header) or line[0] not in runs or line[0] in found:
            raise InputError(f"{path} is damaged (row {','.join(line)[:60]!r}); {advice}")
        found[line[0]] = dict(zip(header, line, strict=True))
    return found


def _columns(rows: Iterable[Row], keys: tuple[str, ...]) -> list[str]:
    ends = (NOTE, FINGERPRINT)
    measured = dict.fromkeys(column for row in rows for column in row if column not in ends)
    return [*dict.fromkeys([RUN, *keys, *measured]), *ends]


def _write(path: Path, rows: list[Row], keys: tuple[str, ...]) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, _columns(rows, keys), restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, text.getvalue().encode())


def _typed(rows: list[Row], keys: tuple[str, ...]) -> pd.DataFrame:
    """The table with numbers where a column has nothing else, to the last bit of the file."""
    frame = pd.DataFrame(rows, columns=_columns(rows, keys)).fillna("")
    for column in frame.columns.difference([RUN, NOTE, FINGERPRINT]):
        for kind in (TRUTHS.__getitem__, int, float):
            with contextlib.suppress(KeyError, ValueError):
                frame[column] = [kind(cell) if cell else math.nan for cell in frame[column]]
                break
    return frame


def _cell(value: object) -> str:
    """A value as a table has it: numbers to their last bit, NaN and None empty."""
    if value is None or value != value:
        return ""
    if (whole := whole_number(value)) is not None:
        return str(whole)
    if isinstance(value, float):  # numpy's float64 too, which its own repr would name
        return repr(float(value))
    return str(list(value) if isinstance(value, tuple) else value)
