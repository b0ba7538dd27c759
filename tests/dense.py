"""The published definitions, written out densely in float64: oracles for the fast path."""

import torch
from torch import Tensor

from grokinterp.models.architecture import Weights
from grokinterp.models.transformer import TransformerArchitecture


def hooked_logits_float64(
    weights: Weights, architecture: TransformerArchitecture, tokens: Tensor
) -> Tensor:
    """Last-position logits of TransformerLens' own forward, in float64."""
    model = architecture.hooked(weights).double()
    with torch.no_grad():
        return model(tokens)[:, -1]


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits.double(), labels))


def directions(p: int, frequencies: tuple[int, ...], exponent: Tensor) -> Tensor:
    """Unit vectors cos/sin(w_k f) over all inputs, [n_inputs, 2 |K|]."""
    columns = []
    for k in frequencies:
        angle = 2 * torch.pi * k * exponent.double() / p
        columns += [angle.cos(), angle.sin()]
    stacked = torch.stack(columns, dim=1)
    norms = stacked.norm(dim=0)
    return stacked[:, norms > 1e-6] / norms[norms > 1e-6]


def projected(matrix: Tensor, basis: Tensor) -> Tensor:
    return basis @ (basis.T @ matrix)


def restricted_loss(logits: Tensor, labels: Tensor, basis: Tensor) -> float:
    return cross_entropy(projected(logits, basis) + logits.mean(dim=0), labels)


def excluded_loss(logits: Tensor, labels: Tensor, basis: Tensor, train: Tensor) -> float:
    return cross_entropy((logits - projected(logits, basis))[train], labels[train])


def trig_fit(logits: Tensor, p: int, frequencies: tuple[int, ...], exponent: Tensor) -> Tensor:
    """Ordinary least squares of the logits on the p-cubed cubes cos(w_k(f - c))."""
    distance = (exponent[:, None] - torch.arange(p)[None, :]).double()
    cubes = torch.stack(
        [(2 * torch.pi * k * distance / p).cos().flatten() for k in frequencies], dim=1
    )
    solution = torch.linalg.lstsq(cubes, logits.flatten()[:, None]).solution
    return (cubes @ solution).view_as(logits)
