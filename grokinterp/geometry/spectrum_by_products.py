"""What are the eigenvalues of a symmetric matrix that is known by its products with vectors alone?

The largest and the smallest come from Lanczos iteration, the trace from random probes (Hutchinson
1989), the density of all of them from several Lanczos iterations (Ubaru, Chen and Saad 2017; of
loss surfaces Ghorbani et al. 2019, arXiv 1901.10159). Nothing here knows what the matrix is.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Tensor], Tensor]  # v -> A v, of one symmetric matrix A


@dataclass(frozen=True)
class Ritz:
    """Eigenvalues of a matrix on the space that Lanczos iteration reached, rising.

    `weights` are the squared overlaps with the start vector, which add up to 1: sum_i weight_i
    value_i^k is start^T A^k start / |start|^2 for k below twice the number of values. An eigenvalue
    of A lies within `errors` of each value.
    """

    values: Float[Tensor, " k"]
    weights: Float[Tensor, " k"]
    errors: Float[Tensor, " k"]


def lanczos(product: Product, start: Float[Tensor, " n"], n_steps: int) -> Ritz:
    """Ritz values of A on the span of start, A start, ..., A^(n_steps - 1) start.

    The basis is made orthogonal to all earlier vectors, twice, in every step: without that, copies
    of the outer eigenvalues appear. It ends early where the span is closed under A. Outer
    eigenvalues are found first, the largest from below and the smallest from above.

    >>> A = torch.tensor([3.0, -1.0, 0.5, 0.25]).double().diag()
    >>> lanczos(lambda v: A @ v, torch.ones(4).double(), 4).values.round(decimals=6).tolist()
    [-1.0, 0.25, 0.5, 3.0]
    """
    n_steps = min(n_steps, len(start))
    basis = torch.empty(n_steps, len(start), dtype=start.dtype)
    diagonal: list[float] = []
    beside: list[float] = []  # the diagonal; the last leads out of the basis
    vector = start / start.norm()
    for k in range(n_steps):
        basis[k] = vector
        vector = product(vector)
        diagonal.append(float(vector @ basis[k]))
        size = float(vector.norm())
        for _ in range(2):
            vector = vector - basis[: k + 1].T @ (basis[: k + 1] @ vector)
        beside.append(float(vector.norm()))
        if beside[-1] <= 1e-13 * size:  # rounding: the span is closed
            beside[-1] = 0.0
            break
        vector = vector / beside[-1]
    inner = torch.tensor(beside[:-1], dtype=torch.float64)
    small = torch.tensor(diagonal, dtype=torch.float64).diag() + inner.diag(1) + inner.diag(-1)
    values, vectors = torch.linalg.eigh(small)
    return Ritz(values, vectors[0].square(), (beside[-1] * vectors[-1]).abs())


def rademacher(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    """A vector of signs, in float64.

    >>> rademacher(3, torch.Generator().manual_seed(0)).abs().tolist()
    [1.0, 1.0, 1.0]
    """
    return torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1


def block_traces(
    product: Product, n: int, blocks: Iterable[slice], *, n_probes: int, seed: int
) -> Float[Tensor, "n_probes blocks"]:
    """Of each probe v, a vector of signs, the part v_b . (A v)_b of every block b of rows.

    Its mean over probes is the trace of the diagonal block A_bb, and the sum over blocks that of A
    (Hutchinson's estimate, as v^T A v): what lies off the diagonal has mean 0, and is the error.
    The probes depend on `n` and `seed` alone, so that of two matrices they are the same ones.

    >>> A = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double()
    >>> halves = [slice(0, 1), slice(1, 2)]
    >>> found = block_traces(lambda v: A @ v, 2, halves, n_probes=200, seed=0)
    >>> found.mean(dim=0).round(decimals=1).tolist(), found.sum(dim=1).unique().tolist()
    ([2.0, 3.0], [3.0, 7.0])
    """
    generator, blocks = torch.Generator().manual_seed(seed), list(blocks)
    found = torch.empty(n_probes, len(blocks), dtype=torch.float64)
    for i in range(n_probes):
        probe = rademacher(n, generator)
        each = probe * product(probe)
        found[i] = torch.stack([each[block].sum() for block in blocks])
    return found


def mean_and_error(values: Float[Tensor, " n"]) -> tuple[float, float]:
    """The mean of independent values and its standard error, which is NaN of a single one.

    >>> mean_and_error(torch.tensor([1.0, 3.0]))
    (2.0, 1.0)
    """
    error = float(values.std() / len(values) ** 0.5) if len(values) > 1 else math.nan
    return float(values.mean()), error


def quadrature(
    product: Product, n: int, *, n_steps: int, starts: Iterable[object], seed: int
) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    """Nodes and weights whose weighted sums estimate means over the eigenvalues of A.

    Stochastic Lanczos quadrature: the Ritz values of as many random starts as `starts` has entries
    (a progress bar, or a range) and their weights, the starts counting alike. The weights add up to
    1; sum_i weight_i f(node_i) estimates tr f(A) / n, for polynomials f of degree below 2 n_steps
    up to the chance of the starts alone.

    >>> A = torch.arange(50).double().diag()
    >>> nodes, weights = quadrature(lambda v: A @ v, 50, n_steps=10, starts=range(4), seed=0)
    >>> round(float(weights.sum()), 9), round(float(weights @ nodes), 9)
    (1.0, 24.5)
    """
    generator = torch.Generator().manual_seed(seed)
    found = [lanczos(product, rademacher(n, generator), n_steps) for _ in starts]
    nodes = torch.cat([each.values for each in found])
    return nodes, torch.cat([each.weights for each in found]) / len(found)
