"""Every analysis and every figure takes a run, its path, a snapshot, and a model with its task."""

import importlib
import inspect
from pathlib import Path

import pandas as pd
import pytest
import torch

import grokinterp as gi
from grokinterp import viz
from grokinterp.figures._figure import Figure

pytestmark = pytest.mark.shapes_unchecked  # their checks take longer than what is checked here

ROOMS = ("training", "fourier", "progress", "circuits", "geometry", "encodings", "claims")
QUICK = {  # arguments, of functions that need some or take long without
    "ablate": {"placebos": 2},
    "faithfulness": {"placebos": 2},
    "fisher_diagonal": {"n_samples": 16},
    "fisher_metric": {"n_samples": 16},
    "information_path": {"n_samples": 16},
    "gradient_symmetricity": {"n_samples": 10},
    "algorithm": {"n_samples": 10},
    "compressibility": {"steps": [10_000], "fractions": [0, 0.5, 1]},
    "pruning_curve": {"fractions": [0, 0.5, 1]},
    "step_geometry": {"steps": [0, 10_000], "n_samples": 4},
    "features": {"steps": [10_000]},
    "frequency_shares": {},
    "kernel": {"per_class": 2, "probes": 1, "sets": 1},
    "mode_connectivity": {"n_points": 3, "align": False},
    "routing": {"step": -1, "placebos": 2},
    "local_learning_coefficient": {"n_draws": 5, "n_chains": 1, "n_samples": 20, "halve": False},
    "loss_slice": {"n_points": 3, "n_samples": 20},
    "balance": {"steps": [10_000]},
    "ranks": {"steps": [10_000]},
    "cluster_norms": {"steps": [10_000]},
    "representations": {"step": 10_000, "n_null": 0},
    "explain": {"claims": ["A1", "A2"]},
    "curvature": {"n_samples": 20, "n_lanczos": 2, "n_probes": 1},
    "noise_radius": {"n_draws": 1, "n_samples": 50},
    "spectral_density": {"n_samples": 30, "n_steps": 4, "n_starts": 1},
    "plot_ablation": {"placebos": 2},
    "plot_curvature": {"n_samples": 20, "n_lanczos": 2, "n_probes": 1},
    "plot_noise_radius": {"n_draws": 1, "n_samples": 50},
    "plot_spectral_density": {"n_samples": 30, "n_steps": 4, "n_starts": 1},
    "plot_explain": {"claims": ["A1", "A2"]},
    "plot_faithfulness": {"placebos": 2},
    "plot_information_path": {"n_samples": 16},
    "plot_clouds": {"step": 10_000, "n_null": 0},
    "plot_representations": {"step": 10_000, "n_null": 0},
    "plot_kernel": {"per_class": 2, "probes": 1, "sets": 1},
    "plot_mode_connectivity": {"n_points": 3, "align": False},
    "plot_routing": {"step": -1, "placebos": 2},
    "plot_learning_coefficient": {
        "n_draws": 5,
        "n_chains": 1,
        "n_samples": 20,
        "halve": False,
    },
    "plot_loss_slice": {"n_points": 3, "n_samples": 20},
    "plot_pruning_curves": {"fractions": [0, 0.5, 1]},
}
OVER_TRAINING = {  # what looks at every checkpoint, of which a run has more than a snapshot
    "progress_measures", "detect_phases", "frequency_shares", "commutativity", "information_path",
    "abruptness", "phase_shares", "descents", "slingshots", "kernel",
    "key_frequencies",  # says when each emerged
    "efficiency",  # has a row under the name of each run
    "critical_size", "explain", "speed_ups",
}  # fmt: skip
OF_SEVERAL = {  # takes two checkpoints
    "drift", "mode_connectivity", "plot_drift", "plot_mode_connectivity", "plot_trajectories",
    "plot_weight_plane", "step_geometry", "trajectory_embedding", "weight_plane",
}  # fmt: skip
UNDATED = {  # what a figure says of one checkpoint, which has no dates
    "plot_phase_shares": "undetermined", "plot_speed_ups": "no dates",
}  # fmt: skip
OF_ISING = {"observable_correlations"}
OF_TABLES = {"plot_phase_diagram", "plot_scaling"}  # of sweeps: by their path too
OF_RUNS = {  # two or more: below, or in tests of their own
    "plot_comparison", "plot_norm_landscape",
}  # fmt: skip


