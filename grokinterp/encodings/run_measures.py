"""Named measures of a finished run, a few columns each, as the tables of sweeps have them.

`RUN_MEASURES` says what can be asked for by name. Every function takes a run, looks at its last
checkpoint (but for "compressibility_peak") and returns columns; what its task does not define has
none. Manning-Coe et al. 2025 (arXiv 2502.01739), sections 2, 4 to 6.
"""

from collections.abc import Callable, Sequence
from functools import partial

from grokinterp.arguments import listed
from grokinterp.circuits.subject import check_run
from grokinterp.encodings.compressibility import compressibility, learnt_steps
from grokinterp.encodings.features import features, observable_correlations
from grokinterp.encodings.pruning_curves import pruning_curve
from grokinterp.encodings.sizes import quantized_size, sizes
from grokinterp.errors import InputError, nearest, shown
from grokinterp.fourier.key_frequencies import key_frequencies
from grokinterp.models.architecture import all_finite
from grokinterp.progress.detection import detect_phases
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask

Columns = dict[str, object]
PHASES = ("memorization", "circuit_formation", "cleanup")
LAST = ("train_loss", "test_loss", "train_acc", "test_acc", "test_acc_unmirrored")


def _compressibility(run: Run) -> Columns:
    curve = pruning_curve(run)
    return {"c": curve.c, "prunable": curve.prunable}


def _compressibility_peak(run: Run) -> Columns:
    learnt = learnt_steps(run)
    if not learnt:
        raise InputError("no checkpoint has learnt the test inputs; save more steps.")
    over_training = compressibility(run, steps=learnt)
    peak = over_training.iloc[int(over_training.c.argmax())]
    return {"c_peak": peak.c, "c_peak_step": int(peak.step)}


def _scopes(run: Run) -> Columns:
    return {
        "c_global": pruning_curve(run, scope="global").c,
        "c_normalized": pruning_curve(run, scope="global_normalized").c,
    }


def _bases(run: Run) -> Columns:
    found: Columns = {"c_singular": pruning_curve(run, basis="singular").c}
    if isinstance(run.task, ModularTask):
        curve = pruning_curve(run, basis="fourier")
        found |= {"c_fourier": curve.c, "prunable_fourier": curve.prunable}
    return found


def _fisher_pruning(run: Run) -> Columns:
    return {
        f"c_{scores}": pruning_curve(run, scores=scores).c
        for scores in ("fisher_softmax", "fisher_logits")
    }


def _sizes(run: Run) -> Columns:
    found = sizes(run)
    return {
        "gini_weights": found.gini,
        "effective_rank": found.mean_effective_rank,
        "bytes": quantized_size(run).compressed_bytes,
    }


def _features(run: Run) -> Columns:
    if isinstance(run.task, ModularTask):
        means = features(run, steps=[-1]).iloc[0]
        return {name: means[name] for name in ("ipr_input", "ipr_output")}
    found: Columns = {}
    for line in observable_correlations(run).itertuples():
        found[f"r_{line.layer}_{line.observable}"] = line.median_r
        found[f"r_{line.layer}_{line.observable}_weighted"] = line.weighted_r
    return found


RUN_MEASURES: dict[str, Callable[[Run], Columns]] = {
    "compressibility": _compressibility,  # c, prunable
    "compressibility_peak": _compressibility_peak,  # the largest c since the task is learnt, when
    "scopes": _scopes,  # c of weights ranked over all layers
    "bases": _bases,  # c in other bases of the weights
    "fisher_pruning": _fisher_pruning,  # c by Fisher information
    "sizes": _sizes,  # Gini coefficient, effective rank, compressed bytes
    "features": _features,  # IPRs, or correlations of layers with energy and magnetisation
}


def check_run_measures(names: Sequence[str]) -> None:
    """InputError for a name that is none of `RUN_MEASURES`, or stands twice."""
    names = listed("names", names, such_as="['sizes']")
    for position, name in enumerate(names):
        if not isinstance(name, str) or name not in RUN_MEASURES:
            raise InputError(
                f"measure {shown(name)} is not known; {nearest(str(name), RUN_MEASURES)}"
            )
        if name in names[:position]:
            raise InputError(f"measure {name!r} is asked for twice; name it once.")


def measuring(names: Sequence[str]) -> Callable[[Run], Columns]:
    """`measured` with these names, checked now: what `run_sweep` takes as `measure`."""
    check_run_measures(names)
    return partial(measured, names=tuple(names))


def measured(run: Run, names: Sequence[str] = ()) -> Columns:
    """A row of a table of runs: when it learned, what it learned, and the measures named.

    label; t_train and t_test, in updates (Definition 1 on curves smoothed by a running median);
    memorization_step and grok_step (crossings of the usual thresholds) and the ends of the phases,
    all as `detect_phases` has them from the metrics; losses in nats and accuracies of the last
    logged step, with test_acc_unmirrored where the run logs it; best_test_acc over the log,
    unsmoothed; key_frequencies of the last checkpoint, () where it has no sparse circuit that
    reaches inputs it was not trained on, None where they are not defined; then the columns of
    `names` from `RUN_MEASURES`. What could not be measured of this model has no column, and `note`
    says why ("" else): also that unmirrored test pairs refused the frequencies, and that a run
    diverged, whose weights are not measured. InputError for unknown names and for a run without
    metrics.

    t_train and t_test are of the run's own best, which need not be good: read them with the label.
    """
    check_run(run)
    check_run_measures(names)
    if run.metrics.empty:
        raise InputError(f"{run.path} has no metrics; import the run with metrics=FILE.csv.")
    phases = detect_phases(run.metrics, ceiling=run.task.ceiling)
    ends = {phase.name: phase.end for phase in phases.phases}
    last = run.metrics.iloc[-1]
    row: Columns = {
        "label": phases.label,
        "t_train": phases.t_train,
        "t_test": phases.t_test,
        "memorization_step": phases.memorization_step,
        "grok_step": phases.grok_step,
        **{f"{name}_end": ends.get(name) for name in PHASES},
        **{column: last[column] for column in LAST if column in run.metrics},
        "best_test_acc": run.metrics.test_acc.max(),
        "key_frequencies": None,
    }
    if not all_finite(run.weights()):
        return row | {"note": f"it diverged: weights of step {run.steps[-1]} are not finite"}
    keys = key_frequencies(run.snapshot())
    row["key_frequencies"] = keys.frequencies
    notes = [f"key frequencies: {keys.reason}"] if keys.rejected else list(keys.notes)
    for name in names:
        try:
            row |= RUN_MEASURES[name](run)
        except InputError as error:
            notes.append(f"{name}: {error}")
    return row | {"note": "; ".join(notes)}
