"""What a measure looks at: inputs, checkpoints, weights, and a model's logits on the inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from grokinterp.base.checks import LARGEST_SEED, whole, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.models.architecture import Weights, all_finite
from grokinterp.reading._load import Subject, loaded, run_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.run import Run
from grokinterp.tasks.task import Task

ROWS = ("test", "train", "all")

Logits = Callable[[Weights, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Sampled(Result):
    """A result over `n_samples` of the `n_rows` inputs that `rows` names, drawn with `seed`."""

    rows: str | None = None
    n_samples: int | None = None
    n_rows: int | None = None
    seed: int | None = None

    def _frame(self, data: Any, **settings: object) -> pd.DataFrame:
        """A table with these settings, and the record of the inputs, in its `.attrs`."""
        frame = pd.DataFrame(data)
        frame.attrs |= settings | {name: getattr(self, name) for name in Sampled.__annotations__}
        return frame


def draw_inputs(
    task: Task,
    train_mask: Bool[Tensor, " n_inputs"] | None,
    rows: str,
    n_samples: int | None,
    seed: int,
) -> tuple[Int[Tensor, " n_samples"], dict[str, Any]]:
    """The rows of a task's table to look at, and the record of them that a `Sampled` holds.

    As `fisher_diagonal` says of `rows`, `n_samples` and `seed`; all are taken in order.
    """
    word("rows", rows, ROWS)
    if rows == "all":
        found = torch.arange(task.n_inputs)
    elif train_mask is None:
        raise InputError(f"rows={rows!r} needs the split; give train_mask= or rows='all'.")
    else:
        found = (train_mask if rows == "train" else ~train_mask).nonzero().flatten()
    n_rows = len(found)
    if not n_rows:
        raise InputError(f"rows={rows!r} are none in this split; give rows='all'.")
    seed = whole("seed", seed, least=0, most=LARGEST_SEED, such_as="0")
    if n_samples is not None and whole("n_samples", n_samples, least=1, such_as="256") < n_rows:
        order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))
        found = found[order[:n_samples]]
    return found, {"rows": rows, "n_samples": len(found), "n_rows": n_rows, "seed": seed}


def other_end(run: Run, other: Subject) -> Run:
    """The run at the other end of a line, of the same task; a model's is that of `run`."""
    other = loaded(other)
    if isinstance(other, Run | Snapshot):
        found = run_of(other)
    else:
        found = run_of(other, task=run.task, train_mask=run.train_mask)
    if found.task != run.task:
        raise InputError(
            f"the tasks are {run.task.title} and {found.task.title}; give runs of one task."
        )
    return found


def logits_on_batches(snapshot: Snapshot) -> Logits:
    """The answer logits [n, n_classes] of n inputs, as a function of weights and inputs.

    It is differentiable in the weights, by autograd and by torch.func. InputError for a model whose
    weights alone do not say what it computes, and for one that is no function of them here.
    """
    architecture, task = snapshot.architecture, snapshot.task
    if architecture is None:
        raise InputError(
            "the weights alone do not say what this model computes; give a run, or model.float() "
            "where they are of half precision."
        )
    if not snapshot.weights:
        raise InputError("the model has no parameters; there is nothing to look at.")
    if reason := architecture.why_not_functional(snapshot.task.model_inputs):
        raise InputError(
            "gradients of the logits need a forward that is a function of the weights; there is "
            f"none for {reason}; give a model of a kind of this package."
        )

    def logits_fn(weights: Weights, inputs: Tensor) -> Tensor:
        return task.of_answers(architecture.forward(snapshot.with_buffers(weights), inputs))

    return logits_fn


def check_finite(weights: Weights, step: int | None = None) -> None:
    """Refuse weights that are not all finite numbers."""
    if not all_finite(weights):
        at = "" if step is None else f" at step {step}"
        raise InputError(f"the weights{at} are not finite; look at an earlier step.")


def exact_weights(run: Run, step: int) -> Weights:
    """The parameters of a checkpoint in float64: the difference of near ones is then exact."""
    weights = run.architecture.parameters(run.weights(step))
    check_finite(weights, step)
    return {name: weight.double() for name, weight in weights.items()}
