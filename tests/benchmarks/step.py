"""How fast a full-batch training step and a checkpoint's measures are. Prints; asserts nothing.

    python tests/benchmarks/step.py

One process, the threads torch chooses. Each figure is the median over repetitions, the two sides of
a ratio in turn, so that a drifting machine slows both.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import grokinterp as gi
from grokinterp.models.adapter import build_model
from grokinterp.models.affine import affine
from grokinterp.models.initialize import initial_weights
from grokinterp.progress.table import measure_snapshot
from grokinterp.training.learner import Learner
from grokinterp.training.optimizers import build_optimizer

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "mod113-grokked"


def medians(*functions: Callable[[], object], repeat: int = 30) -> list[float]:
    """Median milliseconds of functions called in turn."""
    times: list[list[float]] = [[] for _ in functions]
    for round_ in range(repeat + 3):
        for function, record in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if round_ >= 3:
                record.append((time.perf_counter() - start) * 1e3)
    return [statistics.median(record) for record in times]


def training_steps(recipe: gi.Recipe) -> tuple[Callable[[], None], Callable[[], None]]:
    """The same full-batch step: ours, and HookedTransformer with a float64 log-softmax."""
    run = gi.load(SHIPPED)
    tokens, labels = run.task.tokens[run.train_indices], run.task.labels[run.train_indices]
    rows = run.train_indices
    learner = Learner(recipe, run.task.model_inputs, run.task.labels, "cpu")
    optimizer = build_optimizer(recipe, learner.trained.values())

    def ours() -> None:
        learner.backward(rows)
        optimizer.step()

    architecture = recipe.architecture()
    model = build_model(architecture, initial_weights(architecture, seed=recipe.seed))
    for name, parameter in model.named_parameters():  # type: ignore[attr-defined]
        parameter.requires_grad_("b_" not in name)
    theirs_optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=recipe.betas
    )

    def theirs() -> None:
        theirs_optimizer.zero_grad()
        log_probabilities = model(tokens)[:, -1].to(torch.float64).log_softmax(dim=-1)
        (-log_probabilities.gather(1, labels[:, None]).mean()).backward()
        theirs_optimizer.step()

    return ours, theirs


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    recipe = gi.recipes()["mod113-grokked"]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    ours, theirs = medians(*training_steps(recipe))
    ratio = theirs / ours
    print(f"training step   ours {ours:.1f} ms, HookedTransformer {theirs:.1f} ms: {ratio:.2f}x")

    x, weight, bias = torch.randn(3830, 128), torch.randn(128, 512), torch.zeros(512)
    fast, plain = medians(
        lambda: affine(x, weight, bias), lambda: torch.addmm(bias, x, weight), repeat=100
    )
    gflop = 2 * 3830 * 128 * 512 / 1e6
    print(
        f"affine          convolution {gflop / fast:.0f} GFLOP/s, addmm {gflop / plain:.0f} GFLOP/s"
    )

    run = gi.load(SHIPPED)
    keys = gi.key_frequencies(run).frequencies or ()
    (each,) = medians(lambda: measure_snapshot(run.snapshot(5200), keys))
    print(f"all measures    {each:.1f} ms a checkpoint")


if __name__ == "__main__":
    main()
