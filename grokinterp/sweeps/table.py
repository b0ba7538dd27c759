"""The table of a sweep: a row per run, as results.csv and results.parquet, whole after every run.

`measured` says what a row tells of a run: when it learned, what it learned, and the measures that
are asked for by name, any of `RUN_MEASURES`.
"""

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.base.errors import InputError, one_line, shown, whole_number
from grokinterp.base.files import sha256
from grokinterp.base.paths import as_path, kind_at, reaching
from grokinterp.encodings import run_measures as of_encodings  # noqa: F401 - registers them
from grokinterp.fourier._key_frequencies import key_frequencies
from grokinterp.models.architecture import all_finite
from grokinterp.progress import run_measures as of_progress  # noqa: F401 - registers them
from grokinterp.progress.measures import MEASURES, Columns, checked_measures
from grokinterp.progress.phases import phases_of_metrics
from grokinterp.reading._load import RunOrPath, run_of
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import RUN_JSON
from grokinterp.runs.run import Run
from grokinterp.sweeps.executors import NOTE, Made
from grokinterp.sweeps.storage import Place
from grokinterp.sweeps.sweep import VARIANT, Sweep

PHASES = ("memorization", "circuit_formation", "cleanup")
DATES = ("t_train", "t_test", "memorization_step", "grok_step")
LAST = ("train_loss", "test_loss", "train_acc", "test_acc", "test_acc_unmirrored")


class _RunMeasures(Mapping[str, Callable[[Run], Any]]):
    """The functions of the measures of runs by name, as the registry has them now."""

    def _now(self) -> dict[str, Callable[[Run], Any]]:
        return {name: entry.function for name, entry in MEASURES.items() if entry.scope == "run"}

    def __getitem__(self, name: str) -> Callable[[Run], Any]:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


RUN_MEASURES = _RunMeasures()


def measuring(names: Sequence[str]) -> Callable[[Run], Columns]:
    """`measured` with these names, checked now: what `run_sweep` takes as `measure`.

    >>> import grokinterp as gi
    >>> measure = gi.sweeps.measuring(["compressibility"])
    >>> round(measure(gi.load("mod31-small"))["c"], 2)
    2.05
    """
    checked_measures("names", names, "run")
    return partial(measured, names=tuple(names))


def measured(run: RunOrPath, names: Sequence[str] = ()) -> Columns:
    """A row of a table of runs: when it learned, what it learned, and the measures named.

    label; t_train and t_test, in updates (Definition 1 on curves smoothed by a running median);
    memorization_step and grok_step (crossings of the usual thresholds) and the ends of the phases,
    all as `detect_phases` has them from the metrics; losses in nats and accuracies of the last
    logged step, with test_acc_unmirrored where the run logs it; best_test_acc over the log,
    unsmoothed; key_frequencies of the last checkpoint, () where it has no sparse circuit that
    reaches inputs it was not trained on, None where they are not defined; then the columns of
    `names` from `RUN_MEASURES`. What could not be measured of this model has no column, and `note`
    says why ("" else): also that unmirrored test pairs refused the frequencies, and that a run
    diverged, whose weights are not measured. InputError for unknown names and for a run without
    metrics.

    t_train and t_test are of the run's own best, which need not be good: read them with the label.

    >>> import grokinterp as gi
    >>> row = gi.sweeps.measured(gi.load("mod31-small"), ["sizes"])
    >>> row["label"], row["t_train"], row["t_test"], row["key_frequencies"], row["bytes"]
    ('grokked', 240, 4620, (1, 8, 14), 7246)
    """
    run = run_of(run)
    names = checked_measures("names", names, "run")
    if run.metrics.empty:
        raise InputError(f"{run.path} has no metrics; import the run with metrics=FILE.csv.")
    phases = phases_of_metrics(run)
    ends = {phase.name: phase.end for phase in phases.phases or ()}
    last = run.metrics.iloc[-1]
    row: Columns = {
        "label": phases.label,
        **{name: getattr(phases, name) for name in DATES},
        **{f"{name}_end": ends.get(name) for name in PHASES},
        **{column: float(last[column]) for column in LAST if column in run.metrics},
        "best_test_acc": float(run.metrics.test_acc.max()),
        "key_frequencies": None,
    }
    if not all_finite(run.architecture.parameters(run.weights())):
        return row | {"note": f"it diverged: weights of step {run.steps[-1]} are not finite"}
    keys = key_frequencies(run.snapshot())
    row["key_frequencies"] = keys.frequencies
    notes = [f"key frequencies: {keys.reason}"] if keys.rejected else list(keys.notes)
    for name in names:
        try:
            row |= MEASURES[name].columns_of_run(run)
        except InputError as error:
            notes.append(f"{name}: {error}")
    return row | {"note": "; ".join(notes)}


RESULTS = "results.csv"
PARQUET = "results.parquet"
RUN, FINGERPRINT = "run", "fingerprint"  # with the note, the columns that every table has
UNREADABLE = "\ufffd"  # what stands for a byte that is no text
TRUTHS = {"True": True, "False": False}

CSVRow = dict[str, str]  # cells as the file has them, so that a row read back is the row written


