"""One value for every pair of operands, as images: b to the right, a upwards."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num
from torch import Tensor

from grokinterp.base.checks import whole
from grokinterp.base.errors import InputError
from grokinterp.figures._figure import AROUND_ZERO, FROM_ZERO, Figure, place, small_multiples

BAR = {  # a colour bar above the panels and their names, in the space that `small_multiples` leaves
    "orientation": "h", "y": 1, "yanchor": "bottom", "ypad": 28, "thickness": 12, "len": 0.9,
    "tickangle": 0, "ticklabeloverflow": "allow",
}  # fmt: skip


def images(
    title: str,
    values: Mapping[str, np.ndarray],
    *,
    x: str = "operand b",
    y: str = "operand a",
    bar: str,
    colours: Mapping[str, Any],
    hover: str,
) -> Figure:
    """Square images side by side, each under its name, on one colour scale titled `bar`.

    `hover` is plotly's template; the panel's name stands above it.
    """
    drawn = small_multiples(title, list(values), x, y)
    for i, (name, z) in enumerate(values.items()):
        drawn.add_heatmap(
            z=z,
            name=name,
            **colours,
            showscale=i == 0,
            colorbar=BAR | {"title": {"text": bar, "side": "top"}},
            hovertemplate=f"{name}<br>{hover}<extra></extra>",
            **place(i),
        )
    return drawn


def from_zero(values: Iterable[np.ndarray]) -> dict[str, Any]:
    """Colours from 0, or from the least value where that is below 0, to the largest."""
    low, high = _ends(values)
    return {"colorscale": FROM_ZERO, "zmin": min(low, 0.0), "zmax": high}


def around_zero(values: Iterable[np.ndarray]) -> dict[str, Any]:
    """Colours with 0 in the middle, to the largest absolute value at both ends."""
    most = max(abs(end) for end in _ends(values))
    return {"colorscale": AROUND_ZERO, "zmin": -most, "zmax": most}


def _ends(values: Iterable[np.ndarray]) -> tuple[float, float]:
    """The least and the largest finite value; (-1, 1) where there is nothing but 0 or NaN."""
    finite = np.concatenate([one[np.isfinite(one)] for one in values])
    return (float(finite.min()), float(finite.max())) if finite.any() else (-1.0, 1.0)


def checked_numbers(given: Sequence[int], name: str, *, below: int) -> list[int]:
    """Whole numbers from 0 to below `below`, each once and at least one; refused otherwise."""
    several = [] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not several:
        raise InputError(f"{given!r} has no {name} to draw; give such as [0, 1].")
    numbers = [whole(name, one, least=0, most=below - 1, such_as="0") for one in several]
    return list(dict.fromkeys(numbers))


def table(values: Num[Tensor, "p p"]) -> np.ndarray:
    """Values as [a, b]; float32 makes the page half the size."""
    return values.float().numpy()
