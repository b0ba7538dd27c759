"""What does a one-layer transformer compute where its answer is read? Logits and gradients.

Only the last position is read, and each earlier position sees one of d_vocab tokens. So keys and
values are tables with a row per token (`AttentionTables`), attention is a softmax over two or three
numbers, and the MLP runs on one position instead of three (`answer_from_tables`). The numbers are
those of HookedTransformer, under its hook names, restricted to the last position.

The gradients by the tables are cheap and left to autograd. What has a row per input is nearly all
of the arithmetic: its gradients are written out, in as few passes as there are operators for.

Weights, tokens and labels are those of one model, or with a leading axis those of several
(`members`), whose rows may differ from member to member.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.architecture import ACTIVATIONS, Loss, Weights, attention_softmax
from grokinterp.models.layers import (
    add_rows,
    affine,
    before_activation,
    product_over_rows,
    read_rows,
    through_tables,
    where_positive,
)

BLOCK = "blocks.0."


SEEN = frozenset(  # the activations that the forward comes by
    BLOCK + name
    for name in (
        "hook_resid_pre", "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z",
        "hook_attn_out", "hook_resid_mid", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out",
        "hook_resid_post",
    )
)  # fmt: skip


def reads(tokens: Tensor) -> bool:
    """Whether inputs are `[a, b]` or `[a, b, last]`, which is all that is computed here."""
    return tokens.shape[-1] in (2, 3)


RowsRead = Mapping[str, Int[Tensor, "*members n"]]  # that the inputs read, by the `by` of a lookup


@dataclass(frozen=True)
class Lookup:
    """A table [*members, n_rows, ...], and what of an input says which of its rows is read.

    `by` is "a" or "b" (a row per token), "pair" (row a * d_vocab + b), or "" (one row for all).
    """

    table: Float[Tensor, "..."]
    by: str = ""

    def read(self, rows: RowsRead) -> Float[Tensor, "..."]:
        """What every input reads: [*members, n, ...], with n = 1 where it is the same for all."""
        return read_rows(self.table, rows[self.by]) if self.by else self.table

    def add_gradient(self, total: Tensor, rows: RowsRead, upstream: Float[Tensor, "..."]) -> None:
        """Add the gradient by the table, from the one by what every input has read."""
        if self.by:
            add_rows(total, rows[self.by], upstream)
        else:
            total.add_(upstream.sum(dim=rows["a"].ndim - 1, keepdim=True))


@dataclass(frozen=True)
class AttentionTables:
    """All that attention at the answer position reads, a `Lookup` per key position.

    `scores` [*members, rows, n_heads], `values` [*members, rows, n_heads, d_head]; `resid_pre`
    [*members, rows, d_model].
    """

    scores: tuple[Lookup, ...]
    values: tuple[Lookup, ...]
    resid_pre: Lookup
    d_vocab: int

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """All of them."""
        return (*self.scores, *self.values, self.resid_pre)

    def rows(self, tokens: Int[Tensor, "*members n n_ctx"]) -> RowsRead:
        """The row that each input reads, for every way to look up."""
        a, b = tokens[..., 0].contiguous(), tokens[..., 1].contiguous()
        found = {"a": through_tables(a, self.d_vocab), "b": through_tables(b, self.d_vocab)}
        if tokens.shape[-1] == 2:
            found["pair"] = through_tables(a * self.d_vocab + b, self.d_vocab**2)
        return found


def attention_tables(
    weights: Mapping[str, Tensor], last: Int[Tensor, " 1"] | None
) -> AttentionTables:
    """The tables of inputs `[a, b, last]`, or of `[a, b]` without a last token; differentiable."""
    w = within_block(weights)
    embed, position = w["embed.W_E"], w["pos_embed.W_pos"].unsqueeze(-2)
    n_heads, _, d_head = w["attn.W_Q"].shape[-3:]

    def heads(x: Float[Tensor, "..."], which: str) -> Float[Tensor, "..."]:
        """Queries, keys or values of all heads, as one matrix product: [..., n_heads, d_head]."""
        matrix = w[f"attn.W_{which}"].transpose(-3, -2).flatten(-2)
        found = affine(x, matrix, w[f"attn.b_{which}"].flatten(-2))
        return found.unflatten(-1, (n_heads, d_head))

    first, second = embed + position[..., 0, :, :], embed + position[..., 1, :, :]
    key_a, key_b = heads(first, "K"), heads(second, "K")
    values = [Lookup(heads(first, "V"), "a"), Lookup(heads(second, "V"), "b")]
    scale = d_head**-0.5
    if last is not None:
        third = embed.index_select(-2, last) + position[..., 2, :, :]
        query = heads(third, "Q") * scale
        scores = [
            Lookup((key_a * query).sum(-1), "a"),
            Lookup((key_b * query).sum(-1), "b"),
            Lookup((heads(third, "K") * query).sum(-1)),
        ]
        values.append(Lookup(heads(third, "V")))
        resid_pre = Lookup(third)
    else:
        query = heads(second, "Q") * scale
        scores = [
            Lookup(torch.einsum("...bhd,...ahd->...abh", query, key_a).flatten(-3, -2), "pair"),
            Lookup((key_b * query).sum(-1), "b"),
        ]
        resid_pre = Lookup(second, "b")
    return AttentionTables(tuple(scores), tuple(values), resid_pre, embed.shape[-2])


def last_token(tokens: Int[Tensor, "*members n n_ctx"]) -> Int[Tensor, " 1"] | None:
    """The constant third token of inputs `[a, b, "="]`; None of inputs `[a, b]`."""
    first_input = tokens[(0,) * (tokens.ndim - 1)]
    return first_input[2:] if len(first_input) == 3 else None


def answer_from_tables(
    tables: AttentionTables,
    weights: Mapping[str, Tensor],
    rows: RowsRead,
    *,
    act_fn: str,
    attention_rate: float,
    cache: dict[str, Tensor] | None = None,
    keep_pre: bool = True,
) -> Float[Tensor, "*members n d_vocab_out"]:
    """Logits from what attention reads; the other arguments are those of `AnswerForward`.

    Without `keep_pre` the cache has no `mlp.hook_pre` of ReLU neurons, which are then made where
    their inputs stood: memory that is not in the processor's cache costs as much as the product.
    """
    w, n = within_block(weights), rows["a"].shape
    # One key position after the other, not [n, n_heads, n_ctx]: a softmax over an axis of three
    # numbers cannot use vector instructions.
    scores = torch.stack(
        [lookup.read(rows).expand(*n, lookup.table.shape[-1]) for lookup in tables.scores], dim=-3
    )
    pattern = attention_softmax(scores, dim=-3)
    if attention_rate != 1:
        pattern = attention_rate * pattern + (1 - attention_rate)
    z = pattern[..., 0, :, :, None] * tables.values[0].read(rows)
    for place, lookup in enumerate(tables.values[1:], start=1):
        z = z.addcmul(pattern[..., place, :, :, None], lookup.read(rows))
    attn_out = affine(z.flatten(-2), w["attn.W_O"].flatten(-3, -2), w["attn.b_O"])
    resid_pre = tables.resid_pre.read(rows)
    resid_mid = resid_pre + attn_out
    pre = affine(resid_mid, w["mlp.W_in"], w["mlp.b_in"])
    if act_fn == "relu" and not torch.is_grad_enabled() and (cache is None or not keep_pre):
        post = pre.relu_()
    else:
        post = ACTIVATIONS[act_fn](pre)
    mlp_out = affine(post, w["mlp.W_out"], w["mlp.b_out"])
    resid_post = resid_mid + mlp_out
    if cache is not None:
        cache |= {
            f"{BLOCK}hook_resid_pre": resid_pre.expand(*n, -1),
            f"{BLOCK}attn.hook_attn_scores": scores.movedim(-3, -1),
            f"{BLOCK}attn.hook_pattern": pattern.movedim(-3, -1),
            f"{BLOCK}attn.hook_z": z,
            f"{BLOCK}hook_attn_out": attn_out,
            f"{BLOCK}hook_resid_mid": resid_mid,
            **({} if pre is post else {f"{BLOCK}mlp.hook_pre": pre}),
            f"{BLOCK}mlp.hook_post": post,
            f"{BLOCK}hook_mlp_out": mlp_out,
            f"{BLOCK}hook_resid_post": resid_post,
        }
    return affine(resid_post, w["unembed.W_U"], w["unembed.b_U"])


class AnswerForward:
    """Logits at the last position of `[a, b, "="]` (the third token is one constant) or `[a, b]`.

    Of fixed weights (canonical names) on many blocks of inputs: the tables are made once.
    Differentiable in the weights. With a `cache`, the activations are put into it under their
    TransformerLens hook names, at the last position: patterns as [n, n_heads, n_ctx], all others as
    [n, ...].
    """

    def __init__(
        self, weights: Mapping[str, Tensor], *, act_fn: str = "relu", attention_rate: float = 1.0
    ) -> None:
        self._weights, self._act_fn, self._rate = weights, act_fn, attention_rate
        self._tables: dict[int | None, AttentionTables] = {}  # by the last token

    def __call__(
        self,
        tokens: Int[Tensor, "*members n n_ctx"],
        cache: dict[str, Tensor] | None = None,
        *,
        keep_pre: bool = True,
    ) -> Float[Tensor, "*members n d_vocab_out"]:
        """Logits, and activations into a cache: see `answer_from_tables`."""
        last = last_token(tokens)
        key = None if last is None else int(last)
        if key not in self._tables:
            self._tables[key] = attention_tables(self._weights, last)
        tables = self._tables[key]
        return answer_from_tables(
            tables, self._weights, tables.rows(tokens), act_fn=self._act_fn,
            attention_rate=self._rate, cache=cache, keep_pre=keep_pre,
        )  # fmt: skip


def within_block(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a one-layer model by their names without the block's path."""
    return {name.removeprefix(BLOCK): weight for name, weight in weights.items()}