class SweepTable:
    """The rows of a sweep that hold, in the order of its runs.

    A row holds while its fingerprint is that of its cells, of its run's run.json (which has the
    sha256 of the run's files) and of the names of what was measured, and its keys are those of the
    recipe. The others leave the table: what they say is measured again.
    """

    def __init__(self, sweep: Sweep, place: Place, *, measured: bool) -> None:
        self._place = place
        self._keys = sweep.keys
        self._first = [RUN, *([VARIANT] if sweep.variants else []), *sweep.keys]
        self._measures = ",".join(sweep.measures) if measured else "nothing"
        self._members = sweep.members()
        content = place.read(RESULTS)
        there = {} if content is None else self._read(content)
        held = (name for name in self._members if name in there and self._holds(there[name]))
        self.rows = {name: there[name] for name in held}

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, name: str) -> bool:
        """Whether a run is trained and measured whole."""
        return name in self.rows and not self.rows[name][NOTE]

    def put(self, made: Made) -> CSVRow:
        """Take the row of a run that was made, and write the table."""
        own = self._own(made.name)
        if taken := [column for column in made.found if column in {*own, FINGERPRINT}]:
            raise InputError(
                f"measure returns {shown(taken[0])}, a column that every table has; rename it."
            )
        values = {NOTE: "", **own, **made.found}
        row = {column: cell(value) for column, value in values.items()}
        row[FINGERPRINT] = self._fingerprint(row, made.run_json)
        self.rows[made.name] = row
        self.rows = {name: self.rows[name] for name in self._members if name in self.rows}
        self.write()
        return row

    def write(self) -> None:
        """Put both files there, where they differ."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, self._columns(), restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows.values())
        self._place.write(RESULTS, text.getvalue().encode())
        self._place.write(PARQUET, self.frame().to_parquet(engine="pyarrow", index=False))

    def frame(self) -> pd.DataFrame:
        """The table with numbers where a column has nothing else, to the last bit of the file."""
        frame = pd.DataFrame(list(self.rows.values()), columns=self._columns()).fillna("")
        for column in frame.columns.difference([RUN, VARIANT, NOTE, FINGERPRINT]):
            for kind in (TRUTHS.__getitem__, int, float):
                with contextlib.suppress(KeyError, ValueError):
                    frame[column] = [kind(cell) if cell else math.nan for cell in frame[column]]
                    break
        return frame

    def _columns(self) -> list[str]:
        ends = (NOTE, FINGERPRINT)
        rows = self.rows.values()
        measured = dict.fromkeys(column for row in rows for column in row if column not in ends)
        return [*dict.fromkeys([*self._first, *measured]), *ends]

    def _own(self, name: str) -> CSVRow:
        """The cells that follow from the sweep: the run's name, and what varies."""
        variant, recipe = self._members[name]
        values = [name, *([variant] if variant else []), *(getattr(recipe, k) for k in self._keys)]
        return dict(zip(self._first, map(cell, values), strict=True))

    def _holds(self, row: CSVRow) -> bool:
        name = row[RUN]
        run_json = self._place.read(f"{name}/{RUN_JSON}") or b""
        if row[FINGERPRINT] != self._fingerprint(row, run_json):
            return False
        try:
            content = json.loads(run_json)
            recipe = Recipe.from_dict(content["recipe"])
        except (ValueError, LookupError, TypeError):  # an InputError too: training says it better
            return False
        return (
            row.items() >= self._own(name).items()
            and content.get("finished") is True
            and recipe == self._members[name][1]
            and self._place.has(name, content["sha256"])
        )

    def _fingerprint(self, row: CSVRow, run_json: bytes) -> str:
        """What a row rests on, and its cells; "" where there is no run."""
        if not run_json:
            return ""
        cells = sorted((key, text) for key, text in row.items() if text and key != FINGERPRINT)
        return sha256(run_json + json.dumps([self._measures, cells]).encode())[:16]

    def _read(self, content: bytes) -> dict[str, CSVRow]:
        """The rows of a table by run; a damaged cell is left to the fingerprint of its row."""
        file = f"{self._place}/{RESULTS}"
        advice = "move it away, and the rows are measured again."
        try:
            text = content.decode(errors="replace")
            lines = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise InputError(f"{file} is damaged ({error}); {advice}") from None
        header = lines[0] if lines else []
        first, last = header[: len(self._first)], header[-2:]
        if UNREADABLE in "".join(header):
            raise InputError(f"{file} is damaged (its first line is no text); {advice}")
        own = first == self._first and last == [NOTE, FINGERPRINT]
        if not own or len({*header}) < len(header):
            raise InputError(f"{file} has other columns than this sweep's; {advice}")
        found: dict[str, CSVRow] = {}
        for line in lines[1:]:
            if len(line) != len(header) or line[0] not in self._members or line[0] in found:
                told = ascii(",".join(line)[:60])
                raise InputError(f"{file} is damaged (row {told}); {advice}")
            found[line[0]] = dict(zip(header, line, strict=True))
        return found


def read_results(path: str | Path) -> pd.DataFrame:
    """The table of a sweep that was run, by its folder or its results.csv."""
    path = as_path("path", path, such_as="runs/sweep")
    file = path / RESULTS if path.is_dir() else path
    if kind_at(file) != "file":
        give = "the folder that run_sweep wrote, or its table"
        raise InputError(f"{file} does not exist; give {give}.")
    with reaching(file):
        content = file.read_bytes()
    try:
        return pd.read_csv(io.BytesIO(content))
    except ValueError as error:
        raise InputError(f"{file} is no table of a sweep ({one_line(str(error))}).") from None


def has_failed(row: Mapping[Any, Any]) -> bool:
    """Whether a row is of a run that could not be trained, or could not be measured at all.

    Its note says why. A note alone does not make a failure: it may say what one measure lacked.
    """
    return row[NOTE] != "" and row[FINGERPRINT] == ""


def cell(value: object) -> str:
    """A value as a table has it: numbers to their last bit, NaN and None empty."""
    if value is None or value != value:
        return ""
    if (whole := whole_number(value)) is not None:
        return str(whole)
    if isinstance(value, float):  # numpy's float64 too, which its own repr would name
        return repr(float(value))
    return str(list(value) if isinstance(value, tuple) else value)
