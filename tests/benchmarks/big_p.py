"""Time and memory of a checkpoint's measures against p. Prints; asserts nothing.

    python tests/benchmarks/big_p.py [P ...]        (113 and 1009 without arguments)

Every p is measured in a process of its own, so that each peak of memory is its own: a random
one-layer transformer, whose weights stand for a checkpoint, with five frequencies given.
"""

import resource
import subprocess
import sys
import time

import torch

import grokinterp as gi
from grokinterp.base.memory import kept_memory
from grokinterp.progress.measures import measure_snapshot
from grokinterp.runs._snapshot import from_weights
from grokinterp.tasks.splits import mask_of

FREQUENCIES = (1, 3, 7, 20, 50)


def one(p: int) -> None:
    """Measures, then key frequencies with all their rules, of one p."""
    recipe = gi.Recipe(p=p)
    architecture, task = recipe.architecture(), recipe.build_task()
    weights = architecture.initial(seed=0)
    mask = mask_of(recipe.train_indices(), task.n_inputs)

    def snapshot() -> gi.Snapshot:
        return from_weights(weights, architecture, task, train_mask=mask)

    repeat = 10 if p < 200 else 1
    with kept_memory():
        if repeat > 1:
            measure_snapshot(snapshot(), FREQUENCIES)
        start = time.perf_counter()
        for _ in range(repeat):
            measure_snapshot(snapshot(), FREQUENCIES)
        seconds = (time.perf_counter() - start) / repeat
    measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    start = time.perf_counter()
    gi.key_frequencies(snapshot())
    rules = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"p = {p:<5} measures {seconds:8.3f} s, {seconds / p**3 * 1e9:5.2f} ns a cell, "
        f"{measured:.2f} GB; key frequencies by all rules {rules:7.2f} s, {peak:.2f} GB",
        flush=True,
    )


def main() -> None:
    """A line for every p."""
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}", flush=True)
    for p in sys.argv[1:] or ("113", "1009"):
        subprocess.run([sys.executable, __file__, "--one", p], check=True)


if __name__ == "__main__":
    main()
