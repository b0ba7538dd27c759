"""What works for which model, and for which task: the tables of the documentation, by trying.

python -m tests.what_works    # prints both
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import grokinterp as gi
from grokinterp import circuits
from grokinterp.circuits import hooks
from grokinterp.encodings import pruning_curve
from grokinterp.fourier import neuron_ipr
from grokinterp.geometry import fisher_diagonal, information_path
from tests.models_of_users import layer_norm_model

P = 7
RECORDER = "`gi.Recorder`: a run of one's own loop"
PHASES = "`gi.detect_phases`, `gi.progress_measures`"
REPORT, PATH = "`gi.report`", "`geometry.information_path`"
OF_RUNS = (RECORDER, PHASES, REPORT, PATH)
SMALL = {"p": P, "d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 16, "steps": 2}


class Net(torch.nn.Module):
    """Two-hot, one hidden layer of ReLU neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.act = torch.nn.Linear(2 * P, 16), torch.nn.ReLU()
        self.fc2 = torch.nn.Linear(16, P)

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        two_hot = torch.nn.functional.one_hot(pairs, P).flatten(1).to(self.fc1.weight.dtype)
        return self.fc2(self.act(self.fc1(two_hot)))


def recorded(model: Any, task: gi.ModularTask, folder: Path) -> gi.Run | None:
    """A run of two checkpoints of a model; None where its weights do not give it back."""
    mask = torch.arange(task.n_inputs) % 2 == 0
    recorder = gi.Recorder(folder, task=task, train_mask=mask)
    try:
        recorder.save(0, model)
        recorder.save(1, model)
    except gi.InputError:
        return None
    return recorder.close()


Looked = tuple[Any, gi.ModularTask, gi.Run | None]


def trained(recipes: dict[str, gi.Recipe], folder: Path) -> dict[str, Looked]:
    """A model, its task and a run by each recipe."""
    made: dict[str, Looked] = {}
    for place, (name, recipe) in enumerate(recipes.items()):
        run = gi.train(recipe, folder / f"run{place}", progress=False)
        made[name] = run.model(), run.task, run
    return made


def after_norms(folder: Path) -> Looked:
    """A transformer with norms after attention and MLP, as torch.nn.TransformerEncoder has them."""
    task = gi.ModularTask("add", P)
    shape = gi.Recipe(**SMALL).architecture()
    sizes = {**shape.fields_given(), "normalization_type": "LN", "norm_position": "post"}
    shape = gi.models.TransformerArchitecture(**{**sizes, "final_norm": False})
    model = shape.hooked(shape.initial(seed=0))
    return model, task, recorded(model, task, folder / "after")


def models(folder: Path) -> dict[str, Looked]:
    """A model of each column, its task, and a run of it."""
    mlp = {"model": "mlp", "p": P, "d_mlp": 16, "steps": 2}
    made = trained(
        {
            "transformer, one layer": gi.Recipe(**SMALL),
            "deeper": gi.Recipe(**SMALL, n_layers=2),
            "attention only": gi.Recipe(**SMALL, attn_only=True),
            "RMSNorm": gi.Recipe(**SMALL, normalization_type="RMS"),
        },
        folder / "transformers",
    )
    made["norms after, as in torch"] = after_norms(folder)
    made |= trained(
        {
            "MLP": gi.Recipe(**mlp),
            "MLP, embeddings summed": gi.Recipe(**mlp, embedding="learned", combine="sum"),
            "MLP, an embedding each": gi.Recipe(**mlp, embedding="learned", separate=True),
        },
        folder / "mlps",
    )
    own, task = layer_norm_model(layers=1, p=P), gi.ModularTask("add", P)
    made["transformer with hooks"] = own, task, recorded(own, task, folder / "hooks")
    net, pairs = Net(), gi.ModularTask("add", P, False)
    made["any module"] = net, pairs, recorded(net, pairs, folder / "module")
    return made