GRADIENT_ROWS = 4096  # of activations at once: more would not fit beside each other in memory
TABLES_READ = (
    "embed.W_E",
    "pos_embed.W_pos",
    *(f"{BLOCK}attn.{x}_{y}" for x in "Wb" for y in "QKV"),
)


def gradients(
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "*members n n_ctx"],
    labels: Int[Tensor, "*members n"],
    objective: Loss,
    *,
    act_fn: str = "relu",
    attention_rate: float = 1.0,
) -> Weights:
    """Gradient of an objective over these rows by every weight.

    The same as autograd's through `AnswerForward`. Of the cross-entropy it stays exact when the
    loss is 1e-8, and it has the precision of the weights.
    """
    leaves = {name: weights[name].detach().requires_grad_() for name in TABLES_READ}
    with torch.enable_grad():
        tables = attention_tables({**weights, **leaves}, last_token(tokens))
    found: Weights = {}
    whole = torch.contiguous_format
    of_tables = [torch.zeros_like(x.table, memory_format=whole) for x in tables.lookups]
    n = labels.shape[-1]
    size = GRADIENT_ROWS if labels.ndim == 1 and objective.mean_over_rows else n
    with torch.no_grad():
        for first in range(0, n, size):
            rows = slice(first, first + size)
            _add_rows(
                found, of_tables, tables, weights, tokens[..., rows, :], labels[..., rows],
                objective, act_fn=act_fn, attention_rate=attention_rate, share=1 / n,
            )  # fmt: skip
    torch.autograd.backward([lookup.table for lookup in tables.lookups], of_tables)
    for name, leaf in leaves.items():
        found[name] = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
    return {name: found[name] for name in weights}


