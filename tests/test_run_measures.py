"""A row of a table of runs: every group of measures against the function that it is of."""

import pickle
import shutil
from dataclasses import replace
from functools import partial
from math import nan

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp import encodings
from grokinterp.progress import MEASURES, measure
from grokinterp.sweeps import RUN_MEASURES, measured
from tests.made_runs import changed

OUTCOME = [
    "label", "t_train", "t_test", "memorization_step", "grok_step", "memorization_end",
    "circuit_formation_end", "cleanup_end", "train_loss", "test_loss", "train_acc", "test_acc",
    "test_acc_unmirrored", "best_test_acc", "key_frequencies", "note",
]  # fmt: skip

OF_ENCODINGS = [  # other rooms' are tested with the functions that they are of
    name for name in RUN_MEASURES if MEASURES.home(name) == "grokinterp.encodings.run_measures"
]


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    recipe = gi.Recipe(
        model="mlp", p=7, d_mlp=24, train_fraction=0.7, lr=1e-2, weight_decay=0.1, steps=200,
        checkpoints=[50, 150], log_every=10,
    )  # fmt: skip
    return gi.train(recipe, tmp_path_factory.mktemp("runs") / "mlp")


@pytest.fixture(scope="module")
def ising(tmp_path_factory):
    recipe = gi.Recipe(
        task="ising", lattice=8, n_temperatures=4, n_repeats=20, sweeps=5, n_train=30, n_test=20,
        d_mlp=10, steps=40, checkpoints=[20],
    )  # fmt: skip
    return gi.train(recipe, tmp_path_factory.mktemp("runs") / "ising")


def test_the_outcome(mlp, ising):
    row = measured(mlp)
    assert list(row) == OUTCOME
    assert list(measured(ising)) == [x for x in OUTCOME if x != "test_acc_unmirrored"]
    phases = gi.detect_phases(mlp.metrics)
    assert (row["label"], row["t_train"], row["t_test"]) == (
        phases.label, phases.t_train, phases.t_test
    )  # fmt: skip
    last = mlp.metrics.iloc[-1]
    for column in OUTCOME[8:13]:
        assert row[column] == last[column]
    assert row["best_test_acc"] == mlp.metrics.test_acc.max()
    assert row["note"] == ""


def test_when_the_shipped_run_grokked_and_with_which_frequencies(shipped, shipped_measures):
    """As `detect_phases` says from all measures, of a run that has every phase."""
    row = measured(shipped)
    phases = gi.detect_phases(shipped, measures=shipped_measures)
    assert (row["memorization_step"], row["grok_step"]) == (
        phases.memorization_step, phases.grok_step
    )  # fmt: skip
    for phase in phases.phases:
        assert row[f"{phase.name}_end"] == phase.end is not None
    assert row["key_frequencies"] == phases.key_frequencies != ()


def test_key_frequencies_are_none_empty_or_not_defined(mlp, ising):
    assert measured(mlp)["key_frequencies"] == gi.key_frequencies(mlp.snapshot()).frequencies
    assert measured(ising)["key_frequencies"] is None
    assert gi.key_frequencies(mlp.snapshot(0)).frequencies == ()


def test_times_are_those_of_the_smoothed_curves(mlp, monkeypatch):
    """A single row of luck decides nothing, but is the best accuracy of the log."""
    metrics = pd.DataFrame({"step": range(0, 100, 10), "train_loss": 1.0, "test_loss": 1.0})
    metrics["train_acc"] = [0, 0, 0.9, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]
    metrics["test_acc"] = [0, 0, 0, 1, 0, 0, 0, 0.8, 0.8, 0.8]
    run = gi.load(mlp.path)
    run.metrics = metrics
    row = measured(run)
    assert (row["t_train"], row["t_test"], row["best_test_acc"]) == (50, 70, 1)


def test_the_ceiling_of_the_task_decides(ising, monkeypatch):
    run = gi.load(ising.path)
    run.metrics = pd.DataFrame(
        {"step": [0, 10, 20], "train_loss": 1.0, "test_loss": 1.0,
         "train_acc": [0.5, 1.0, 1.0], "test_acc": [0.5, 0.9, 0.9]}
    )  # fmt: skip
    labels = {}
    for ceiling in (1.0, 0.9):
        monkeypatch.setattr(type(run.task), "ceiling", property(lambda _, c=ceiling: c))
        labels[ceiling] = measured(run)["label"]
    assert labels[0.9] == "steady"
    assert labels[1.0] != "steady"


