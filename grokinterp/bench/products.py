"""How fast this machine multiplies matrices: what the hot paths reach, and what they could."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grokinterp.memory import kept_memory
from grokinterp.models.affine import affine, product_over_rows

ROWS = 3830  # of the training set of mod113-grokked
LAYERS = ((128, 128), (128, 512), (512, 128), (128, 113))  # what each of them passes
LARGE = 2048  # of the square product that stands for the machine's peak
REPEATS = 20


@dataclass(frozen=True)
class Products:
    """Rates in GFLOP/s, each the median of so many repetitions.

    `forward`, `backward` and `weights` are the products of a training step (inputs, gradients by
    inputs, gradients by weights) as this package computes them, `plain` the same three by
    torch.mm. `peak` is the best of any product tried, a large square one by either way included:
    what the machine does, not what its maker says.
    """

    forward: float
    backward: float
    weights: float
    plain: float
    peak: float
    gflop: float  # of all three together, for every layer: the arithmetic of a step

    @property
    def floor_ms(self) -> float:
        """Milliseconds of a step that did nothing but these products at the peak rate."""
        return self.gflop / self.peak * 1e3


def products() -> Products:
    """Measure them; about two seconds."""
    generator = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def plain(x: Tensor, weight: Tensor, upstream: Tensor) -> list[Tensor]:
        return [x @ weight, upstream @ weight.T, x.T @ upstream]

    layers = [(made(ROWS, d), made(d, out), made(ROWS, out)) for d, out in LAYERS]
    gflop = sum(2 * ROWS * d * out for d, out in LAYERS) / 1e9
    large = made(LARGE, LARGE)
    with torch.no_grad(), kept_memory():
        rates = {
            "forward": _rate(gflop, lambda: [affine(x, w) for x, w, _ in layers]),
            "backward": _rate(gflop, lambda: [affine(u, w.T) for _, w, u in layers]),
            "weights": _rate(gflop, lambda: [product_over_rows(x, u) for x, _, u in layers]),
            "plain": _rate(3 * gflop, lambda: [plain(*layer) for layer in layers]),
        }
        cube = 2 * LARGE**3 / 1e9
        square = [_rate(cube, lambda: affine(large, large)), _rate(cube, lambda: large @ large)]
    return Products(**rates, peak=max(*rates.values(), *square), gflop=3 * gflop)


def _rate(gflop: float, function: Callable[[], object]) -> float:
    for _ in range(3):
        function()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return gflop / statistics.median(times)
