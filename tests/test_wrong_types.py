"""What is given in a wrong type is refused in one line, as people meet it: without type checks.

The suite checks the annotations of every call (conftest.py), so these run in their own process.
"""

import subprocess
import sys

SCRIPT = """
import torch
import grokinterp as gi
from grokinterp import encodings, viz
from grokinterp.encodings.pruning import prune
from grokinterp.encodings._sizes import effective_rank
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.progress.observables import correlations
from grokinterp.runs._snapshot import from_weights
from grokinterp.training import run_sweep

recipe = gi.recipes()["mlp113-grokked"].replace(p=5, d_mlp=4)
task = recipe.build_task()
shapes = recipe.architecture().parameter_shapes()
weights = {name: torch.randn(shape) for name, shape in shapes.items()}
one = from_weights(weights, recipe.architecture(), task)

for call in (
    lambda: encodings.compressibility(one),
    lambda: encodings.features("runs/mine"),
    lambda: encodings.pruning_curve(one, fractions="abc"),
    lambda: encodings.pruning_curve(one, fractions=[0, None, 1]),
    lambda: encodings.pruning_curve(one, keep="a"),
    lambda: encodings.pruning_curve(one, scope=["layer"]),
    lambda: encodings.pruning_curve(one, basis=["fourier"]),
    lambda: encodings.pruning_curve(one, scores={n: w.numpy() for n, w in weights.items()}),
    lambda: prune(weights, "a"),
    lambda: encodings.quantized_size(one, method=["bz2"]),
    lambda: neuron_ipr(one, convention=["real"]),
    lambda: neuron_ipr(one, path=3),
    lambda: effective_rank(torch.ones(3)),
    lambda: correlations(torch.ones(3, 2), torch.ones(4)),
    lambda: encodings.measured(one),
    lambda: run_sweep("sweep.toml", "out"),
    lambda: gi.compare("runs/mine"),
    lambda: gi.compare([one, one]),
    lambda: gi.compare([one], align=["phase"]),
    lambda: encodings.information_path(one),
    lambda: encodings.step_geometry("runs/mine"),
    lambda: encodings.trajectory_embedding([one]),
    lambda: encodings.fisher_metric(one, form=["exact"]),
    lambda: encodings.fisher_metric(one, rows="all").norm("a"),
    *(lambda draw=draw: draw("runs/mine") for draw in (
        viz.plot_ablation, viz.plot_attention, viz.plot_attribution, viz.plot_circuit_graph,
        viz.plot_comparison, viz.plot_faithfulness, viz.plot_fourier_heat_map,
        viz.plot_information_path, viz.plot_key_frequencies, viz.plot_neuron_clusters,
        viz.plot_phases, viz.plot_progress, viz.plot_pruning_curves, viz.plot_trajectories,
    )),
    lambda: viz.plot_emergence(one, frequencies=[1]),
    lambda: viz.plot_pruning_curves({"a": 3}),
    lambda: viz.plot_pruning_curves({}),
):
    try:
        call()
    except gi.InputError as refused:
        print(refused)
"""

SAYS = """
Snapshot has no checkpoints
runs/mine does not exist; give the folder of a run
fractions are not numbers
fractions are not numbers
keep='a'
scope=['layer'] is not known
basis=['fourier'] is not known
of type ndarray; give a tensor
fraction='a'
method=['bz2'] is not known
convention=['real'] is not known
path=3 is not known
matrix has shape (3,)
3 rows and the observable 4
Snapshot has no checkpoints
'sweep.toml' is no sweep; give Sweep.from_toml(path).
runs/mine does not exist; give the folder of a run
Snapshot has no checkpoints
align=['phase'] is not known
Snapshot has no checkpoints
runs/mine does not exist; give the folder of a run
Snapshot has no checkpoints
form=['exact'] is not known
vector='a' is not a dict of tensors
'runs/mine' cannot be drawn here; give what gi.ablate returns.
'runs/mine' cannot be drawn here; give what circuits.attention returns.
'runs/mine' cannot be drawn here; give what circuits.attribution returns.
'runs/mine' cannot be drawn here; give what circuits.circuit_graph returns.
'runs/mine' cannot be drawn here; give what gi.compare returns.
'runs/mine' cannot be drawn here; give what circuits.faithfulness returns.
'runs/mine' cannot be drawn here; give what encodings.fourier_heat_map returns.
'runs/mine' cannot be drawn here; give what geometry.information_path returns.
'runs/mine' cannot be drawn here; give what gi.key_frequencies returns.
'runs/mine' cannot be drawn here; give what circuits.neuron_clusters returns.
'runs/mine' cannot be drawn here; give what gi.detect_phases returns.
'runs/mine' cannot be drawn here; give what gi.progress_measures returns.
'runs/mine' cannot be drawn here; give what encodings.pruning_curve returns.
'runs/mine' cannot be drawn here; give what geometry.trajectory_embedding returns.
Snapshot cannot be drawn here; give what fourier.frequency_shares returns.
3 cannot be drawn here; give what encodings.pruning_curve returns.
there are no curves to draw
"""


def test_refusals_are_one_line_each():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    lines, says = done.stdout.splitlines(), SAYS.split("\n")[1:-1]
    assert len(lines) == len(says), done.stdout
    for line, part in zip(lines, says, strict=True):
        assert part in line
