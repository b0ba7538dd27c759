"""How straight the paths of runs are: their length, its change with spacing, cosines of steps.

    python examples/encodings/paths.py RUN [RUN ...]

Two tables in Markdown. Stages of each run: `straightness` is geodesic / length between checkpoints
(an upper bound), `limit` the same with the length extrapolated to spacing 0, `growth` what the last
halving of the spacing added; `consecutive` and `origin` are median cosines of steps between
neighbouring checkpoints, with each other and with the direction to the origin, in the metric of the
published code (the diagonal of the raw logits on test inputs, 16 of them or all of Ising). Whole
paths at every 1st, 2nd, 4th, ... checkpoint.
"""

import argparse

import pandas as pd

import grokinterp as gi
from grokinterp import geometry


def stages(name: str, run: gi.Run, path: geometry.InformationPath) -> pd.DataFrame:
    """A row per stage of a run."""
    phases = gi.detect_phases(run.metrics, ceiling=run.task.ceiling)
    table = path.table(geometry.stages_of(phases, run.steps))
    n_samples = None if isinstance(run.task, gi.IsingTask) else 16
    steps = geometry.step_geometry(
        run, form="diagonal", variant="logits", n_samples=n_samples, stiff_above=None
    )
    for column in ("consecutive", "origin"):
        table[column] = [
            steps.loc[(steps.step >= row.start) & (steps.to <= row.end), f"cos_{column}"].median()
            for row in table.itertuples()
        ]
    table = table.rename(columns={"limit_straightness": "limit", "n_checkpoints": "checkpoints"})
    table.insert(0, "run", name)
    shown = ["run", "part", "start", "end", "checkpoints", "length", "straightness", "limit",
             "growth", "consecutive", "origin"]  # fmt: skip
    return table[shown]


def markdown(table: pd.DataFrame) -> str:
    """Three digits; a dash where a number is not defined."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "-" if value != value else f"{value:.3g}"
        return str(value)

    lines = [f"| {' | '.join(table.columns)} |", "|---" * len(table.columns) + "|"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("runs", nargs="+", metavar="RUN")
    parts, refined = [], {}
    for folder in arguments.parse_args().runs:
        run = gi.load(folder)
        name = run.path.name
        path = geometry.information_path(run)
        parts.append(stages(name, run, path))
        refined[name] = path.refinement().set_index("stride").length
    print(markdown(pd.concat(parts, ignore_index=True)))
    print("\nLength with every stride-th checkpoint:\n")
    print(markdown(pd.DataFrame(refined).T.rename_axis("run").reset_index().rename(columns=str)))


if __name__ == "__main__":
    main()
