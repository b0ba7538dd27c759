"""Grokked against steady: train the settings of Manning-Coe et al. 2025 and measure every run.

    python examples/encodings/sweep.py RUNS [SETTING ...] [--seeds 0 1 2] [--threads 1]

RUNS is a folder for the runs (about 10 MB each); RUNS/SETTING.csv gets a row a run. What is there
already is not trained or measured again. Settings: see SETTINGS; all of them take some hours.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch

import grokinterp as gi
from grokinterp import encodings

MLP = gi.recipes()["mlp113-grokked"]
ISING = gi.recipes()["ising-grokked"]
MAP = gi.recipes()["mod113-grokked"].replace(checkpoints=[0])

# Name: the recipes to train from every seed, which is that of the weights, the split and the order.
SETTINGS: dict[str, list[gi.Recipe]] = {
    "mlp": [MLP.replace(init_scale=w0) for w0 in (10, 1, 0.4, 0.1)],
    "mlp-start": [  # the first 30 epochs, logged ten times an epoch, to time what is learned early
        MLP.replace(init_scale=w0, steps=4200, log_every=14, checkpoints=[0])
        for w0 in (1, 0.4, 0.1)
    ],
    "mlp-decay": [MLP.replace(init_scale=w0, weight_decay=3e-4) for w0 in (2, 1)],
    "mlp-batch200": [
        MLP.replace(
            init_scale=w0, batch_size=200, steps=45_000, log_every=45,
            checkpoints=[45 * step // 140 for step in MLP.checkpoints],
        )
        for w0 in (10, 0.4, 0.1)
    ],
    "ising": [ISING.replace(init_scale=w0) for w0 in (10, 3, 1)],
    "transformer": [
        MAP.replace(train_fraction=fraction, init_scale=w0, steps=steps)
        for fraction, w0, steps in (
            (0.7, 1.0, 500), (0.7, 0.7, 500), (0.7, 0.5, 800), (0.7, 0.1, 1500),
            (0.6, 1.0, 600), (0.6, 0.5, 1500),
            (0.5, 1.0, 800), (0.5, 0.7, 1500), (0.5, 0.5, 2500), (0.5, 0.3, 2500),
            (0.3, 1.0, 8000), (0.3, 0.1, 8000),
        )
    ],
}  # fmt: skip


def learned(run: gi.Run, column: str) -> int:
    """First logged step within 5 % of the run's own maximum accuracy (Definition 1)."""
    curve = run.metrics[column]
    return int(run.metrics.step[curve >= 0.95 * curve.max()].iloc[0])


def measure(run: gi.Run) -> dict[str, object]:
    """A row of the table: when it learned, what it learned, and how much of it can be pruned."""
    last = run.metrics.iloc[-1]
    row: dict[str, object] = {
        "label": gi.detect_phases(run.metrics, ceiling=run.task.ceiling).label,
        "t_train": learned(run, "train_acc"),
        "t_test": learned(run, "test_acc"),
        **{column: last[column] for column in ("train_loss", "test_loss", "train_acc", "test_acc")},
        "best_test_acc": run.metrics.test_acc.max(),
    }
    if len(run.steps) == 2:  # only the beginning and the end were saved: a point of the map
        return row
    accuracy = run.metrics.set_index("step").test_acc
    learnt = [step for step in run.steps if accuracy[step] >= 0.9 * accuracy.max()]
    over_training = encodings.compressibility(run, steps=learnt)
    peak = over_training.loc[over_training.c.idxmax()]
    curve = encodings.pruning_curve(run)
    row |= {
        "c": curve.c,
        "prunable": curve.prunable,
        "c_peak": peak.c,
        "c_peak_step": int(peak.step),
        "c_global": encodings.pruning_curve(run, scope="global").c,
        "c_normalized": encodings.pruning_curve(run, scope="global_normalized").c,
        "c_singular": encodings.pruning_curve(run, basis="singular").c,
        "c_fisher_softmax": encodings.pruning_curve(run, scores="fisher_softmax").c,
        "c_fisher_logits": encodings.pruning_curve(run, scores="fisher_logits").c,
        "gini_weights": over_training.gini_weights.iloc[-1],
        "effective_rank": over_training.effective_rank.iloc[-1],
        "bytes": encodings.quantized_size(run).compressed_bytes,
    }
    if isinstance(run.task, gi.ModularTask):
        found = encodings.features(run, steps=[-1]).iloc[0]
        fourier = encodings.pruning_curve(run, basis="fourier")
        row |= {"c_fourier": fourier.c, "prunable_fourier": fourier.prunable}
        return row | {name: found[name] for name in ("ipr_input", "ipr_output")}
    for line in encodings.observable_correlations(run).itertuples():
        row[f"r_{line.layer}_{line.observable}"] = line.median_r
        row[f"r_{line.layer}_{line.observable}_weighted"] = line.weighted_r
    return row


def main() -> None:
    """Train and measure what is missing."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("runs", type=Path)
    arguments.add_argument("settings", nargs="*", default=[], metavar="SETTING")
    arguments.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments.add_argument("--threads", type=int, default=0)
    given = arguments.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    for name in given.settings or SETTINGS:
        table = given.runs / f"{name}.csv"
        measured = pd.read_csv(table).to_dict("records") if table.exists() else []
        done = {row["run"] for row in measured}
        for seed in given.seeds:
            for recipe in SETTINGS[name]:
                keys = {"init_scale": recipe.init_scale}
                if recipe.task == "modular":
                    keys = {"train_fraction": recipe.train_fraction} | keys
                run_name = "-".join([name, *(f"{value:g}" for value in keys.values()), str(seed)])
                if run_name in done:
                    continue
                data_seed = recipe.data_seed if name == "transformer" else seed
                recipe = recipe.replace(seed=seed, data_seed=data_seed)
                run = gi.train(recipe, given.runs / run_name, resume=True)
                row = {"run": run_name, **keys, "seed": seed, **measure(run)}
                measured.append(row)
                pd.DataFrame(measured).to_csv(table, index=False)


if __name__ == "__main__":
    main()
