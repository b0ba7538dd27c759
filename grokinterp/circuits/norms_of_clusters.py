"""Do the neurons that end up in the circuit grow while the others shrink?

Which neurons these are is read off the last checkpoint; their norms are followed from the first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.result import Result
from grokinterp.circuits.neurons import LEFTOVER, neuron_clusters
from grokinterp.progress.measures import Columns, measure
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs.run import Run
from grokinterp.tasks.modular import ModularTask

SIDES = ("", "_in", "_out")  # both together, and each


@dataclass(frozen=True, kw_only=True)
class ClusterNorms(Result):
    """Norms of every neuron's input and output weights, and the cluster that it ends in.

    `into` and `out` [checkpoints, neurons] are L2 norms in float64, without biases; `cluster` is
    that of `neuron_clusters` at the last checkpoint, -1 for the leftover.

    >>> import grokinterp as gi
    >>> found = gi.circuits.cluster_norms(gi.load("mod31-small"))
    >>> found.n_clustered, found.n_rest
    (87, 73)
    >>> found.table()[["step", "clustered", "rest", "ratio"]].iloc[[0, 12, 25]].round(2)
         step  clustered  rest  ratio
    0       0       1.13  1.12   1.01
    12   1750       1.59  1.55   1.02
    25  10000       0.92  0.95   0.97
    """

    steps: tuple[int, ...]
    cluster: Int[Tensor, " d_mlp"] = field(repr=False)
    into: Float[Tensor, "k d_mlp"] = field(repr=False)
    out: Float[Tensor, "k d_mlp"] = field(repr=False)
    layer: int
    threshold: float

    @property
    def n_clustered(self) -> int:
        """Neurons that end up in a cluster."""
        return int((self.cluster != LEFTOVER).sum())

    @property
    def n_rest(self) -> int:
        """Neurons that do not, dead ones among them."""
        return len(self.cluster) - self.n_clustered

    @property
    def both(self) -> Float[Tensor, "k d_mlp"]:
        """Norms of input and output weights together, sqrt(in^2 + out^2)."""
        return torch.hypot(self.into, self.out)

    def table(self) -> pd.DataFrame:
        """One row per checkpoint: mean norms of the clustered neurons and the rest, their ratio.

        Of both sides together, then `_in` and `_out` each; NaN where there are no such neurons.
        """
        clustered = self.cluster != LEFTOVER
        columns: dict[str, object] = {"step": self.steps}
        for side, norms in zip(SIDES, (self.both, self.into, self.out), strict=True):
            one, other = (norms[:, rows].mean(dim=1) for rows in (clustered, ~clustered))
            named = {"clustered": one, "rest": other, "ratio": one / other}
            columns |= {f"{name}{side}": values.numpy() for name, values in named.items()}
        return pd.DataFrame(columns)

    def by_cluster(self) -> pd.DataFrame:
        """One row per checkpoint and cluster, the leftover (-1) last: neurons, mean norms."""
        clusters = sorted(self.cluster.unique().tolist(), key=lambda k: (k == LEFTOVER, k))
        rows = []
        for i, step in enumerate(self.steps):
            for k in clusters:
                own = self.cluster == k
                means = {
                    f"norm{side}": float(norms[i, own].mean())
                    for side, norms in zip(SIDES, (self.both, self.into, self.out), strict=True)
                }
                rows.append({"step": step, "cluster": k, "neurons": int(own.sum()), **means})
        return pd.DataFrame(rows)

    def _lines(self) -> list[str]:
        """How many neurons there are of each kind, and their mean norms at both ends."""
        ends = self.table().iloc[[0, -1]]
        told = {"in clusters": (self.n_clustered, "clustered"), "others": (self.n_rest, "rest")}
        return [
            f"{n} neurons {name}: mean norm "
            f"{' to '.join(dict.fromkeys(f'{x:.3g}' for x in ends[column]))}"
            for name, (n, column) in told.items()
            if n
        ]


def cluster_norms(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    layer: int | None = None,
    threshold: float = 0.85,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> ClusterNorms:
    """Norms of the final clusters' neurons against the rest, over training.

    The clusters are those of `neuron_clusters` at the last checkpoint, with its `layer` and
    `threshold`: neurons whose activation depends on one frequency, key or not. The norm of a neuron
    is that of its input weights (its column of W_in) and its output weights (its row of W_out, of
    an MLP that of the next layer) together, sqrt(in^2 + out^2); biases are left out.

    Merrill et al. 2023 (arXiv 2303.11873) find that at the transition of sparse parity
    the few neurons of the generalising subnetwork grow in norm while the others decay; they find
    them by pruning. The clusters here are ours, of modular arithmetic. A ratio above 1 says which
    neurons are large, not that the answer needs them, nor which came first: the clusters are chosen
    by the end. Of ReLU neurons, in and out can be exchanged (c in, out / c) without a change of the
    function; weight decay alone keeps them alike. Neurons that the last checkpoint leaves dead are
    among the rest. Where all neurons are in clusters, or none, the missing mean is NaN with a note.

    InputError for tasks without operand tokens, for models without an MLP, and for those whose
    weights go by names of their own.

    >>> import grokinterp as gi
    >>> found = gi.circuits.cluster_norms(gi.load("mod31-small"), steps=[0, 10_000])
    >>> found.by_cluster()[["step", "cluster", "neurons", "norm"]].round(2)
        step  cluster  neurons  norm
    0      0        1       40  1.14
    1      0       14       47  1.12
    2      0       -1       73  1.12
    3  10000        1       40  0.97
    4  10000       14       47  0.89
    5  10000       -1       73  0.95
    """
    run = run_of(x, task=task, train_mask=train_mask)
    if whole_number(layer) is None and layer is not None:
        raise InputError(
            f"layer={shown(layer)} is not the number of a layer; this looks at W_in and W_out, so "
            "give such as 0, or leave it out for the last."
        )
    if not run.architecture.named:
        raise InputError(
            "weights of a module go by names of its own, which do not say what neurons read and "
            "write; give a transformer or an MLP of grokinterp."
        )
    clusters = neuron_clusters(run, layer=layer, threshold=threshold)
    number = run.architecture.n_layers - 1 if layer is None else layer
    chosen = rising_steps(run, steps)
    into, out = [], []
    for step in progress_bar(chosen, "cluster norms", progress):
        reads, writes = _sides(run.weights(step), number)
        into.append(reads.double().norm(dim=0))
        out.append(writes.double().norm(dim=1))
    leftover = clusters.sizes[LEFTOVER]
    alike = {0: "every neuron is in a cluster", len(clusters.cluster): "no neuron is in a cluster"}
    return ClusterNorms(
        steps=tuple(chosen),
        cluster=clusters.cluster,
        into=torch.stack(into),
        out=torch.stack(out),
        layer=number,
        threshold=clusters.threshold,
        notes=(
            f"clusters are those of the last checkpoint, step {run.steps[-1]}",
            *([f"{alike[leftover]}: there is no ratio"] if leftover in alike else []),
        ),
    )


def _sides(weights: Mapping[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    """What the neurons of a layer read, [d, neurons], and what they write, [neurons, d]."""
    block = f"blocks.{layer}.mlp"
    for name in (f"{block}.W_out", f"blocks.{layer + 1}.mlp.W_in", "unembed.W_U"):
        if name in weights:
            return weights[f"{block}.W_in"], weights[name]
    raise InputError(f"the neurons of layer {layer} have no output weights that are known.")


@measure("cluster_norms", scope="run", default=False, prefix="cluster_norm_", of="modular")
def _cluster_norms(run: Run) -> Columns:
    """Mean norm of the final clusters' neurons over that of the rest, at the start and the end."""
    ratio = cluster_norms(run, steps=sorted({run.steps[0], run.steps[-1]})).table()["ratio"]
    if math.isnan(ratio.iloc[-1]):
        raise InputError("every neuron is in a cluster, or none is: there is nothing to compare.")
    return {"ratio_start": float(ratio.iloc[0]), "ratio_end": float(ratio.iloc[-1])}