def _add_rows(
    found: Weights,
    of_tables: list[Tensor],
    tables: AttentionTables,
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "*members n n_ctx"],
    labels: Int[Tensor, "*members n"],
    objective: Loss,
    *,
    act_fn: str,
    attention_rate: float,
    share: float,
) -> None:
    """Add some rows' part to the gradients by weights and by the tables that these rows read."""
    cache: dict[str, Tensor] = {}
    rows = tables.rows(tokens)
    logits = answer_from_tables(
        tables, weights, rows, act_fn=act_fn, attention_rate=attention_rate, cache=cache,
        keep_pre=False,
    )  # fmt: skip

    def add(name: str, part: Tensor) -> None:
        found[name] = found[name].add_(part) if name in found else part

    def through(layer: str, x: Tensor, upstream: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Gradient by the input x of an affine layer; those of its matrix and bias are added."""
        path, which = layer.rsplit(".", 1)
        matrix, by_matrix = weights[f"{path}.W_{which}"], product_over_rows(x, upstream)
        add(f"{path}.W_{which}", by_matrix.reshape(matrix.shape))
        add(f"{path}.b_{which}", upstream.sum(dim=-2))
        return affine(upstream, matrix.reshape(by_matrix.shape).mT)

    by_logits = objective.by_logits(logits, labels).mul_(labels.shape[-1] * share)
    resid = through("unembed.U", cache[f"{BLOCK}hook_resid_post"], by_logits)
    post = through(f"{BLOCK}mlp.out", cache[f"{BLOCK}mlp.hook_post"], resid)
    if act_fn == "relu":  # an activation is positive where its pre-activation is
        pre = where_positive(post, cache[f"{BLOCK}mlp.hook_post"], out=post)
    else:
        pre = before_activation(post, cache[f"{BLOCK}mlp.hook_pre"], act_fn=act_fn)
    resid = through(f"{BLOCK}mlp.in", cache[f"{BLOCK}hook_resid_mid"], pre).add_(resid)
    z = cache[f"{BLOCK}attn.hook_z"]
    by_z = through(f"{BLOCK}attn.O", z.flatten(-2), resid).view_as(z)

    pattern = softmax = cache[f"{BLOCK}attn.hook_pattern"].movedim(-1, -3)
    by_values = [by_z * at_key[..., None] for at_key in pattern.unbind(-3)]
    by_softmax = torch.stack(
        [(by_z * lookup.read(rows)).sum(dim=-1) for lookup in tables.values], dim=-3
    )
    if attention_rate != 1:
        by_softmax = by_softmax * attention_rate
        softmax = attention_softmax(cache[f"{BLOCK}attn.hook_attn_scores"].movedim(-1, -3), dim=-3)
    by_scores = softmax * (by_softmax - (by_softmax * softmax).sum(dim=-3, keepdim=True))
    parts = (*by_scores.unbind(-3), *by_values, resid)
    for total, lookup, part in zip(of_tables, tables.lookups, parts, strict=True):
        lookup.add_gradient(total, rows, part)