def takes_a_subject(function):
    """Whether its first argument is what an analysis is asked about."""
    if not inspect.isfunction(function):
        return False
    first = next(iter(inspect.signature(function).parameters), "")
    return first in ("x", "runs")


def analyses():
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"grokinterp.{room}")
        for name in module.__all__:
            if takes_a_subject(function := getattr(module, name)):
                found.setdefault(name, function)
    return {name: f for name, f in found.items() if name not in WAVES | TRAINING}


WAVES = {"transform", "transform_2d", "spectrum"}  # of tensors x
TRAINING = {"verify"}  # which trains a run again: of recipes alone
ANALYSES = analyses()
FIGURES = {name: getattr(viz, name) for name in viz.__all__ if name.startswith("plot_")}


@pytest.fixture(scope="module")
def subjects():
    """The same model in every form, with what is to be said of it besides."""
    run = gi.load("mod31-small")
    about = {"task": run.task, "train_mask": run.train_mask}
    return {
        "run": (run, {}),
        "path": (str(run.path), {}),
        "Path": (Path(run.path), {}),
        "name": ("mod31-small", {}),
        "snapshot": (run.snapshot(), {}),
        "hooked model": (run.model(), about),
    }


def test_all_are_looked_at():
    """So that a function that is added is in the table below, or is named as another kind."""
    assert len(ANALYSES) >= 45
    assert {"ablate", "key_frequencies", "restricted_loss", "features", "heldout_fit"} <= {
        *ANALYSES
    }
    assert len(FIGURES) >= 25


def values(found):
    """What a result says, to be compared."""
    if isinstance(found, pd.DataFrame):
        return found.to_dict("list")
    if isinstance(found, torch.Tensor):
        return found
    if isinstance(found, dict):
        return {str(name): float(x) for name, x in found.items()}
    if isinstance(found, float | int):
        return float(found)
    if isinstance(found, list):
        return [each.name for each in found]
    return found.table().drop(columns=["step"], errors="ignore").to_dict("list")


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[x], other[x]) for x in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-3, abs=1e-5, nan_ok=True)
    return str(one) == str(other)


@pytest.mark.parametrize("name", sorted(ANALYSES.keys() - OF_ISING))
def test_an_analysis_takes_every_kind(name, subjects):
    function, options = ANALYSES[name], dict(QUICK.get(name, {}))
    if name == "fitted_neurons":
        options["clusters"] = gi.circuits.neuron_clusters("mod31-small")
    found = {}
    for kind, (x, about) in subjects.items():
        if kind in ("snapshot", "hooked model"):
            options.pop("steps", None)
            options.pop("step", None)
            if name in OF_SEVERAL:
                with pytest.raises(gi.InputError, match="one checkpoint"):
                    function(x, **options, **about)
                continue
        found[kind] = values(function(x, **options, **about))
    assert same(found["run"], found["path"])
    assert same(found["run"], found["Path"])
    assert same(found["run"], found["name"])
    if name not in OF_SEVERAL:
        # of a model that came without one
        drop = {"step", "start", "end", "steps_least", "steps_most", "reason"}
        one, other = found["snapshot"], found["hooked model"]
        if isinstance(one, dict):
            one, other = ({k: v for k, v in x.items() if k not in drop} for x in (one, other))
        assert same(one, other)
    if name not in OVER_TRAINING | OF_SEVERAL:
        assert same(found["run"], found["snapshot"])


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - OF_TABLES - OF_RUNS))
def test_a_figure_is_drawn_of_every_kind(name, subjects):
    draw, options = FIGURES[name], dict(QUICK.get(name, {}))
    for kind, (x, about) in subjects.items():
        if kind in ("snapshot", "hooked model"):
            options.pop("step", None)
        if name in OF_SEVERAL and kind in ("snapshot", "hooked model"):
            with pytest.raises(gi.InputError, match="one checkpoint"):
                draw(x, **options, **about)
            continue
        drawn = draw(x, **options, **about)
        assert isinstance(drawn, Figure)
        if name in UNDATED and kind in ("snapshot", "hooked model"):
            assert UNDATED[name] in drawn.layout.annotations[0].text
            continue
        assert len(drawn.data)


