"""What measures of outputs share: the inputs they average over, and the logits on them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.circuits.subject import steps_of
from grokinterp.errors import InputError, nearest, shown, whole_number
from grokinterp.models.architecture import Weights, all_finite
from grokinterp.models.kinds import QuickForward
from grokinterp.runs.run import Run
from grokinterp.runs.snapshot import Snapshot
from grokinterp.tasks.task import Task

ROWS = ("test", "train", "all")

Logits = Callable[[Weights, Tensor], Tensor]


def row_numbers(
    task: Task, train_mask: Bool[Tensor, " n_inputs"] | None, rows: str
) -> Int[Tensor, " n_rows"]:
    """Numbers of the rows of a task's table that "test", "train" or "all" name, in order."""
    if rows not in ROWS:
        raise InputError(f"rows={shown(rows)} is not known; {nearest(str(rows), ROWS)}")
    if rows == "all":
        return torch.arange(task.n_inputs)
    if train_mask is None:
        raise InputError(f"rows={rows!r} needs the split; give train_mask= or rows='all'.")
    found = (train_mask if rows == "train" else ~train_mask).nonzero().flatten()
    if not len(found):
        raise InputError(f"rows={rows!r} are none in this split; give rows='all'.")
    return found


def sample(n: int, n_samples: int | None, seed: int) -> Int[Tensor, " n_chosen"]:
    """Which of n inputs are looked at: all of them (None, or no more than that), or a sample.

    It is drawn without replacement, the first of a permutation that `seed` fixes, so that a smaller
    sample is part of a larger one.
    """
    number = whole_number(seed)
    if number is None or not 0 <= number < 2**63:
        raise InputError(f"seed={shown(seed)} is not a whole number from 0 on; give such as 0.")
    if n_samples is None:
        return torch.arange(n)
    wanted = whole_number(n_samples)
    if wanted is None or wanted < 1:
        raise InputError(
            f"n_samples={shown(n_samples)} is not a number of inputs; give such as 256."
        )
    if wanted >= n:
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(number))[:wanted]


def logits_on_batches(snapshot: Snapshot) -> Logits:
    """The answer logits [n, n_classes] of n inputs, as a function of weights and inputs.

    It is differentiable in the weights, by autograd and by torch.func. InputError for a model whose
    weights alone do not say what it computes, and for a transformer other than of one layer without
    LayerNorm.
    """
    architecture, n_classes = snapshot.architecture, snapshot.task.n_classes
    if architecture is None:
        raise InputError("the weights alone do not say what this model computes; give a run.")
    if QuickForward(architecture, snapshot.weights)(snapshot.task.model_inputs[:1]) is None:
        raise InputError(
            "Fisher information needs a forward that is a function of the weights, which "
            "transformers of one layer without LayerNorm have; this one is another."
        )

    def logits_fn(weights: Weights, inputs: Tensor) -> Tensor:
        logits = QuickForward(architecture, weights)(inputs)
        assert logits is not None
        return logits[:, :n_classes]

    return logits_fn


def check_finite(weights: Weights, step: int | None = None) -> None:
    """Refuse weights that are not all finite numbers."""
    if not all_finite(weights):
        at = "" if step is None else f" at step {step}"
        raise InputError(f"the weights{at} are not all finite; look at an earlier step.")


def evenly(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of these steps, evenly by their number, both ends among them.

    >>> evenly([0, 1, 2, 10, 100], 3)
    [0, 2, 100]
    """
    if len(steps) <= most:
        return list(steps)
    places = torch.linspace(0, len(steps) - 1, most, dtype=torch.float64).round().long()
    return [steps[place] for place in places.tolist()]


def rising_steps(run: Run, steps: Sequence[int] | str) -> list[int]:
    """The checkpoints that `steps` asks for, which have to rise; -1 is the last."""
    found = []
    for step in steps_of(run, steps):
        number = whole_number(step)
        if number is None:
            raise InputError(f"step={step!r} is not a step; give a whole number, -1 for the last.")
        found.append(run.steps[-1] if number == -1 else number)
    if any(later <= earlier for earlier, later in pairwise(found)):
        raise InputError(f"steps={steps!r} do not rise; give checkpoints in order, each once.")
    return found
