"""Of what rank are the matrices of a model over training? Four definitions, side by side.

`grokinterp.geometry.ranks_of_matrices` has the definitions, which disagree.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.geometry.ranks_of_matrices import DEFINITIONS, effective_ranks
from grokinterp.models.architecture import is_bias
from grokinterp.reading._load import Subject, progress_bar, rising_steps, run_of
from grokinterp.runs._snapshot import Snapshot
from grokinterp.tasks.task import Task

SPECIAL = {"embed.W_E": "W_E", "unembed.W_U": "W_U"}  # short names of weights of ours
OF_ONE_LAYER = {"blocks.0.mlp.W_in": "W_in", "blocks.0.mlp.W_out": "W_out"}
PRODUCT = "W_out W_U"


@dataclass(frozen=True, kw_only=True)
class Ranks(Result):
    """Effective ranks of a model's matrices, a row a checkpoint and matrix: see `ranks`.

    >>> import grokinterp as gi
    >>> found = gi.encodings.ranks(gi.load("mod31-small"), steps=[0, 10_000])
    >>> found.matrices, found.steps
    (('W_E', 'W_U', 'W_in', 'W_out', 'W_out W_U'), (0, 10000))
    """

    rows: tuple[dict[str, object], ...] = field(repr=False)

    @property
    def steps(self) -> tuple[int, ...]:
        """The checkpoints."""
        return tuple(self.table()["step"].unique().tolist())

    @property
    def matrices(self) -> tuple[str, ...]:
        """The names of the matrices."""
        return tuple(self.table()["matrix"].unique().tolist())

    def table(self) -> pd.DataFrame:
        """One row per checkpoint and matrix: each definition, and min(m, n), the largest rank."""
        return pd.DataFrame(list(self.rows))

    def _lines(self) -> list[str]:
        """By the first definition, from the first checkpoint to the last."""
        table = self.table()
        lines = []
        for name, rows in table.groupby("matrix", sort=False):
            ends = rows["entropy_rank"].iloc[[0, -1]]
            ranks = dict.fromkeys("-" if math.isnan(x) else f"{x:.3g}" for x in ends)
            lines.append(f"{name}: {' to '.join(ranks)} of {rows['full_rank'].iloc[0]}")
        return lines if len(lines) <= len(SPECIAL | OF_ONE_LAYER) + 1 else []

    def _short_table(self) -> pd.DataFrame:
        """The last checkpoint's."""
        table = self.table()
        return table[table["step"] == table["step"].iloc[-1]]


def ranks(
    x: Subject,
    *,
    steps: Sequence[int] | str = "all",
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
    progress: bool = False,
) -> Ranks:
    """Are the matrices of low rank, and from when on?

    At every checkpoint, of every matrix, the four definitions of `effective_ranks`. `W_E` has the
    rows of operand tokens alone, `W_U` the columns of answer classes; `W_out W_U` is the
    neuron-logit map of the last layer, the map of Nanda et al. 2023 (arXiv 2301.05217, section 4.2)
    whose rank is about twice the number of key frequencies. One-layer models have `W_in` and
    `W_out`, if any, too. Every other matrix of two axes goes by its own name: those of deeper
    models, and all of a module of one's own. Position embeddings (of rank 3 at most), heads and
    convolutions are left out: `gi.encodings.sizes` has these.

    Low rank does not say that the network generalises, nor do the leading directions have to be
    those it reads. A matrix of zeros, or with entries that are not finite, has NaN and a note.
    InputError for a model without a matrix.

    >>> import grokinterp as gi
    >>> found = gi.encodings.ranks(gi.load("mod31-small"), steps=[0, 2000, 10_000])
    >>> table = found.table()
    >>> table[table.matrix == "W_out W_U"].iloc[:, :4].round(1)
         step     matrix  entropy_rank  entropy_rank_squared
    4       0  W_out W_U          24.6                  18.4
    9    2000  W_out W_U          11.0                   5.5
    14  10000  W_out W_U           6.2                   5.5
    """
    run = run_of(x, task=task, train_mask=train_mask)
    rows: list[dict[str, object]] = []
    without: dict[tuple[str, str], list[int]] = {}
    for step in progress_bar(rising_steps(run, steps), "ranks", progress):
        for name, matrix in matrices_of(run.snapshot(step)).items():
            try:
                found = effective_ranks(matrix)
            except InputError as error:
                found = dict.fromkeys(DEFINITIONS, math.nan)
                reason = str(error).partition(";")[0].rstrip(".")
                without.setdefault((name, reason), []).append(step)
            rows.append({"step": step, "matrix": name, **found, "full_rank": min(matrix.shape)})
    if not rows:
        raise InputError("the model has no matrices of two axes; give one with such weights.")
    notes = [
        f"{name} at step {at[0]}{f' and {len(at) - 1} more' * (len(at) > 1)}: {reason}"
        for (name, reason), at in without.items()
    ]
    return Ranks(rows=tuple(rows), notes=tuple(notes))


def matrices_of(snapshot: Snapshot) -> Mapping[str, Float[Tensor, "_ _"]]:
    """The matrices of a model under the names of `ranks`."""
    named = snapshot.named_weights
    if not named:
        return {name: w for name, w in snapshot.weights.items() if w.ndim == 2}
    short = SPECIAL | (OF_ONE_LAYER if snapshot.n_layers == 1 else {})
    found = {
        short.get(name, name): w
        for name, w in named.items()
        if w.ndim == 2 and not is_bias(name) and not name.endswith(".W_pos")
    }
    task = snapshot.task
    if "W_E" in found and task.modular is not None:
        found["W_E"] = found["W_E"][: task.modular.p]
    if "W_U" in found:
        found["W_U"] = found["W_U"][:, : task.n_classes]
        last = named.get(f"blocks.{snapshot.n_layers - 1}.mlp.W_out")
        if last is not None:
            found[PRODUCT] = last.double() @ found["W_U"].double()
    order = (*SPECIAL.values(), *OF_ONE_LAYER.values(), PRODUCT)
    return {name: found.pop(name) for name in order if name in found} | found
