"""What a model answers on every pair of operands, as images: b to the right, a upwards."""

from collections.abc import Sequence
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.figures._figure import Figure, at, figure, square
from grokinterp.figures.heat_maps import around_zero, checked_numbers, images, table
from grokinterp.fourier._figures import Shown, draw_steps
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot

ANSWERS = {  # name: colour; the code in the image is its place here
    "wrong, test": "#D55E00",
    "wrong, train": "#CC79A7",
    "right, test": "#009E73",
    "right, train": "#7FCDB2",
}


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
    codes = "<br>".join(f"{i} = {name}" for i, name in enumerate(ANSWERS))
    drawn.add_heatmap(
        z=table(code, task.p),
        zmin=-0.5,
        zmax=3.5,
        colorscale=[[(i + j) / 4, colour] for i, colour in enumerate(colours) for j in (0, 1)],
        colorbar={"tickvals": [0, 1, 2, 3], "ticktext": list(ANSWERS)},
        hovertemplate=f"a = %{{y}}, b = %{{x}}<br><b>code %{{z}}</b>, where<br>{codes}"
        "<extra></extra>",
    )
    return square(drawn)


def plot_logits(x: Subject, *, classes: Sequence[int] = (0,), **shown: Unpack[Shown]) -> Figure:
    """The logits of answer classes over all pairs (a, b), a panel per class, as they are.

    Nothing is taken out: a shift of all classes, which no softmax sees, shows too. Colours are
    around 0, on one scale for all panels that is each step's own. `shown` as in `plot_correctness`.
    InputError for no class, one that is not an answer, and logits that are not finite.
    """
    return draw_steps(x, lambda snapshot, _: logit_images(snapshot, classes), **shown)


def logit_images(snapshot: Snapshot, classes: Sequence[int]) -> Figure:
    """The same of one snapshot."""
    task = snapshot.modular_task
    chosen, logits = checked_numbers(classes, "class", below=task.p), _finite_logits(snapshot)
    of_class = {f"class {c}": table(logits[:, c], task.p) for c in chosen}
    return images(
        f"Logits{at(snapshot.step)}",
        of_class,
        bar="logit, scale of this step",
        colours=around_zero(of_class.values()),
        hover="a = %{y}, b = %{x}<br>logit %{z:.5g}",
    )


def _finite_logits(snapshot: Snapshot) -> Float[Tensor, "n_inputs n_classes"]:
    """The logits; refused where there is no largest one, which argmax would make up."""
    if not bool(snapshot.logits.isfinite().all()):
        raise InputError(
            f"the model's logits{at(snapshot.step)} are not finite; look at an earlier step."
        )
    return snapshot.logits
