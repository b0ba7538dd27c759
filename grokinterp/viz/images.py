"""What a model answers on every pair of operands, as images: b to the right, a upwards."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from grokinterp.circuits.subject import Subject
from grokinterp.runs.snapshot import Snapshot
from grokinterp.viz.figure import Figure, figure, square
from grokinterp.viz.over_training import draw_steps

ANSWERS = {  # name: colour; the code in the image is its place here
    "wrong, test": "#D55E00",
    "wrong, train": "#CC79A7",
    "right, test": "#009E73",
    "right, train": "#7FCDB2",
}


def plot_correctness(x: Subject, **about: Any) -> Figure:
    """Which pairs (a, b) a model answers rightly, those trained on and the others apart.

    Right is where the largest of the p logits is the answer's; without a split all pairs count as
    test. `about` is `step` (one, several, or "all" of a run: then with a slider), and of a model
    `task` and `train_mask`, as in `gi.ablate`.
    """
    return draw_steps(x, lambda snapshot, _: correctness(snapshot), **about)


def correctness(snapshot: Snapshot) -> Figure:
    """The same of one snapshot."""
    task = snapshot.modular_task
    right = snapshot.logits.argmax(dim=1) == task.labels
    trained = torch.zeros_like(right) if snapshot.train_mask is None else snapshot.train_mask
    code = 2 * right.to(torch.int8) + trained.to(torch.int8)
    share = right.double().mean()
    drawn = figure(f"Answers{at(snapshot)}: {share:.2%} right", "operand b", "operand a")
    colours = list(ANSWERS.values())
    codes = ", ".join(f"{code} {name}" for code, name in enumerate(ANSWERS))
    drawn.add_heatmap(
        z=table(code, task.p),
        zmin=-0.5,
        zmax=3.5,
        colorscale=[[(i + j) / 4, colour] for i, colour in enumerate(colours) for j in (0, 1)],
        colorbar={"tickvals": [0, 1, 2, 3], "ticktext": list(ANSWERS)},
        hovertemplate="a = %{y}, b = %{x}<br>%{z} (" + codes + ")<extra></extra>",
    )
    return square(drawn)


def at(snapshot: Snapshot) -> str:
    """What a title says of the step: nothing for a model that came without one."""
    return "" if snapshot.step is None else f", step {snapshot.step}"


def table(values: Num[Tensor, " n_inputs"], p: int) -> np.ndarray:
    """One value for every input as [a, b], in float32: the page is half the size."""
    return values.view(p, p).float().numpy()
