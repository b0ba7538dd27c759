"""Both hot paths of this package against the usual way, in one process and in turn."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from grokinterp.bench.products import Products, products
from grokinterp.bench.usual import usual_measures, usual_step
from grokinterp.memory import kept_memory
from grokinterp.progress.table import measure_snapshot
from grokinterp.recipe.builtin import BUILTIN
from grokinterp.runs.environment import current_environment, current_versions
from grokinterp.training.loop import Session, train, using_threads

RECIPE = "mod113-grokked"
FREQUENCIES = (9, 18, 33, 53, 55)  # five, as trained models have; which ones costs nothing
CHECKPOINTS = 250  # of the run that is measured: as many as the demo has
ROUNDS = 5  # of both sides in turn


@dataclass(frozen=True)
class Pair:
    """Two ways to do one thing: milliseconds each time, medians over rounds done in turn.

    `ratio` is the median of the rounds' own ratios, from `ratio_low` to `ratio_high`: a machine
    whose speed drifts slows both sides of a round.
    """

    ours_ms: float
    usual_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


@dataclass(frozen=True)
class Bench:
    """What `bench` measured.

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

    @property
    def reached(self) -> float:
        """GFLOP/s of a training step: the arithmetic of its products over all of its time."""
        return self.products.gflop / self.training_step.ours_ms * 1e3

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            **asdict(self),
            "products": {**asdict(self.products), "floor_ms": self.products.floor_ms},
            "reached_gflops": self.reached,
        }

    def table(self) -> pd.DataFrame:
        """A row for each of the two paths."""
        rows = {
            "training step": self.training_step,
            "all measures of a checkpoint": self.measures,
        }
        return pd.DataFrame([{"what": what, **asdict(pair)} for what, pair in rows.items()])


def bench(*, threads: int = 0, rounds: int = ROUNDS) -> Bench:
    """Measure both hot paths at p = 113; about a minute, on so many threads (0: torch's choice).

    Medians on a quiet machine say something; beside other work only the ratios do, and these less.
    Our side keeps freed memory, as `train` and `progress_measures` do; the usual side does not.
    """
    recipe = BUILTIN[RECIPE].recipe.replace(checkpoints="every:100", threads=threads)
    with using_threads(threads), tempfile.TemporaryDirectory() as folder:
        rates = products()
        session = Session(recipe, Path(folder) / "steps", resume=False)
        step = usual_step(recipe)
        training, _ = _pair((session.update, 100), (step, 10), rounds=rounds, warm_up=20)
        saved = recipe.replace(steps=CHECKPOINTS - 1, checkpoints="every:1", log_every=CHECKPOINTS)
        run = train(saved, Path(folder) / "run", progress=False)
        usual = usual_measures(recipe, FREQUENCIES)
        ours, theirs = itertools.cycle(run.steps), itertools.cycle(run.steps)
        measures, seconds = _pair(
            (
                lambda: measure_snapshot(run.snapshot(next(ours)), FREQUENCIES),
                CHECKPOINTS // rounds,
            ),
            (lambda: usual(run.weights(next(theirs))), 4),
            rounds=rounds,
            warm_up=3,
        )
    return Bench(
        training,
        measures,
        seconds,
        rates,
        {**current_versions(), **current_environment(threads=threads)},
    )


def _pair(
    ours: tuple[Callable[[], object], int],
    usual: tuple[Callable[[], object], int],
    *,
    rounds: int,
    warm_up: int,
) -> tuple[Pair, float]:
    """Both sides in turn, each called so many times a round, and the seconds of ours in all.

    Some calls before the first round are not counted.
    """
    times: list[tuple[float, float]] = []
    for _ in range(min(warm_up, ours[1])):
        ours[0]()
    for _ in range(min(warm_up, usual[1])):
        usual[0]()
    for _ in range(rounds):
        with kept_memory():
            own = _milliseconds(*ours)
        times.append((own, _milliseconds(*usual)))
    ratios = [b / a for a, b in times]
    pair = Pair(
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )
    return pair, sum(own for own, _ in times) * ours[1] / 1e3


def _milliseconds(function: Callable[[], object], calls: int) -> float:
    """Of one call, over so many of them."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls * 1e3
