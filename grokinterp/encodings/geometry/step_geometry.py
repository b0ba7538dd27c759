"""The steps of a run in weight space, measured by the Fisher metric: how long, and which way."""

import math
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.circuits.subject import check_run
from grokinterp.encodings.geometry.fisher import fisher_diagonal
from grokinterp.encodings.geometry.inputs import check_finite, rising_steps
from grokinterp.encodings.geometry.metric import cosine_of, diagonal_gram, fisher_metric
from grokinterp.errors import InputError
from grokinterp.models.architecture import Weights
from grokinterp.runs.run import Run

STIFF = 0.1  # of the final diagonal: the published threshold


def step_geometry(
    run: Run,
    *,
    steps: Sequence[int] | str = "all",
    form: str = "diagonal",
    variant: str = "softmax",
    rows: str = "test",
    n_samples: int | None = 256,
    seed: int = 0,
    stiff_above: float | None = STIFF,
    progress: bool = False,
) -> pd.DataFrame:
    r"""Lengths and directions of the steps between neighbouring checkpoints, a row a step.

    s_i = theta_(i+1) - theta_i, from checkpoint `step` to checkpoint `to`; g is the Fisher metric
    at its start (`fisher_metric` with these `form`, `variant`, `rows`, `n_samples` and `seed`).
    `fisher_norm` is sqrt(s_i^T g s_i). `cos_consecutive` is the cosine with the step before,
    s_i^T g s_(i-1) / (|s_i| |s_(i-1)|), NaN for the first. `cos_origin` is that with -theta_i: +1
    where all weights shrink alike, -1 where they grow. Those named euclidean_ have g = 1. Cosines
    are NaN where a length is 0. With `stiff_above`, columns that end on _stiff and _sloppy are of
    the weights whose diagonal Fisher value at the run's last checkpoint (same variant and inputs)
    is at least that, and of the others, with all other entries of the vectors at 0; None leaves
    them out. All settings and `n_stiff` stand in `.attrs`.

    Manning-Coe et al. 2025 (arXiv 2502.01739, section 6.3, eqs. 8-9) take steps of f = 200 updates
    (Ising) or one epoch (modular addition) and g over training inputs, "softmax"; their code has
    form="diagonal", variant="logits", rows="test", n_samples=16 for modular addition and all 1000
    test inputs for Ising, and the threshold 0.1 on the last diagonal. There a positive `cos_origin`
    is called growth once; by their definition, which is the one here, it is decay.

    A cosine depends on the spacing: between long steps it says little about the path between them,
    mini-batch noise turns short steps against each other, and uneven checkpoints mix both. It
    depends on the parametrisation, too, with the diagonal form more than with the exact one.
    InputError for weights that are not finite, naming the step, and for fewer than 2 checkpoints.
    """
    check_run(run)
    chosen = rising_steps(run, steps)
    if len(chosen) < 2:
        raise InputError(f"steps={steps!r} is one checkpoint; a step takes two.")
    if stiff_above is not None and not (
        isinstance(stiff_above, int | float) and math.isfinite(stiff_above)
    ):
        raise InputError(f"stiff_above={stiff_above!r} is not a number; give such as 0.1, or None.")
    here = _weights(run, chosen[0])
    parts: dict[str, Weights] = {"": {name: torch.ones_like(w) for name, w in here.items()}}
    if stiff_above is not None:
        _weights(run, run.steps[-1])  # its error says which step
        last = fisher_diagonal(
            run, variant=variant, rows=rows, n_samples=n_samples, seed=seed
        ).values
        stiff = {name: (value >= stiff_above).double() for name, value in last.items()}
        parts |= {"_stiff": stiff, "_sloppy": {name: 1 - mask for name, mask in stiff.items()}}
    table, before, metric = [], None, None
    for step, to in tqdm(
        list(pairwise(chosen)), desc="steps", unit="step", disable=None if progress else True
    ):
        metric = fisher_metric(
            run, step=step, form=form, variant=variant, rows=rows, n_samples=n_samples, seed=seed
        )
        there = _weights(run, to)
        vectors = [
            {name: there[name] - here[name] for name in here},
            {name: -weight for name, weight in here.items()},
            *([before] if before else []),
        ]
        euclidean = diagonal_gram(parts[""], vectors)
        row = {"step": step, "to": to, "euclidean_norm": float(euclidean[0, 0].sqrt())}
        row |= _cosines(euclidean, "euclidean_", "")
        for part, mask in parts.items():
            gram = metric.gram([{name: mask[name] * v[name] for name in v} for v in vectors])
            row[f"fisher_norm{part}"] = float(gram[0, 0].sqrt())
            row |= _cosines(gram, "", part)
        table.append(row)
        here, before = there, vectors[0]
    assert metric is not None  # there are two checkpoints
    frame = pd.DataFrame(table)
    frame.attrs |= {
        "form": form,
        "variant": variant,
        "rows": rows,
        "n_samples": metric.n_samples,
        "n_rows": metric.n_rows,
        "seed": seed,
        "stiff_above": stiff_above,
        "n_stiff": int(_count(parts["_stiff"])) if "_stiff" in parts else None,
        "n_weights": int(_count(parts[""])),
    }
    return frame


def _weights(run: Run, step: int) -> Weights:
    """In float64: the difference of near checkpoints is then exact."""
    weights = run.weights(step)
    check_finite(weights, step)
    return {name: weight.double() for name, weight in weights.items()}


def _count(mask: Weights) -> float:
    return sum(float(part.sum()) for part in mask.values())


def _cosines(gram: Float[Tensor, "m m"], prefix: str, part: str) -> dict[str, float]:
    """Of a step (0) with -theta (1) and the step before (2), which the first does not have."""
    consecutive = cosine_of(gram, 0, 2) if len(gram) > 2 else math.nan
    return {
        f"{prefix}cos_consecutive{part}": consecutive,
        f"{prefix}cos_origin{part}": cosine_of(gram, 0, 1),
    }
