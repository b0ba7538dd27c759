"""Try every fault and print a table: fault, tried, survived. Exit status 1 if anything was lost.

    python -m tests.stress [--quick] [--seed S] [--json] [--only WORD]

Run it from the root of the repository; mounting disks takes root, and is left out without.
"""

import argparse
import importlib
import importlib.util
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.stress.bench import Bench, Fault, warm_up

# Each has FAULTS: what is done, and the function that tries it on a Bench.
MODULES = (
    "kills", "disks", "rivals", "clocks", "flips", "interruptions", "sweep_kills", "ray_cluster",
)  # fmt: skip


def faults(only: str = "") -> dict[str, Fault]:
    """All faults of all modules that are there."""
    found: dict[str, Fault] = {}
    for name in MODULES:
        full = f"tests.stress.{name}"
        if importlib.util.find_spec(full) is not None:
            found |= getattr(importlib.import_module(full), "FAULTS", {})
    return {name: fault for name, fault in found.items() if only in name}


def attempt(fault: Fault, *, quick: bool, seed: int) -> Bench:
    """Try one fault; an error of its own is a loss too."""
    with tempfile.TemporaryDirectory(prefix="grokinterp-stress-") as folder:
        bench = Bench(Path(folder), random.Random(seed), quick)
        try:
            fault(bench)
        except Exception as error:
            bench.tried += 1
            bench.losses.append(f"{type(error).__name__}: {error}")
        return bench


def main() -> None:
    """Try them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few tries of each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and places")
    parser.add_argument("--json", action="store_true", help="print one JSON line at the end")
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    asked = parser.parse_args()
    if not asked.quick:
        os.environ["GROKINTERP_STRESS"] = "everything"  # see preload
    if not (chosen := faults(asked.only)):
        parser.error(f"--only {asked.only}: no fault has this in its name: {', '.join(faults())}")
    warm_up()
    rows, lost = [], 0
    print(f"{'fault':<64}{'tried':>7}{'survived':>10}{'seconds':>9}")
    for name, fault in chosen.items():
        start = time.monotonic()
        bench = attempt(fault, quick=asked.quick, seed=asked.seed)
        seconds = time.monotonic() - start
        print(f"{name:<64}{bench.tried:>7}{bench.survived:>10}{seconds:>9.1f}", flush=True)
        if bench.note:
            print(f"    {bench.note}")
        for loss in bench.losses[:5]:
            print(f"    LOST: {loss}", flush=True)
        lost += len(bench.losses)
        rows.append(
            {"fault": name, "tried": bench.tried, "survived": bench.survived, "note": bench.note}
        )
    if asked.json:
        print(json.dumps({"seed": asked.seed, "quick": asked.quick, "faults": rows}))
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
