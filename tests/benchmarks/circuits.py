"""How long the analyses of a circuit take on the shipped run. Prints; asserts nothing.

    python tests/benchmarks/circuits.py

Every line is one call on a fresh snapshot of the last checkpoint, forward pass included.
"""

import time
from pathlib import Path

import grokinterp as gi
from grokinterp import circuits
from grokinterp.circuits import hooks

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "mod113-grokked"


def main() -> None:
    run = gi.load(SHIPPED)
    run.model()  # imports TransformerLens
    gi.paper_table(run, frequencies=[9])  # and everything else
    neurons, logits = "blocks.0.mlp.hook_post", "unembed.hook_out"
    calls = {
        "one frequency of the logits, 52 placebos": lambda x: gi.ablate(
            x, [hooks.fourier(logits, run.task, [9])]
        ),
        "one frequency of the neurons, 52 placebos": lambda x: gi.ablate(
            x, [hooks.fourier(neurons, run.task, [9])]
        ),
        "one frequency of the embedding, 52 placebos": lambda x: gi.ablate(
            x, [hooks.fourier("hook_embed", run.task, [9], terms="operands")]
        ),
        "all 26 ablations, 50 placebos each": gi.ablate,
        "paper_table": gi.paper_table,
        "faithfulness": circuits.faithfulness,
        "circuit_graph": circuits.circuit_graph,
        "attribution": circuits.attribution,
        "algorithm": circuits.algorithm,
    }
    for name, call in calls.items():
        snapshot = run.snapshot()
        start = time.perf_counter()
        call(snapshot)
        print(f"{name:<45}{time.perf_counter() - start:7.2f} s")


if __name__ == "__main__":
    main()
