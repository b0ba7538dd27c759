"""The tables of README.md from the tables of the sweeps: every setting over its seeds.

    python examples/encodings/tables.py [FOLDER]

FOLDER has the folders of sweeps, NAME/results.csv; without it, NAME.csv of this folder, which are
copies. Cells are the median and, in brackets, the smallest and largest of the seeds.
"""

import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
COLUMNS = {
    "mlp": ["t_train", "t_test", "train_loss", "test_loss", "test_acc", "c", "prunable",
            "c_fourier", "prunable_fourier", "c_singular", "c_global", "c_normalized",
            "c_fisher_softmax", "c_fisher_logits", "c_peak", "c_peak_step", "gini_weights",
            "effective_rank", "bytes", "ipr_input", "ipr_output"],
    "ising": ["t_train", "t_test", "train_loss", "test_loss", "train_acc", "test_acc",
              "best_test_acc", "c", "prunable", "c_singular", "c_global", "c_normalized",
              "c_fisher_softmax", "c_fisher_logits", "c_peak", "c_peak_step",
              "gini_weights", "effective_rank", "bytes",
              *(f"r_{layer}_{observable}" for layer in ("hidden", "conv.1", "conv.0")
                for observable in ("energy", "abs_magnetization", "magnetization"))],
    "transformer": ["t_train", "t_test", "train_acc", "test_acc", "test_loss"],
}  # fmt: skip


def cell(values: pd.Series) -> str:
    """Median and range, three digits or a whole number."""
    low, middle, high = (
        f"{x:.0f}" if x >= 1000 else f"{x:.3g}"
        for x in (values.min(), values.median(), values.max())
    )
    return middle if low == high else f"{middle} [{low}, {high}]"


def table(name: str, rows: pd.DataFrame) -> str:
    """Markdown: a column a setting, a line a quantity; of the transformer's many, a line each."""
    columns = [c for c in COLUMNS[name.split("-")[0]] if c in rows]
    setting = rows.init_scale.map("w0 = {:g}".format)
    map_of_settings = name == "transformer-map"
    if map_of_settings:
        setting = rows.train_fraction.map("{:g} of pairs, ".format) + setting
    shown = {
        one: {
            "label": ", ".join(group.label),
            **{f"`{column}`": cell(group[column]) for column in columns},
        }
        for one, group in rows.groupby(setting, sort=False)
    }
    frame = pd.DataFrame(shown)
    frame = frame.T if map_of_settings else frame
    lines = [f"| | {' | '.join(frame.columns)} |", "|---" * (1 + len(frame.columns)) + "|"]
    lines += [f"| {quantity} | {' | '.join(row)} |" for quantity, row in frame.iterrows()]
    return "\n".join(lines)


def tables_in(folder: Path | None) -> dict[str, Path]:
    """The measured tables that there are, by the names of their sweeps."""
    if folder is None:
        found = {path.stem: path for path in HERE.glob("*.csv")}
    else:
        found = {path.parent.name: path for path in folder.glob("*/results.csv")}
    return {name: found[name] for name in sorted(found) if name.split("-")[0] in COLUMNS}


def main() -> None:
    """Print every table."""
    for name, path in tables_in(Path(sys.argv[1]) if len(sys.argv) > 1 else None).items():
        rows = pd.read_csv(path).sort_values("seed", kind="stable")
        print(f"### {name}\n\n{table(name, rows)}\n")


if __name__ == "__main__":
    main()
