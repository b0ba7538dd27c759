"""The answer-position forward: all that a one-layer model computes where its answer is read.

Only the last position is read, and each earlier position sees one of d_vocab tokens. So keys and
values are tables with a row per token (`AttentionTables`), attention is a softmax over two or three
numbers, and the MLP runs on one position instead of three (`answer_from_tables`). The numbers are
those of HookedTransformer, under its hook names, restricted to the last position.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from grokinterp.models.architecture import ACTIVATIONS, Architecture, Weights, attention_softmax
from grokinterp.models.layers import (
    affine,
    before_activation,
    mean_loss_gradient,
    product_over_rows,
    where_positive,
)

# MERGED models.answer_gradients: Gradients of a one-layer transformer's loss, written out where there is a row per input.
#
# What has a row per token (keys, values, scores: `attention_tables`) is cheap and left to autograd;
# what has a row per input is nearly all of the arithmetic, and is done in as few passes as there are
# operators for.


BLOCK = "blocks.0."


def applies_to(architecture: Architecture, n_tokens: int) -> bool:
    """Whether `answer_logits` can stand in for the hooked forward on inputs of `n_tokens`."""
    return (
        architecture.n_layers == 1
        and architecture.normalization_type is None
        and n_tokens in (2, 3)
        and n_tokens <= architecture.n_ctx
    )


@dataclass(frozen=True)
class Lookup:
    """A table, and what of an input says which of its rows is read.

    `by` is "a" or "b" (a row a token), "pair" (row a * d_vocab + b), or "" (one row for all).
    """

    table: Float[Tensor, "n_rows ..."]
    by: str = ""

    def read(self, rows: Mapping[str, Tensor]) -> Float[Tensor, "n_or_1 ..."]:
        """What every input reads, [n, ...], or [1, ...] where that is the same for all."""
        # index_select, not table[rows]: its backward is a scatter-add, far faster on a CPU.
        return self.table.index_select(0, rows[self.by]) if self.by else self.table

    def add_gradient(
        self,
        total: Float[Tensor, "n_rows ..."],
        rows: Mapping[str, Tensor],
        upstream: Float[Tensor, "n ..."],
    ) -> None:
        """Add the gradient by the table, from the one by what every input has read."""
        if self.by:
            total.index_add_(0, rows[self.by], upstream)
        else:
            total.add_(upstream.sum(dim=0))


@dataclass(frozen=True)
class AttentionTables:
    """All that attention at the answer position reads, a `Lookup` a key position.

    `scores` [rows, n_heads], `values` [rows, n_heads, d_head]; `resid_pre` [rows, d_model].
    """

    scores: tuple[Lookup, ...]
    values: tuple[Lookup, ...]
    resid_pre: Lookup
    d_vocab: int

    def rows(self, tokens: Int[Tensor, "n n_ctx"]) -> dict[str, Int[Tensor, " n"]]:
        """The row that each input reads, for every way to look up."""
        a, b = tokens[:, 0].contiguous(), tokens[:, 1].contiguous()
        pair = {} if tokens.shape[1] == 3 else {"pair": a * self.d_vocab + b}
        return {"a": a, "b": b, **pair}


def attention_tables(weights: Mapping[str, Tensor], last_token: int | None) -> AttentionTables:
    """The tables of inputs `[a, b, last_token]`, or of `[a, b]` without one; differentiable."""
    w = within_block(weights)
    embed, position = w["embed.W_E"], w["pos_embed.W_pos"]
    n_heads, d_model, d_head = w["attn.W_Q"].shape

    def heads(x: Float[Tensor, "rows d_model"], which: str) -> Float[Tensor, "rows n_heads d_head"]:
        """Queries, keys or values of all heads, as one matrix product."""
        matrix = w[f"attn.W_{which}"].transpose(0, 1).reshape(d_model, n_heads * d_head)
        return affine(x, matrix, w[f"attn.b_{which}"].flatten()).view(-1, n_heads, d_head)

    first, second = embed + position[0], embed + position[1]
    key_a, key_b = heads(first, "K"), heads(second, "K")
    values = [Lookup(heads(first, "V"), "a"), Lookup(heads(second, "V"), "b")]
    scale = d_head**-0.5
    if last_token is not None:
        last = embed[last_token][None] + position[2]
        query = heads(last, "Q") * scale
        scores = [
            Lookup((key_a * query).sum(-1), "a"),
            Lookup((key_b * query).sum(-1), "b"),
            Lookup((heads(last, "K") * query).sum(-1)),
        ]
        values.append(Lookup(heads(last, "V")))
        resid_pre = Lookup(last)
    else:
        query = heads(second, "Q") * scale
        scores = [
            Lookup(torch.einsum("bhd,ahd->abh", query, key_a).flatten(0, 1), "pair"),
            Lookup((key_b * query).sum(-1), "b"),
        ]
        resid_pre = Lookup(second, "b")
    return AttentionTables(tuple(scores), tuple(values), resid_pre, len(embed))


def last_token(tokens: Int[Tensor, "n n_ctx"]) -> int | None:
    """The constant third token of inputs `[a, b, "="]`; None of inputs `[a, b]`."""
    return int(tokens[0, 2]) if tokens.shape[1] == 3 else None


def answer_from_tables(
    tables: AttentionTables,
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "n n_ctx"],
    *,
    act_fn: str,
    attention_rate: float,
    cache: dict[str, Tensor] | None = None,
    keep_pre: bool = True,
) -> Float[Tensor, "n d_vocab_out"]:
    """Logits from what attention reads; the arguments are those of `answer_logits`.

    Without `keep_pre` the cache has no `mlp.hook_pre` of ReLU neurons, which are then made where
    their inputs stood: memory that is not in the processor's cache costs as much as the product.
    """
    w = within_block(weights)
    n, n_heads, rows = len(tokens), w["attn.W_Q"].shape[0], tables.rows(tokens)
    # One key position after the other, not [n, n_heads, n_ctx]: a softmax over an axis of three
    # numbers cannot use vector instructions.
    scores = torch.stack([lookup.read(rows).expand(n, n_heads) for lookup in tables.scores])
    pattern = attention_softmax(scores, dim=0)
    if attention_rate != 1:
        pattern = attention_rate * pattern + (1 - attention_rate)
    z = pattern[0, :, :, None] * tables.values[0].read(rows)
    for at_key, lookup in zip(pattern[1:], tables.values[1:], strict=True):
        z = z.addcmul(at_key[:, :, None], lookup.read(rows))
    attn_out = affine(z.flatten(1), w["attn.W_O"].flatten(0, 1), w["attn.b_O"])
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
            f"{BLOCK}hook_resid_pre": resid_pre.expand(n, -1),
            f"{BLOCK}attn.hook_attn_scores": scores.permute(1, 2, 0),
            f"{BLOCK}attn.hook_pattern": pattern.permute(1, 2, 0),
            f"{BLOCK}attn.hook_z": z,
            f"{BLOCK}hook_attn_out": attn_out,
            f"{BLOCK}hook_resid_mid": resid_mid,
            **({} if pre is post else {f"{BLOCK}mlp.hook_pre": pre}),
            f"{BLOCK}mlp.hook_post": post,
            f"{BLOCK}hook_mlp_out": mlp_out,
            f"{BLOCK}hook_resid_post": resid_post,
        }
    return affine(resid_post, w["unembed.W_U"], w["unembed.b_U"])


def answer_logits(
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "n n_ctx"],
    *,
    act_fn: str = "relu",
    attention_rate: float = 1.0,
    cache: dict[str, Tensor] | None = None,
) -> Float[Tensor, "n d_vocab_out"]:
    """Logits at the last position of `[a, b, "="]` (the third token is one constant) or `[a, b]`.

    Differentiable with respect to `weights` (canonical names). With a `cache`, the intermediate
    activations are put into it under their TransformerLens hook names, at the last position:
    patterns as [n, n_heads, n_ctx], all others as [n, ...].
    """
    return answer_from_tables(
        attention_tables(weights, last_token(tokens)),
        weights,
        tokens,
        act_fn=act_fn,
        attention_rate=attention_rate,
        cache=cache,
    )


class AnswerForward:
    """`answer_logits` of fixed weights on many blocks of inputs; the tables are made once."""

    def __init__(
        self, weights: Mapping[str, Tensor], *, act_fn: str, attention_rate: float
    ) -> None:
        self._weights, self._act_fn, self._rate = weights, act_fn, attention_rate
        self._tables: dict[int | None, AttentionTables] = {}  # by the last token

    def __call__(
        self,
        tokens: Int[Tensor, "n n_ctx"],
        *,
        cache: dict[str, Tensor] | None = None,
        keep_pre: bool = True,
    ) -> Float[Tensor, "n d_vocab_out"]:
        """Logits, and activations into a cache: see `answer_from_tables`."""
        last = last_token(tokens)
        if last not in self._tables:
            self._tables[last] = attention_tables(self._weights, last)
        return answer_from_tables(
            self._tables[last], self._weights, tokens, act_fn=self._act_fn,
            attention_rate=self._rate, cache=cache, keep_pre=keep_pre,
        )  # fmt: skip


def within_block(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a one-layer model by their names without the block's path."""
    return {name.removeprefix(BLOCK): weight for name, weight in weights.items()}


