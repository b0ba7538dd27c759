"""Circles in the embedding: how circular it is, and the plane of each circle.

Rows of `W_E` are taken in the order of the task's group, operand tokens only, with their mean taken
out. A circle of frequency k is a plane of the embedding in which token x stands at the angle w_k x.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from grokinterp.base.checks import listed, whole, word
from grokinterp.base.errors import InputError
from grokinterp.base.result import Result
from grokinterp.circuits.ablation import score
from grokinterp.circuits.clock_and_pizza import WaveFit, logit_forms
from grokinterp.circuits.interventions import hooked_answers
from grokinterp.fourier._key_frequencies import need_key_frequencies, subject_of
from grokinterp.fourier.answers import group_of
from grokinterp.fourier.basis import fourier_basis, spectrum
from grokinterp.fourier.spectra import operand_orders, token_order
from grokinterp.reading._load import Subject
from grokinterp.runs._snapshot import Snapshot, from_weights, need_residual_stream
from grokinterp.runs.forwards import device_of
from grokinterp.tasks.modular import ModularTask

SINGULAR_ROUNDING = 1e-6  # relative: smaller singular values are those of float32


def plane_coordinates(tokens: Float[Tensor, "n d_model"], k: int) -> Float[Tensor, "n 2"]:
    """Each row of a table of tokens on the plane of cos and sin of w_k x.

    With C = sum_x cos(w_k x) row_x and S the same of sin, the axes are C / |C| and the part of S
    orthogonal to C, of length 1; rows of a perfect circle of frequency k are r (cos w_k x,
    sin w_k x). 0 along an axis that does not exist: no C, S in the direction of C, or 2 k = n.
    """
    axes: list[Tensor] = []
    for row in fourier_basis(len(tokens))[2 * k - 1 : 2 * k + 1] @ tokens.double():
        for axis in axes:
            row = row - (row @ axis) * axis
        axes.append(torch.nn.functional.normalize(row, dim=0))
    found = tokens.double() @ torch.stack(axes, dim=1)
    return torch.nn.functional.pad(found, (0, 2 - found.shape[1]))


@dataclass(frozen=True)
class PrincipalComponent:
    """Of the embedding: its leading frequency, and the share of its variance along that one."""

    frequency: int
    circularity: float
    singular_value: float


@dataclass(frozen=True, kw_only=True)
class Circularity(Result):
    """How circular the first principal components of an embedding are.

    `value` is the published mean over `components`. `key_share` is the power of the planes of the
    key frequencies over that of as many principal components (None without key frequencies).

    >>> import grokinterp as gi
    >>> found = gi.circuits.circularity(gi.load("mod31-small"))
    >>> round(found.value, 2), round(found.key_share, 2)
    (0.72, 0.96)
    >>> found.table().round(3)
       frequency  circularity  singular_value
    0         14        0.982           3.930
    1         14        0.514           3.613
    2          1        0.845           3.460
    3          1        0.545           3.342
    """

    value: float
    components: tuple[PrincipalComponent, ...]
    key_share: float | None
    frequencies: tuple[int, ...]
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per principal component, strongest first."""
        frame = pd.DataFrame(map(vars, self.components))
        names = ("key_share", "frequencies", "step")
        frame.attrs |= {x: getattr(self, x) for x in names} | {"circularity": self.value}
        return frame


