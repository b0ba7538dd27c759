"""Which frequency each neuron depends on, and on which directions the logits read the neurons.

Logits that are sums of cos(w_k(f - c)) = cos(w_k f) cos(w_k c) + sin(w_k f) sin(w_k c) have these
directions: the row cos(w_k c) of W_L = W_out W_U along the classes is the direction u_k among the
neurons on which cos(w_k f(a, b)) is read, and the row sin(w_k c) is v_k, for sin(w_k f(a, b)).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import finite, number, refused
from grokinterp.base.errors import InputError, whole_number
from grokinterp.base.result import Result, plain_values
from grokinterp.fourier._key_frequencies import Keys, subject_of
from grokinterp.fourier.answers import AnswerSpectrum, group_of, no_frequencies_reason
from grokinterp.fourier.basis import transform
from grokinterp.fourier.spectra import neuron_logit_map, neuron_powers, operand_orders
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot
from grokinterp.runs.forwards import BLOCK_ROWS
from grokinterp.tasks.answer_group import UNDEFINED
from grokinterp.tasks.modular import ModularTask

LEFTOVER = -1  # the cluster of neurons that no frequency explains well enough


@dataclass(frozen=True, kw_only=True)
class NeuronClusters(Result):
    """The neurons of one layer, each with its leading frequency and its cluster.

    A cluster says on which waves of a and of b its neurons depend, not that the answer needs them:
    drop the cluster and look at the loss for that.

    >>> import grokinterp as gi
    >>> found = gi.circuits.neuron_clusters(gi.load("mod31-small"))
    >>> found.sizes, found.dead, round(found.variance_share, 2)
    ({1: 40, 14: 47, -1: 73}, (), 0.64)
    >>> found.members(14)[:5].tolist()
    [1, 3, 4, 9, 12]
    >>> found.summary()[["cluster", "neurons", "key", "fraction"]].round(2)
       cluster  neurons    key  fraction
    0        1       40   True      0.94
    1       14       47   True      0.91
    2       -1       73  False      0.67
    """

    leading: Int[Tensor, " d_mlp"] = field(repr=False)  # frequency; 0 for a dead neuron
    fraction: Float[Tensor, " d_mlp"] = field(repr=False)  # of its variance; NaN for a dead neuron
    quadratic_fraction: Float[Tensor, " d_mlp"] = field(repr=False)  # its four products alone
    variance_shares: Float[Tensor, " d_mlp"] = field(repr=False)  # of the layer's variance
    key_frequencies: tuple[int, ...]
    threshold: float
    layer: int | str
    step: int | None

    @cached_property
    def cluster(self) -> Int[Tensor, " d_mlp"]:
        """The leading frequency where its fraction reaches the threshold, else -1 (leftover)."""
        return torch.where(self.fraction >= self.threshold, self.leading, LEFTOVER)

    @property
    def frequencies(self) -> tuple[int, ...]:
        """The frequencies that have a cluster, ascending, key or not."""
        return tuple(k for k in self.cluster.unique().tolist() if k != LEFTOVER)

    @property
    def sizes(self) -> dict[int, int]:
        """Neurons of every cluster; -1 counts the leftover, dead neurons among them."""
        return {k: len(self.members(k)) for k in (*self.frequencies, LEFTOVER)}

    @property
    def dead(self) -> tuple[int, ...]:
        """Neurons with the same activation on every input: they belong to no frequency."""
        return tuple((self.leading == 0).nonzero().flatten().tolist())

    @property
    def variance_share(self) -> float:
        """Share of the layer's centred activation variance in the neurons of clusters."""
        return float(self.variance_shares[self.cluster != LEFTOVER].sum())

    def members(self, k: int) -> Int[Tensor, " n_members"]:
        """The neurons of cluster k, ascending; k = -1 for the leftover, none where k has none."""
        if whole_number(k) is None:
            raise refused("k", k, "a frequency", "such as 9, or -1 for the leftover")
        return (self.cluster == k).nonzero().flatten()

    def table(self) -> pd.DataFrame:
        """One row per neuron; fractions and shares are from 0 to 1, `.attrs` has the rest."""
        frame = pd.DataFrame({"neuron": range(len(self.leading))})
        for name in ("leading", "fraction", "quadratic_fraction", "cluster"):
            frame[name] = getattr(self, name).numpy()
        frame["key"] = frame["cluster"].isin(self.key_frequencies)
        frame["variance_share"] = self.variance_shares.numpy()
        frame["dead"] = frame["leading"] == 0
        frame.attrs.update(self.assumptions)
        return frame

    def summary(self) -> pd.DataFrame:
        """One row per cluster, the leftover last.

        Fractions are means over its live neurons, NaN where it has none.
        """
        frame = pd.DataFrame(self.sizes.items(), columns=["cluster", "neurons"])
        frame["key"] = frame["cluster"].isin(self.key_frequencies)
        members = [self.members(k) for k in frame["cluster"]]
        frame["variance_share"] = [float(self.variance_shares[own].sum()) for own in members]
        for name in ("fraction", "quadratic_fraction"):
            frame[name] = [float(getattr(self, name)[own].nanmean()) for own in members]
        frame.attrs.update(self.assumptions, variance_share=self.variance_share)
        return frame

    @property
    def assumptions(self) -> dict[str, object]:
        """What the tables rest on: they carry it as `.attrs`."""
        names = ("key_frequencies", "threshold", "layer", "step", "notes")
        return {name: plain_values(getattr(self, name)) for name in names}


