"""Neurons as polynomials of degree 2 in the waves of their own frequency.

With x, y in {cos w_k, sin w_k} of a and of b, three nested fits are compared: `linear` (const and
the 4 waves: 5 terms), `products` (and the 4 products x(a) y(b): 9 terms, the block that the 85 %
rule of neuron clusters measures), and `degree_2` (and the squares x^2, xy of one operand, which are
const and the waves of 2 w_k: 13 terms, every polynomial of degree 2). The terms span rows of the
orthonormal Fourier basis over (a, b), so least squares is a projection, for even n too, where some
of them coincide or vanish.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import refused, whole, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits.neurons import NeuronClusters, neuron_clusters
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.basis import fourier_basis, n_frequencies, transform_2d
from grokinterp.fourier.spectra import neuron_powers, operand_orders
from grokinterp.reading._load import Subject
from grokinterp.tasks.modular import LARGEST_P, ModularTask

TERMS = ("linear", "products", "degree_2")


@dataclass(frozen=True, kw_only=True)
class PolynomialFits(Result):
    """Share of each neuron's variance over (a, b) that three nested fits explain, from 0 to 1.

    Every neuron is fitted with its own leading frequency, also those of the leftover; dead neurons
    have no variance to explain and are NaN. A good fit says what the neuron is close to, not that
    the answer survives the replacement: put `fitted_neurons` in and look at the loss for that.

    >>> import grokinterp as gi
    >>> found = gi.circuits.polynomial_fits(gi.load("mod31-small"))
    >>> found.product_terms[:3].round(decimals=2).tolist()
    [0.17, 0.22, 0.43]
    >>> found.summary()[["cluster", "neurons", "linear", "products", "degree_2"]].round(2)
       cluster  neurons  linear  products  degree_2
    0        1       40    0.75      0.94      0.95
    1       14       47    0.69      0.93      0.95
    2       -1       73    0.38      0.67      0.71
    """

    clusters: NeuronClusters
    linear: Float[Tensor, " d_mlp"] = field(repr=False)
    products: Float[Tensor, " d_mlp"] = field(repr=False)
    degree_2: Float[Tensor, " d_mlp"] = field(repr=False)

    @property
    def product_terms(self) -> Float[Tensor, " d_mlp"]:
        """What the four products add to the linear fit."""
        return self.products - self.linear

    def table(self) -> pd.DataFrame:
        """One row per neuron: its frequency and cluster, and the variance explained by each fit."""
        frame = self.clusters.table()[["neuron", "leading", "cluster", "key"]]
        for name in (*TERMS, "product_terms"):
            frame[name] = getattr(self, name).numpy()
        return frame

    def summary(self) -> pd.DataFrame:
        """One row per cluster, the leftover last: the variance of its neurons together explained.

        `lowest_degree_2` is that of the neuron which the full polynomial fits worst. Dead neurons
        are not counted; NaN where there are no others.
        """
        rows = []
        for k in self.clusters.sizes:
            members = self.clusters.members(k)
            members = members[self.clusters.leading[members] > 0]
            shares = self.clusters.variance_shares[members]
            row: dict[str, object] = {"cluster": k, "neurons": len(members)}
            row["key"] = k in self.clusters.key_frequencies
            for name in (*TERMS, "product_terms"):
                row[name] = float((getattr(self, name)[members] * shares).sum() / shares.sum())
            worst = min(self.degree_2[members].tolist(), default=float("nan"))
            rows.append(row | {"lowest_degree_2": worst})
        frame = pd.DataFrame(rows)
        frame.attrs.update(self.clusters.assumptions)
        return frame


def polynomial_fits(
    x: Subject,
    *,
    layer: int | None = None,
    threshold: float = 0.85,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> PolynomialFits:
    """How much of every neuron a polynomial of degree 2 in its own frequency's waves explains.

    1 - |G - fit|^2 / |G - mean(G)|^2 over all (a, b), for the fits `linear`, `products` and
    `degree_2` of this module (Nanda et al. 2023, arXiv 2301.05217, section 4.3: most neurons are
    well approximated by such polynomials). The gain from products says that the neuron multiplies
    functions of a and of b, as cos w(a + b) needs; a ReLU of a sum of waves has it without training
    (see `relu_regression`). Arguments and errors are those of `neuron_clusters`; multiplication is
    fitted in discrete logarithms, without the inputs that have a zero factor.

    >>> import grokinterp as gi
    >>> found = gi.circuits.polynomial_fits(gi.load("mod31-small"))
    >>> found.summary()[["cluster", "linear", "products", "degree_2"]].round(2)
       cluster  linear  products  degree_2
    0        1    0.75      0.94      0.95
    1       14    0.69      0.93      0.95
    2       -1    0.38      0.67      0.71
    """
    snapshot, key = subject_of(x, step, frequencies, task, train_mask)
    clusters = neuron_clusters(snapshot, layer=layer, threshold=threshold, frequencies=key)
    powers = neuron_powers(snapshot, layer=layer)
    n = len(operand_orders(snapshot)[0])
    double = torch.tensor([_double(k, n) for k in range(1, n_frequencies(n) + 1)])
    one_operand = powers.first + powers.second
    squares = torch.where(double > 0, one_operand[:, double - 1], 0.0)
    own = (clusters.leading - 1).clamp_min(0)[:, None]  # a dead neuron's 0/0 is NaN anyway
    both = one_operand + powers.both
    linear, products, degree_2 = (
        power.gather(1, own).flatten() / powers.total
        for power in (one_operand, both, both + squares)
    )
    return PolynomialFits(clusters=clusters, linear=linear, products=products, degree_2=degree_2)


def fitted_neurons(
    x: Subject,
    *,
    clusters: NeuronClusters,
    terms: str = "degree_2",
    step: int = -1,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Float[Tensor, "n_inputs d_mlp"]:
    """The activations of `clusters.layer`, neurons of clusters replaced by their fit.

    Rows are in table order, the dtype is the model's: what a hook on `mlp.hook_post` puts in at the
    answer position. `terms` is "linear", "products" or "degree_2" (see this module). Neurons of the
    leftover stay as they are, and so do inputs with a zero factor in multiplication. The clusters
    may be those of another step of the same run. InputError when they have other neurons.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> clusters = gi.circuits.neuron_clusters(run)
    >>> own = [i for k in clusters.frequencies for i in clusters.members(k).tolist()]
    >>> fitted = gi.circuits.fitted_neurons(run, clusters=clusters)
    >>> replaced = gi.hooks.replaced_neurons(0, own, fitted[:, own], name="fitted neurons")
    >>> gi.ablate(run, [replaced]).table()[["ablation", "acc_all", "ratio"]].round(1)
             ablation  acc_all  ratio
    0  fitted neurons      1.0    0.4
    """
    word("terms", terms, TERMS)
    if not isinstance(clusters, NeuronClusters):
        made = "what circuits.neuron_clusters(x) returns"
        raise refused("clusters", clusters, "a NeuronClusters", made)
    snapshot, _ = subject_of(x, step, (), task, train_mask)
    post = snapshot.activation(f"blocks.{clusters.layer}.mlp.hook_post").clone()
    orders = operand_orders(snapshot)
    n = len(orders[0])
    highest = max(clusters.frequencies, default=0)
    if post.shape[1] != len(clusters.leading) or highest > n_frequencies(n):
        raise InputError(
            f"clusters of {len(clusters.leading)} neurons with frequencies up to {highest} do not "
            f"fit {post.shape[1]} neurons over {n} tokens; give the clusters of this model."
        )
    _ = neuron_powers(snapshot, layer=clusters.layer)  # which refuses a table with holes
    rows = snapshot.modular_task.row_of[orders[0]][:, orders[1]].flatten()
    for k in clusters.frequencies:
        members = clusters.members(k)
        grid = post[rows[:, None], members].double().view(n, n, -1)
        waves, degree = _waves(k, n)
        kept = degree[:, None] + degree[None, :] <= (1 if terms == "linear" else 2)
        if terms == "products":
            kept &= (degree[:, None] <= 1) & (degree[None, :] <= 1)
        coefficients = torch.einsum("ia,jb,abm->ijm", waves, waves, grid) * kept[:, :, None]
        fit = torch.einsum("ia,jb,ijm->abm", waves, waves, coefficients)
        post[rows[:, None], members] = fit.flatten(0, 1).to(post.dtype)
    return post


@dataclass(frozen=True, kw_only=True)
class ReluRegression(Result):
    """ReLU(0.5 / sqrt(p) + v_a + v_b) ~ constant + linear (v_a + v_b) + product v_a v_b.

    Coefficients are for the unit vector v. ARENA scales every term to a unit vector over (a, b),
    which are 1 / p, v_a / sqrt(p) and v_a v_b: its coefficients are constant * p, linear * sqrt(p)
    (`linear_of_unit_terms`) and product itself. R squared is around the mean over all (a, b).
    """

    p: int
    k: int
    constant: float
    linear: float
    product: float
    r_squared: float
    r_squared_without_product: float

    @property
    def linear_of_unit_terms(self) -> float:
        """The coefficient of v_a / sqrt(p), a unit vector over (a, b)."""
        return self.linear * self.p**0.5

    def table(self) -> pd.DataFrame:
        """One row: the wave, the coefficients, and the variance they explain."""
        return pd.DataFrame([self.to_dict()]).drop(columns="notes")


def relu_regression(p: int, k: int) -> ReluRegression:
    """Regress a ReLU of a sum of two waves on the waves and their product: no model is needed.

    v is the row cos w_k x of the Fourier basis, scaled to norm 1, v_a and v_b its values at a and
    b. It shows where products come from: a ReLU makes them out of a sum (ARENA's mechanistic
    chapter on Nanda et al. 2023; p = 113, k = 42: linear_of_unit_terms 6.807, product 3.566,
    r_squared 0.966, 0.849 without the product). It is about this one wave and this one bias, not
    about the neurons of a model. InputError for a k that p does not have.

    >>> found = relu_regression(113, 42)
    >>> round(found.linear, 3), round(found.product, 3), round(found.r_squared, 3)
    (0.64, 3.566, 0.966)
    """
    p = whole("p", p, least=2, most=LARGEST_P, such_as="113")
    k = whole("k", k, least=1, most=n_frequencies(p), such_as="1")
    row = 2 * k - 1
    v = fourier_basis(p)[row]
    y = torch.relu(0.5 / p**0.5 + v[:, None] + v[None, :])
    coefficients = transform_2d(y)  # of orthonormal functions of (a, b)
    constant, linear, product = (float(coefficients[at]) for at in ((0, 0), (row, 0), (row, row)))
    variance = float((y - y.mean()).square().sum())
    return ReluRegression(
        p=p,
        k=k,
        constant=constant / p,
        linear=linear / p**0.5,
        product=product,
        r_squared=(2 * linear**2 + product**2) / variance,
        r_squared_without_product=2 * linear**2 / variance,
    )


def _double(k: int, n: int) -> int:
    """The frequency of cos^2 w_k on n points besides the constant; 0 where that is not a new one.

    2k counts modulo n and without sign, so for n = 3k it is k again, for n = 2k nothing.
    """
    double = min(2 * k % n, -2 * k % n)
    return 0 if double == k else double


def _waves(k: int, n: int) -> tuple[Float[Tensor, "n_waves n"], Float[Tensor, " n_waves"]]:
    """Unit rows const, cos and sin of w_k, those of 2 w_k; and the degree each has in the first."""
    of_row = (torch.arange(n) + 1) // 2  # the frequency of each row
    degree = torch.full((n,), torch.inf)
    degree[of_row == _double(k, n)] = 2
    degree[of_row == k] = 1
    degree[0] = 0
    kept = degree.isfinite()
    return fourier_basis(n)[kept], degree[kept]