def circularity(
    x: Subject,
    *,
    n_components: int = 4,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Circularity:
    r"""How much each leading principal component of the embedding is a wave of one frequency.

    The mean over the first `n_components` of max_k 2 / (n sum_x v_x^2) |sum_x v_x e^(i w_k x)|^2,
    v a principal component over the n operand tokens (the mean row taken out first); between 0 and
    1, circular from 0.995 on (Zhong et al. 2023, arXiv 2306.17844).

    Components of nearly equal singular value are free to rotate into each other, and mix two
    circles of equal size: the value falls although both are perfect. `key_share` does not: it is 1
    where the planes of the |K| key frequencies hold all that the first 2 |K| components hold, which
    is the most that any planes can. Neither says that the network uses the circles.
    InputError without an answer group or a table of embeddings.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> [round(gi.circuits.circularity(run, step=step).value, 2) for step in (0, 1000, 10000)]
    [0.21, 0.74, 0.72]
    """
    snapshot, frequencies = subject_of(x, step, frequencies, task, train_mask)
    need_residual_stream(snapshot)
    n_components = whole("n_components", n_components, least=1, such_as="4")
    components = principal_components(snapshot)[:n_components]
    if not components:
        raise InputError("the embeddings of all operands are equal; they have no components.")
    return Circularity(
        value=sum(found.circularity for found in components) / len(components),
        components=components,
        key_share=_key_share(snapshot, frequencies) if frequencies else None,
        frequencies=frequencies,
        step=snapshot.step,
    )


def principal_components(snapshot: Snapshot) -> tuple[PrincipalComponent, ...]:
    """All principal components of the embedding with their leading frequencies."""
    waves, singular, _ = _svd(snapshot)
    shares, index = (spectrum(waves)[1:] / waves.square().sum(dim=0)).max(dim=0)
    return tuple(map(PrincipalComponent, *(x.tolist() for x in (index + 1, shares, singular))))


def frequency_plane(snapshot: Snapshot, k: int) -> Float[Tensor, "n d_model"]:
    """The part of the embedding along cos and sin of w_k x."""
    tokens = centred_embedding(snapshot)
    waves = _rows(k, len(tokens))
    return waves.T @ (waves @ tokens)


def principal_plane(snapshot: Snapshot, k: int) -> Float[Tensor, "n d_model"]:
    """The part along the two strongest principal components whose leading frequency is k."""
    waves, singular, directions = _svd(snapshot)
    own = [i for i, one in enumerate(principal_components(snapshot)) if one.frequency == k][:2]
    if not own:
        what = "no principal component of the embedding has the leading frequency"
        raise InputError(f'{what} {k}; take method="frequency".')
    return (waves[:, own] * singular[own]) @ directions[own]


def centred_embedding(snapshot: Snapshot) -> Float[Tensor, "n d_model"]:
    """`W_E` of the operand tokens in the order of the group, less its mean row (float64)."""
    if "embed.W_E" not in snapshot.named_weights:
        raise InputError("the model has no weight 'embed.W_E', the table of embeddings.")
    embedding = snapshot.named_weights["embed.W_E"][_tokens(snapshot)].double()
    return embedding - embedding.mean(dim=0)


def _tokens(snapshot: Snapshot) -> Int[Tensor, " n"]:
    """The operand tokens in the order of the group; InputError where they do not go round it."""
    group_of(snapshot)
    if reason := no_circle_reason(snapshot):
        raise InputError(f"{reason}; look at the logits.")
    return token_order(snapshot)


def no_circle_reason(snapshot: Snapshot) -> str | None:
    """Why the tokens of a task with a group do not go round it; None where they do."""
    orders = group_of(snapshot).operand_orders
    if None in orders:
        return (
            f"in {snapshot.task.title} an operand does not take every exponent once, so that its "
            "tokens are on no circle"
        )
    if not torch.equal(*operand_orders(snapshot)):
        return (
            f"in {snapshot.task.title} the operands a and b go round the group in different "
            "orders, so that the tokens of both are on no circle"
        )
    return None


def _svd(
    snapshot: Snapshot,
) -> tuple[Float[Tensor, "n rank"], Float[Tensor, " rank"], Float[Tensor, "rank d_model"]]:
    """The singular value decomposition of the centred embedding, zero values left out."""
    waves, singular, directions = torch.linalg.svd(centred_embedding(snapshot), full_matrices=False)
    rank = int((singular > SINGULAR_ROUNDING * singular[0]).sum())
    return waves[:, :rank], singular[:rank], directions[:rank]


def _key_share(snapshot: Snapshot, frequencies: Sequence[int]) -> float:
    """Power in the planes of the frequencies over that of as many leading components."""
    n, singular = group_of(snapshot).order, _svd(snapshot)[1]
    n_rows = sum(len(_rows(k, n)) for k in frequencies)
    power = sum(float(frequency_plane(snapshot, k).square().sum()) for k in frequencies)
    return power / float(singular[:n_rows].square().sum())


def _rows(k: int, n: int) -> Float[Tensor, "rows n"]:
    """Cos and sin of w_k x as unit vectors; one alternating row for 2 k = n."""
    return fourier_basis(n)[2 * k - 1 : 2 * k + 1]


METHODS = {"frequency": frequency_plane, "principal": principal_plane}
FORMS = ("clock", "pizza")


@dataclass(frozen=True)
class IsolatedCircles:
    """The model with nothing but these circles in its embedding (and the mean embedding).

    `fit` is of the logits of a single circle at its own frequency, None for several.
    """

    frequencies: tuple[int, ...]
    accuracy: float
    loss: float
    fit: WaveFit | None
    class_means: float | None  # share of the logits' variance that `fit` leaves out

    @property
    def form(self) -> str | None:
        """The form that explains more of the logits of a single circle."""
        if self.fit is None:
            return None
        return "pizza" if self.fit.pizza > self.fit.clock else "clock"

    def published(self, form: str) -> float:
        """The variance explained as Zhong et al. (2023) print it, 2 r - 1.

        r is the correlation of logits and form over all (a, b, c): both are scaled to the same
        variance instead of fitted, and each class's mean over the inputs is left in.
        """
        if self.fit is None or self.class_means is None:
            raise InputError(f"{self.frequencies} is not a single circle; its logits have no fit.")
        word("form", form, FORMS)
        share, amplitude = getattr(self.fit, form), getattr(self.fit, f"{form}_amplitude")
        return 2 * math.copysign(math.sqrt(share * (1 - self.class_means)), amplitude) - 1


@dataclass(frozen=True, kw_only=True)
class CircleIsolation(Result):
    """What the model still answers when its embedding is cut down to some of its circles.

    >>> import grokinterp as gi
    >>> found = gi.circuits.isolate_circles(gi.load("mod31-small"))
    >>> found.table()[["circles", "accuracy"]].round(2)
          circles  accuracy
    0       (14,)      0.16
    1        (1,)      0.16
    2        (8,)      0.07
    3     (14, 1)      0.53
    4  (14, 1, 8)      0.94
    5          ()      1.00
    >>> strongest = found.subsets[0]
    >>> strongest.frequencies, strongest.form, round(strongest.published("clock"), 2)
    ((14,), 'clock', 0.64)
    """

    subsets: tuple[IsolatedCircles, ...]
    method: str
    accuracy: float  # of the intact model, over all pairs
    loss: float
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row per set of circles, the intact model (no circles named) last."""
        rows: list[dict[str, object]] = []
        for subset in self.subsets:
            row = {"circles": subset.frequencies, "accuracy": subset.accuracy, "loss": subset.loss}
            row |= {form: getattr(subset.fit, form, None) for form in FORMS}
            for form in FORMS:
                row[f"{form}_published"] = subset.published(form) if subset.fit else None
            rows.append(row)
        rows.append({"circles": (), "accuracy": self.accuracy, "loss": self.loss})
        frame = pd.DataFrame(rows)
        frame.attrs |= {"method": self.method, "step": self.step}
        return frame


def isolate_circles(
    x: Subject,
    *,
    subsets: Iterable[Sequence[int]] | None = None,
    method: str = "frequency",
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> CircleIsolation:
    r"""Accuracy, loss and logit form of the model with only some circles in its embedding.

    Over all pairs; the mean embedding of the operands stays, and so do all other weights. Default
    `subsets`: each circle of `frequencies` (key ones) alone, then growing sets, the largest first.

    method "frequency": the circle of k is the part of the embedding along cos and sin of w_k x.
    method "principal": it is the two strongest principal components with leading frequency k, as
    Zhong et al. 2023 do (arXiv 2306.17844); where components mix circles of equal size, it takes
    the mixture. Differences between the two methods are a warning of that.

    A circle that fails alone may still be needed: the sums of several decide the answer. And a
    model never saw such embeddings, so that it may answer worse than its mechanism could.
    InputError without an answer group, key frequencies or a table of embeddings.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.circuits.isolate_circles(run, subsets=[[14], [1, 14], [1, 8, 14]])
    >>> found.table()[["circles", "accuracy", "loss"]].round(2)
          circles  accuracy   loss
    0       (14,)      0.16  16.02
    1     (1, 14)      0.53   5.61
    2  (1, 8, 14)      0.94   0.29
    3          ()      1.00   0.00
    """
    word("method", method, METHODS)
    if subsets is not None:
        subsets = listed("subsets", subsets, such_as="[[1], [1, 5]]")
        subsets = [listed("a subset", subset, such_as="[1, 5]") for subset in subsets]
        frequencies = [k for subset in subsets for k in subset]
    snapshot, keys = subject_of(x, step, frequencies, task, train_mask)
    need_residual_stream(snapshot)
    group_of(snapshot)
    need_key_frequencies(keys)
    planes = {k: METHODS[method](snapshot, k) for k in keys}
    if subsets is None:
        by_size = sorted(planes, key=lambda k: -float(planes[k].norm()))
        growing = [tuple(by_size[:m]) for m in range(2, len(by_size) + 1)]
        subsets = (*((k,) for k in by_size), *growing)
    intact = score(snapshot, snapshot.logits)
    return CircleIsolation(
        subsets=tuple(_isolated(snapshot, [*map(int, each)], planes) for each in subsets),
        method=method,
        accuracy=intact.acc_all,
        loss=intact.loss_all,
        step=snapshot.step,
    )


def with_embedding(snapshot: Snapshot, W_E: Float[Tensor, "d_vocab d_model"]) -> Snapshot:
    """The same model with another table of embeddings; the model itself is not changed."""
    weights = snapshot.weights | {"embed.W_E": W_E.to(snapshot.weights["embed.W_E"].dtype)}
    if snapshot.transformer is not None:
        return from_weights(
            weights, snapshot.transformer, snapshot.task, train_mask=snapshot.train_mask,
            step=snapshot.step,
        )  # fmt: skip
    device = device_of(model := snapshot.hooked())
    old, new = (x["embed.W_E"].to(device) for x in (snapshot.weights, weights))

    def forward(tokens: Tensor, names: tuple[str, ...]) -> tuple[Tensor, Mapping[str, Tensor]]:
        if names:
            raise InputError(f"no activation {names[0]!r} of a model with replaced embeddings.")
        tokens = tokens.to(device)

        def replace(value: Tensor, hook: object) -> Tensor:
            if not torch.equal(value, old[tokens]):
                raise InputError("the model's 'hook_embed' is not W_E[tokens]; nothing to isolate.")
            return new[tokens]

        return hooked_answers(model, tokens, [("hook_embed", replace)]), {}

    return Snapshot(
        snapshot.task,
        weights=weights,
        n_layers=snapshot.n_layers,
        forward=forward,
        linear_readout=snapshot.linear_readout,
        train_mask=snapshot.train_mask,
        step=snapshot.step,
    )


def _isolated(
    snapshot: Snapshot, subset: Sequence[int], planes: Mapping[int, Tensor]
) -> IsolatedCircles:
    tokens = snapshot.modular_task.reads.operand_rows[_tokens(snapshot)]
    W_E = snapshot.weights["embed.W_E"].double()
    rest = centred_embedding(snapshot) - sum(planes[k] for k in subset)
    kept = with_embedding(snapshot, W_E.index_add(0, tokens, rest, alpha=-1))
    found = score(kept, kept.logits)
    fit, class_means = None, None
    if len(subset) == 1:
        forms = logit_forms(kept, frequencies=subset)
        fit, class_means = forms.fits[0], forms.class_means
    return IsolatedCircles(tuple(subset), found.acc_all, found.loss_all, fit, class_means)
