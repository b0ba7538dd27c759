"""The table of a sweep: a row a run, as results.csv and results.parquet, whole after every run."""

import contextlib
import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from grokinterp.errors import InputError, shown, whole_number
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.files import sha256
from grokinterp.runs.manifest import RUN_JSON
from grokinterp.training.executors import NOTE, Made
from grokinterp.training.places import Place
from grokinterp.training.sweep import Sweep

RESULTS = "results.csv"
PARQUET = "results.parquet"
RUN, FINGERPRINT = "run", "fingerprint"  # with the note, the columns that every table has
UNREADABLE = "\ufffd"  # what stands for a byte that is no text
TRUTHS = {"True": True, "False": False}

Row = dict[str, str]  # cells as the file has them, so that a row read back is the row written


class SweepTable:
    """The rows of a sweep that hold, in the order of its runs.

    A row holds while its fingerprint is that of its cells, of its run's run.json (which has the
    sha256 of the run's files) and of the names of what was measured, and its keys are those of the
    recipe. The others leave the table: what they say is measured again.
    """

    def __init__(self, sweep: Sweep, place: Place, *, measured: bool) -> None:
        self._place = place
        self._keys = sweep.keys
        self._measures = ",".join(sweep.measures) if measured else "nothing"
        self._recipes = sweep.recipes()
        content = place.read(RESULTS)
        there = {} if content is None else self._read(content)
        self.rows = {name: there[name] for name in self._recipes if name in there}
        self.rows = {name: row for name, row in self.rows.items() if self._holds(row)}

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, name: str) -> bool:
        """Whether a run is trained and measured whole."""
        return name in self.rows and not self.rows[name][NOTE]

    def put(self, made: Made) -> Row:
        """Take the row of a run that was made, and write the table."""
        own = self._own(made.name)
        if taken := [column for column in made.found if column in {*own, FINGERPRINT}]:
            raise InputError(f"measure returns {shown(taken[0])}, a column of its own; rename it.")
        values = {NOTE: "", **own, **made.found}
        row = {column: cell(value) for column, value in values.items()}
        row[FINGERPRINT] = self._fingerprint(row, made.run_json)
        self.rows[made.name] = row
        self.rows = {name: self.rows[name] for name in self._recipes if name in self.rows}
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
        for column in frame.columns.difference([RUN, NOTE, FINGERPRINT]):
            for kind in (TRUTHS.__getitem__, int, float):
                with contextlib.suppress(KeyError, ValueError):
                    frame[column] = [kind(cell) if cell else math.nan for cell in frame[column]]
                    break
        return frame

    def _columns(self) -> list[str]:
        ends = (NOTE, FINGERPRINT)
        rows = self.rows.values()
        measured = dict.fromkeys(column for row in rows for column in row if column not in ends)
        return [*dict.fromkeys([RUN, *self._keys, *measured]), *ends]

    def _own(self, name: str) -> Row:
        """The cells that follow from the recipe: the run's name, and the keys that vary."""
        recipe = self._recipes[name]
        return {RUN: name} | {key: cell(getattr(recipe, key)) for key in self._keys}

    def _holds(self, row: Row) -> bool:
        run_json = self._place.read(f"{row[RUN]}/{RUN_JSON}") or b""
        return (
            row.items() >= self._own(row[RUN]).items()
            and row[FINGERPRINT] == self._fingerprint(row, run_json)
            and _is_finished(run_json, self._recipes[row[RUN]])
            and self._place.has(row[RUN], json.loads(run_json)["sha256"])
        )

    def _fingerprint(self, row: Row, run_json: bytes) -> str:
        """What a row rests on, and its cells; "" where there is no run."""
        if not run_json:
            return ""
        cells = sorted((key, text) for key, text in row.items() if text and key != FINGERPRINT)
        return sha256(run_json + json.dumps([self._measures, cells]).encode())[:16]

    def _read(self, content: bytes) -> dict[str, Row]:
        """The rows of a table by run; a damaged cell is left to the fingerprint of its row."""
        file = f"{self._place}/{RESULTS}"
        advice = "move it away, and the rows are measured again."
        try:
            text = content.decode(errors="replace")
            lines = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise InputError(f"{file} is damaged ({error}); {advice}") from None
        header = lines[0] if lines else []
        first, last = header[: 1 + len(self._keys)], header[-2:]
        if UNREADABLE in "".join(header):
            raise InputError(f"{file} is damaged (its first line is no text); {advice}")
        own = first == [RUN, *self._keys] and last == [NOTE, FINGERPRINT]
        if not own or len({*header}) < len(header):
            raise InputError(f"{file} has other columns than this sweep's; {advice}")
        found: dict[str, Row] = {}
        for line in lines[1:]:
            if len(line) != len(header) or line[0] not in self._recipes or line[0] in found:
                told = ascii(",".join(line)[:60])
                raise InputError(f"{file} is damaged (row {told}); {advice}")
            found[line[0]] = dict(zip(header, line, strict=True))
        return found


def has_failed(row: Mapping[Any, Any]) -> bool:
    """Whether a row is of a run that could not be trained, or could not be measured at all.

    Its note says why. A note alone does not make a failure: it may say what one measure lacked.
    """
    return row[NOTE] != "" and row[FINGERPRINT] == ""


def _is_finished(run_json: bytes, recipe: Recipe) -> bool:
    """Whether a run is whole, and of this recipe, as far as its run.json says."""
    try:
        content = json.loads(run_json)
        return content["finished"] is True and Recipe.from_dict(content["recipe"]) == recipe
    except (ValueError, LookupError, TypeError):  # an InputError too: training says it better
        return False


def cell(value: object) -> str:
    """A value as a table has it: numbers to their last bit, NaN and None empty."""
    if value is None or value != value:
        return ""
    if (whole := whole_number(value)) is not None:
        return str(whole)
    if isinstance(value, float):  # numpy's float64 too, which its own repr would name
        return repr(float(value))
    return str(list(value) if isinstance(value, tuple) else value)
