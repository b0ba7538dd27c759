"""What a model answers on every pair of operands, as images: b to the right, a upwards."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor

from grokinterp.circuits.subject import Subject
from grokinterp.errors import InputError, whole_number
from grokinterp.runs.snapshot import Snapshot
from grokinterp.viz.figure import Figure, at, figure, place, small_multiples, square
from grokinterp.viz.over_training import Shown, draw_steps
from grokinterp.viz.theme import AROUND_ZERO, FROM_ZERO

ANSWERS = {  # name: colour; the code in the image is its place here
    "wrong, test": "#D55E00",
    "wrong, train": "#CC79A7",
    "right, test": "#009E73",
    "right, train": "#7FCDB2",
}
BAR = {  # a colour bar above the panels and their names, in the space that `small_multiples` leaves
    "orientation": "h", "y": 1, "yanchor": "bottom", "ypad": 28, "thickness": 12, "len": 0.9,
    "tickangle": 0, "ticklabeloverflow": "allow",
}  # fmt: skip


def plot_correctness(x: Subject, **shown: Unpack[Shown]) -> Figure:
    """Which pairs (a, b) a model answers rightly, those trained on and the others apart.

    Right is where the largest of the p logits is the answer's; without a split all pairs count as
    test. `shown` is `step` (one, several, or "all" of a run: then with a slider), and of a model
    `task` and `train_mask`, as in `gi.ablate`. InputError for logits that are not finite.
    """
    return draw_steps(x, lambda snapshot, _: correctness(snapshot), **shown)


def correctness(snapshot: Snapshot) -> Figure:
    """The same of one snapshot."""
    task = snapshot.modular_task
    right = _finite_logits(snapshot).argmax(dim=1) == task.labels
    trained = torch.zeros_like(right) if snapshot.train_mask is None else snapshot.train_mask
    code = 2 * right.to(torch.int8) + trained.to(torch.int8)
    share = right.double().mean()
    drawn = figure(f"Answers{at(snapshot.step)}: {share:.2%} right", "operand b", "operand a")
    colours = list(ANSWERS.values())
    # A name in each cell would make the page ten times as large: the code, and what codes mean.
    codes = "<br>".join(f"{code} = {name}" for code, name in enumerate(ANSWERS))
    drawn.add_heatmap(
        z=table(code, task.p),
        zmin=-0.5,
        zmax=3.5,
        colorscale=[[(i + j) / 4, colour] for i, colour in enumerate(colours) for j in (0, 1)],
        colorbar={"tickvals": [0, 1, 2, 3], "ticktext": list(ANSWERS)},
        hovertemplate="a = %{y}, b = %{x}<br><b>code %{z}</b>, where<br>"
        + codes
        + "<extra></extra>",
    )
    return square(drawn)


def plot_logits(x: Subject, *, classes: Sequence[int] = (0,), **shown: Unpack[Shown]) -> Figure:
    """The logits of answer classes over all pairs (a, b), a panel a class, as the model gives them.

    Nothing is taken out: a shift of all classes, which no softmax sees, shows too. Colours are
    around 0, on one scale for all panels that is each step's own. `shown` as in `plot_correctness`.
    InputError for no class, one that is not an answer, and logits that are not finite.
    """
    return draw_steps(x, lambda snapshot, _: logit_images(snapshot, classes), **shown)


def logit_images(snapshot: Snapshot, classes: Sequence[int]) -> Figure:
    """The same of one snapshot."""
    task = snapshot.modular_task
    chosen = checked_numbers(classes, "class", below=task.p)
    logits = _finite_logits(snapshot)
    of_class = {f"class {c}": table(logits[:, c], task.p) for c in chosen}
    return images(
        f"Logits{at(snapshot.step)}",
        of_class,
        bar="logit, scale of this step",
        colours=around_zero(of_class.values()),
        hover="a = %{y}, b = %{x}<br>logit %{z:.5g}",
    )


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
    """Colours from 0, or from the least value where that is below, to the largest."""
    low, high = _ends(values)
    return {"colorscale": FROM_ZERO, "zmin": min(low, 0.0), "zmax": high}


def around_zero(values: Iterable[np.ndarray]) -> dict[str, Any]:
    """Colours with 0 in the middle, to the largest absolute value at both ends."""
    most = max(abs(end) for end in _ends(values))
    return {"colorscale": AROUND_ZERO, "zmin": -most, "zmax": most}


def _finite_logits(snapshot: Snapshot) -> Float[Tensor, "n_inputs n_classes"]:
    """The logits; refused where there is no largest one, which argmax would make up."""
    if not bool(snapshot.logits.isfinite().all()):
        raise InputError(
            f"the model's logits{at(snapshot.step)} are not finite; look at an earlier step."
        )
    return snapshot.logits


def _ends(values: Iterable[np.ndarray]) -> tuple[float, float]:
    """The least and the largest finite value; (-1, 1) where there is nothing but 0 or NaN."""
    finite = np.concatenate([one[np.isfinite(one)] for one in values])
    return (float(finite.min()), float(finite.max())) if finite.any() else (-1.0, 1.0)


def checked_numbers(given: Sequence[int], name: str, *, below: int) -> list[int]:
    """Whole numbers from 0 to below `below`, each once and at least one; refused otherwise."""
    found: dict[int, None] = {}
    several = [] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    for one in several:
        number = whole_number(one)
        if number is None or not 0 <= number < below:
            raise InputError(f"{name} {one!r} is not between 0 and {below - 1}.")
        found[number] = None
    if not found:
        raise InputError(f"{given!r} has no {name} to draw; give such as [0, 1].")
    return list(found)


def table(values: Num[Tensor, " n_inputs"], p: int) -> np.ndarray:
    """One value for every input as [a, b], in float32: the page is half the size."""
    return values.view(p, p).float().numpy()
