"""What the course of training says of a run, as columns of a table: asked for by name.

Each is a measure of scope "run", as in the table of a sweep: a few numbers of a result that
`gi.progress` gives whole. What cannot be said of a run is refused with its reason.
"""

import math
from functools import partial

from grokinterp.base.errors import InputError
from grokinterp.progress._abruptness import abruptness
from grokinterp.progress._descents import CONDITIONS, Descents, descents
from grokinterp.progress._phase_shares import phase_shares
from grokinterp.progress._slingshots import Slingshots, slingshots
from grokinterp.progress.measures import Columns, measure
from grokinterp.progress.phases import PHASES
from grokinterp.runs.run import Run
from grokinterp.training.decay_balance import balance

measure_of_runs = partial(measure, scope="run", default=False)


@measure_of_runs("abruptness", prefix="abruptness_")
def _abruptness(run: Run) -> Columns:
    """When accuracy rises, how much faster the mean margin then is, and what the threshold adds."""
    found = abruptness(run)
    rise = found.rise("accuracy")
    if rise is None or found.mean_speed is None:
        raise InputError(f"{found.notes[-1]}.")
    return {
        "t10": rise.t10, "t50": rise.t50, "t90": rise.t90, "acceleration": found.acceleration,
        "threshold_share": found.threshold_share, "probability_ratio": found.probability_ratio,
        "one_flip": found.one_flip,
    }  # fmt: skip


@measure_of_runs("phase_shares", prefix="share_")
def _phase_shares(run: Run) -> Columns:
    """Which share of the rise of accuracy and of the fall of the log loss falls into each phase."""
    found = phase_shares(run)
    if found.ends is None:
        raise InputError(f"{found.notes[0]}.")
    unmirrored = any(each.measure == "test_acc_unmirrored" for each in found.shares)
    accuracy = "test_acc_unmirrored" if unmirrored else "test_acc"
    known = [each for each in found.shares if each.measure in (accuracy, "log_test_loss")]
    return {f"{each.measure}_{phase}": getattr(each, phase) for each in known for phase in PHASES}


@measure_of_runs("descents", prefix="descents_")
def _descents(run: Run) -> Columns:
    """Peak of the test loss, the minimum before it, and which conditions of double descent hold."""
    found = descents(run)
    if not isinstance(found, Descents) or found.loss is None:
        raise InputError("there is no test loss; give a run that logs it.")
    loss = found.loss
    columns: Columns = {"double_descent": found.double_descent}
    for name, extreme in (("min1", loss.min1), ("peak", loss.peak)):
        columns[name] = None if extreme is None else extreme.value
        columns[f"{name}_step"] = None if extreme is None else extreme.step
    return columns | {"ratio": loss.ratio} | {name: getattr(loss, name) for name in CONDITIONS}


@measure_of_runs("slingshots", prefix="slingshots_")
def _slingshots(run: Run) -> Columns:
    """How many spikes of the train loss there are after memorising, and the largest ratio."""
    found = slingshots(run)
    if not isinstance(found, Slingshots) or found.n is None:
        raise InputError(f"{found.notes[-1]}.")
    return {"n": found.n, "largest": found.largest, "largest_step": found.largest_at}


@measure_of_runs("balance", prefix="balance_")
def _balance(run: Run) -> Columns:
    """Fall of the norm, after its largest, over lr x weight decay; how it grew, and shrank.

    The ratio is null where the norm is largest at the end, and where decay does not act by itself.
    """
    found = balance(run)
    shrinks = found.peak_step < found.steps[-1]
    ratio = found.over(found.peak_step, found.steps[-1])["ratio"] if shrinks else math.nan
    return {
        "ratio": None if math.isnan(ratio) else ratio,
        "norm_grown": found.grown,
        "norm_shrunk": found.shrunk,
    }
