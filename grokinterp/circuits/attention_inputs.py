"""Attention on chosen inputs, from every position: what CircuitsVis shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from grokinterp.arguments import whole
from grokinterp.circuits.subject import Subject, need_residual_stream, subject_of
from grokinterp.errors import InputError, shown, whole_number
from grokinterp.models.model_locks import alone_with
from grokinterp.tasks.modular import ModularTask

if TYPE_CHECKING:
    from grokinterp.viz.attention import Html

Pairs = Sequence[Any] | Tensor | np.ndarray  # (a, b), or such an array of two columns


@dataclass(frozen=True)
class AttentionPatterns:
    """Attention of all heads of a layer on a few inputs, from every position (query) to every one.

    `patterns[i, h, query, key]` (float64) is of input `inputs[i]`, whose tokens are `tokens[i]`:
    "a=3", "b=5", "=". 0 where a causal model must not look. Where a head looks on a few inputs says
    nothing of the others: `circuits.attention` has the answer position on all.
    """

    patterns: Float[Tensor, "n_inputs n_heads n_tokens n_tokens"] = field(repr=False)
    inputs: tuple[tuple[int, int], ...]
    tokens: tuple[tuple[str, ...], ...]
    layer: int
    step: int | None

    def table(self) -> pd.DataFrame:
        """One row for every input, head, query and key."""
        rows = [
            {"a": a, "b": b, "head": head, "query": query, "key": key, "attention": attention}
            for (a, b), names, heads in zip(
                self.inputs, self.tokens, self.patterns.tolist(), strict=True
            )
            for head, queries in enumerate(heads)
            for query, keys in zip(names, queries, strict=True)
            for key, attention in zip(names, keys, strict=True)
        ]
        frame = pd.DataFrame(rows)
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

    def show(self) -> "Html":
        """CircuitsVis' view of every input, for a notebook; it needs no network.

        InputError where CircuitsVis is not installed (`pip install 'grokinterp[circuitsvis]'`).
        """
        from grokinterp.viz.attention import attention_html

        return attention_html(self)


def attention_patterns(
    x: Subject,
    *,
    inputs: Pairs = ((0, 0),),
    layer: int = 0,
    step: int = -1,
    task: ModularTask | None = None,
) -> AttentionPatterns:
    """Attention patterns of one layer on these pairs (a, b), from all positions.

    Weights of the softmax, as the model with its hooks uses them (0 to 1; with an attention rate
    below 1 they sum to more). InputError for a pair that is not of the task, a layer that is not of
    the model, a model without attention, and patterns that are not finite.
    """
    snapshot, _ = subject_of(x, step=step, frequencies=(), task=task)
    need_residual_stream(snapshot)
    if whole_number(layer) is None or not 0 <= layer < snapshot.n_layers:
        raise InputError(f"layer={shown(layer)} is not between 0 and {snapshot.n_layers - 1}.")
    p = snapshot.modular_task.p
    pairs = _pairs(inputs, p)
    rows = torch.tensor([a * p + b for a, b in pairs])
    name = f"blocks.{layer}.attn.hook_pattern"
    model = snapshot.hooked()
    device = next(iter(model.parameters())).device
    with torch.no_grad(), alone_with(model):
        _, cache = model.run_with_cache(
            snapshot.modular_task.tokens[rows].to(device), names_filter=[name]
        )
    patterns = cache[name].double().cpu()
    # A HookedTransformer puts 0 where the softmax is NaN; weights that are some sum to more than 0.
    if not bool((patterns.sum(dim=-1) > 0).all()):
        raise InputError(f"the attention pattern of layer {layer} is not finite.")
    n_tokens = patterns.shape[-1]
    return AttentionPatterns(
        patterns=patterns,
        inputs=pairs,
        tokens=tuple((f"a={a}", f"b={b}", "=")[:n_tokens] for a, b in pairs),
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
