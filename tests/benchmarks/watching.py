"""What gi.Watch costs in one's own loop: python tests/benchmarks/watching.py [THREADS]

The grokked transformer of checkpoints/mod113-grokked (HookedTransformer, the default sizes, its own
30 % of the pairs) in a plain torch loop. Milliseconds of a training step, of a watched step (with
the default measures and without any) and of a step that is not watched: medians, the three in turn
so that a drifting machine slows all of them.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch.nn.functional import cross_entropy

import grokinterp as gi

REPOSITORY = Path(__file__).parents[2]
WATCHED, SKIPPED = 15, 100_000


def milliseconds(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Print everything."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    run = gi.load(REPOSITORY / "checkpoints/mod113-grokked")
    task, model, mask = run.task, run.model(), run.train_mask
    tokens, labels = task.tokens[mask], task.labels[mask]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0)

    def update() -> None:
        optimizer.zero_grad()
        cross_entropy(model(tokens)[:, -1, : task.n_classes], labels).backward()
        optimizer.step()

    with tempfile.TemporaryDirectory() as folder:
        with_measures, without = (
            gi.Watch(Path(folder) / name, task=task, train_mask=mask, every=1, measures=measures)
            for name, measures in (("default", None), ("none", []))
        )
        taken: dict[str, list[float]] = {"a training step": []}
        for step in range(WATCHED + 2):
            each = {
                "a watched step": lambda step=step: with_measures(step, model),
                "the same without measures": lambda step=step: without(step, model),
                "a training step": update,
            }
            for name, do in each.items():
                taken.setdefault(name, []).append(milliseconds(do))
        with_measures.close()
        without.close()
        seldom = gi.Watch(Path(folder) / "seldom", task=task, train_mask=mask, every=10**6)

        def pass_by() -> None:
            for step in range(1, SKIPPED + 1):
                seldom(step, model)

        passed = milliseconds(pass_by) / SKIPPED
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, p = {task.p}")
    one = median(taken["a training step"][2:])
    for name, values in taken.items():
        print(f"{name:<27}{median(values[2:]):7.1f} ms, {median(values[2:]) / one:.2f} of a step")
    print(f"{'a step that is not watched':<27}{passed * 1e3:7.2f} microseconds")


if __name__ == "__main__":
    main()
