"""Date every run in a folder and write one table: a row a run.

    python examples/phases_of_a_folder.py FOLDER [--out table.csv]

Runs are whatever `grokinterp phases` takes: run folders, checkpoints that others trained, CSV files
of curves; a run folder given as FOLDER is dated itself. What cannot be read is one line on standard
error, and the rest goes on. Exit status: 0 done (also where some could not be read), 2 if nothing
could be, 130 interrupted.
"""

import argparse
import os
import sys
from pathlib import Path

import pandas as pd

import grokinterp as gi

PHASES = ("memorization", "circuit_formation", "cleanup")
WHOLE = ["memorization_step", "grok_step", *(f"{name}_end" for name in PHASES)]
COLUMNS = ["name", "label", *WHOLE, "key_frequencies", "reason"]


def shown(said: object) -> str:
    """One line of text that any table takes, also of a file's name that is not UTF-8."""
    return os.fsencode(str(said)).decode("utf-8", "backslashreplace").replace("\n", "\\n")


def row(path: Path) -> dict[str, object]:
    """The phases of one run, or of one CSV of curves; InputError where it is neither."""
    if not (path.is_file() or path.is_dir()):  # reading a pipe would wait for ever
        raise gi.InputError("neither a file nor a folder.")
    found = gi.detect_phases(path)
    ends, keys = {phase.name: phase.end for phase in found.phases}, found.key_frequencies
    return {
        "name": shown(path.name),
        "label": found.label,
        "memorization_step": found.memorization_step,
        "grok_step": found.grok_step,
        **{f"{name}_end": ends.get(name) for name in PHASES},
        "key_frequencies": None if keys is None else " ".join(map(str, keys)) or "none",
        "reason": next(iter(found.reasons), None),
    }


def table(folder: Path) -> pd.DataFrame:
    """A row for everything in the folder that can be read, by name; hidden files left out."""
    if not folder.is_dir():
        raise gi.InputError(f"{folder} is not a folder; give one that holds runs.")
    rows, is_run = [], (folder / "run.json").is_file()
    paths = [folder.absolute()] if is_run else sorted(folder.iterdir())
    for path in (path for path in paths if is_run or not path.name.startswith(".")):
        try:
            rows.append(row(path))
        except (gi.InputError, OSError) as error:
            print(f"left out: {shown(path.name)}: {shown(error)}", file=sys.stderr)
    if not rows:
        raise gi.InputError(f"{folder} holds no run that can be read.")
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))


def main() -> int:
    """Print the table, or write it."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("folder", type=Path, metavar="FOLDER")
    arguments.add_argument("--out", type=Path, metavar="table.csv", help="CSV file to write")
    try:
        given = arguments.parse_args()
        found = table(given.folder)
        text = found.to_csv(given.out, index=False)
        print(shown(f"{given.out}: {len(found)} runs") if text is None else text.rstrip())
    except (gi.InputError, OSError) as error:
        print(shown(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
