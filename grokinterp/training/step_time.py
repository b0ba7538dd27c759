"""How long does a step of training take here? A few are trained, logged as the recipe says."""

import tempfile
import time
from pathlib import Path

from grokinterp.recipe.recipe import Recipe
from grokinterp.training.loop import train

FEWEST = 20  # timed steps


def seconds_per_step(recipe: Recipe) -> float:
    """Mean seconds of a step, its share of logging included; nothing is kept.

    The difference between a training of one step and one of at least 20 and two logged rows, so
    that what every training does once counts nothing. It holds while the machine is as busy as now.

    >>> import grokinterp as gi
    >>> 0 < seconds_per_step(gi.Recipe(p=5, model="mlp", widths=[8])) < 1
    True
    """
    n = max(FEWEST, 2 * recipe.log_every)
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for i, steps in enumerate((1, 1, 1 + n)):  # the first makes what the others find made
            start = time.perf_counter()
            short = recipe.replace(steps=steps, checkpoints=(0,))
            train(short, Path(folder, str(i)), progress=False)
            times.append(time.perf_counter() - start)
    return max(times[2] - times[1], 0.0) / n