@pytest.mark.parametrize("kind", ["mlp", "ising"])
def test_every_group_has_the_values_of_its_function(kind, request):
    run = request.getfixturevalue(kind)
    modular = isinstance(run.task, gi.ModularTask)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    stream = torch.random.get_rng_state()
    row = measured(run, [*OF_ENCODINGS, "balance", "cluster_norms"])
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert torch.equal(stream, torch.random.get_rng_state())
    assert row["note"] == ""
    curve = encodings.pruning_curve
    plain = curve(run)
    expected = {
        "c": plain.c,
        "prunable": plain.prunable,
        "c_global": curve(run, scope="global").c,
        "c_normalized": curve(run, scope="global_normalized").c,
        "c_singular": curve(run, basis="singular").c,
        "c_fisher_softmax": curve(run, scores="fisher_softmax").c,
        "c_fisher_logits": curve(run, scores="fisher_logits").c,
        "gini_weights": encodings.sizes(run).gini,
        "effective_rank": encodings.sizes(run).mean_effective_rank,
        "bytes": encodings.quantized_size(run).compressed_bytes,
    }
    over = encodings.compressibility(run)  # Gini coefficient and rank are its last row's too
    assert expected["gini_weights"] == over.gini_weights.iloc[-1]
    assert expected["effective_rank"] == over.effective_rank.iloc[-1]
    accuracy = run.metrics.set_index("step").test_acc[over.step].to_numpy()
    learnt = over[accuracy >= 0.9 * run.metrics.test_acc.max()]
    expected["c_peak"] = learnt.c.max()
    expected["c_peak_step"] = learnt.step[learnt.c.idxmax()]
    if modular:
        fourier = curve(run, basis="fourier")
        expected |= {"c_fourier": fourier.c, "prunable_fourier": fourier.prunable}
        means = gi.fourier.neuron_ipr(run.snapshot()).means
        expected |= {name: means[name] for name in ("ipr_input", "ipr_output")}
    else:
        for line in encodings.observable_correlations(run).itertuples():
            expected[f"r_{line.layer}_{line.observable}"] = line.median_r
            expected[f"r_{line.layer}_{line.observable}_weighted"] = line.weighted_r
        assert {"r_conv.0_energy", "r_hidden_magnetization_weighted"} <= expected.keys()
    shrank = gi.training.balance(run)
    window = shrank.over(shrank.peak_step, run.steps[-1]) if kind == "ising" else {"ratio": None}
    expected |= {
        "balance_ratio": window["ratio"],  # null where the norm only grew
        "balance_norm_grown": shrank.grown,
        "balance_norm_shrunk": shrank.shrunk,
    }
    for line in encodings.ranks(run, steps=[-1]).table().itertuples():
        expected[f"rank_{line.matrix}"] = line.entropy_rank
        expected[f"rank_{line.matrix}_squared"] = line.entropy_rank_squared
    (norms,) = encodings.efficiency(run).rows
    for name in ("norm", "logit", "normalized_norm"):
        expected[f"efficiency_{name}"] = norms[name]
    if modular:
        ratio = gi.circuits.cluster_norms(run).table().ratio
        expected["cluster_norm_ratio_start"] = ratio.iloc[0]
        expected["cluster_norm_ratio_end"] = ratio.iloc[-1]
    assert {key: row[key] for key in row if key not in OUTCOME} == expected


def test_a_transformer_has_the_columns_of_modular_arithmetic(tiny_run):
    row = measured(tiny_run, ["features"])
    means = gi.fourier.neuron_ipr(tiny_run.snapshot()).means
    assert row["note"] == ""
    assert (row["ipr_input"], row["ipr_output"]) == (means["ipr_input"], means["ipr_output"])


