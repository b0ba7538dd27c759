"""What happened to a run on the way, as columns of a table of runs: measures of scope "run"."""

import math
from functools import partial

from grokinterp.base.errors import InputError
from grokinterp.progress.measures import Columns, measure
from grokinterp.runs.run import Run
from grokinterp.training.decay_balance import balance

measure_of_runs = partial(measure, scope="run", default=False)


@measure_of_runs("balance", prefix="balance_")
def _balance(run: Run) -> Columns:
    """Fall of the norm, after its largest, over lr x weight decay; how it grew, and shrank."""
    found = balance(run)
    if found.peak_step == found.steps[-1]:
        raise InputError("the norm is largest at the last checkpoint, so that nothing shrinks it.")
    ratio = found.over(found.peak_step, found.steps[-1])["ratio"]
    if math.isnan(ratio):
        raise InputError(f"{found.notes[0]}." if found.notes else "the norms are not finite.")
    return {"ratio": ratio, "norm_grown": found.grown, "norm_shrunk": found.shrunk}
