"""How fast are training and measuring here, against the usual way to do the same?

Both sides run in one process and in turn, beside the rates of matrix products that this machine
reaches. The usual way is that of TransformerLens' Grokking_Demo: a hooked forward with all
positions, a float64 log-softmax, AdamW, projections by dense vectors over all pairs, and the 56
cubes cos(w_k(a + b - c)) of 113^3 numbers, multiplied with the logits at every checkpoint.
"""

import itertools
import statistics
import tempfile
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.memory import kept_memory
from grokinterp.base.result import Result
from grokinterp.models.architecture import Weights
from grokinterp.models.layers import affine, product_over_rows
from grokinterp.models.transformer_lens_adapter import load_weights
from grokinterp.progress.measures import measure_snapshot
from grokinterp.recipe.builtin import BUILTIN
from grokinterp.recipe.recipe import Recipe
from grokinterp.runs.manifest import current_environment, current_versions
from grokinterp.tasks.splits import mask_of
from grokinterp.training.loop import Session, train, using_threads

ROWS = 3830  # of the training set of mod113-grokked
LAYERS = ((128, 128), (128, 512), (512, 128), (128, 113))  # what each of them passes
LARGE = 2048  # of the square product that stands for the machine's peak
REPEATS = 20
POST = "blocks.0.mlp.hook_post"
RECIPE = "mod113-grokked"
FREQUENCIES = (9, 18, 33, 53, 55)  # five, as trained models have; which ones does not matter
CHECKPOINTS = 250  # of the run that is measured: as many as the demo has
ROUNDS = 5  # of both sides in turn

Calls = tuple[Callable[[], object], int]  # what is timed, and how often a round calls it


@dataclass(frozen=True)
class Products:
    """Rates in GFLOP/s, each the median of 20 repetitions.

    `forward`, `backward` and `weights` are the products of a training step (inputs, gradients by
    inputs, gradients by weights) as this package computes them, `plain` the same three by
    torch.mm. `peak` is the best of every product tried, also of a large square one: what the
    machine reaches, not what its maker says.
    """

    forward: float
    backward: float
    weights: float
    plain: float
    peak: float
    gflop: float  # of all three together, for every layer: the arithmetic of a step

    @property
    def floor_ms(self) -> float:
        """Milliseconds of a step that does nothing but these products at the peak rate."""
        return self.gflop / self.peak * 1e3


def products() -> Products:
    """Measure the rates of matrix products; about two seconds."""
    made = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    layers = [(made(ROWS, d), made(d, out), made(ROWS, out)) for d, out in LAYERS]
    gflop = sum(2 * ROWS * d * out for d, out in LAYERS) / 1e9
    large = made(LARGE, LARGE)
    with torch.no_grad(), kept_memory():
        rates = {
            "forward": _rate(gflop, lambda: [affine(x, w) for x, w, _ in layers]),
            "backward": _rate(gflop, lambda: [affine(u, w.T) for _, w, u in layers]),
            "weights": _rate(gflop, lambda: [product_over_rows(x, u) for x, _, u in layers]),
            "plain": _rate(3 * gflop, lambda: [(x @ w, u @ w.T, x.T @ u) for x, w, u in layers]),
        }
        cube = 2 * LARGE**3 / 1e9
        square = [_rate(cube, lambda: affine(large, large)), _rate(cube, lambda: large @ large)]
    return Products(**rates, peak=max(*rates.values(), *square), gflop=3 * gflop)


def _rate(gflop: float, function: Callable[[], object]) -> float:
    for _ in range(3):
        function()
    return gflop / statistics.median(_milliseconds(function, 1) for _ in range(REPEATS)) * 1e3


def usual_step(recipe: Recipe) -> Callable[[], None]:
    """One full-batch update of TransformerLens' model (HookedTransformer, or the bridge of 4.x)."""
    architecture, task = recipe.architecture(), recipe.build_task()
    rows = recipe.train_indices()
    tokens, labels = task.model_inputs[rows], task.targets[rows]
    model = architecture.hooked(architecture.initial(seed=recipe.seed))
    assert isinstance(model, torch.nn.Module)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("b_" not in name and not name.endswith("bias"))
    optimizer = torch.optim.AdamW(  # the others have no gradient and stay as they are
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, betas=recipe.betas
    )

    def step() -> None:
        optimizer.zero_grad()
        log_probabilities = model(tokens)[:, -1].to(torch.float64).log_softmax(dim=-1)
        (-log_probabilities.gather(1, labels[:, None]).mean()).backward()
        optimizer.step()

    return step


