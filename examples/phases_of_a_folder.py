"""Date every run in a folder and write one table: a row a run.

    python examples/phases_of_a_folder.py FOLDER [--out table.csv]

Runs are whatever `grokinterp phases` takes: run folders, checkpoints that others trained, CSV files
of curves. What cannot be read is one line on standard error, and the rest goes on. Exit status: 0
done (also where some could not be read), 2 if nothing could be, 130 interrupted.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

import grokinterp as gi
from grokinterp.progress.curves import read_csv_curves

PHASES = ("memorization", "circuit_formation", "cleanup")
COLUMNS = ["name", "label", "memorization_step", "grok_step", *(f"{x}_end" for x in PHASES),
           "key_frequencies", "reason"]  # fmt: skip


def row(path: Path) -> dict[str, object]:
    """The phases of one run, or of one CSV of curves; InputError where it is neither."""
    is_table = path.suffix.lower() == ".csv"
    found = gi.detect_phases(read_csv_curves(path) if is_table else gi.load(path))
    ends = {phase.name: phase.end for phase in found.phases}
    keys = found.key_frequencies
    return {
        "name": path.name,
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
    rows = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        try:
            rows.append(row(path))
        except (gi.InputError, OSError) as error:
            print(f"left out: {' '.join(str(error).split())}", file=sys.stderr)
    if not rows:
        raise gi.InputError(f"{folder} holds no run that can be read.")
    whole = [name for name in COLUMNS if name.endswith(("_step", "_end"))]
    return pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(whole, "Int64"))


def main() -> int:
    """Print the table, or write it."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("folder", type=Path, metavar="FOLDER")
    arguments.add_argument("--out", type=Path, metavar="table.csv", help="CSV file to write")
    given = arguments.parse_args()
    try:
        found = table(given.folder)
        if given.out is None:
            print(found.to_csv(index=False), end="")
        else:
            found.to_csv(given.out, index=False)
            print(f"{given.out}: {len(found)} runs")
    except (gi.InputError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
