"""Where a model looks: from the answer position on all inputs, from every position on a few."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grokinterp.base.checks import whole
from grokinterp.base.errors import InputError, shown, whole_number
from grokinterp.base.result import Html, Result
from grokinterp.fourier._key_frequencies import subject_of
from grokinterp.fourier.answers import no_frequencies_reason, usable_group
from grokinterp.fourier.basis import n_frequencies, transform_2d
from grokinterp.fourier.spectra import operand_orders
from grokinterp.models.user_models import alone_with
from grokinterp.reading._load import Subject, run_of
from grokinterp.runs._snapshot import Snapshot, need_residual_stream
from grokinterp.runs.forwards import device_of
from grokinterp.tasks.modular import ModularTask
from grokinterp.tasks.task import Task

if TYPE_CHECKING:
    import plotly.graph_objects as go

FLAT = 1e-6  # spread of attention, or of scores in nats, below which float32 shows only rounding


@dataclass(frozen=True, kw_only=True)
class Attention(Result):
    """Attention from the answer position, for every pair of operands.

    `pattern[h, i, a, b]` is what head h gives to position i on input (a, b), NaN for pairs that the
    task leaves out; `positions` are the words of the layout, such as a, b, equals.
    `shares[h, k - 1]` is the share of the pattern's variance over (a, b), all positions together,
    in the terms const, cos w_k, sin w_k of a times the same of b; 0 where it is constant, None
    without an answer group (`reason`). Where a head looks is not what it moves.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attention(gi.load("mod31-small"))
    >>> found.positions, found.pattern.shape
    (('a', 'b', 'equals'), torch.Size([4, 3, 31, 31]))
    >>> found.table()[["head", "frequency", "share", "key"]].round(2)
       head  frequency  share   key
    0     0          1   0.82  True
    1     1          8   0.84  True
    2     2         14   0.91  True
    3     3          8   0.37  True
    >>> found.plot(to="b").layout.title.text
    'Attention of layer 0 to operand b, step 10000'
    """

    pattern: Float[Tensor, "n_heads n_tokens p p"] = field(repr=False)
    shares: Float[Tensor, "n_heads n_frequencies"] | None = field(repr=False)
    frequencies: tuple[int, ...]  # the key frequencies, for the column `key`
    layer: int
    step: int | None
    reason: str | None
    positions: tuple[str, ...] = ("a", "b", "equals")

    @property
    def mean(self) -> Float[Tensor, "n_heads n_tokens"]:
        """Attention to each position, averaged over all inputs (float64)."""
        return self._of_inputs.mean(dim=2)

    @property
    def spread(self) -> Float[Tensor, "n_heads n_tokens"]:
        """Standard deviation over the inputs of the attention to each position (float64)."""
        return self._of_inputs.std(dim=2, correction=0)

    @property
    def _of_inputs(self) -> Float[Tensor, "n_heads n_tokens n_inputs"]:
        flat = self.pattern.double().flatten(2)
        return flat[:, :, ~flat[0, 0].isnan()]

    def table(self) -> pd.DataFrame:
        """One row per head: means and spreads, the pattern's leading frequency and its share.

        `frequency`, `share` and `key` are null for a constant pattern, and without an answer group.
        """
        frame = pd.DataFrame({"head": range(len(self.pattern))})
        for what, values in (("to", self.mean), ("spread", self.spread)):
            for name, column in zip(self.positions, values.T, strict=True):
                frame[f"{what}_{name}"] = column.tolist()
        shares = torch.zeros(len(frame), 1) if self.shares is None else self.shares
        largest, at = shares.max(dim=1)
        varies = (largest > 0).numpy()
        frame["frequency"] = pd.Series((at + 1).tolist(), dtype="Int64").where(varies)
        frame["share"] = pd.Series(largest.tolist(), dtype="Float64").where(varies)
        frame["key"] = frame["frequency"].isin(self.frequencies).astype("boolean").where(varies)
        constant = (self.spread.max(dim=1).values < FLAT).tolist()
        frame["note"] = ["constant over the inputs" if x else self.reason or "" for x in constant]
        return frame

    def plot(self, to: str = "a") -> "go.Figure":
        """Attention to one of `positions` over all pairs (a, b), one panel per head."""
        return super().plot(to=to)


def attention(
    x: Subject,
    *,
    layer: int = 0,
    step: int = -1,
    frequencies: Sequence[int] | None = None,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> Attention:
    """Attention patterns of one layer from the answer position, as functions of (a, b).

    Weights of the softmax (0 to 1; the weights of a model with an attention rate below 1 sum to
    more). Heat maps over (a, b) as in figure 4 of Nanda et al. 2023 (arXiv 2301.05217). In a layer
    above the first, the position of b may hold what depends on a too.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attention(gi.load("mod31-small"))
    >>> found.table()[["head", "to_a", "frequency", "share"]].round(2)
       head  to_a  frequency  share
    0     0   0.5          1   0.82
    1     1   0.5          8   0.84
    2     2   0.5         14   0.91
    3     3   0.5          8   0.37
    """
    snapshot, frequencies = subject_of(x, step, frequencies, task, train_mask)
    need_residual_stream(snapshot)
    task, (of_a, of_b) = snapshot.modular_task, operand_orders(snapshot)
    pattern = task.on_grid(patterns_of(snapshot, layer)).permute(2, 3, 0, 1)
    ordered = pattern[:, :, of_a][..., of_b]
    reason = None
    if usable_group(snapshot) is None:
        reason = no_frequencies_reason(snapshot)
    elif bool(ordered.isnan().any()):
        reason = f"{task.title} leaves pairs out"
    return Attention(
        pattern=pattern,
        shares=_shares(ordered) if reason is None else None,
        frequencies=frequencies,
        layer=layer,
        step=snapshot.step,
        reason=reason,
        positions=task.reads.position_names,
    )


def commutativity(
    x: Subject,
    *,
    layer: int = 0,
    task: Task | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> pd.DataFrame:
    """Mean attention to operand a minus that to operand b: a row per step, a column per head.

    Averaged over all inputs, from the answer position (ARENA, chapter 1.5). Near 0 the head treats
    the operands alike on average, which a commutative answer asks for; it can still be far from
    symmetric on single inputs, and other parts can break the symmetry.

    >>> import grokinterp as gi
    >>> found = gi.circuits.commutativity(gi.load("mod31-small"))
    >>> found.shape, found.index[found.abs().max(axis=1) > 0.02].tolist()
    ((26, 4), [50, 100, 150, 200, 300, 400, 600])
    """
    run = run_of(x, task=task, train_mask=train_mask)
    need_residual_stream(run.snapshot())
    of_a, of_b = run.snapshot().modular_task.reads.operand_places
    rows = {}
    for step in run.steps:
        mean = patterns_of(run.snapshot(step), layer).double().mean(dim=0)
        rows[step] = (mean[:, of_a] - mean[:, of_b]).tolist()
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.rename_axis(index="step", columns="head")


def patterns_of(snapshot: Snapshot, layer: int) -> Float[Tensor, "n_inputs n_heads n_tokens"]:
    """The attention pattern of a layer at the answer position, in table order."""
    return _finite(snapshot.activation(_pattern_name(snapshot, layer)), layer)


def _pattern_name(snapshot: Snapshot, layer: int) -> str:
    layer = whole("layer", layer, least=0, most=snapshot.n_layers - 1, such_as="0")
    return f"blocks.{layer}.attn.hook_pattern"


def _finite(pattern: Float[Tensor, "..."], layer: int) -> Float[Tensor, "..."]:
    # A HookedTransformer puts 0 where the softmax is NaN; weights that are some sum to more than 0.
    if not bool((pattern.sum(dim=-1) > 0).all()):
        raise InputError(f"the attention pattern of layer {layer} is not finite.")
    return pattern


def _shares(
    pattern: Float[Tensor, "n_heads n_tokens n n"],
) -> Float[Tensor, "n_heads n_frequencies"]:
    """Share of variance in the 8 terms of each frequency; 0 for a constant pattern."""
    n = pattern.shape[-1]
    power = transform_2d(pattern.permute(2, 3, 0, 1)).square().sum(dim=3).flatten(0, 1)
    power[0] = 0.0
    k = (torch.arange(n) + 1) // 2  # of each row of the basis: constant, cos 1, sin 1, cos 2, ...
    a, b = k.repeat_interleave(n), k.repeat(n)
    own = torch.where((a == b) | (a * b == 0), torch.maximum(a, b), 0)  # of each term; 0 for none
    of_frequency = power.new_zeros(n_frequencies(n) + 1, power.shape[1]).index_add_(0, own, power)
    total = power.sum(dim=0)
    return torch.where(total > (n * FLAT) ** 2, of_frequency[1:] / total, 0.0).T


Pairs = Sequence[Any] | Tensor | np.ndarray  # (a, b), or such an array of two columns


@dataclass(frozen=True, kw_only=True)
class AttentionPatterns(Result):
    """Attention of all heads of a layer on a few inputs, from every position (query) to every one.

    `patterns[i, h, query, key]` (float64) is of input `inputs[i]`, whose tokens are `tokens[i]`:
    "a=3", "b=5", "=". 0 where a causal model must not look. Where a head looks on a few inputs says
    nothing of the others: `circuits.attention` has the answer position on all.

    >>> import grokinterp as gi
    >>> found = gi.circuits.attention_patterns(gi.load("mod31-small"), inputs=[(3, 5)])
    >>> found.tokens, found.patterns.shape
    ((('a=3', 'b=5', '='),), torch.Size([1, 4, 3, 3]))
    >>> found.table().round(2).query("head == 0 and query == '='")
       a  b  head query  key  attention
    6  3  5     0     =  a=3       0.58
    7  3  5     0     =  b=5       0.42
    8  3  5     0     =    =       0.00
    >>> found.props()["attentionHeadNames"]
    ['head 0', 'head 1', 'head 2', 'head 3']
    """

    patterns: Float[Tensor, "n_inputs n_heads n_tokens n_tokens"] = field(repr=False)
    inputs: tuple[tuple[int, int], ...]
    tokens: tuple[tuple[str, ...], ...]
    layer: int
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row for every input, head, query and key."""
        rows = [
            (*pair, head, query, key)
            for pair, names in zip(self.inputs, self.tokens, strict=True)
            for head, query, key in product(range(self.patterns.shape[1]), names, names)
        ]
        frame = pd.DataFrame(rows, columns=["a", "b", "head", "query", "key"])
        frame["attention"] = self.patterns.flatten().numpy()
        frame.attrs |= {"layer": self.layer, "step": self.step}
        return frame

    def props(self, i: int = 0) -> dict[str, object]:
        """The i-th input for CircuitsVis in JavaScript: the properties of its `AttentionHeads`."""
        i = whole("i", i, least=0, most=len(self.patterns) - 1, such_as="0")
        return {
            "attention": self.patterns[i].tolist(),
            "attentionHeadNames": [f"head {head}" for head in range(self.patterns.shape[1])],
            "maxValue": 1,
            "minValue": 0,
            "tokens": list(self.tokens[i]),
            "maskUpperTri": not bool(self.patterns.triu(1).any()),
        }

    def show(self) -> Html:
        """CircuitsVis' view of every input, for a notebook; it needs no network.

        InputError where CircuitsVis is not installed (`pip install 'grokinterp[circuitsvis]'`).
        """
        return Html(self.plot())


