"""From which size of the training set on does a network generalise, and below which forget it?

    python examples/explanations/critical_size.py FOLDER

trains critical-size.toml into FOLDER/sizes: random and true labels at seven sizes, three seeds
each. Then the networks that generalised on 800 pairs go on, with moments that start anew, on the
first 200, 400 and 600 of these: FOLDER/ungrokking. Prints what `gi.claims.critical_size` finds, and
writes its rows to critical-size.csv and ungrokking.csv here. What is there already is not trained
again.
"""

import argparse
from pathlib import Path

import grokinterp as gi

HERE = Path(__file__).parent
GROKKED = "true,train_fraction=0.8325"
SEEDS = (0, 1, 2)
FRACTIONS = {200: 0.20812, 400: 0.41624, 600: 0.62435}  # of the 961 pairs


def ungrokking(sizes: gi.Sweep, folder: Path) -> gi.Sweep:
    """The runs that go on from the networks that generalised, each on less of its own split."""
    starts = tuple(f"{folder}/{GROKKED},seed={seed}" for seed in SEEDS)
    return gi.Sweep(
        sizes.base.replace(steps=3000),
        ({"train_fraction": tuple(FRACTIONS.values())},
         {"seed": SEEDS, "data_seed": SEEDS, "start": starts}),
    )  # fmt: skip


def main() -> None:
    """Train what is not there, print what was found, and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("folder", type=Path, metavar="FOLDER", help="for the runs")
    folder = arguments.parse_args().folder
    sizes = gi.Sweep.from_toml(HERE / "critical-size.toml")
    gi.run_sweep(sizes, folder / "sizes", measure=gi.sweeps.measured)
    less = ungrokking(sizes, folder / "sizes")
    gi.run_sweep(less, folder / "ungrokking", measure=gi.sweeps.measured)
    found = gi.claims.critical_size(folder)
    print(found)
    found.table("runs").to_csv(HERE / "critical-size.csv", index=False)
    found.table("ungrokking").to_csv(HERE / "ungrokking.csv", index=False)


if __name__ == "__main__":
    main()
