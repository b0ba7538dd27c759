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
    lambda: encodings.compressibility(5),
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
    lambda: encodings.measured(5),
    lambda: run_sweep("sweep.toml", "out"),
    lambda: gi.compare("runs/mine"),
    lambda: gi.compare([one, 5]),
    lambda: gi.compare([one], align=["phase"]),
    lambda: encodings.information_path([one]),
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
    lambda: viz.plot_emergence(one, frequencies=[99]),
    lambda: viz.plot_pruning_curves({"a": 3}),
    lambda: viz.plot_pruning_curves({}),
):
    try:
        call()
    except gi.InputError as refused:
        print(refused)
"""

SAYS = """
5 is not something to analyse; give a run
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
5 is not something to analyse; give a run
'sweep.toml' is no sweep; give Sweep.from_toml(path).
runs/mine does not exist; give the folder of a run
5 is not something to analyse; give a run
align=['phase'] is not known
list is not something to analyse; give a run
runs/mine does not exist; give the folder of a run
one checkpoint is no trajectory
form=['exact'] is not known
vector='a' is not a dict of tensors
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give a log of losses or accuracies against step.
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
runs/mine does not exist; give the folder of a run
frequency 99 is not in the table; give some of its columns, numbers.
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