def neuron_clusters(
    x: Subject,
    *,
    layer: int | str | None = None,
    threshold: float = 0.85,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> NeuronClusters:
    r"""Sort a layer's neurons (the last one's unless given) by the frequency they depend on.

    `layer` is a number, or of a module of one's own the name of a sub-module, such as "fc1".

    With G the post-activations of one neuron over the n*n grid of (a, b), centred, and Ĝ their 2-D
    transform, the fraction of frequency k is the sum of Ĝ_ij^2 over i, j in {const, cos w_k,
    sin w_k}, over that of all i, j. A neuron is in the cluster of its leading frequency k if that
    fraction is at least `threshold`, else in the leftover, -1 (Nanda et al. 2023, arXiv 2301.05217,
    section 4.3 and their notebook; TransformerLens' demo asks for more than 0.85). The quadratic
    fraction counts the four products cos, sin of a times cos, sin of b only (ARENA). `frequencies`
    (those of the logits unless given) only mark clusters as key. Multiplication is looked at in
    discrete logarithms, zero factors left out. InputError for a layer without such neurons, for
    activations that are not finite, and where there is no frequency above 0.

    >>> import grokinterp as gi
    >>> found = gi.circuits.neuron_clusters(gi.load("mod31-small"))
    >>> found.summary()[["cluster", "neurons", "key", "variance_share"]].round(2)
       cluster  neurons    key  variance_share
    0        1       40   True            0.27
    1       14       47   True            0.37
    2       -1       73  False            0.36
    """
    threshold = number("threshold", threshold, least=0, most=1, such_as="0.85")
    snapshot, key = subject_of(x, step, frequencies, task, train_mask)
    powers = neuron_powers(snapshot, layer=layer)
    layer = snapshot.n_layers - 1 if layer is None else layer
    if not powers.both.shape[1]:
        raise InputError(f"{no_frequencies_reason(snapshot)}, so neurons cannot be sorted by one.")
    finite(f"neurons of layer {layer}", powers.total)
    own = powers.first + powers.second + powers.both
    best = own.argmax(dim=1, keepdim=True)
    dead = powers.total == 0
    return NeuronClusters(
        leading=torch.where(dead, 0, best.flatten() + 1),
        fraction=own.gather(1, best).flatten() / powers.total,
        quadratic_fraction=powers.both.gather(1, best).flatten() / powers.total,
        variance_shares=powers.total / powers.total.sum().clamp_min(torch.finfo().tiny),
        key_frequencies=key,
        threshold=threshold,
        layer=layer,
        step=snapshot.step,
        notes=tuple(_cluster_notes(snapshot, key, dead)),
    )


def _cluster_notes(snapshot: Snapshot, key: Keys, dead: Bool[Tensor, " d_mlp"]) -> Iterator[str]:
    if not key:
        yield f"no frequency is key: {key.reason}"
    if len(operand_orders(snapshot)[0]) < snapshot.modular_task.p:
        yield "inputs with a zero factor take no part"
    if dead.all():
        yield "every neuron is dead"


Direction = tuple[int, str]  # k, and "cos" or "sin"
MAP_ROUNDING = 1e-10  # rows this small next to W_L, and spans this thin, are float64 rounding


@dataclass(frozen=True, kw_only=True)
class NeuronLogitMap(Result):
    """The Fourier rows of W_L along the classes; `parts` names a direction by (k, "cos" or "sin").

    `directions` are unit vectors among the neurons, cos (u_k) before sin (v_k) for each key
    frequency (k = n / 2 of even n has no sin). `variance_explained` is the share, from 0 to 1, of
    the variance of u_k . MLP(a, b) over (a, b) that a multiple of cos(w_k f) explains, and of
    v_k . MLP(a, b) that one of sin(w_k f) does. A small residual says that the map is of low rank;
    it does not say that the other directions, or the residual skip, do no work.

    >>> import grokinterp as gi
    >>> found = gi.circuits.neuron_logit_directions(gi.load("mod31-small"))
    >>> round(found.residual, 2), found.basis.shape, found.direction(14, "cos").shape
    (0.1, torch.Size([160, 6]), torch.Size([160]))
    >>> found.table()[["k", "part", "norm", "variance_explained"]].round(2)
        k part   norm  variance_explained
    0   1  cos  11.58                0.93
    1   1  sin  11.20                0.95
    2   8  cos   9.44                0.65
    3   8  sin  10.47                0.64
    4  14  cos  14.02                0.95
    5  14  sin  16.65                0.95
    >>> float(found.cosines.fill_diagonal_(0).abs().max().round(decimals=2))
    0.17
    """

    frequencies: tuple[int, ...]
    parts: tuple[Direction, ...] = field(repr=False)
    directions: Float[Tensor, "n_directions d_mlp"] = field(repr=False)
    norms: Float[Tensor, " n_directions"] = field(repr=False)
    variance_explained: Float[Tensor, " n_directions"] = field(repr=False)
    row_norms: Float[Tensor, " n_rows"] = field(repr=False)  # of all rows, in `fourier_basis` order
    step: int | None

    @property
    def residual(self) -> float:
        """Frobenius norm of W_L outside the key rows, over that of W_L, the constant row in both.

        Nanda et al. 2023 (arXiv 2301.05217), section 4.2: below 0.0055.
        """
        return float(self._outside.norm() / self.row_norms.norm())

    @property
    def residual_centred(self) -> float:
        """The same without the constant row, which shifts the logits of all these classes alike."""
        return float(self._outside[1:].norm() / self.row_norms[1:].norm())

    @property
    def cosines(self) -> Float[Tensor, "n_directions n_directions"]:
        """Cosines between the directions: the unit matrix where they are orthogonal."""
        return self.directions @ self.directions.T

    @property
    def basis(self) -> Float[Tensor, "d_mlp rank"]:
        """An orthonormal basis of the span of the directions, to keep or to drop it.

        `A @ basis @ basis.T` keeps what of the activations A [n_inputs, d_mlp] lies in the span.
        """
        left, singular, _ = torch.linalg.svd(self.directions.T, full_matrices=False)
        return left[:, singular > MAP_ROUNDING]

    def direction(self, k: int, part: str) -> Float[Tensor, " d_mlp"]:
        """The unit vector u_k (`part="cos"`) or v_k (`part="sin"`)."""
        if (k, part) not in self.parts:
            known = ", ".join(f"({k}, {part!r})" for k, part in self.parts) or "none"
            raise InputError(f"direction ({k}, {part!r}) is not one of this map; known: {known}.")
        return self.directions[self.parts.index((k, part))]

    def table(self) -> pd.DataFrame:
        """One row per direction.

        `norm` is in logits per unit of activation, `share` its square over that of W_L,
        `largest_cosine` the absolute cosine with the direction nearest to it.
        """
        others = self.cosines.abs().fill_diagonal_(0.0)
        frame = pd.DataFrame(
            {
                "k": [k for k, _ in self.parts],
                "part": [part for _, part in self.parts],
                "norm": self.norms.numpy(),
                "share": (self.norms / self.row_norms.norm()).square().numpy(),
                "variance_explained": self.variance_explained.numpy(),
                "largest_cosine": [max(row, default=0.0) for row in others.tolist()],
            }
        )
        names = ("residual", "residual_centred", "step")
        frame.attrs |= {name: getattr(self, name) for name in names} | {"notes": list(self.notes)}
        return frame

    @property
    def _outside(self) -> Float[Tensor, " n_rows"]:
        norms = self.row_norms.clone()
        norms[[_row(*part) for part in self.parts]] = 0.0
        return norms


def neuron_logit_directions(
    x: Subject,
    *,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> NeuronLogitMap:
    r"""The directions among the last MLP's neurons on which the logits read each key frequency.

    u_k = sum over classes c of cos(w_k e(c)) W_L[:, c] / norm, v_k with sin, W_L = W_out W_U over
    the answer classes in the order of the task's group, without "=" (and without 0 for
    multiplication). The variance explained is (c_k . y)^2 / |y - mean(y)|^2 for y = u_k . MLP(a, b)
    with c_k the unit vector along cos(w_k f(a, b)) over all pairs, and s_k for v_k (Nanda et al.
    2023, arXiv 2301.05217, section 4.2 and table 1). InputError without an answer group or an MLP,
    and where the map or the neurons are constant or not finite.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.circuits.neuron_logit_directions(run)
    >>> found.parts[:2], found.variance_explained.round(decimals=2).tolist()
    (((1, 'cos'), (1, 'sin')), [0.93, 0.95, 0.65, 0.64, 0.95, 0.95])
    >>> drop = gi.hooks.directions("blocks.0.mlp.hook_post", found.basis)
    >>> gi.ablate(run, [drop], placebos=5).table()[["loss_all", "acc_all", "verdict"]].round(2)
       loss_all  acc_all       verdict
    0      4.11     0.16  above chance
    """
    snapshot, key = subject_of(x, step, frequencies, task, train_mask)
    group = group_of(snapshot)
    rows = transform(neuron_logit_map(snapshot).T[group.tokens])
    if not 0 < rows[1:].norm() < torch.inf:
        raise InputError("W_out W_U is not finite or the same for all classes: it reads nothing.")
    parts = tuple((k, p) for k in key for p in ("cos", "sin") if _row(k, p) < group.order)
    own = rows[[_row(*part) for part in parts]]
    own = own * (own.norm(dim=1, keepdim=True) > MAP_ROUNDING * rows.norm())
    norms = own.norm(dim=1)
    directions = torch.nn.functional.normalize(own, dim=1)
    return NeuronLogitMap(
        frequencies=key,
        parts=parts,
        directions=directions,
        norms=norms,
        variance_explained=_variance_explained(snapshot, directions, parts),
        row_norms=rows.norm(dim=1),
        step=snapshot.step,
        notes=tuple(_map_notes(snapshot, key, dict(zip(parts, norms.tolist(), strict=True)))),
    )


def _row(k: int, part: str) -> int:
    """The row of `fourier_basis`."""
    return 2 * k - (part == "cos")


def _variance_explained(
    snapshot: Snapshot,
    directions: Float[Tensor, "n_directions d_mlp"],
    parts: tuple[Direction, ...],
) -> Float[Tensor, " n_directions"]:
    if not parts:
        return torch.zeros(0, dtype=torch.float64)
    group = group_of(snapshot)
    defined = group.of_input != UNDEFINED
    weights = group.weights[group.of_input][:, None]
    post = snapshot.mlp_post
    if not post.isfinite().all() or (post[defined] == post[defined][0]).all():
        raise InputError("the neurons are not finite or all dead, so no direction reads anything.")
    read = torch.cat([block.double() @ directions.T for block in post.split(BLOCK_ROWS)])
    read = read - (weights * read).sum(dim=0) / group.n_inputs
    total = (weights * read.square()).sum(dim=0)
    order = group.order
    count = group.n_inputs / order
    k = torch.tensor([k for k, _ in parts])
    found = AnswerSpectrum.of(read, group).coefficients[k, torch.arange(len(parts))]
    inner = torch.where(torch.tensor([part == "cos" for _, part in parts]), found.real, found.imag)
    wave_squares = torch.where(2 * k == order, order, order / 2)  # of cos(w_k f), over exponents
    return count * inner.square() / wave_squares / total


def _map_notes(snapshot: Snapshot, key: Keys, norms: dict[Direction, float]) -> Iterator[str]:
    if not norms:
        yield f"no directions: {key.reason}"
    if not snapshot.linear_readout:
        after = "a LayerNorm, RMSNorm or soft cap follows the MLP"
        yield f"{after}: W_out W_U is not the map the model applies"
    if snapshot.n_layers > 1:
        yield f"only the MLP of the last of {snapshot.n_layers} layers is looked at"
    for (k, part), norm in norms.items():
        if norm == 0:
            yield f"W_L has no row {part} {k}: its direction is zero, its numbers NaN"