def tasks(folder: Path) -> dict[str, Looked]:
    """A transformer of one layer on each task: its layout, its operation."""
    settings = {
        '"a op b ="': {"layout": "a op b ="},
        '"a op b"': {"layout": "a op b"},
        "`divide`": {"operation": "divide"},
        "`a*b + a`": {"operation": "a*b + a"},
        "`a**2 + b`": {"operation": "a**2 + b"},
        "`a**2 + b**2`": {"operation": "a**2 + b**2"},
        "`mix1`": {"operation": "mix1"},
        "`a/b + a + b`": {"operation": "a/b + a + b"},
    }
    return trained({name: gi.Recipe(**SMALL, **x) for name, x in settings.items()}, folder)


def analyses(layer: int | str, folder: Path) -> dict[str, Callable[[Any, Any], object]]:
    """Every row: a function of a snapshot and of a run, of which it uses one."""
    keys = {"frequencies": [1, 2]}
    neuron = [hooks.neurons(layer, [0, 1])]
    return {
        "`gi.snapshot`: logits, activations by name": lambda x, run: x.logits,
        RECORDER: lambda x, run: run.metrics,
        "`gi.key_frequencies`": lambda x, run: gi.key_frequencies(x),
        PHASES: lambda x, run: gi.detect_phases(run),
        REPORT: lambda x, run: gi.report(run, folder / "report.html"),
        "`circuits.neuron_clusters` of a layer": lambda x, run: circuits.neuron_clusters(
            x, layer=layer, **keys
        ),
        "`viz.plot_neurons`, `plot_neuron_fourier` of a layer": lambda x, run: (
            gi.viz.plot_neurons(x, neurons=[0], layer=layer, **keys),
            gi.viz.plot_neuron_fourier(x, neurons=[0], layer=layer, **keys),
        ),
        "`gi.ablate`, `hooks.neurons(layer, ...)` with placebos": lambda x, run: gi.ablate(
            x, neuron, placebos=2, **keys
        ),
        "`gi.ablate` without a list": lambda x, run: gi.ablate(x, placebos=1, **keys),
        "`circuits.attribution`": lambda x, run: circuits.attribution(x, **keys),
        "`circuits.attention`": lambda x, run: circuits.attention(x, **keys),
        "`circuits.algorithm`, clock or pizza": lambda x, run: circuits.algorithm(x, **keys),
        "`circuits.faithfulness`, `circuit_graph`": lambda x, run: circuits.circuit_graph(
            x, **keys
        ),
        "`circuits.polynomial_fits`": lambda x, run: circuits.polynomial_fits(x, **keys),
        "`fourier.neuron_ipr`": lambda x, run: neuron_ipr(x),
        "`encodings.pruning_curve`": lambda x, run: pruning_curve(x),
        "`geometry.fisher_diagonal`": lambda x, run: fisher_diagonal(x, n_samples=4),
        PATH: lambda x, run: information_path(run),
    }


def table(looked: dict[str, Looked], folder: Path) -> str:
    """A table in Markdown: what raises no InputError works."""
    columns: dict[str, list[str]] = {}
    for name, (model, task, run) in looked.items():
        mask = torch.arange(task.n_inputs) % 2 == 0
        seen = gi.snapshot(model, task, train_mask=mask)
        cells = []
        for what, analysis in analyses("act" if name == "any module" else 0, folder).items():
            try:
                if run is None and what in OF_RUNS:
                    raise gi.InputError("there is no run of it")
                analysis(seen, run)
                cells.append("yes")
            except gi.InputError:
                cells.append("-")
        columns[name] = cells
    rows = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for i, what in enumerate(analyses(0, folder)):
        rows.append(f"| {what} | {' | '.join(cells[i] for cells in columns.values())} |")
    return "\n".join(rows)


if __name__ == "__main__":
    place = Path(tempfile.mkdtemp())
    print(table(models(place), place), table(tasks(place / "tasks"), place), sep="\n\n")