def test_a_module_of_ones_own_is_one_too():
    torch.manual_seed(0)
    task = gi.ModularTask("add", p=7)
    module = torch.nn.Sequential(
        torch.nn.Embedding(8, 4), torch.nn.Flatten(), torch.nn.Linear(12, 7)
    )
    mask = torch.arange(49) < 30
    table = gi.progress_measures(module, task=task, train_mask=mask)
    assert len(table) == 1
    assert table.train_loss.item() == pytest.approx(
        torch.nn.functional.cross_entropy(module(task.tokens[mask]), task.labels[mask]).item()
    )
    assert gi.detect_phases(module, task=task, train_mask=mask).phases is None
    assert not gi.key_frequencies(module, task=task, train_mask=mask)
    assert viz.plot_progress(module, task=task, train_mask=mask).data
    assert gi.ablate(module, task=task, train_mask=mask, placebos=0, interventions=[
        gi.hooks.neurons("0", range(4))
    ]).rows  # fmt: skip


def test_a_sweep_is_drawn_from_its_path(tmp_path):
    table = pd.DataFrame(
        {"run": list("abcd"), "lr": [0.1, 0.1, 0.2, 0.2], "weight_decay": [0, 1, 0, 1],
         "label": "grokked", "grok_step": [1, 2, 3, 4], "note": "", "fingerprint": "x"}
    )  # fmt: skip
    table.to_csv(tmp_path / "results.csv", index=False)
    for x in (tmp_path, str(tmp_path / "results.csv"), table):
        assert viz.plot_phase_diagram(x, x="lr", y="weight_decay").data
        assert viz.plot_scaling(x, x="lr").data


def test_an_argument_that_is_misspelt_gets_the_nearest_one(subjects):
    run, _ = subjects["run"]
    for call, meant in (
        (lambda: gi.ablate(run, placbos=3), "placebos"),
        (lambda: gi.progress.restricted_loss(run, stp=3), "step"),
        (lambda: gi.hooks.heads(0, 1, moed="mean"), "mode"),
        (lambda: viz.plot_neurons(run, neuros=[1]), "neurons"),
        (lambda: viz.plot_ablation(run, placbos=3), "placebos"),
        (lambda: gi.compare([run, run], algn="step"), "align"),
    ):
        with pytest.raises(gi.InputError, match=f"has no argument .*; did you mean '{meant}'"):
            call()
    with pytest.raises(gi.InputError, match="no argument 'width'; it takes none"):
        gi.key_frequencies(run).plot(width=3)


@pytest.mark.parametrize(
    ("module", "wrong", "meant"),
    [
        (gi, "key_frequncies", "key_frequencies"),
        (gi.fourier, "neuron_irp", "neuron_ipr"),
        (gi.viz, "plot_neuron", "plot_neurons"),
        (gi.hooks, "head", "heads"),
        (gi.register, "tsk", "task"),
    ],
)
def test_a_name_that_is_misspelt_gets_the_nearest_one(module, wrong, meant):
    with pytest.raises(AttributeError, match=f"no attribute '{wrong}'; did you mean '{meant}'"):
        getattr(module, wrong)
    assert not hasattr(module, "__wrapped__")
