"""A table of logits that is not kept: memory stays below it, training takes mini-batches."""

import subprocess
import sys

import pytest

import grokinterp as gi

MEASURE = r"""
import re
from pathlib import Path
import grokinterp as gi
from grokinterp.progress.measures import measure_snapshot
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks.splits import mask_of

recipe = gi.Recipe(p={p}, d_mlp=32)
task, architecture = recipe.build_task(), recipe.architecture()
weights = architecture.initial(seed=0)
mask = mask_of(recipe.train_indices(), task.n_inputs)
snapshot = from_weights(weights, architecture, task, train_mask=mask)
task.labels, task.tokens, task.answer_group.rows

def peak():  # not ru_maxrss, which begins with the peak of the process that started this one
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

before = peak()
row = measure_snapshot(snapshot, (1, 5))
print(row["test_loss"], peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/status")
def test_measures_take_less_memory_than_the_logits(tmp_path):
    """At p = 509 these are 527 MB in float32; at p = 1009 they would be 4.1 GB.

    What the measures take is 118 to 142 MB here, and as much at p = 409, or now and then the double
    of it: a smaller table would be no more than that.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEASURE.format(p=509)], capture_output=True, text=True, check=True
    )
    loss, kilobytes = map(float, done.stdout.split())
    assert 6 < loss < 7  # log(509) = 6.23, and what random logits add
    assert kilobytes < 509**3 * 4 / 1e3 * 0.9


def test_mini_batches_train_a_prime_of_three_digits(tmp_path):
    recipe = gi.Recipe(
        p=211, d_mlp=32, batch_size=512, steps=30, log_every=30, checkpoints=[0, 30], lr=3e-3
    )
    run = gi.train(recipe, tmp_path / "run")
    first, last = run.metrics.train_loss.iloc[[0, -1]]
    assert last < first
    assert gi.key_frequencies(run).frequencies == ()
