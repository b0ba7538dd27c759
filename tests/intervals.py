"""How often an interval holds the clean boundary when the log is disturbed a little.

    python -m tests.intervals [--tries 50] [--curves 120] [--csv FILE] [--against FILE]

The boundaries of a log are found, then those of the same log with 1 % noise on its losses, with
half of its rows dropped at random, and with every fifth row kept. For every run shipped that has
boundaries, and for grokked curves of the synthetic family (tests/curves.py, a fifth of the tries
each), a row for each boundary and disturbance tells how often there is no boundary, in which share
of the other tries the clean boundary lies in the interval found on the disturbed log, and how wide
the intervals are: in steps, and as a multiple of the clean one (medians). Boundaries that are null
on the clean log have no row. `--csv` keeps every try, `--against` puts what such a file says beside
it, which is how two versions are compared: run this file with another one first on PYTHONPATH.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

import grokinterp as gi
from tests.curves import BOUNDARIES, generated

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
RUNS = ("mod113-grokked", "mlp113-grokked", "ising-grokked")
LOSSES = ["train_loss", "test_loss"]


def one_percent(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every loss times exp(normal(0, .01))."""
    frame = frame.copy()
    for column in frame.columns.intersection(LOSSES):
        frame[column] *= np.exp(rng.normal(0, 0.01, len(frame)))
    return frame


def half(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Half of the rows, drawn at random."""
    kept = np.sort(rng.permutation(len(frame))[: (len(frame) + 1) // 2])
    return frame.iloc[kept].reset_index(drop=True)


def every_fifth(frame: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every fifth row, from one of the first five on."""
    return frame.iloc[int(rng.integers(5)) :: 5].reset_index(drop=True)


DISTURBANCES = {"1 % noise": one_percent, "half of the rows": half, "every 5th row": every_fifth}


def shipped() -> Iterator[tuple[str, pd.DataFrame]]:
    for name in RUNS:
        yield name, pd.read_csv(CHECKPOINTS / name / "metrics.csv")


def family(number: int, seed: int = 0) -> Iterator[tuple[str, pd.DataFrame]]:
    """The first so many curves of the family that have bends, as a person would have them."""
    index = found = 0
    while found < number:
        curve = generated(index, seed)
        index += 1
        if curve.bends:
            found += 1
            yield curve.name, curve.frame


def boundaries(frame: pd.DataFrame) -> dict[str, tuple[int, tuple[int, int]] | None]:
    """Step and interval of every boundary, None where it is null."""
    ends = {
        phase.name: None if phase.end is None else (phase.end, phase.end_interval)
        for phase in gi.detect_phases(frame).phases
    }
    return {name: ends.get(name) for name in BOUNDARIES}


def tries(name: str, frame: pd.DataFrame, number: int, seed: int = 0) -> Iterator[dict]:
    """A row per boundary, disturbance and try; boundaries that are null when clean have none."""
    clean = boundaries(frame)
    for which, (disturbance, disturb) in enumerate(DISTURBANCES.items()):
        for attempt in range(number):
            found = boundaries(disturb(frame, np.random.default_rng([seed, which, attempt])))
            for boundary, before in clean.items():
                if before is None:
                    continue
                step, (first, last) = before
                row = {"log": name, "boundary": boundary, "disturbance": disturbance}
                row |= {"step": step, "clean": last - first, "null": found[boundary] is None}
                if found[boundary] is not None:
                    moved, (first, last) = found[boundary]
                    row |= {"moved": moved, "inside": first <= step <= last, "width": last - first}
                yield row


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Of many tries: the share that covers, the median width, its share of the clean one, nulls."""
    rows = rows.assign(ratio=rows["width"] / rows["clean"])
    grouped = rows.groupby(["log", "boundary", "disturbance"], sort=False)
    return pd.DataFrame(
        {
            "tries": grouped.size(),
            "null": grouped["null"].sum(),
            "inside": grouped["inside"].apply(lambda held: held.dropna().astype(float).mean()),
            "clean width": grouped["clean"].median(),
            "width": grouped["width"].median(),
            "ratio": grouped["ratio"].median(),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=50)
    parser.add_argument("--curves", type=int, default=120)
    parser.add_argument("--csv", type=Path, help="keep every try in this file")
    parser.add_argument("--against", type=Path, help="a file kept by another version")
    options = parser.parse_args()
    found = []
    for name, frame in shipped():
        found += list(tries(name, frame, options.tries))
    for name, frame in family(options.curves):
        many = max(options.tries // 5, 1)
        found += [{**row, "log": "family", "curve": name} for row in tries(name, frame, many)]
    rows = pd.DataFrame(found)
    if options.csv:
        rows.to_csv(options.csv, index=False)
    result = table(rows)
    if options.against:
        before = table(pd.read_csv(options.against))
        result["inside before"] = before["inside"]
        result["width before"] = before["width"]
        result["to before"] = result["width"] / before["width"]
    print(f"grokinterp {gi.__version__} of {Path(gi.__file__).parent}")
    print(result.round(3).to_string())


if __name__ == "__main__":
    main()
