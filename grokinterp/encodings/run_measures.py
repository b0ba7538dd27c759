"""Measures of a finished run that can be asked for by name, as the table of a sweep has them.

They stand in the registry of `grokinterp.progress.measures`, with scope "run". Each looks at the
last checkpoint (but for "compressibility_peak") and returns columns; what the task does not define
has none. Manning-Coe et al. 2025 (arXiv 2502.01739), sections 2, 4 to 6.
"""

from functools import partial

from grokinterp.base.errors import InputError
from grokinterp.encodings._features import observable_correlations
from grokinterp.encodings._sizes import quantized_size, sizes_of
from grokinterp.encodings.pruning_curves import compressibility, learnt_steps, pruning_curve
from grokinterp.progress.measures import MEASURES, measure
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask

Columns = dict[str, object]
measure_of_runs = partial(measure, scope="run", default=False)


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
    """C of weights ranked over all layers together, as they are and normalised."""
    scopes = {"c_global": "global", "c_normalized": "global_normalized"}
    return {column: pruning_curve(run, scope=scope).c for column, scope in scopes.items()}


@measure_of_runs("bases")
def _bases(run: Run) -> Columns:
    """C in singular values, and in the tokens' Fourier basis with what can go there."""
    found: Columns = {"c_singular": pruning_curve(run, basis="singular").c}
    if isinstance(run.task, ModularTask):
        curve = pruning_curve(run, basis="fourier")
        found |= {"c_fourier": curve.c, "prunable_fourier": curve.prunable}
    return found


@measure_of_runs("fisher_pruning")
def _fisher_pruning(run: Run) -> Columns:
    """C by Fisher information of softmax and of logits."""
    both = ("fisher_softmax", "fisher_logits")
    return {f"c_{scores}": pruning_curve(run, scores=scores).c for scores in both}


@measure_of_runs("sizes")
def _sizes(run: Run) -> Columns:
    """Gini coefficient of |weights|, mean effective rank of the matrices, compressed bytes."""
    return {**sizes_of(run.snapshot()), "bytes": quantized_size(run).compressed_bytes}


@measure_of_runs("features")
def _features(run: Run) -> Columns:
    """Mean IPRs of neurons, or |r| of layers with energy and magnetisation: median, weighted."""
    if isinstance(run.task, ModularTask):
        snapshot = run.snapshot()
        return {name: MEASURES[name].function(snapshot) for name in ("ipr_input", "ipr_output")}
    found: Columns = {}
    for line in observable_correlations(run).itertuples():
        found[f"r_{line.layer}_{line.observable}"] = line.median_r
        found[f"r_{line.layer}_{line.observable}_weighted"] = line.weighted_r
    return found
