"""What does a one-layer transformer compute where its answer is read? Logits and gradients.

Only the last position is read, and each position sees one of d_vocab tokens, or one and the same in
all inputs, as that of "=". So keys and values are tables with a row per token, or a single row
(`AttentionTables`), attention is a softmax over a few numbers, and the MLP, where there is one,
runs on one position instead of all (`answer_from_tables`). The numbers are those of
HookedTransformer, under its hook names, restricted to the last position.

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


STREAM = ("hook_resid_pre", "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z",
          "hook_attn_out", "hook_resid_post")  # fmt: skip
OF_MLP = ("hook_resid_mid", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out")


def seen(*, attn_only: bool) -> frozenset[str]:
    """The hook names of the activations that the forward comes by."""
    return frozenset(BLOCK + name for name in (*STREAM, *(() if attn_only else OF_MLP)))


Columns = tuple[int, ...]  # of the inputs, by whose tokens a table is read
RowsRead = Mapping[Columns, Int[Tensor, "*members n"]]  # that the inputs read, by such columns
Constants = Mapping[int, Int[Tensor, " 1"]]  # columns with one token in all inputs, and the token


@dataclass(frozen=True)
class Lookup:
    """A table [*members, n_rows, ...], and the columns of an input that say which row is read.

    (i,) is a row per token, (i, j) a row for both: token_i * d_vocab + token_j. () is one row for
    all.
    """

    table: Float[Tensor, "..."]
    by: Columns = ()

    def read(self, rows: RowsRead) -> Float[Tensor, "..."]:
        """What every input reads: [*members, n, ...], with n = 1 where it is the same for all."""
        return read_rows(self.table, rows[self.by]) if self.by else self.table

    def add_gradient(self, total: Tensor, rows: RowsRead, upstream: Float[Tensor, "..."]) -> None:
        """Add the gradient by the table, from the one by what every input has read."""
        if self.by:
            add_rows(total, rows[self.by], upstream)
        else:
            total.add_(upstream.sum_to_size(total.shape))


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
    constants: Constants

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """All of them."""
        return (*self.scores, *self.values, self.resid_pre)

    def rows(self, tokens: Int[Tensor, "*members n n_ctx"]) -> RowsRead:
        """The row that each input reads, for every way to look up."""
        columns = [column.contiguous() for column in tokens.unbind(-1)]
        found: dict[Columns, Tensor] = {(): torch.zeros_like(columns[0])}
        for by in {lookup.by: None for lookup in self.lookups if lookup.by}:
            rows, n_rows = columns[by[0]], self.d_vocab
            for column in by[1:]:
                rows, n_rows = rows * self.d_vocab + columns[column], n_rows * self.d_vocab
            found[by] = through_tables(rows, n_rows)
        return found


def attention_tables(
    weights: Mapping[str, Tensor], n_ctx: int, constants: Constants
) -> AttentionTables:
    """The tables of inputs of so many tokens, some of them constant; differentiable."""
    w = within_block(weights)
    embed, position = w["embed.W_E"], w["pos_embed.W_pos"].unsqueeze(-2)
    n_heads, _, d_head = w["attn.W_Q"].shape[-3:]
    last, by = n_ctx - 1, [() if i in constants else (i,) for i in range(n_ctx)]

    def stream(i: int) -> Float[Tensor, "..."]:
        read = embed.index_select(-2, constants[i]) if i in constants else embed
        return read + position[..., i, :, :]

    def heads(x: Float[Tensor, "..."], which: str) -> Float[Tensor, "..."]:
        """Queries, keys or values of all heads, as one matrix product: [..., n_heads, d_head]."""
        matrix = w[f"attn.W_{which}"].transpose(-3, -2).flatten(-2)
        found = affine(x, matrix, w[f"attn.b_{which}"].flatten(-2))
        return found.unflatten(-1, (n_heads, d_head))

    resid = [stream(i) for i in range(n_ctx)]
    vary = [i for i in range(n_ctx) if i not in constants]
    keys = {i: heads(resid[i], "K") for i in vary}
    values = {i: heads(resid[i], "V") for i in vary}
    query = heads(resid[last], "Q") * d_head**-0.5
    keys |= {i: heads(resid[i], "K") for i in constants}
    values |= {i: heads(resid[i], "V") for i in constants}
    scores = []
    for i in range(n_ctx):
        if by[i] and by[last] and i != last:
            both = torch.einsum("...bhd,...ahd->...abh", query, keys[i]).flatten(-3, -2)
            scores.append(Lookup(both, (i, last)))
        else:
            scores.append(Lookup((keys[i] * query).sum(-1), by[i] or by[last]))
    return AttentionTables(
        tuple(scores),
        tuple(Lookup(values[i], by[i]) for i in range(n_ctx)),
        Lookup(resid[last], by[last]),
        embed.shape[-2],
        constants,
    )


def constants_in(tokens: Int[Tensor, "*members n n_ctx"]) -> dict[int, Int[Tensor, " 1"]]:
    """The columns that have one token in all of these inputs.

    >>> constants_in(torch.tensor([[0, 7, 1], [0, 7, 2]]))
    {0: tensor([0]), 1: tensor([7])}
    """
    flat = tokens.flatten(0, -2)
    same = (flat == flat[:1]).all(dim=0).tolist()
    return {i: flat[0, i : i + 1] for i, constant in enumerate(same) if constant}


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
    w, n = within_block(weights), rows[()].shape
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
    resid_mid = resid_post = resid_pre + attn_out
    of_mlp: dict[str, Tensor] = {}
    if "mlp.W_in" in w:
        pre = affine(resid_mid, w["mlp.W_in"], w["mlp.b_in"])
        if act_fn == "relu" and not torch.is_grad_enabled() and (cache is None or not keep_pre):
            post = pre.relu_()
        else:
            post = ACTIVATIONS[act_fn](pre)
        mlp_out = affine(post, w["mlp.W_out"], w["mlp.b_out"])
        resid_post = resid_mid + mlp_out
        of_mlp = {
            "hook_resid_mid": resid_mid,
            **({} if pre is post else {"mlp.hook_pre": pre}),
            "mlp.hook_post": post,
            "hook_mlp_out": mlp_out,
        }
    if cache is not None:
        found = {
            "hook_resid_pre": resid_pre.expand(*n, -1),
            "attn.hook_attn_scores": scores.movedim(-3, -1),
            "attn.hook_pattern": pattern.movedim(-3, -1),
            "attn.hook_z": z,
            "hook_attn_out": attn_out,
            **of_mlp,
            "hook_resid_post": resid_post,
        }
        cache |= {BLOCK + name: activation for name, activation in found.items()}
    return affine(resid_post, w["unembed.W_U"], w["unembed.b_U"])


class AnswerForward:
    """Logits at the last position of inputs `[a, b, "="]`, `[a, b]` or any other sequence.

    Of fixed weights (canonical names) on many blocks of inputs: the tables are made once for all
    whose constants are the same. Differentiable in the weights. With a `cache`, the activations are
    put into it under their TransformerLens hook names, at the last position: patterns as
    [n, n_heads, n_ctx], all others as [n, ...].
    """

    def __init__(
        self, weights: Mapping[str, Tensor], *, act_fn: str = "relu", attention_rate: float = 1.0
    ) -> None:
        self._weights, self._act_fn, self._rate = weights, act_fn, attention_rate
        self._tables: dict[int, AttentionTables] = {}  # by the length of the inputs

    def __call__(
        self,
        tokens: Int[Tensor, "*members n n_ctx"],
        cache: dict[str, Tensor] | None = None,
        *,
        keep_pre: bool = True,
    ) -> Float[Tensor, "*members n d_vocab_out"]:
        """Logits, and activations into a cache: see `answer_from_tables`."""
        tables = self._tables_for(tokens)
        return answer_from_tables(
            tables, self._weights, tables.rows(tokens), act_fn=self._act_fn,
            attention_rate=self._rate, cache=cache, keep_pre=keep_pre,
        )  # fmt: skip

    def _tables_for(self, tokens: Int[Tensor, "*members n n_ctx"]) -> AttentionTables:
        """Tables that these inputs can read, those of earlier ones where they can."""
        n_ctx, constants = tokens.shape[-1], constants_in(tokens)
        tables = self._tables.get(n_ctx)
        if tables is not None:  # a column that varies from block to block is no constant
            constants = {
                i: token for i, token in tables.constants.items()
                if i in constants and bool(token == constants[i])
            }  # fmt: skip
        if tables is None or len(constants) < len(tables.constants):
            tables = self._tables[n_ctx] = attention_tables(self._weights, n_ctx, constants)
        return tables


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
        read = {**weights, **leaves}
        tables = attention_tables(read, tokens.shape[-1], constants_in(tokens))
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
    if f"{BLOCK}mlp.hook_post" in cache:
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