def usual_measures(
    recipe: Recipe, frequencies: tuple[int, ...]
) -> Callable[[Weights], dict[str, float]]:
    """A function that loads a checkpoint's weights and returns the demo's measures, by our names.

    The 56 cubes of the trig fit and all dense vectors are made once, outside of what is timed.
    """
    architecture, task, p = recipe.architecture(), recipe.build_task(), recipe.p
    rows, tokens, labels = recipe.train_indices(), task.model_inputs, task.labels
    model = architecture.hooked(architecture.initial(seed=recipe.seed))
    c = torch.arange(p)
    a, b = c[:, None, None], c[:, None]

    def wave(exponent: Tensor, k: int, shift: float = 0.0) -> Tensor:
        angle = 2 * torch.pi * k * (exponent % p) / p
        x = torch.cos(angle - shift)
        return x / x.norm()

    cubes = torch.stack([wave(a + b - c, k) for k in range(1, p // 2 + 1)])
    sums = (a + b).flatten()
    directions = {
        k: torch.stack([wave(sums, k), wave(sums, k, torch.pi / 2)], dim=1) for k in frequencies
    }

    def loss(logits: Float[Tensor, "n p"], chosen: Tensor) -> Tensor:
        log_probabilities = logits[chosen].double().log_softmax(dim=-1)
        return -log_probabilities.gather(1, labels[chosen][:, None]).mean()

    test_rows, every = (~mask_of(rows, p * p)).nonzero()[:, 0], torch.arange(p * p)

    @torch.no_grad()
    def measures(weights: Weights) -> dict[str, float]:
        load_weights(model, weights)
        logits, cache = model.run_with_cache(tokens, names_filter=[POST])
        logits, post = logits[:, -1, :p], cache[POST][:, -1]
        found = {"train_loss": loss(logits, rows), "test_loss": loss(logits, test_rows)}
        # The fit of the logits by cosines: every cube times the whole table.
        centred = (logits - logits.mean(dim=1, keepdim=True)).view(p, p, p)
        coefficients = (cubes * centred).sum(dim=(1, 2, 3))
        fit = torch.stack([coefficients[k - 1] * cubes[k - 1] for k in frequencies]).sum(dim=0)
        found["trig_loss"] = loss(fit.reshape(p * p, p), every)
        # Restricted and excluded: neurons along dense vectors over all pairs, then the readout.
        readout = weights["blocks.0.mlp.W_out"] @ weights["unembed.W_U"][:, :p]
        parts = {k: basis @ (basis.T @ post) for k, basis in directions.items()}
        for k, part in parts.items():
            found[f"excluded_loss_demo_k{k}"] = loss(logits - part @ readout, rows)
        key = torch.stack(list(parts.values())).sum(dim=0)
        restricted = (key + post.mean(dim=0)) @ readout
        restricted += logits.mean(dim=0) - restricted.mean(dim=0)
        found["restricted_loss_demo"] = loss(restricted, test_rows)
        found["excluded_loss_demo"] = loss(logits - key @ readout, rows)
        found["sum_sq_weights"] = torch.stack([w.square().sum() for w in weights.values()]).sum()
        return {name: float(value) for name, value in found.items()}

    return measures


@dataclass(frozen=True)
class Pair:
    """Two ways to do one thing: milliseconds of each, as medians over rounds done in turn.

    `ratio` is the median of the rounds' own ratios, from `ratio_low` to `ratio_high`: a machine
    whose speed drifts slows both sides of a round.
    """

    ours_ms: float
    usual_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True, kw_only=True)
class Bench(Result):
    """How long our way and the usual way take.

    training_step   an update of mod113-grokked with its metrics every 10 steps, a checkpoint and
                    the state for a resumption every 100, written as `train` writes them; the usual
                    side is the bare update of TransformerLens' model
    measures        every progress measure of one of 250 checkpoints, read from the disk and
                    checked; the usual side is what the Grokking_Demo computes of it
    all_measures_s  seconds of our side of all rounds: each of the 250 checkpoints once
    products        rates of matrix products, and the machine's own peak
    """

    training_step: Pair
    measures: Pair
    all_measures_s: float
    products: Products
    environment: dict[str, Any]

    def _title(self) -> str:
        where = self.environment
        return f"{where['cpu']}, {where['threads']} threads, torch {where['torch']}"

    def _lines(self) -> list[str]:
        rates = self.products
        return [
            f"all measures of a run of 250 checkpoints: {self.all_measures_s:.1f} s",
            f"matrix products, GFLOP/s: forward {rates.forward:.0f}, backward "
            f"{rates.backward:.0f}, weights {rates.weights:.0f}; by torch.mm {rates.plain:.0f}; "
            f"peak {rates.peak:.0f}",
            f"a training step: {rates.gflop:.2f} GFLOP, reached {self.reached:.0f} GFLOP/s; its "
            f"products alone would take {rates.floor_ms:.1f} ms at the peak",
        ]

    @property
    def reached(self) -> float:
        """GFLOP/s of a training step: the arithmetic of its products over all of its time."""
        return self.products.gflop / self.training_step.ours_ms * 1e3

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain values, with the floor of a step and the rate it reached."""
        found = super().to_dict()
        found["products"]["floor_ms"] = self.products.floor_ms
        return found | {"reached_gflops": self.reached}

    def table(self) -> pd.DataFrame:
        """One row for a training step, and one for all measures of a checkpoint."""
        rows = {"training step": self.training_step, "all measures of a checkpoint": self.measures}
        return pd.DataFrame([{"what": what, **asdict(pair)} for what, pair in rows.items()])


def bench(*, threads: int = 0, rounds: int = ROUNDS) -> Bench:
    """Measure both at p = 113, about a minute, on this many threads (0: torch's choice).

    Medians mean something on a quiet machine; beside other work only the ratios do, and less so.
    Our side keeps freed memory, as `train` and `progress_measures` do; the usual side does not.
    """
    recipe = BUILTIN[RECIPE].recipe.replace(checkpoints="every:100", threads=threads)
    with using_threads(threads), tempfile.TemporaryDirectory() as folder:
        rates = products()
        session = Session([(recipe, Path(folder) / "steps")], resume=False)
        step = usual_step(recipe)
        training, _ = _pair((session.update, 100), (step, 10), rounds=rounds, warm_up=20)
        saved = recipe.replace(steps=CHECKPOINTS - 1, checkpoints="every:1", log_every=CHECKPOINTS)
        run = train(saved, Path(folder) / "run", progress=False)
        usual = usual_measures(recipe, FREQUENCIES)
        ours = map(run.snapshot, itertools.cycle(run.steps))
        theirs = map(run.weights, itertools.cycle(run.steps))
        measures, seconds = _pair(
            (lambda: measure_snapshot(next(ours), FREQUENCIES), CHECKPOINTS // rounds),
            (lambda: usual(next(theirs)), 4),
            rounds=rounds,
            warm_up=3,
        )
    return Bench(
        training_step=training,
        measures=measures,
        all_measures_s=seconds,
        products=rates,
        environment={**current_versions(), **current_environment(threads=threads)},
    )


def _pair(ours: Calls, usual: Calls, *, rounds: int, warm_up: int) -> tuple[Pair, float]:
    """Both sides in turn, each called so many times per round, and the seconds of ours in all.

    The `warm_up` calls before the first round are not counted.
    """
    times: list[tuple[float, float]] = []
    for function, calls in (ours, usual):
        for _ in range(min(warm_up, calls)):
            function()
    for _ in range(rounds):
        with kept_memory():
            own = _milliseconds(*ours)
        times.append((own, _milliseconds(*usual)))
    ratios = [b / a for a, b in times]
    own, other = (statistics.median(each) for each in zip(*times, strict=True))
    pair = Pair(own, other, statistics.median(ratios), min(ratios), max(ratios))
    return pair, sum(a for a, _ in times) * ours[1] / 1e3


def _milliseconds(function: Callable[[], object], calls: int) -> float:
    """The time of one call, over this many of them, with garbage collected as usual."""
    return timeit.timeit(function, "gc.enable()", number=calls) / calls * 1e3
