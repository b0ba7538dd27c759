"""What happened to a run on the way, as columns of a table of runs: measures of scope "run"."""

import math
from functools import partial

from grokinterp.progress.measures import Columns, measure
from grokinterp.runs.run import Run
from grokinterp.training.decay_balance import balance

measure_of_runs = partial(measure, scope="run", default=False)


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
