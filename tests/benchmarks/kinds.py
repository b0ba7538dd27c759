"""How long the runs of MLPs and CNNs take: python tests/benchmarks/kinds.py [THREADS]

Trains the first updates of the built-in recipes, evaluations and checkpoints included, and scales
them to the whole run; generates the whole Ising pool of 50,000 configurations.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

import grokinterp as gi
from grokinterp.tasks.ising import glauber

UPDATES = {"mlp113-grokked": 5600, "ising-grokked": 3000}
WARM_UP = 200


def training(name: str, threads: int) -> None:
    """Seconds of a run, from two cut ones of different length."""
    seconds = []
    for updates in (WARM_UP, WARM_UP + UPDATES[name]):
        recipe = gi.recipes()[name].replace(steps=updates, threads=threads)
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            gi.train(recipe, Path(folder) / "run", progress=False)
            seconds.append(time.perf_counter() - start)
    each = (seconds[1] - seconds[0]) / UPDATES[name]
    steps = gi.recipes()[name].steps
    print(f"{name:<16}{each * 1e3:6.2f} ms an update, {each * steps:4.0f} s for {steps} of them")


def pool() -> None:
    """Seconds for all configurations of the paper's setting."""
    task = gi.IsingTask()
    n = task.n_temperatures * task.n_repeats
    rows = torch.arange(n)
    grid = torch.linspace(-1, 1, task.n_temperatures, dtype=torch.float64) + 2.269185
    start = time.perf_counter()
    glauber(
        grid[rows // task.n_repeats], rows, lattice=task.lattice, sweeps=task.sweeps,
        seed=task.pool_seed,
    )  # fmt: skip
    print(f"{n} configurations of {task.sweeps} sweeps: {time.perf_counter() - start:.0f} s")


def main() -> None:
    """Print everything."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads()
    print(f"{threads} threads")
    for name in UPDATES:
        training(name, threads)
    pool()


if __name__ == "__main__":
    main()
