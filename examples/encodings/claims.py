"""The table of claims of README.md: a verdict on each from the runs of each sweep.

    python examples/encodings/claims.py FOLDER [FOLDER ...]

A folder has the runs of one sweep; it is a column of the table, by its name. The numbers behind
each cell are in `grokinterp compare FOLDER/*/ --out FILE.html`.
"""

import argparse
from pathlib import Path

import grokinterp as gi


def main() -> None:
    """Compare the runs of every folder and print the table in Markdown."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    folders = arguments.parse_args().folders
    found = {
        folder.name: gi.compare([gi.load(run.parent) for run in sorted(folder.glob("*/run.json"))])
        for folder in folders
    }
    print(f"| claim | {' | '.join(found)} |")
    print("|---" * (1 + len(found)) + "|")
    for claims in zip(*(comparison.claims for comparison in found.values()), strict=True):
        cells = [
            f"**{claim.verdict}** ({', '.join(f'{n} {side}' for side, n in claim.seeds.items())} "
            f"seeds): {claim.reason}"
            for claim in claims
        ]
        print(f"| {claims[0].statement} | {' | '.join(cells)} |")
    for name, comparison in found.items():
        print(f"\n{name}:\n")
        for note in comparison.notes:
            print(f"* {note}")


if __name__ == "__main__":
    main()
