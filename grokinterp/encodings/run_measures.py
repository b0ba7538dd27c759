"""What a run has encoded, as columns of a table: over training, and at its end.

The measures of scope "run" are asked for by name, as in the table of a sweep. Each looks at the
last checkpoint (but for "compressibility_peak"); what the task does not define has no column.
Manning-Coe et al. 2025 (arXiv 2502.01739), sections 2, 4 to 6, appendices B to D.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.encodings._sizes import quantized_size, sizes_of
from grokinterp.encodings.circuit_efficiency import efficiency
from grokinterp.encodings.pruning_curves import compressibility, learnt_steps, pruning_curve
from grokinterp.encodings.ranks_over_training import ranks
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.observables import (
    correlation_table,
    observables,
    observed_rows,
    pre_activations,
)
from grokinterp.reading._load import Subject, progress_bar, run_of, snapshot_of, steps_of
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

measure_of_runs = partial(measure, scope="run", default=False)


def observable_correlations(
    x: Subject,
    *,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> pd.DataFrame:
    r"""How every layer of an Ising model goes with E, |M| and M: weighted and median |r|.

    A row per layer and observable. r_k is the Pearson correlation, over the test configurations
    (all of them without a split: `.attrs["rows"]`), of unit k's pre-activation with the observable;
    units are the entries of a layer's pre-activation, each site of each channel by itself, and the
    classes of the logits. `weighted_r` is sum_k w_k |r_k| with w_k unit k's share of the layer's
    sum of |z|, `median_r` counts every unit alike; `weighted_r_over_units` is eq. 6 as printed.

    A correlation shows what a unit goes with, not what the answer is computed from: E and |M| go
    together themselves (`.attrs["r_energy_abs_magnetization"]`). InputError for other tasks, and
    for models that are no MLP or CNN of this package.

    >>> import tempfile
    >>> import grokinterp as gi
    >>> recipe = gi.Recipe(
    ...     task="ising", lattice=4, n_train=40, n_test=40, sweeps=20,
    ...     model="cnn", channels=(2,), d_mlp=8, steps=50, checkpoints=(0, 50),
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = gi.train(recipe, folder + "/ising", progress=False)
    ...     found = gi.encodings.observable_correlations(run)
    >>> found[["layer", "observable", "median_r"]].round(2).tail(3)
        layer         observable  median_r
    6  logits             energy      0.52
    7  logits  abs_magnetization      0.60
    8  logits      magnetization      0.11
    >>> found.attrs["rows"], round(found.attrs["r_energy_abs_magnetization"], 2)
    ('test', -0.97)
    """
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    rows = observed_rows(snapshot)
    values = {name: value[rows] for name, value in observables(snapshot).items()}
    frame = correlation_table({n: z[rows] for n, z in pre_activations(snapshot).items()}, values)
    rows_are = "all" if snapshot.test_rows is None else "test"
    frame.attrs |= {"rows": rows_are, "step": snapshot.step}
    if {"energy", "abs_magnetization"} <= values.keys():
        both = torch.stack([values["energy"], values["abs_magnetization"]])
        frame.attrs["r_energy_abs_magnetization"] = float(torch.corrcoef(both)[0, 1])
    return frame


def features(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    convention: str | None = None,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """The features of a run over training, one row per checkpoint.

    For modular arithmetic the mean IPR of input weights (per operand block, and both stacked) and
    output weights, in the real basis or another `convention` of `neuron_ipr`; for Ising, weighted
    and median |r| of every layer with every observable, as columns `LAYER.OBSERVABLE.weighted_r`
    and `.median_r`.

    >>> import grokinterp as gi
    >>> found = gi.encodings.features(gi.load("mod31-small"), steps=[0, 1000, 10000])
    >>> found[["step", "ipr_input", "ipr_output"]].round(2)
        step  ipr_input  ipr_output
    0      0       0.09        0.09
    1   1000       0.37        0.41
    2  10000       0.54        0.61
    """
    run = run_of(x, task=task, train_mask=train_mask)
    if run.task.modular is not None:
        convention = convention or "real"
    elif convention is not None:
        raise InputError(
            f"convention={convention!r} is of IPRs, which models of operand tokens alone have."
        )
    rows = []
    for step in progress_bar(steps_of(run, steps), "features", progress):
        snapshot = run.snapshot(step)
        if convention is not None:
            found = neuron_ipr(snapshot, convention=convention).means
        else:
            found = {
                f"{row.layer}.{row.observable}.{column}": getattr(row, column)
                for row in observable_correlations(snapshot).itertuples()
                for column in ("weighted_r", "median_r")
            }
        rows.append({"step": snapshot.step} | found)
    frame = pd.DataFrame(rows)
    frame.attrs["convention"] = convention
    return frame


@measure_of_runs("compressibility")
def _compressibility(run: Run) -> Columns:
    """c, and the fraction of weights that can go, by magnitude within each tensor."""
    curve = pruning_curve(run)
    return {"c": curve.c, "prunable": curve.prunable}


@measure_of_runs("compressibility_peak")
def _compressibility_peak(run: Run) -> Columns:
    """The largest c of the checkpoints that have learnt the task, and its step."""
    learnt = learnt_steps(run)
    if not learnt:
        raise InputError("no checkpoint has learnt the test inputs; save more steps.")
    over_training = compressibility(run, steps=learnt)
    peak = over_training.iloc[int(over_training.c.argmax())]
    return {"c_peak": peak.c, "c_peak_step": int(peak.step)}


@measure_of_runs("scopes")
def _scopes(run: Run) -> Columns:
    """Compressibility of weights ranked over all layers together, as they are and normalised."""
    scopes = {"c_global": "global", "c_normalized": "global_normalized"}
    return {column: pruning_curve(run, scope=scope).c for column, scope in scopes.items()}


@measure_of_runs("bases")
def _bases(run: Run) -> Columns:
    """Compressibility in singular values, and in the Fourier basis with what can go there."""
    found: Columns = {"c_singular": pruning_curve(run, basis="singular").c}
    if run.task.modular is not None:
        curve = pruning_curve(run, basis="fourier")
        found |= {"c_fourier": curve.c, "prunable_fourier": curve.prunable}
    return found


@measure_of_runs("fisher_pruning")
def _fisher_pruning(run: Run) -> Columns:
    """Compressibility by Fisher information of softmax and of logits."""
    both = ("fisher_softmax", "fisher_logits")
    return {f"c_{scores}": pruning_curve(run, scores=scores).c for scores in both}


@measure_of_runs("sizes")
def _sizes(run: Run) -> Columns:
    """Gini coefficient of |weights|, mean effective rank of the matrices, compressed bytes."""
    return {**sizes_of(run.snapshot()), "bytes": quantized_size(run).compressed_bytes}


@measure_of_runs("efficiency", prefix="efficiency_")
def _efficiency(run: Run) -> Columns:
    """Norm of the weights, mean centred logit of the right answer in training, norm / sqrt(it)."""
    if run.train_mask is None:
        raise InputError("nobody knows which rows were trained on, so there is no logit on them.")
    (row,) = efficiency(run).rows
    return {name: row[name] for name in ("norm", "logit", "normalized_norm")}


@measure_of_runs("ranks", prefix="rank_")
def _ranks(run: Run) -> Columns:
    """Effective ranks of W_E, W_U, W_in, W_out and W_out W_U: entropy of values, of squares."""
    if not run.architecture.named:
        raise InputError("matrices of a module have names of its own; gi.encodings.ranks has them.")
    found: Columns = {}
    for line in ranks(run, steps=[-1]).table().itertuples():
        if "." not in (name := str(line.matrix)):
            column = name.replace(" ", "_")
            found |= {column: line.entropy_rank, f"{column}_squared": line.entropy_rank_squared}
    return found


@measure_of_runs("features")
def _features(run: Run) -> Columns:
    """Mean IPRs of neurons, or |r| of layers with energy and magnetisation: median, weighted."""
    if run.task.modular is not None:
        means = neuron_ipr(run).means
        return {name: means[name] for name in ("ipr_input", "ipr_output")}
    found: Columns = {}
    for line in observable_correlations(run).itertuples():
        found[f"r_{line.layer}_{line.observable}"] = line.median_r
        found[f"r_{line.layer}_{line.observable}_weighted"] = line.weighted_r
    return found