BLOCK_ROWS = 4096  # of activations at once: more would not fit beside each other in memory
TABLES_READ = (
    "embed.W_E",
    "pos_embed.W_pos",
    *(f"{BLOCK}attn.{x}_{y}" for x in "Wb" for y in "QKV"),
)


def gradients(
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "n n_ctx"],
    labels: Int[Tensor, " n"],
    *,
    act_fn: str = "relu",
    attention_rate: float = 1.0,
) -> Weights:
    """Gradient of the mean cross-entropy over these rows by every weight.

    The same as autograd's through `answer_logits`. It stays exact when the loss is 1e-8, and has
    the precision of the weights.
    """
    leaves = {name: weights[name].detach().requires_grad_() for name in TABLES_READ}
    with torch.enable_grad():
        tables = attention_tables({**weights, **leaves}, last_token(tokens))
    lookups = (*tables.scores, *tables.values, tables.resid_pre)
    found: Weights = {}
    of_tables = [torch.zeros_like(lookup.table) for lookup in lookups]
    with torch.no_grad():
        for first in range(0, len(labels), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            _add_rows(
                found, of_tables, tables, weights, tokens[rows], labels[rows],
                act_fn=act_fn, attention_rate=attention_rate, share=1 / len(labels),
            )  # fmt: skip
    torch.autograd.backward([lookup.table for lookup in lookups], of_tables)
    for name, leaf in leaves.items():
        found[name] = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
    return {name: found[name] for name in weights}


def _add_rows(
    found: Weights,
    of_tables: list[Tensor],
    tables: AttentionTables,
    weights: Mapping[str, Tensor],
    tokens: Int[Tensor, "n n_ctx"],
    labels: Int[Tensor, " n"],
    *,
    act_fn: str,
    attention_rate: float,
    share: float,
) -> None:
    """Add some rows' part to the gradients by weights and by the tables that these rows read."""
    cache: dict[str, Tensor] = {}
    logits = answer_from_tables(
        tables, weights, tokens, act_fn=act_fn, attention_rate=attention_rate, cache=cache,
        keep_pre=False,
    )  # fmt: skip

    def add(name: str, part: Tensor) -> None:
        found[name] = found[name].add_(part) if name in found else part

    def through(layer: str, x: Tensor, upstream: Float[Tensor, "n d_out"]) -> Float[Tensor, "n d"]:
        """Gradient by the input x of an affine layer; those of its matrix and bias are added."""
        path, which = layer.rsplit(".", 1)
        matrix = weights[f"{path}.W_{which}"]
        add(f"{path}.W_{which}", product_over_rows(x, upstream).reshape(matrix.shape))
        add(f"{path}.b_{which}", upstream.sum(dim=0))
        return affine(upstream, matrix.flatten(0, -2).T)

    by_logits = mean_loss_gradient(logits, labels).mul_(len(labels) * share)
    resid = through("unembed.U", cache[f"{BLOCK}hook_resid_post"], by_logits)
    post = through(f"{BLOCK}mlp.out", cache[f"{BLOCK}mlp.hook_post"], resid)
    if act_fn == "relu":  # an activation is positive where its pre-activation is
        pre = where_positive(post, cache[f"{BLOCK}mlp.hook_post"], out=post)
    else:
        pre = before_activation(post, cache[f"{BLOCK}mlp.hook_pre"], act_fn=act_fn)
    resid = through(f"{BLOCK}mlp.in", cache[f"{BLOCK}hook_resid_mid"], pre).add_(resid)
    z = cache[f"{BLOCK}attn.hook_z"]
    by_z = through(f"{BLOCK}attn.O", z.flatten(1), resid).view_as(z)

    rows = tables.rows(tokens)
    pattern = cache[f"{BLOCK}attn.hook_pattern"].unbind(dim=2)
    by_pattern = torch.stack([(by_z * lookup.read(rows)).sum(dim=2) for lookup in tables.values])
    by_values = [by_z * at_key[:, :, None] for at_key in pattern]
    softmax = attention_softmax(cache[f"{BLOCK}attn.hook_attn_scores"].permute(2, 0, 1), dim=0)
    by_softmax = by_pattern * attention_rate
    by_scores = softmax * (by_softmax - (by_softmax * softmax).sum(dim=0))
    lookups = (*tables.scores, *tables.values, tables.resid_pre)
    for total, lookup, part in zip(
        of_tables, lookups, (*by_scores, *by_values, resid), strict=True
    ):
        lookup.add_gradient(total, rows, part)