@pytest.mark.parametrize("name", [*OF_ENCODINGS, "balance", "cluster_norms"])
def test_a_group_alone_has_its_columns_and_no_others(name, mlp):
    columns = {
        "compressibility": ["c", "prunable"],
        "compressibility_peak": ["c_peak", "c_peak_step"],
        "scopes": ["c_global", "c_normalized"],
        "bases": ["c_singular", "c_fourier", "prunable_fourier"],
        "fisher_pruning": ["c_fisher_softmax", "c_fisher_logits"],
        "sizes": ["gini_weights", "effective_rank", "bytes"],
        "features": ["ipr_input", "ipr_output"],
        "balance": ["balance_ratio", "balance_norm_grown", "balance_norm_shrunk"],
        "ranks": ["rank_W_U", "rank_W_U_squared", "rank_W_in", "rank_W_in_squared"],
        "efficiency": [
            "efficiency_norm", "efficiency_logit", "efficiency_normalized_norm"
        ],
        "cluster_norms": ["cluster_norm_ratio_start", "cluster_norm_ratio_end"],
    }  # fmt: skip
    assert [key for key in measured(mlp, [name]) if key not in OUTCOME] == columns[name]


def test_groups_come_in_the_order_they_are_named(mlp):
    row = measured(mlp, ["features", "compressibility"])
    assert list(row) == [*OUTCOME[:-1], "ipr_input", "ipr_output", "c", "prunable", "note"]


def test_unlearnt_checkpoints_have_no_peak(mlp):
    """At chance c says nothing, and here it would be the largest."""
    run = gi.load(mlp.path)
    curves = encodings.compressibility(run).set_index("step").c
    metrics = mlp.metrics.copy()
    best = int(curves.idxmax())
    metrics["test_acc"] = [0.1 if step == best else 1.0 for step in metrics.step]
    run.metrics = metrics
    row = measured(run, ["compressibility_peak"])
    assert row["c_peak"] == curves.drop(best).max()
    metrics["test_acc"] = [1.0 if step == 10 else 0.1 for step in metrics.step]
    row = measured(run, ["compressibility_peak"])
    assert row["note"] == (
        "compressibility_peak: no checkpoint has learnt the test inputs; save more steps."
    )
    assert "c_peak" not in row


def test_a_run_that_diverged_has_an_outcome_and_a_note(mlp):
    """As one that was saved so by an earlier version."""
    run = changed(mlp, lambda weights: {name: weight * nan for name, weight in weights.items()})
    run.metrics = mlp.metrics
    row = measured(run, ["compressibility"])
    assert list(row) == OUTCOME
    assert row["note"] == "it diverged: weights of step 200 are not finite"


def test_what_fails_is_noted_and_the_rest_stands(mlp, monkeypatch):
    def failing(run):
        raise gi.InputError("not today.")

    monkeypatch.setitem(MEASURES, "sizes", replace(MEASURES["sizes"], function=failing))
    row = measured(mlp, ["sizes", "features"])
    assert row["note"] == "sizes: not today."
    assert row["ipr_input"] > 0


def test_one_registry_has_measures_of_snapshots_and_of_runs(mlp):
    assert {name for name, entry in MEASURES.items() if entry.scope == "run"} == set(RUN_MEASURES)
    for name, function in RUN_MEASURES.items():
        assert (MEASURES[name].function, MEASURES[name].default) == (function, False)
    assert all(entry.meaning for entry in MEASURES.values())
    assert "train_loss" not in RUN_MEASURES
    with pytest.raises(KeyError):
        RUN_MEASURES["train_loss"]


def test_a_measure_of_runs_of_ones_own(mlp, ising):
    measure("depth", scope="run", of=gi.ModularTask)(lambda run: len(run.steps))
    try:
        assert measured(mlp, ["depth"])["depth"] == len(mlp.steps)
        assert "depth" not in measured(ising, ["depth"])
    finally:
        del MEASURES["depth"]
    assert "depth" not in RUN_MEASURES


def test_wrong_names_and_runs_without_metrics_are_refused(mlp, tmp_path):
    with pytest.raises(gi.InputError, match="'fetures' is no measure of a run; did you mean 'feat"):
        measured(mlp, ["fetures"])
    with pytest.raises(gi.InputError, match="'sizes' is asked for twice"):
        gi.sweeps.measuring(["sizes", "bases", "sizes"])
    shutil.copytree(mlp.path, tmp_path / "run")
    run = gi.load(tmp_path / "run")
    run.metrics = run.metrics.iloc[:0]
    with pytest.raises(gi.InputError, match="has no metrics"):
        measured(run)


def test_the_measure_of_a_sweep_goes_to_another_process():
    measure = partial(measured, names=("sizes",))
    assert pickle.loads(pickle.dumps(measure)).func is measured