def attention_patterns(
    x: Subject,
    *,
    inputs: Pairs = ((0, 0),),
    layer: int = 0,
    step: int = -1,
    task: ModularTask | None = None,
    train_mask: Bool[Tensor, " n_inputs"] | None = None,
) -> AttentionPatterns:
    """Attention patterns of one layer on these pairs (a, b), from all positions.

    Weights of the softmax, as the model with its hooks uses them (0 to 1; with an attention rate
    below 1 they sum to more). InputError for a pair that is not of the task, a layer that is not of
    the model, a model without attention, and patterns that are not finite.

    >>> import grokinterp as gi
    >>> run = gi.load("mod31-small")
    >>> found = gi.circuits.attention_patterns(run, inputs=[(3, 5), (30, 0)])
    >>> found.tokens[1]
    ('a=30', 'b=0', '=')
    >>> found.patterns[1, 0].round(decimals=2).tolist()
    [[1.0, 0.0, 0.0], [0.51, 0.49, 0.0], [0.27, 0.73, 0.0]]
    """
    snapshot, _ = subject_of(x, step=step, frequencies=(), task=task)
    need_residual_stream(snapshot)
    task, name = snapshot.modular_task, _pattern_name(snapshot, layer)
    pairs = _pairs(inputs, task.p)
    model = snapshot.hooked()
    tokens = task.reads.tokens(torch.tensor(pairs)).to(device_of(model))
    with torch.no_grad(), alone_with(model):
        _, cache = model.run_with_cache(tokens, names_filter=[name])
    return AttentionPatterns(
        patterns=_finite(cache[name].double().cpu(), layer),
        inputs=pairs,
        tokens=tuple(
            tuple({"a": f"a={a}", "b": f"b={b}"}.get(x, x) for x in task.reads.words)
            for a, b in pairs
        ),
        layer=layer,
        step=snapshot.step,
    )


def _pairs(inputs: Pairs, p: int) -> tuple[tuple[int, int], ...]:
    """The pairs as plain numbers, at least one; refused if they are not of the task."""
    found = []
    inputs = _plain(inputs)
    for pair in map(_plain, inputs if isinstance(inputs, Sequence) else [inputs]):
        numbers = [whole_number(x) for x in pair] if isinstance(pair, Sequence) else []
        inside = [x for x in numbers if x is not None and 0 <= x < p]
        if len(numbers) != 2 or len(inside) != 2:
            raise InputError(
                f"input {shown(pair)} is not a pair (a, b) of numbers from 0 to {p - 1}."
            )
        found.append((inside[0], inside[1]))
    if not found:
        raise InputError("there are no inputs to look at; give pairs such as [(0, 0), (3, 5)].")
    return tuple(found)


def _plain(x: Any) -> Any:
    """Lists of plain numbers for tensors and arrays."""
    return x.tolist() if isinstance(x, Tensor | np.ndarray) else x
