"""How activations go with scalar observables of the inputs, such as a lattice's energy.

Everything is over the rows that are given: Manning-Coe et al. 2025 (arXiv 2502.01739) take the
pre-activations on the test set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.runs._snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class LayerCorrelation(Result):
    """How the units of one layer correlate with one observable, over `n_rows` inputs.

    `correlations` and `shares` have one number per unit; a correlation is NaN where the unit or the
    observable is the same on every row (`n_undefined` of `n_units`), and such units take no part in
    `weighted` and `median`. Those are NaN where no unit is left.
    """

    layer: str
    observable: str
    correlations: Float[Tensor, " units"] = field(repr=False)
    shares: Float[Tensor, " units"] = field(repr=False)  # of the layer's sum of |z|
    n_rows: int

    @property
    def n_units(self) -> int:
        """Units of the layer, |L|."""
        return len(self.correlations)

    @property
    def n_undefined(self) -> int:
        """Units without a correlation."""
        return int(self.correlations.isnan().sum())

    @property
    def weighted(self) -> float:
        """sum_k w_k |r_k|, from 0 to 1: w_k is unit k's share of sum |z| among the defined units.

        Eq. 6 of Manning-Coe et al. 2025 also divides by the number of units |L|, which makes layers
        of different width incomparable: `weighted_over_units` has it.
        """
        defined = ~self.correlations.isnan()
        shares = self.shares[defined] / self.shares[defined].sum()
        found = float((shares * self.correlations[defined].abs()).sum())
        return found if len(shares) else torch.nan

    @property
    def weighted_over_units(self) -> float:
        """Eq. 6 as printed, `weighted` / |L|: at most 1/|L|."""
        return self.weighted / self.n_units

    @property
    def median(self) -> float:
        """The median of |r_k|, every unit counting the same."""
        return float(self.correlations.abs().nanquantile(0.5))

    def table(self) -> pd.DataFrame:
        """One row per unit: its correlation, and its share of the layer's sum of |z|."""
        numbers = {"correlation": self.correlations.numpy(), "share": self.shares.numpy()}
        frame = pd.DataFrame({"unit": range(self.n_units), **numbers})
        names = ("layer", "observable", "n_rows", "n_undefined")
        frame.attrs = {name: getattr(self, name) for name in names}
        return frame


def correlations(
    activations: Float[Tensor, "n units"], observable: Float[Tensor, " n"]
) -> Float[Tensor, " units"]:
    r"""Pearson correlation of every unit with an observable, over rows (float64, from -1 to 1).

    r_k = sum_x (z_k - mean)(o - mean) / sqrt(sum_x (z_k - mean)^2 sum_x (o - mean)^2). NaN where
    the unit or the observable is the same on every row, or not finite. It sees linear dependence
    only, and does not say that the network uses the observable. InputError for fewer than 2 rows
    and for unequal numbers of them.

    >>> units = torch.tensor([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    >>> correlations(units, torch.tensor([2.0, 1.0, 0.0])).round(decimals=9).tolist()
    [-1.0, nan]
    """
    if len(observable) < 2:
        raise InputError(f"{len(observable)} rows have no correlation; give at least 2.")
    if len(activations) != len(observable):
        raise InputError(
            f"activations have {len(activations)} rows and the observable {len(observable)}; give "
            "both for the same inputs."
        )
    z, o = _standardised(activations), _standardised(observable[:, None])
    return (z * o).sum(dim=0).clamp(-1, 1)


def layer_correlation(
    activations: Float[Tensor, "n ..."],
    observable: Float[Tensor, " n"],
    *,
    layer: str = "",
    name: str = "",
) -> LayerCorrelation:
    """The correlations of a layer's units with an observable; axes after the first are all units.

    `layer` and `name` (the observable's) are for the tables.
    """
    units = activations.flatten(1).double()
    size = units.abs().sum(dim=0)
    return LayerCorrelation(
        layer=layer,
        observable=name,
        correlations=correlations(units, observable),
        shares=size / size.sum().clamp_min(torch.finfo(torch.float64).tiny),
        n_rows=len(units),
    )


def correlation_table(
    layers: Mapping[str, Tensor], observables: Mapping[str, Tensor]
) -> pd.DataFrame:
    """One row per layer and observable: weighted and median |r|, units, undefined units.

    `layers` maps names to activations [n, ...], `observables` names to values [n] of the same rows.
    """
    columns = {"weighted": "weighted_r", "weighted_over_units": "weighted_r_over_units"}
    names = ("layer", "observable", *columns, "median", "n_units", "n_undefined", "n_rows")
    rows = []
    for layer, activations in layers.items():
        for observable, values in observables.items():
            one = layer_correlation(activations, values, layer=layer, name=observable)
            rows.append([getattr(one, name) for name in names])
    return pd.DataFrame(rows, columns=list(names)).rename(columns=columns | {"median": "median_r"})


def observables(snapshot: Snapshot) -> dict[str, Float[Tensor, " n_inputs"]]:
    """The observables of the task: of lattices energy, |magnetisation| and magnetisation."""
    found = snapshot.task.observables()
    if not found:
        raise InputError(
            f"{snapshot.task.title} has no observables, such as an energy; give an Ising model."
        )
    return found


def observed_rows(snapshot: Snapshot) -> Bool[Tensor, " n_inputs"]:
    """The rows that correlations are over: the test set, all rows where there is none."""
    rows = snapshot.test_rows
    return torch.ones(snapshot.task.n_inputs, dtype=torch.bool) if rows is None else rows


def pre_activations(snapshot: Snapshot) -> dict[str, Float[Tensor, "n_inputs ..."]]:
    """What every layer computes before its nonlinearity, by layer, and the logits.

    Of a CNN `conv.0`, ..., `hidden` and `logits`; of a deep MLP `hidden.0`, `hidden.1`, ...
    """
    if snapshot.positions or not snapshot.n_layers:
        raise InputError("these are the layers of an MLP or a CNN; give one of those.")
    convs = sum(name.startswith("conv.") and name.endswith(".W") for name in snapshot.weights)
    hooks = {f"conv.{layer}": f"conv.{layer}.hook_pre" for layer in range(convs)}
    for layer in range(snapshot.n_layers):
        name = "hidden" if snapshot.n_layers == 1 else f"hidden.{layer}"
        hooks[name] = f"blocks.{layer}.mlp.hook_pre"
    hooks["logits"] = "unembed.hook_out"
    snapshot.gather(*hooks.values())
    return {name: snapshot.activation(hook) for name, hook in hooks.items()}


def _standardised(x: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Centred columns of length 1, NaN for constant ones: of those centring leaves rounding."""
    x = x.double()
    centred = x - x.mean(dim=0)
    constant = x.amax(dim=0) == x.amin(dim=0)
    return (centred / centred.norm(dim=0)).masked_fill(constant, torch.nan)
