"""What a model has learned to see: localisation in frequency, or a lattice's observables.

For modular arithmetic the inverse participation ratios of the neurons' weights
(`grokinterp.fourier.localization`), for Ising phases how each layer's pre-activations go with
energy and magnetisation (`grokinterp.progress.observables`), at one checkpoint and over training.
Manning-Coe et al. 2025 (arXiv 2502.01739), sections 4 and 6, appendices B to D.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor
from tqdm.auto import tqdm

from grokinterp.base.errors import InputError
from grokinterp.fourier.localization import neuron_ipr
from grokinterp.progress.observables import (
    correlation_table,
    observables,
    observed_rows,
    pre_activations,
)
from grokinterp.reading._load import RunOrPath, Subject, run_of, snapshot_of, steps_of
from grokinterp.tasks.ising import IsingTask
from grokinterp.tasks.task import Task


def observable_correlations(
    x: Subject,
    *,
    step: int = -1,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> pd.DataFrame:
    r"""How every layer of an Ising model goes with E, |M| and M: weighted and median |r|.

    A row per layer and observable. r_k is the Pearson correlation, over the test configurations
    (all of them without a split: `.attrs["rows"]`), of unit k's pre-activation with the observable;
    units are the entries of a layer's pre-activation, each site of each channel by itself, and the
    classes of the logits. `weighted_r` is sum_k w_k |r_k| with w_k unit k's share of the layer's
    sum of |z|, `median_r` counts every unit alike; `weighted_r_over_units` is eq. 6 as printed.

    A correlation shows what a unit goes with, not what the answer is computed from: E and |M| go
    together themselves (`.attrs["r_energy_abs_magnetization"]`). InputError for other tasks.
    """
    snapshot = snapshot_of(x, step=step, task=task, train_mask=train_mask)
    rows = observed_rows(snapshot)
    values = {name: value[rows] for name, value in observables(snapshot).items()}
    layers = {name: z[rows] for name, z in pre_activations(snapshot).items()}
    frame = correlation_table(layers, values)
    both = torch.stack([values["energy"], values["abs_magnetization"]])
    frame.attrs |= {
        "rows": "all" if snapshot.test_rows is None else "test",
        "step": snapshot.step,
        "r_energy_abs_magnetization": float(torch.corrcoef(both)[0, 1]),
    }
    return frame


def features(
    run: RunOrPath,
    *,
    steps: Sequence[int] | str = "all",
    convention: str | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """The features of a run over training, one row per checkpoint.

    For modular arithmetic the mean IPR of input weights (per operand block, and both stacked) and
    output weights, in the real basis or another `convention` of `neuron_ipr`; for Ising, weighted
    and median |r| of every layer with every observable, as columns `LAYER.OBSERVABLE.weighted_r`
    and `.median_r`.
    """
    run = run_of(run)
    if not isinstance(run.task, IsingTask):
        convention = convention or "real"
    elif convention is not None:
        raise InputError(f"convention={convention!r} is of IPRs, which Ising models do not have.")
    rows = []
    for step in tqdm(
        steps_of(run, steps), desc="features", unit="checkpoint", disable=None if progress else True
    ):
        snapshot = run.snapshot(step)
        if convention is not None:
            found = neuron_ipr(snapshot, convention=convention).means
        else:
            found = {
                f"{row.layer}.{row.observable}.{column}": getattr(row, column)
                for row in observable_correlations(snapshot).itertuples()
                for column in ("weighted_r", "median_r")
            }
        rows.append({"step": snapshot.step} | found)
    frame = pd.DataFrame(rows)
    frame.attrs["convention"] = convention
    return frame
